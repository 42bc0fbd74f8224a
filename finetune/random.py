"""Randomness as a pure function of (seed, purpose, step): no global stream is read or moved.

Every draw comes from a counter-based generator (Philox; Salmon et al. 2011, "Parallel random numbers: as easy
as 1, 2, 3"): numpy's 4x64-10 whose key is (seed, purpose) and whose counter begins at the step, and for
dropout on a CPU, a megabyte a step, a faster one (:mod:`finetune.fast.philox`). So a run draws the same
numbers alone, beside others and after any resume, and a checkpoint needs only the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from math import prod
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from finetune.errors import SettingError

if TYPE_CHECKING:
    from finetune.fast.sheet import Sheet


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of every result: append, never renumber."""

    INIT = 1
    """Random initialisation of a backbone."""
    HEAD = 2
    """Random initialisation of the head."""
    ORDER = 3
    """Order of the training windows; the step is the epoch."""
    DROPOUT = 4
    PRETRAIN = 5
    """Windows, masks and augmentation of pretraining; the step is the optimiser's."""


def stream(seed: int, purpose: Purpose, step: int = 0) -> np.random.Generator:
    """Return the generator of (seed, purpose, step); ``seed`` and ``step`` are 0 to 2**64 - 1."""
    return np.random.Generator(_philox(seed, purpose, step))


def torch_generator(seed: int, purpose: Purpose, step: int = 0) -> torch.Generator:
    """Return torch's own generator, seeded by the first draw of :func:`stream`."""
    first = int(_philox(seed, purpose, step).random_raw())
    return torch.Generator().manual_seed(first)


def _philox(seed: int, purpose: Purpose, step: int) -> np.random.Philox:
    # The counter has four words, the lowest first: the generator itself counts in word 0.
    counter = np.array([0, 0, step, 0], dtype=np.uint64)
    return np.random.Philox(counter=counter, key=np.array([seed, purpose], dtype=np.uint64))


@dataclass(frozen=True)
class Mask:
    """A dropout mask as it was drawn: an element is kept where its draw is at least ``dropped``."""

    draws: Tensor
    """Uniform integers of as many bits as :meth:`Noise.mask` was asked for."""
    dropped: int
    scale: float
    """Of what is kept, so that the mean stays."""
    made: Tensor | None = None
    """What :meth:`values` returns, where it was made for a whole step already."""

    def values(self) -> Tensor:
        """Return the mask as float32: zeros and ``scale``."""
        if self.made is not None:
            return self.made
        if self.draws.device.type != "cpu":
            return (self.draws >= self.dropped).float() * self.scale
        # numpy compares and converts bytes with SIMD, torch 2.13 does not (measured: 6 us against 58 us
        # for 40,960 elements).
        return torch.from_numpy((self.draws.numpy() >= self.dropped).astype(np.float32)).mul_(self.scale)


class Noise:
    """The dropout of one training step: its n-th call is a pure function of (seed, step, n).

    The bytes are those of :mod:`finetune.fast.philox` on every device. ``sheet`` has them for a device that
    is no CPU: the step's in one go (:class:`finetune.fast.sheet.Sheet`).
    """

    def __init__(self, seed: int, step: int, sheet: Sheet | None = None) -> None:
        self.seed, self.step = seed, step
        self._seed, self._step, self._call = seed, step, 0
        self._sheet = sheet
        self.part = 0
        """Of the batch, where it passes in several: for encoders that count no calls."""

    @property
    def position(self) -> int:
        """Calls so far in this step: to draw the same masks again, go back to one."""
        return self._call if self._sheet is None else self._sheet.position

    @position.setter
    def position(self, calls: int) -> None:
        if self._sheet is None:
            self._call = calls
        else:
            self._sheet.position = calls

    def dropout(self, x: Tensor, p: float, fraction_bits: int = 8) -> Tensor:
        """Return ``x`` with each element zeroed with probability ``p``, the others scaled to keep the mean.

        The mask is that of :meth:`mask` in the precision of ``x``.
        """
        mask = self.mask(x.shape, p, fraction_bits)
        return x if mask is None else x * mask.values().to(x.dtype)

    def mask(self, shape: Sequence[int], p: float, fraction_bits: int = 8) -> Mask | None:
        """Return a mask that drops with probability ``p``; None when nothing drops.

        ``p`` is rounded to ``fraction_bits`` (8 or 16) binary places, and the scale fits the rounded
        probability, so that the mean is exact (in bf16 to its rounding, as torch's). Raises
        :class:`SettingError` unless 0 <= p < 1 after rounding.
        """
        levels = 1 << fraction_bits
        dropped = round(p * levels)
        if not 0 <= dropped < levels:
            raise SettingError(f"dropout {p}", "0 <= dropout < 1")
        if dropped == 0:
            return None
        scale = levels / (levels - dropped)
        if self._sheet is not None:
            return self._sheet.mask(shape, dropped, scale, fraction_bits)
        return Mask(self._draw(tuple(shape), fraction_bits), dropped, scale)

    def drop_rows(self, x: Tensor, p: float) -> Tensor:
        """Return ``x`` (B, ...) with whole rows zeroed: StochasticDepth in row mode (Huang et al. 2016)."""
        rows = x.new_ones((x.shape[0],) + (1,) * (x.dim() - 1))
        return x if p == 0 else x * self.dropout(rows, p, fraction_bits=16)

    def _draw(self, shape: tuple[int, ...], bits: int) -> Tensor:
        """Return uniform integers of so many bits."""
        from finetune.fast.philox import random_bytes  # with numba: not for a GPU

        taken = random_bytes(self._seed, self._call, self._step, prod(shape) * bits // 8)
        self._call += 1
        return torch.from_numpy(taken.view(f"u{bits // 8}")).view(shape)
