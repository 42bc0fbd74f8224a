"""K models of one shape as one model: weights with a leading member axis, layers as batched products.

K members, B batch, P patches, M = B*P, E embedding. Linear weights are stored (K, in, out), so that a layer
is one ``baddbmm``. Names are those of :class:`finetune.model.FineTunedModel`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own convention

from finetune.backbones.cmssl import CmsslEncoder
from finetune.backbones.fused import add_norm, attend, gelu_dropout
from finetune.engine.loop import Identity
from finetune.model import FineTunedModel
from finetune.random import Mask, Noise

Weights = dict[str, Tensor]
"""Name -> (K, in, out) for the weight of a linear layer, (K, ...) as it is for everything else."""


def is_stackable(model: FineTunedModel) -> bool:
    """Return whether :func:`forward` knows the backbone of this model."""
    return isinstance(model.backbone, CmsslEncoder | Identity)


@dataclass(frozen=True)
class Layout:
    """Where each parameter of one model lies in a flat row."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    """As stored: linear weights transposed."""
    offsets: tuple[int, ...]
    """Beginning of each parameter; the last is the length of the row."""

    @classmethod
    def of(cls, parameters: Sequence[tuple[str, Tensor]]) -> Layout:
        """Lay out named parameters one after another."""
        shapes = [tuple(_stored(name, value).shape) for name, value in parameters]
        offsets = [0]
        for shape in shapes:
            offsets.append(offsets[-1] + prod(shape))
        return cls(tuple(name for name, _ in parameters), tuple(shapes), tuple(offsets))

    def views(self, rows: Tensor) -> Weights:
        """Return each parameter of rows (K, length) as a view (K, ...)."""
        return {
            name: rows[:, start:stop].view(-1, *shape)
            for name, shape, start, stop in zip(
                self.names, self.shapes, self.offsets[:-1], self.offsets[1:], strict=True
            )
        }

    def pack(self, row: Tensor, values: Sequence[Tensor]) -> None:
        """Write one model's tensors, in the order of the names, into ``row`` (length,)."""
        torch.cat([_stored(*pair).reshape(-1) for pair in zip(self.names, values, strict=True)], out=row)

    def unpack(self, row: Tensor, values: Sequence[Tensor]) -> None:
        """Write ``row`` (length,) back into one model's tensors."""
        for (name, view), value in zip(self.views(row[None]).items(), values, strict=True):
            _stored(name, value).copy_(view[0])


def _stored(name: str, value: Tensor) -> Tensor:
    """Return a parameter as it is stored; a view."""
    return value.t() if name.endswith("weight") and value.dim() == 2 else value


class StackedNoise:
    """The dropout masks of all members of one step: row k is what member k draws alone."""

    def __init__(self, members: Sequence[Noise], slots: Sequence[int]) -> None:
        self._members = members
        self._slots = slots  # K indices of members: an empty slot looks at another's masks

    def mask(self, shape: Sequence[int], p: float, fraction_bits: int = 8) -> Mask | None:
        """Return the masks (K, *shape), with ``shape`` that of one member; None when nothing drops."""
        masks = [noise.mask(shape, p, fraction_bits) for noise in self._members]
        drawn = [mask for mask in masks if mask is not None]
        if not drawn:
            return None
        return replace(drawn[0], draws=torch.stack([drawn[slot].draws for slot in self._slots]))


def forward(weights: Weights, model: FineTunedModel, x: Tensor, noise: StackedNoise | Noise) -> Tensor:
    """Map windows or features (K, B, T) to outputs (K, B, outputs) with dropout.

    ``model`` gives the architecture and what members share, never its weights; a :class:`Noise` is one whose
    sheet is that of all members.
    """
    if isinstance(model.backbone, CmsslEncoder):
        x = _encode(weights, model.backbone, x, noise)
    return _linear(weights, "head.out", F.gelu(_linear(weights, "head.hidden", x)))


def _encode(weights: Weights, encoder: CmsslEncoder, x: Tensor, noise: StackedNoise | Noise) -> Tensor:
    members, batch, samples = x.shape
    architecture = encoder.architecture
    count, width = samples // architecture.patch, architecture.embedding
    patches = x.reshape(members, batch * count, architecture.patch)
    tokens = _linear(weights, "backbone.linear_projection", patches)  # (K, M, E)
    tokens = encoder.pe(tokens.reshape(-1, count, width)).view(members, -1, width)
    for index in range(len(encoder.layers)):
        tokens = _layer(weights, f"backbone.layers.{index}", encoder, tokens, batch, noise)
    return tokens.view(members, batch, count, width).mean(dim=2)


def _layer(
    weights: Weights,
    name: str,
    encoder: CmsslEncoder,
    tokens: Tensor,
    batch: int,
    noise: StackedNoise | Noise,
) -> Tensor:
    """As :class:`~finetune.backbones.cmssl.EncoderLayer`, on tokens (K, M, E) of ``batch`` windows each."""
    members, length, width = tokens.shape
    p, heads, depth_p = (
        getattr(encoder.architecture, key) for key in ("dropout", "heads", "stochastic_depth")
    )
    count = length // batch
    joint = _product(
        tokens, weights[f"{name}.self_attn.in_proj_weight"], weights[f"{name}.self_attn.in_proj_bias"]
    )
    mask = noise.mask((batch, heads, count, count), p)
    mixed = attend(joint.view(members * length, -1), members * batch, heads, mask)
    attended = _linear(weights, f"{name}.self_attn.out_proj", mixed.view(members, length, width))
    tokens = _norm(weights, f"{name}.norm1", tokens, attended, noise.mask((length, width), p))
    hidden = _linear(weights, f"{name}.linear1", tokens)
    hidden = gelu_dropout(hidden, noise.mask((length, 4 * width), p))
    fed = _linear(weights, f"{name}.linear2", hidden)
    tokens = _norm(weights, f"{name}.norm2", tokens, fed, noise.mask((length, width), p))
    rows = noise.mask((batch, 1), depth_p, fraction_bits=16)
    if rows is None:
        return tokens
    return (tokens.view(members, batch, -1) * rows.values()).view_as(tokens)


def _linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    return _product(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _product(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Map x (K, M, in) with weight (K, in, out) and bias (K, out)."""
    return torch.baddbmm(bias[:, None], x, weight)


def _norm(weights: Weights, name: str, tokens: Tensor, branch: Tensor, mask: Mask | None) -> Tensor:
    weight, bias = weights[f"{name}.weight"], weights[f"{name}.bias"]
    return add_norm(tokens, branch, mask, weight, bias, nn.LayerNorm(1).eps)
