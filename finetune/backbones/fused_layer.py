"""A whole post-norm encoder layer as one node of the graph, with its gradient written out.

In float32 the same numbers as its pieces one by one, to the last bit, with a dozen nodes less. Under autocast
the matrix products are bfloat16, and so is what they yield; the residual stream, the norms, the softmax and
the gradients of the parameters are float32. Shapes as in :mod:`finetune.backbones.fused`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from finetune.backbones.fused import (
    Saved,
    add_norm_backward,
    add_norm_forward,
    attend_backward,
    attend_forward,
    gelu_dropout_backward,
    gelu_dropout_forward,
)


class Weights(NamedTuple):
    """A layer's parameters, linear ones as torch.nn.Linear stores them."""

    joint: Tensor
    joint_bias: Tensor
    out: Tensor
    out_bias: Tensor
    norm1: Tensor
    norm1_bias: Tensor
    wide: Tensor
    wide_bias: Tensor
    narrow: Tensor
    narrow_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor


class Masks(NamedTuple):
    """A layer's dropout masks: of the probabilities, of what is attended to, of both feed-forward layers."""

    probabilities: Tensor | None
    attended: Tensor | None
    hidden: Tensor | None
    fed: Tensor | None


def encoder_layer(
    tokens: Tensor, rows: int, heads: int, eps: float, masks: Masks, weights: Weights
) -> Tensor:
    """Map tokens (R*P, E) of R rows to tokens of the same shape, in float32."""
    mapped: Tensor = _EncoderLayer.apply(tokens, rows, heads, eps, masks, *weights)  # type: ignore[no-untyped-call]  # torch leaves it so
    return mapped


class _EncoderLayer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, rows: int, heads: int, eps: float, masks: Masks, *parameters: Tensor
    ) -> Tensor:
        kind = _product_type(tokens)
        with torch.autocast(tokens.device.type, enabled=False):
            w = _cast(Weights(*parameters), kind)
            inputs = tokens.to(kind)
            joint = torch.addmm(w.joint_bias, inputs, w.joint.t())  # (R*P, 3E)
            mixed, attended = attend_forward(joint, rows, heads, masks.probabilities)
            branch = torch.addmm(w.out_bias, mixed, w.out.t()).float()
            middle, first = add_norm_forward(tokens, branch, masks.attended, w.norm1, w.norm1_bias, eps)
            low = middle.to(kind)
            hidden = torch.addmm(w.wide_bias, low, w.wide.t())  # (R*P, 4E)
            dropped, gelu = gelu_dropout_forward(hidden, masks.hidden)
            branch = torch.addmm(w.narrow_bias, dropped, w.narrow.t()).float()
            mapped, second = add_norm_forward(middle, branch, masks.fed, w.norm2, w.norm2_bias, eps)
        parts: tuple[Saved, ...] = ((inputs, mixed, low, dropped), w, attended, first, gelu, second)
        ctx.save_for_backward(*(tensor for part in parts for tensor in part))
        ctx.lengths, ctx.sizes, ctx.kind = [len(part) for part in parts], (rows, heads), kind
        return mapped

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (inputs, mixed, low, dropped), weights, attended, first, gelu, second = _parted(
            ctx.saved_tensors, ctx.lengths
        )
        w = Weights(*weights)
        with torch.autocast(gradient.device.type, enabled=False):
            of_middle, fed, *of_norm2 = add_norm_backward(gradient, second, ctx.kind)
            of_narrow = _of_linear(fed, dropped)
            hidden = gelu_dropout_backward(torch.mm(fed, w.narrow), gelu)
            of_wide = _of_linear(hidden, low)
            of_middle.add_(torch.mm(hidden, w.wide))
            of_tokens, branch, *of_norm1 = add_norm_backward(of_middle, first, ctx.kind)
            of_out = _of_linear(branch, mixed)
            joint = attend_backward(torch.mm(branch, w.out), attended, *ctx.sizes)
            of_joint = _of_linear(joint, inputs)
            of_tokens = of_tokens.add_(torch.mm(joint, w.joint))
        of_weights = (*of_joint, *of_out, *of_norm1, *of_wide, *of_narrow, *of_norm2)
        return of_tokens, None, None, None, None, *of_weights


def _product_type(tokens: Tensor) -> torch.dtype:
    """Return the precision of matrix products here."""
    device = tokens.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else tokens.dtype


def _cast(weights: Weights, kind: torch.dtype) -> Weights:
    """Return the weights with those of products in their precision."""
    norms = {"norm1", "norm1_bias", "norm2", "norm2_bias"}
    cast = {name: value.to(kind) for name, value in weights._asdict().items() if name not in norms}
    return weights._replace(**cast)


def _of_linear(gradient: Tensor, inputs: Any) -> tuple[Tensor, Tensor]:
    """Return the gradients (out, in) and (out,) of a linear layer's weight and bias, in float32."""
    return torch.mm(gradient.t(), inputs).float(), gradient.sum(dim=0, dtype=torch.float32)


def _parted(tensors: Saved, lengths: list[int]) -> list[Any]:
    """Cut a flat sequence into parts of some lengths."""
    ends = [sum(lengths[: place + 1]) for place in range(len(lengths))]
    return [tensors[end - length : end] for end, length in zip(ends, lengths, strict=True)]
