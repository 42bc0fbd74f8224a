"""A GPU's attention and residual norm, a launch each way: Triton kernels behind torch's dispatcher.

K members, R rows (windows, of all members), P patches, E embedding, H heads. Used on a GPU where Triton is
there and its kernels, tried once a process, say what torch's own operations say (:func:`is_fused`); the
operations of :mod:`finetune.backbones.fused` remain for every other device. Sums run in a fixed order,
without atomics: the same bits at every call. The meta device counts what a GPU would be asked to do.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own convention

from finetune.fast.trusted import CLOSE, is_close, is_wanted

MOST_PATCHES, MOST_DEPTH, MOST_WIDTH = 32, 64, 4096
"""Beyond them torch's own operations; chosen by us: tiles stay on the chip, and compile fast."""
CLOSE_BF16 = 0.05
"""How far kernels in bf16 may be from those in float32, over the largest value: its numbers have 8 bits."""
_TILE = 4096
"""Elements of a norm's tile."""

_library: Any = torch.library.Library("finetune", "FRAGMENT")  # type: ignore[no-untyped-call]  # torch
_library.define("attend(Tensor joint, Tensor? mask, int rows, int heads) -> Tensor")
_library.define("attend_backward(Tensor gradient, Tensor joint, Tensor? mask, int rows, int heads) -> Tensor")
_library.define(
    "add_norm(Tensor tokens, Tensor branch, Tensor? mask, Tensor weight, Tensor bias, float eps)"
    " -> (Tensor, Tensor, Tensor, Tensor)"
)
_library.define(
    "add_norm_backward(Tensor gradient, Tensor total, Tensor mean, Tensor scale, Tensor? mask, Tensor weight,"
    " ScalarType branch) -> (Tensor, Tensor, Tensor)"
)


def is_fused(x: Tensor, patches: int, depth: int, width: int) -> bool:
    """Return whether layers of this size are computed here on the device of ``x``."""
    if x.device.type not in ("cuda", "meta") or x.dtype not in (torch.float32, torch.bfloat16):
        return False
    if patches > MOST_PATCHES or depth > MOST_DEPTH or width > MOST_WIDTH:
        return False
    return x.device.type == "meta" or is_right(x.device)


def attend(joint: Tensor, mask: Tensor | None, rows: int, heads: int) -> Tensor:
    """Return what the tokens of each row attend to, (R*P, E), from joint projections (R*P, 3E)."""
    mixed: Tensor = torch.ops.finetune.attend(joint, mask, rows, heads)
    return mixed


def attend_backward(gradient: Tensor, joint: Tensor, mask: Tensor | None, rows: int, heads: int) -> Tensor:
    """Return the gradient of the joint projections from that of :func:`attend`."""
    of_joint: Tensor = torch.ops.finetune.attend_backward(gradient, joint, mask, rows, heads)
    return of_joint


def add_norm(
    tokens: Tensor, branch: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the norm of ``tokens + mask * branch`` (K*M, E) with weights (K, E), and what a gradient needs.

    That is the sum, and the mean and the inverse deviation of each row.
    """
    found: tuple[Tensor, Tensor, Tensor, Tensor] = torch.ops.finetune.add_norm(
        tokens, branch, mask, weight, bias, eps
    )
    return found


def add_norm_backward(
    gradient: Tensor,
    saved: tuple[Tensor, Tensor, Tensor],
    mask: Tensor | None,
    weight: Tensor,
    branch: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of both summands, and those of weight and bias (K, 2, E)."""
    of_tokens, of_branch, parts = torch.ops.finetune.add_norm_backward(gradient, *saved, mask, weight, branch)
    return of_tokens, of_branch, parts.sum(dim=1)


# --- by Triton


def _dot_precision(joint: Tensor) -> str:
    is_short = joint.dtype == torch.bfloat16 or torch.get_float32_matmul_precision() == "high"
    return "tf32" if is_short else "ieee"


def _tiles(count: int, depth: int) -> tuple[int, int]:
    """Return the powers of two that hold them, at least 16: what a matrix product of Triton takes."""
    return max(16, _power(count)), max(16, _power(depth))


def _power(number: int) -> int:
    return 1 << (number - 1).bit_length()


def _chunk(width: int) -> int:
    """Return the rows of a norm's tile."""
    return max(1, min(32, _TILE // _power(width)))


def _attend(joint: Tensor, mask: Tensor | None, rows: int, heads: int) -> Tensor:
    joint, count, depth = joint.contiguous(), joint.shape[0] // rows, joint.shape[1] // (3 * heads)
    out = joint.new_empty((joint.shape[0], heads * depth))
    kernel: Any = kernels().attend
    kernel[rows, heads](
        joint, joint if mask is None else mask, out, count, heads, depth**-0.5, depth, *_tiles(count, depth),
        mask is not None, _dot_precision(joint),
    )  # fmt: skip
    return out


def _attend_backward(gradient: Tensor, joint: Tensor, mask: Tensor | None, rows: int, heads: int) -> Tensor:
    joint, count, depth = joint.contiguous(), joint.shape[0] // rows, joint.shape[1] // (3 * heads)
    of_joint = torch.empty_like(joint)
    kernel: Any = kernels().attend_backward
    kernel[rows, heads](
        gradient.contiguous(), joint, joint if mask is None else mask, of_joint, count, heads, depth**-0.5,
        depth, *_tiles(count, depth), mask is not None, _dot_precision(joint),
    )  # fmt: skip
    return of_joint


def _add_norm(
    tokens: Tensor, branch: Tensor, mask: Tensor | None, weight: Tensor, bias: Tensor, eps: float
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    members, width = weight.shape
    rows, size = tokens.shape[0] // members, _chunk(width)
    out, total, mean, scale = _norms(tokens)
    kernel: Any = kernels().add_norm
    kernel[members, -(-rows // size)](
        tokens.contiguous(), branch.contiguous(), tokens if mask is None else mask, weight.contiguous(),
        bias.contiguous(), total, mean, scale, out, rows, width, eps, size, _power(width), mask is not None,
    )  # fmt: skip
    return out, total, mean, scale


def _add_norm_backward(
    gradient: Tensor,
    total: Tensor,
    mean: Tensor,
    scale: Tensor,
    mask: Tensor | None,
    weight: Tensor,
    branch: torch.dtype,
) -> tuple[Tensor, Tensor, Tensor]:
    members, width = weight.shape
    rows, size = total.shape[0] // members, _chunk(width)
    of_tokens, of_branch, parts = _slopes(total, weight, branch)
    kernel: Any = kernels().add_norm_backward
    kernel[members, parts.shape[1]](
        gradient.contiguous(), total, mean, scale, total if mask is None else mask, weight.contiguous(),
        of_tokens, of_branch, parts, rows, width, size, _power(width), mask is not None,
    )  # fmt: skip
    return of_tokens, of_branch, parts


def _norms(tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    whole = tokens.new_empty(tokens.shape, dtype=torch.float32)
    row = tokens.new_empty(tokens.shape[0], dtype=torch.float32)
    return whole, torch.empty_like(whole), row, torch.empty_like(row)


def _slopes(total: Tensor, weight: Tensor, branch: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    members, width = weight.shape
    chunks = -(-(total.shape[0] // members) // _chunk(width))
    return (
        torch.empty_like(total),
        total.new_empty(total.shape, dtype=branch),
        total.new_empty((members, chunks, 2, width)),
    )


@cache
def kernels() -> Any:
    """Return the module of Triton kernels; None where Triton cannot be imported, or is not wanted."""
    if not is_wanted():
        return None
    try:
        from finetune.fast import layer_triton
    except ImportError:
        return None
    return layer_triton


for _name, _call in (
    ("attend", _attend),
    ("attend_backward", _attend_backward),
    ("add_norm", _add_norm),
    ("add_norm_backward", _add_norm_backward),
):
    _library.impl(_name, _call, "CUDA")
    _library.impl(_name, _call, "CPU")  # Triton's interpreter, in tests
_library.impl("attend", lambda joint, mask, rows, heads: joint.new_empty(_third(joint)), "Meta")
_library.impl("attend_backward", lambda gradient, joint, mask, rows, heads: torch.empty_like(joint), "Meta")
_library.impl("add_norm", lambda tokens, *others: _norms(tokens), "Meta")
_library.impl(
    "add_norm_backward",
    lambda gradient, total, mean, scale, mask, weight, branch: _slopes(total, weight, branch),
    "Meta",
)


def _third(joint: Tensor) -> tuple[int, int]:
    return joint.shape[0], joint.shape[1] // 3


# --- tried before they are trusted


@cache
def is_right(device: torch.device) -> bool:
    """Return whether the kernels run on ``device`` and say what torch's operations say.

    Tried once a process, on a small layer with dropout.
    """

    def error() -> float:
        return max(largest_error(device), CLOSE / CLOSE_BF16 * bf16_error(device))

    return kernels() is not None and is_close("attention and norm", error)


def largest_error(device: torch.device, members: int = 2, count: int = 10, heads: int = 4) -> float:
    """Return the largest difference from torch's operations, over the largest value; gradients too."""
    random = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(device)

    rows, width = 3 * members, 16 * heads
    joint, slope = drawn(rows * count, 3 * width), drawn(rows * count, width)
    drop = (drawn(rows * heads, count, count) > -1).float() * 1.2
    tokens, branch, mask = drawn(rows * count, width), drawn(rows * count, width), drawn(rows * count, width)
    weight, bias = drawn(members, width), drawn(members, width)
    normed, *saved = add_norm(tokens, branch, mask, weight, bias, 1e-5)
    total, mean, scale = saved
    found = [
        attend(joint, drop, rows, heads),
        attend_backward(slope, joint, drop, rows, heads),
        normed,
        *add_norm_backward(slope, (total, mean, scale), mask, weight, torch.float32),
    ]
    inputs = [one.requires_grad_() for one in (joint, tokens, branch, weight, bias)]
    with torch.enable_grad():
        expected = [_plain_attend(joint, drop, rows, heads), _plain_norm(tokens, branch, mask, weight, bias)]
        of_joint, *others = torch.autograd.grad(expected, inputs, [slope, slope])
    right = [expected[0], of_joint, expected[1], *others[:2], torch.stack(others[2:], dim=1)]
    return max(
        float(((one - other).abs().max() / other.abs().max()).detach())
        for one, other in zip(found, right, strict=True)
    )


def bf16_error(device: torch.device) -> float:
    """Return the largest difference of the kernels in bf16 from those in float32, over the largest value.

    A GPU may have no bf16 at all: its compiler says so here.
    """
    random = torch.Generator().manual_seed(0)
    joint, slope, branch = (torch.randn(20, width, generator=random).to(device) for width in (96, 32, 32))
    ones = torch.ones(1, 32, device=device)

    def found(kind: torch.dtype) -> list[Tensor]:
        short = [one.to(kind) for one in (joint, slope, branch)]
        normed, *saved = add_norm(slope, short[2], None, ones, ones, 1e-5)
        total, mean, scale = saved
        return [
            attend(short[0], None, 2, 2),
            attend_backward(short[1], short[0], None, 2, 2),
            normed,
            *add_norm_backward(slope, (total, mean, scale), None, ones, kind)[:2],
        ]

    return max(
        float(((one - other).abs().max() / other.abs().max()).detach())
        for one, other in zip(found(torch.bfloat16), found(torch.float32), strict=True)
    )


def _plain_attend(joint: Tensor, mask: Tensor, rows: int, heads: int) -> Tensor:
    parts = joint.view(rows, len(joint) // rows, 3, heads, -1).permute(2, 0, 3, 1, 4)
    query, key, value = parts.unbind()
    probabilities = (query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5).softmax(dim=-1)
    mixed: Tensor = (probabilities * mask.view_as(probabilities)) @ value
    return mixed.transpose(1, 2).reshape(len(joint), -1)


def _plain_norm(tokens: Tensor, branch: Tensor, mask: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    members, width = weight.shape
    normed = F.layer_norm(tokens + mask * branch, (width,)).view(members, -1, width)
    return (normed * weight[:, None] + bias[:, None]).view_as(tokens)
