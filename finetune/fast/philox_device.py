"""The random bytes of :mod:`finetune.fast.philox` on any device, of all members and calls of a step at once.

On CUDA one Triton kernel where Triton is there (torch's CUDA wheels for Linux bring it) and works, elsewhere
about 300 integer operations of torch: the same bytes. K members, C chunks of 1,024 bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from finetune.fast.trusted import is_close, is_wanted

CHUNK = 64
"""Blocks whose words stand side by side, for SIMD."""
CHUNK_BYTES = 16 * CHUNK
MULTIPLIERS = 0xD2511F53, 0xCD9E8D57
WEYL = 0x9E3779B9, 0xBB67AE85
LOW = 0xFFFFFFFF


@dataclass(frozen=True)
class Layout:
    """Which bytes lie where: call by call, in a call member by member, each member's in whole chunks."""

    calls: Tensor
    """(C,) int64: the call of each chunk of a member."""
    numbers: Tensor
    """(C,) int64: the chunk's number within its call."""
    places: Tensor
    """(K, C) int64: where, in chunks, it is put."""
    offsets: tuple[int, ...]
    """First byte of each call, and the end of the last."""

    @classmethod
    def of(cls, counts: Sequence[int], device: torch.device, members: int = 1, first: int = 0) -> Layout:
        """Lay out calls ``first``, ``first + 1``, ... of so many bytes a member each."""
        sizes = torch.tensor([-(-count // CHUNK_BYTES) for count in counts])
        begins = sizes.cumsum(0) - sizes
        calls = torch.repeat_interleave(torch.arange(len(counts)), sizes)
        numbers = torch.arange(int(sizes.sum())) - begins[calls]
        rows = torch.arange(members)[:, None]
        places = members * begins[calls] + rows * sizes[calls] + numbers
        ends = (members * CHUNK_BYTES * sizes).cumsum(0).tolist()
        return cls((calls + first).to(device), numbers.to(device), places.to(device), (0, *ends))


def words_of(numbers: Sequence[int]) -> Tensor:
    """Return the low and the high half (K, 2) int64 of whole numbers below 2**64."""
    return torch.tensor([[number & LOW, number >> 32] for number in numbers], dtype=torch.int64)


def device_bytes(keys: Tensor, steps: Tensor, layout: Layout) -> Tensor:
    """Return random bytes (bytes,) uint8: of call c and member k as ``random_bytes(key, c, step, count)``.

    ``keys`` and ``steps`` are (K, 2) as :func:`words_of` gives them, on the device of the layout.
    """
    drawn: Tensor = torch.ops.finetune.dropout_bytes(keys, steps, layout.calls, layout.numbers, layout.places)
    return drawn


@torch.library.custom_op("finetune::dropout_bytes", mutates_args=())
def _dropout_bytes(keys: Tensor, steps: Tensor, calls: Tensor, numbers: Tensor, places: Tensor) -> Tensor:
    draw = in_triton if keys.device.type == "cuda" and is_right(keys.device) else in_torch
    return draw(keys, steps, calls, numbers, places)


@_dropout_bytes.register_fake
def _(keys: Tensor, steps: Tensor, calls: Tensor, numbers: Tensor, places: Tensor) -> Tensor:
    return keys.new_empty(places.numel() * CHUNK_BYTES, dtype=torch.uint8)


def in_torch(keys: Tensor, steps: Tensor, calls: Tensor, numbers: Tensor, places: Tensor) -> Tensor:
    """Return the bytes by integer operations of torch: for a device without Triton, and to test it by."""
    shape = (len(keys), len(calls), CHUNK)
    lanes = torch.arange(CHUNK, device=keys.device)
    a = (numbers[:, None] * CHUNK + lanes).expand(shape)
    b = calls[None, :, None].expand(shape)
    c, d = (half[:, None, None].expand(shape) for half in steps.unbind(1))
    key0, key1 = (half[:, None, None] for half in keys.unbind(1))
    for _ in range(10):
        p_high, p_low = _product(a, MULTIPLIERS[0])
        q_high, q_low = _product(c, MULTIPLIERS[1])
        a, b, c, d = q_high ^ b ^ key0, q_low, p_high ^ d ^ key1, p_low
        key0, key1 = (key0 + WEYL[0]) & LOW, (key1 + WEYL[1]) & LOW
    words = torch.stack([a, b, c, d], dim=2).to(torch.int32)  # (K, C, 4, CHUNK), as the loop stores them
    placed = torch.empty((places.numel(), 4 * CHUNK), dtype=torch.int32, device=keys.device)
    placed[places.flatten()] = words.view(-1, 4 * CHUNK)
    return placed.view(torch.uint8).flatten()


def _product(x: Tensor, multiplier: int) -> tuple[Tensor, Tensor]:
    """Return the high and the low half of 32-bit ``x`` times ``multiplier``: int64 holds 63 bits only."""
    low, high = x * (multiplier & 0xFFFF), x * (multiplier >> 16)
    whole = low + ((high & 0xFFFF) << 16)
    return (high >> 16) + (whole >> 32), whole & LOW


def in_triton(keys: Tensor, steps: Tensor, calls: Tensor, numbers: Tensor, places: Tensor) -> Tensor:
    """Return the bytes by one kernel: a program a member and chunk, a lane a block."""
    fill: Any = kernel()
    words = torch.empty((places.numel(), 4, CHUNK), dtype=torch.int32, device=keys.device)
    if words.numel():
        fill[places.shape](keys, steps.contiguous(), calls, numbers, places, words, len(calls))
    return words.view(torch.uint8).flatten()


@cache
def kernel() -> Any:
    """Return the Triton kernel; None where Triton cannot be imported, or is not wanted."""
    if not is_wanted():
        return None
    try:
        from finetune.fast.philox_triton import fill
    except ImportError:
        return None
    return fill


@cache
def is_right(device: torch.device) -> bool:
    """Return whether the kernel runs on ``device`` and draws torch's bytes; tried once a process."""
    return kernel() is not None and is_close("dropout", lambda: _is_off(device))


def _is_off(device: torch.device) -> float:
    words, layout = words_of([2**40 + 3, 5]).to(device), Layout.of([1, 3 * CHUNK_BYTES], device, 2)
    given = words, words.flip(0), layout.calls, layout.numbers, layout.places
    return 0.0 if torch.equal(in_triton(*given), in_torch(*given)) else float("inf")
