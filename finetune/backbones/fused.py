"""Pieces of an encoder layer with their gradients written out: fewer passes over memory than autograd's own.

For every device; on the CPU one run takes :mod:`~finetune.fast.cpu_layer` instead, and on a GPU attention and
the norm are one launch each way where :mod:`~finetune.fast.layer_device` finds that they can be. R rows
(windows, of all members of a population), P patches, E embedding, H heads, D = E / H. Under autocast a piece
computes in the precision of its input and keeps the softmax and the norm in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own convention

from finetune.fast import layer_device
from finetune.random import Mask


def attend(joint: Tensor, rows: int, heads: int, mask: Mask | None) -> Tensor:
    """Return what the tokens of each row attend to, (R*P, E), from joint projections (R*P, 3E).

    ``joint`` holds queries, keys and values as torch.nn.MultiheadAttention packs them; ``mask`` is that of
    the probabilities, of R*H*P*P elements.
    """
    count, depth = joint.shape[0] // rows, joint.shape[1] // (3 * heads)
    is_fused = layer_device.is_fused(joint, count, depth, 1)
    return _apply(_AttendAtOnce if is_fused else _Attend, joint, rows, heads, mask)


def add_norm(
    tokens: Tensor,
    branch: Tensor,
    mask: Mask | None,
    weight: Tensor,
    bias: Tensor,
    eps: float,
) -> Tensor:
    """Return the layer norm of ``tokens + mask * branch``, all (..., E).

    Weight and bias are (E,), or each member's own (K, E) for tokens (K, ..., E).
    """
    if layer_device.is_fused(tokens, 1, 1, tokens.shape[-1]):
        return _apply(_AddNormAtOnce, tokens, branch, mask, weight, bias, eps)
    if weight.dim() == 1:
        return _apply(_AddNorm, tokens, branch, mask, weight, bias, eps)
    normed = _apply(_AddNorm, tokens, branch, mask, None, None, eps)
    return torch.addcmul(bias[:, None], normed, weight[:, None])


def _apply(node: type[torch.autograd.Function], *arguments: object) -> Tensor:
    found: Tensor = node.apply(*arguments)  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return found


def gelu_dropout(hidden: Tensor, mask: Mask | None) -> Tensor:
    """Return ``mask * gelu(hidden)`` (the exact GELU)."""
    if mask is None:
        return F.gelu(hidden)
    return _apply(_GeluDropout, hidden, mask)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joint: Tensor, rows: int, heads: int, mask: Mask | None) -> Tensor:
        count, depth = joint.shape[0] // rows, joint.shape[1] // (3 * heads)
        parted = joint.view(rows, count, 3, heads, depth).permute(2, 0, 3, 1, 4)  # (3, R, H, P, D)
        parts = parted.reshape(3, rows * heads, count, depth)  # one copy for all three
        query, key, value = parts.unbind()
        scores = torch.bmm(query, key.transpose(1, 2)).mul_(depth**-0.5)
        probabilities = scores.softmax(dim=-1, dtype=torch.float32)  # (R*H, P, P)
        kept = probabilities if mask is None else probabilities * mask.values().reshape(probabilities.shape)
        kept = kept.to(parts.dtype)
        mixed = torch.bmm(kept, value).view(rows, heads, count, depth)
        ctx.save_for_backward(parts, probabilities, kept)
        ctx.sizes, ctx.mask = (rows, heads, count, depth), mask
        return mixed.transpose(1, 2).reshape(rows * count, heads * depth)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        rows, heads, count, depth = ctx.sizes
        parts, probabilities, kept = ctx.saved_tensors
        query, key, value = parts.unbind()
        mixed = gradient.view(rows, count, heads, depth).transpose(1, 2).reshape(-1, count, depth)
        gradients = torch.empty_like(parts)
        torch.bmm(kept.transpose(1, 2), mixed, out=gradients[2])
        scores = torch.bmm(mixed, value.transpose(1, 2)).float()
        if ctx.mask is not None:
            scores.mul_(ctx.mask.values().reshape(scores.shape))
        scores = _softmax_slope(scores, probabilities).mul_(depth**-0.5).to(parts.dtype)
        torch.bmm(scores, key, out=gradients[0])
        torch.bmm(scores.transpose(1, 2), query, out=gradients[1])
        joint = gradients.view(3, rows, heads, count, depth).permute(1, 3, 0, 2, 4)
        return joint.reshape(rows * count, 3 * heads * depth), None, None, None


def _softmax_slope(gradient: Tensor, probabilities: Tensor) -> Tensor:
    """Return p * (g - sum(g * p)); on a device by one kernel of torch's own."""
    if gradient.device.type != "cpu":
        slope: Tensor = torch.ops.aten._softmax_backward_data(gradient, probabilities, -1, torch.float32)
        return slope
    gradient.mul_(probabilities)  # as in p * g - p * sum(p * g)
    return gradient.addcmul_(probabilities, gradient.sum(dim=-1, keepdim=True), value=-1.0)


class _AttendAtOnce(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, joint: Tensor, rows: int, heads: int, mask: Mask | None) -> Tensor:
        kept = None if mask is None else mask.values().reshape(-1)
        ctx.save_for_backward(joint, kept)
        ctx.sizes = rows, heads
        return layer_device.attend(joint, kept, rows, heads)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        joint, kept = ctx.saved_tensors
        return layer_device.attend_backward(gradient, joint, kept, *ctx.sizes), None, None, None


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        tokens: Tensor,
        branch: Tensor,
        mask: Mask | None,
        weight: Tensor | None,
        bias: Tensor | None,
        eps: float,
    ) -> Tensor:
        total = (
            tokens + branch
            if mask is None
            else torch.addcmul(tokens, branch, mask.values().reshape(branch.shape))
        )
        normed, mean, scale = torch.native_layer_norm(total, total.shape[-1:], weight, bias, eps)
        ctx.save_for_backward(total, mean, scale, weight, bias)
        ctx.mask, ctx.branch_type = mask, branch.dtype
        return normed

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, Tensor | None, Tensor | None, None]:
        total, mean, scale, weight, bias = ctx.saved_tensors
        is_affine = weight is not None
        before, of_weight, of_bias = torch.ops.aten.native_layer_norm_backward(
            gradient, total, total.shape[-1:], mean, scale, weight, bias, [True, is_affine, is_affine]
        )
        of_branch = before if ctx.mask is None else before * ctx.mask.values().reshape(before.shape)
        return before, of_branch.to(ctx.branch_type), None, of_weight, of_bias, None


class _AddNormAtOnce(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, tokens: Tensor, branch: Tensor, mask: Mask | None, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        width = tokens.shape[-1]
        kept = None if mask is None else mask.values().reshape(-1)
        normed, *saved = layer_device.add_norm(
            tokens.reshape(-1, width),
            branch.reshape(-1, width),
            kept,
            weight.view(-1, width),
            bias.view(-1, width),
            eps,
        )
        ctx.save_for_backward(*saved, kept, weight)
        ctx.branch_type = branch.dtype
        return normed.view_as(tokens)

    @staticmethod
    def backward(
        ctx: Any, gradient: Tensor
    ) -> tuple[Tensor, Tensor, None, Tensor | None, Tensor | None, None]:
        total, mean, scale, kept, weight = ctx.saved_tensors
        width = gradient.shape[-1]
        of_tokens, of_branch, of_both = layer_device.add_norm_backward(
            gradient.reshape(-1, width),
            (total, mean, scale),
            kept,
            weight.view(-1, width),
            ctx.branch_type,
        )
        of_weight, of_bias = (part.view_as(weight) for part in of_both.unbind(1))
        return of_tokens.view_as(gradient), of_branch.view_as(gradient), None, of_weight, of_bias, None


class _GeluDropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, mask: Mask) -> Tensor:
        kept = mask.values().reshape(hidden.shape).to(hidden.dtype)
        ctx.save_for_backward(hidden, kept)
        return F.gelu(hidden).mul_(kept)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        hidden, kept = ctx.saved_tensors
        of_hidden: Tensor = torch.ops.aten.gelu_backward(gradient * kept, hidden)
        return of_hidden, None
