"""Faults of a user's own windows that a search would not notice: refused, or named in every output.

What is refused can be accepted with ``data.allow``, after a look; then it is named. Here what one split knows
of another; what signals and labels say of each other is in :mod:`finetune.datasets.own.plausibility`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import SPLIT_NAMES, TRAIN
from finetune.errors import DataError
from finetune.own import Allowance, OwnData
from finetune.signals import CHUNK, Float32s

FEW = 0.05
"""So many windows of one split that are there twice are named, more are refused."""
OVERLAP_SAMPLES = 32
"""A window that begins with so many samples of another is of the same recording."""

Codes = NDArray[np.int8]


class Screen:
    """Collects notes, and refuses what the study does not allow."""

    def __init__(self, own: OwnData) -> None:
        self._own = own
        self.notes: list[str] = []

    def found(
        self, fault: Allowance, what: str, expected: str, mend: str = "", allowed: str = "to accept it"
    ) -> None:
        """Refuse a fault, or name it where the study allows it."""
        if not self._own.allows(fault):
            allow = f"{allowed}: data.allow: [{fault}]"
            raise DataError(what, expected, f"{mend}; {allow}" if mend else allow)
        self.notes.append(f"allowed ({fault}): {what}")


def check_units(screen: Screen, groups: NDArray[np.str_], split: Codes, unit: str) -> None:
    """Refuse a subject in two splits."""
    first: dict[str, int] = {}
    for name, code in zip(groups.tolist(), split.tolist(), strict=True):
        if first.setdefault(name, code) != code:
            told = f"{SPLIT_NAMES[first[name]]} and {SPLIT_NAMES[code]}"
            screen.found(
                "two_splits",
                f"{unit} {name} is in {told}",
                f"each {unit} in one split",
                "let data.split draw by subject: {grouped: [0.8, 0.1, 0.1]}",
            )
            return


def check_duplicates(
    screen: Screen, signal: Float32s, names: Sequence[str], groups: NDArray[np.str_], split: Codes
) -> None:
    """Refuse windows that are in two splits, whatever their gain and offset; name a few of one split.

    The first 500 records of PTB-XL hold five such pairs, all of the training folds.
    """
    first: dict[bytes, int] = {}
    twice: list[tuple[int, int]] = []
    for row, key in enumerate(_keys(signal)):
        other = first.setdefault(key, row)
        if key and other != row:
            twice.append((other, row))
    if not twice:
        return
    across = [pair for pair in twice if split[pair[0]] != split[pair[1]]]
    people = [pair for pair in twice if groups[pair[0]] != groups[pair[1]]]
    one, other = (across or people or twice)[0]
    said = f", {len(across)} of them across splits" if across else ""
    said += f", {len(people)} of different units" if people else ""
    what = f"{len(twice)} windows are there twice{said}: {names[one]} and {names[other]}"
    if not across and len(twice) < FEW * len(signal):
        screen.notes.append(what)
        return
    screen.found("duplicates", what, "each window once", "remove one of the two")


def _keys(signal: Float32s) -> Iterator[bytes]:
    """Yield what equal windows share (hundredths of a standard deviation); empty for a flat one."""
    for start in range(0, len(signal), CHUNK):
        flat = signal[start : start + CHUNK].reshape(len(signal[start : start + CHUNK]), -1)
        flat = flat.astype(np.float64)
        centred = flat - flat.mean(axis=1, keepdims=True)
        std = centred.std(axis=1, keepdims=True)
        rounded = np.round(100 * centred / np.where(std > 0, std, 1)).astype(np.int16)
        yield from (
            row.tobytes() if is_alive else b"" for row, is_alive in zip(rounded, std[:, 0] > 0, strict=True)
        )


def check_overlap(screen: Screen, signal: Float32s, names: Sequence[str], split: Codes) -> None:
    """Refuse windows of other splits whose beginning lies inside a training window: one recording in both."""
    first_channel = signal[:, 0]
    held = np.flatnonzero(split != TRAIN)
    if first_channel.shape[1] < 2 * OVERLAP_SAMPLES:
        return
    begins = _hashes(first_channel[held][:, :OVERLAP_SAMPLES])[:, 0]
    is_alive = np.ptp(first_channel[held][:, :OVERLAP_SAMPLES], axis=1) > 0
    wanted = np.unique(begins[is_alive])
    shared: set[int] = set()
    training = np.flatnonzero(split == TRAIN)
    for start in range(0, len(training), CHUNK):
        hashes = _hashes(first_channel[training[start : start + CHUNK]])
        shared.update(np.intersect1d(wanted, hashes).tolist())
    rows = held[is_alive & np.isin(begins, list(shared))]
    if len(rows) > 0.01 * len(held):
        what = (
            f"{len(rows)} of {len(held)} validation and test windows begin inside a training window, such as "
            f"{names[int(rows[0])]}: one recording is in two splits"
        )
        screen.found("two_splits", what, "each recording in one split", "split by subject or by record")


def _hashes(windows: Float32s) -> NDArray[np.uint64]:
    """Return a hash of the bits of each run of ``OVERLAP_SAMPLES`` samples: (N, T - OVERLAP_SAMPLES + 1)."""
    bits = np.ascontiguousarray(windows).view(np.uint32).astype(np.uint64)
    last = windows.shape[1] - OVERLAP_SAMPLES + 1
    found = np.zeros((len(windows), last), np.uint64)
    for place in range(OVERLAP_SAMPLES):
        found = (
            found * np.uint64(6364136223846793005)
            + bits[:, place : place + last]
            + np.uint64(1442695040888963407)
        )
    return found
