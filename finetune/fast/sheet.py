"""Dropout on a device that is no CPU: one launch draws what a whole step of all members needs.

K members; the bytes, and so the masks, are those that a CPU draws (:mod:`finetune.fast.philox`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from finetune.fast.philox_device import Layout, device_bytes, words_of
from finetune.random import Mask, Noise


class Sheet:
    """The dropout bytes of K members of a population, or of one run, on a device: a step's in one go.

    The first step of a run asks for each call's bytes by itself, and so tells how many a step takes.
    """

    MOST_MADE = 2**26
    """Elements of which float32 masks are made for a whole step (256 MiB); of more, each call's by itself."""

    def __init__(self, seeds: Sequence[int], device: torch.device, *, is_stacked: bool = True) -> None:
        """A mask is (K, *shape); of one run, not ``is_stacked``, (*shape)."""
        self._keys, self._device, self._is_stacked = words_of(seeds).to(device), device, is_stacked
        self._counts: list[int] = []
        self.position = 0
        """Calls so far in this step."""
        self._layout: Layout | None = None

    def begin(self, steps: Tensor) -> None:
        """Begin a step: ``steps`` (K, 2) is each member's own, as :func:`words_of` gives it."""
        self._steps, self.position, self._made = steps, 0, dict[int, Tensor]()
        if self._layout is None and self._counts:
            self._layout = Layout.of(self._counts, self._device, len(self._keys))
        self._bytes = None if self._layout is None else device_bytes(self._keys, steps, self._layout)

    def mask(self, shape: Sequence[int], dropped: int, scale: float, bits: int) -> Mask:
        """Return the next call's mask."""
        count = prod(shape) * bits // 8
        call, self.position = self.position, self.position + 1
        whole = (len(self._keys), *shape) if self._is_stacked else tuple(shape)
        drawn = self._drawn(call, count, self._bytes)
        if drawn is None:
            layout = Layout.of([count], self._device, len(self._keys), first=call)
            drawn = device_bytes(self._keys, self._steps, layout).view(len(self._keys), -1)[:, :count]
            return Mask(_of_bits(drawn, bits).reshape(whole), dropped, scale)
        draws = _of_bits(drawn, bits).reshape(whole)
        if bits != 8 or self._bytes is None or self._bytes.numel() > self.MOST_MADE:
            return Mask(draws, dropped, scale)
        if dropped not in self._made:
            self._made[dropped] = (self._bytes >= dropped) * scale
        made = self._drawn(call, count, self._made[dropped])
        assert made is not None
        return Mask(draws, dropped, scale, made.reshape(whole))

    def _drawn(self, call: int, count: int, sheet: Tensor | None) -> Tensor | None:
        """Return a call's part (K, count) of the sheet; None where it has none, and next time it may."""
        if call == len(self._counts):
            self._counts.append(count)
            self._layout = None
        if sheet is None or self._layout is None or call >= len(self._layout.offsets) - 1:
            return None
        begin, end = self._layout.offsets[call : call + 2]
        rows = sheet[begin:end].view(len(self._keys), -1)
        return rows[:, :count] if count <= rows.shape[1] else None


def _of_bits(drawn: Tensor, bits: int) -> Tensor:
    """Return bytes (K, n) as uniform whole numbers of 8 bits, or of 16 as int32."""
    return drawn if bits == 8 else drawn.contiguous().view(torch.int16).to(torch.int32) & 0xFFFF


def epoch_noise(seed: int, first_step: int, steps: int, device: torch.device) -> Callable[[int], Noise]:
    """Return the noise of each step (from 0) of an epoch of one run, from its ``first_step`` on."""
    if device.type == "cpu":
        return lambda index: Noise(seed, first_step + index)
    sheet = Sheet([seed], device, is_stacked=False)
    words = step_words([first_step], steps, device)

    def noise(index: int) -> Noise:
        sheet.begin(words[index])
        return Noise(seed, first_step + index, sheet)

    return noise


def step_words(first: Sequence[int], steps: int, device: torch.device) -> Tensor:
    """Return (steps, K, 2): the step numbers of an epoch, from each member's first, as a sheet wants them."""
    return torch.stack([words_of([begin + step for begin in first]) for step in range(steps)]).to(device)
