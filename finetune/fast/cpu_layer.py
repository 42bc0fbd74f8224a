"""A whole encoder layer on one core: one node of the graph, products by torch, all else by compiled loops.

The values are those of :mod:`finetune.backbones.fused` to rounding. Under autocast the products are bfloat16
with what goes into them; residual, norms, softmax and the gradients of the weights stay float32.
M = R * P tokens of R windows, E embedding, H heads, D = E / H, F feed-forward width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from finetune.fast import kernels
from finetune.fast.kernels import Real
from finetune.random import Mask


class Weights(NamedTuple):
    """The parameters of a layer; the last four are those of its norms."""

    joint: Tensor
    """(3E, E): queries, keys and values, as torch.nn.MultiheadAttention packs them."""
    joint_bias: Tensor
    out: Tensor
    """(E, E)"""
    out_bias: Tensor
    first: Tensor
    """(F, E)"""
    first_bias: Tensor
    second: Tensor
    """(E, F)"""
    second_bias: Tensor
    norm1: Tensor
    norm1_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor


class Masks(NamedTuple):
    """The dropout of a layer; None where nothing drops."""

    probabilities: Mask | None = None
    """(R, H, P, P)"""
    attended: Mask | None = None
    """(M, E)"""
    hidden: Mask | None = None
    """(M, F)"""
    fed: Mask | None = None
    """(M, E)"""


def encoder_layer(
    tokens: Tensor, rows: int, heads: int, eps: float, masks: Masks, weights: Weights
) -> Tensor:
    """Map float32 tokens (M, E) of ``rows`` windows to tokens of the same shape."""
    mapped: Tensor = _Layer.apply(tokens, rows, heads, eps, masks, *weights)  # type: ignore[no-untyped-call]  # torch leaves it so
    return mapped


class _Layer(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, rows: int, heads: int, eps: float, masks: Masks, *parameters: Tensor
    ) -> Tensor:
        kind = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else tokens.dtype
        weights = Weights(*(value if value.dim() == 1 else value.to(kind) for value in parameters))
        x = tokens.to(kind)
        joint = x @ weights.joint.t()
        mixed, probabilities = _attend(joint, weights.joint_bias, rows, heads, masks.probabilities)
        attended = mixed @ weights.out.t()
        norm1 = weights.out_bias, weights.norm1, weights.norm1_bias
        middle, *saved1 = _add_norm(tokens, attended, masks.attended, norm1, eps)
        y = middle.to(kind)
        hidden = y @ weights.first.t()
        slope, mask = torch.empty(hidden.shape), _mask(masks.hidden, *hidden.shape)
        kernels.gelu_dropout(_array(hidden), _array(weights.first_bias), mask, _array(slope))
        fed = hidden @ weights.second.t()
        norm2 = weights.second_bias, weights.norm2, weights.norm2_bias
        out, *saved2 = _add_norm(middle, fed, masks.fed, norm2, eps)
        ctx.save_for_backward(x, joint, probabilities, mixed, *saved1, y, hidden, slope, *saved2, *weights)
        ctx.masks = masks
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, joint, probabilities, mixed, *saved1, y, hidden, slope = ctx.saved_tensors[:9]
        saved2, weights, masks = ctx.saved_tensors[9:11], Weights(*ctx.saved_tensors[11:]), ctx.masks
        of_middle, of_fed, (norm2, norm2_bias, second_bias) = _add_norm_backward(
            gradient, saved2, masks.fed, weights.norm2, x.dtype
        )
        of_hidden, second = _product_backward(of_fed, hidden, weights.second)
        first_bias = torch.zeros(hidden.shape[1])
        kernels.gelu_dropout_backward(*map(_array, (of_hidden, slope, first_bias)))
        of_y, first = _product_backward(of_hidden, y, weights.first)
        of_middle += of_y
        of_tokens, of_attended, (norm1, norm1_bias, out_bias) = _add_norm_backward(
            of_middle, saved1, masks.attended, weights.norm1, x.dtype
        )
        of_mixed, out = _product_backward(of_attended, mixed, weights.out)
        of_joint, joint_bias = _attend_backward(of_mixed, joint, probabilities, masks.probabilities)
        of_x, of_joint_weight = _product_backward(of_joint, x, weights.joint)
        of_tokens += of_x
        products = (of_joint_weight, joint_bias, out, out_bias, first, first_bias, second, second_bias)
        return of_tokens, None, None, None, None, *products, norm1, norm1_bias, norm2, norm2_bias


def _product_backward(gradient: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradients of a linear layer's input, and of its weight in float32."""
    return gradient @ weight, (gradient.t() @ x).float()


def _attend(joint: Tensor, bias: Tensor, rows: int, heads: int, mask: Mask | None) -> tuple[Tensor, Tensor]:
    """Add the bias (3E,) to the joint projections (M, 3E), in place.

    Returns what each token attends to, (M, E), and the probabilities before dropout, (R, H, P, P).
    """
    count, depth = len(joint) // rows, joint.shape[1] // (3 * heads)
    probabilities = torch.empty(rows, heads, count, count)
    mixed = joint.new_empty(len(joint), heads * depth)
    kernels.attend(
        _array(joint, rows, count, 3, heads, depth),
        _array(bias),
        _mask(mask, *probabilities.shape),
        _array(probabilities),
        _array(mixed, rows, count, heads, depth),
    )
    return mixed, probabilities


def _attend_backward(
    gradient: Tensor, joint: Tensor, probabilities: Tensor, mask: Mask | None
) -> tuple[Tensor, Tensor]:
    """Return the gradient of the joint projections, and its sum over the tokens."""
    rows, heads, count, _ = probabilities.shape
    depth = gradient.shape[1] // heads
    of_joint, of_bias = torch.empty_like(joint), torch.zeros(joint.shape[1])
    kernels.attend_backward(
        _array(gradient, rows, count, heads, depth),
        _array(joint, rows, count, 3, heads, depth),
        _mask(mask, *probabilities.shape),
        _array(probabilities),
        _array(of_joint, rows, count, 3, heads, depth),
        _array(of_bias, 3, heads, depth),
    )
    return of_joint, of_bias


def _add_norm(
    tokens: Tensor, branch: Tensor, mask: Mask | None, affine: Sequence[Tensor], eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the norm of ``tokens + mask * (branch + bias)`` after its weights and before, and 1 / sd.

    ``affine`` are that bias, and weight and bias of the norm.
    """
    given = map(_array, (tokens, branch, *affine))
    wanted = torch.empty_like(tokens), torch.empty_like(tokens), tokens.new_empty(len(tokens))
    kernels.add_norm(*given, eps, _mask(mask, *tokens.shape), *map(_array, wanted))
    return wanted


def _add_norm_backward(
    gradient: Tensor, saved: Sequence[Tensor], mask: Mask | None, weight: Tensor, kind: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the tokens, of the branch (as ``kind``), and of weight, bias, branch's bias."""
    given = map(_array, (gradient.contiguous(), *saved, weight))
    wanted = torch.empty_like(saved[0]), torch.empty_like(saved[0], dtype=kind), torch.zeros(3, len(weight))
    kernels.add_norm_backward(*given, _mask(mask, *gradient.shape), *map(_array, wanted))
    return wanted


def _mask(mask: Mask | None, *shape: int) -> kernels.Mask | None:
    """Return a mask as the loops take it, its draws in ``shape``."""
    if mask is None:
        return None
    return mask.draws.numpy().reshape(shape), np.uint8(mask.dropped), np.float32(mask.scale)


def _array(values: Tensor, *shape: int) -> Real:
    """Return a contiguous tensor's memory as an array; of ``shape`` where one is given."""
    values = values.detach()
    array: Real = (values.view(torch.uint16) if values.dtype == torch.bfloat16 else values).numpy()
    return array.reshape(shape) if shape else array
