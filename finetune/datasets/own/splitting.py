"""Who trains, validates and tests of a user's own records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import TEST, TRAIN, VALIDATION
from finetune.datasets.own.records import Records
from finetune.errors import DataError
from finetune.own import OwnData

WORDS = {
    "train": TRAIN,
    "training": TRAIN,
    "validation": VALIDATION,
    "valid": VALIDATION,
    "val": VALIDATION,
    "dev": VALIDATION,
    "test": TEST,
    "0": TRAIN,
    "1": VALIDATION,
    "2": TEST,
}
SPLIT_WORDS = "train, validation (val, valid, dev) or test"
FOLD_SHARES = (0.8, 0.1, 0.1)
"""With ``folds`` a tenth of the units tests; the rest is parted into folds later."""


@dataclass(frozen=True)
class Assigned:
    """Split and unit of each record."""

    codes: NDArray[np.int8]
    groups: NDArray[np.str_]
    order: Sequence[str]
    """Units in the order of their first record, or in which a draw left them."""
    is_drawn: bool = False


def assign(records: Records, own: OwnData) -> Assigned:
    """Return split and independent unit of each record; raises :class:`DataError`."""
    groups = np.array(records.subjects if own.knows_subjects and records.subjects else records.names)
    units = list(dict.fromkeys(groups.tolist()))
    if own.split.column is not None:
        return Assigned(_codes(records, own.split.column), groups, units)
    if len(units) < 3:
        what = "subject" if own.knows_subjects else "record"
        raise DataError(f"{what}s: {len(units)}", "3 or more, for training, validation and test")
    drawn, order = draw(units, FOLD_SHARES if own.split.folds else own.split.shares, own.split.seed)
    codes = np.array([drawn[unit] for unit in groups.tolist()], np.int8)
    return Assigned(codes, groups, order, is_drawn=True)


def _codes(records: Records, column: str) -> NDArray[np.int8]:
    if records.splits is None:
        raise DataError(f"data.split names column {column!r} of a folder", "grouped, records or folds there")
    codes = []
    for name, word in zip(records.names, records.splits, strict=True):
        code = WORDS.get(word.lower())
        if code is None:
            raise DataError(f"{name}: split {word!r}", SPLIT_WORDS)
        codes.append(code)
    return np.array(codes, np.int8)


def draw(units: Sequence[str], shares: Sequence[float], seed: int) -> tuple[dict[str, int], list[str]]:
    """Return the split of each unit, and the units in the order of the shuffle.

    As the reference protocol draws (:func:`finetune.splits.reference_subject_split`): at seed 42 and shares
    of 0.8, 0.1 and 0.1 the split is its own. Of 3 units and more every split has at least one.
    """
    order = np.arange(len(units))
    np.random.RandomState(seed).shuffle(order)
    shuffled = [units[int(place)] for place in order]
    train = min(max(1, int(shares[0] * len(units))), len(units) - 2)
    validation = min(max(1, int(shares[1] * len(units))), len(units) - train - 1)
    codes = [TRAIN] * train + [VALIDATION] * validation + [TEST] * (len(units) - train - validation)
    return dict(zip(shuffled, codes, strict=True)), shuffled
