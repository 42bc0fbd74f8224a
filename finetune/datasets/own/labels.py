"""Labels of a user's own windows: from what stands in the file to what a task trains on, or a refusal."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.own.records import Labels, alike, as_text, is_missing
from finetune.errors import DataError
from finetune.own import OwnData
from finetune.tables import is_number

UNIT_RANGES = {
    "bpm": (20.0, 300.0),
    "beats/min": (20.0, 300.0),
    "breaths/min": (2.0, 100.0),
    "brpm": (2.0, 100.0),
    "mmHg": (10.0, 320.0),
    "Hz": (0.01, 6.0),
    "%": (0.0, 100.0),
    "years": (0.0, 125.0),
}
"""Of living people, generously; chosen by us: a mistake by 60 or a wrong column is outside."""
PER_MINUTE = 60.0
FEW = 0.05
"""So many labels outside what their unit allows are named, more are refused (bidmc_rr has 0.4 % zeros)."""

FEW_CLASSES = 20
"""Classes are at most so many, or half as many as there are labels: more are numbers, or names of people."""
TRUTHS = {"true": 1.0, "false": 0.0}

Where = Callable[[int], str]
"""Row of a window -> where it stands, in words."""


def class_names(labels: Labels, own: OwnData) -> tuple[str, ...]:
    """Return the names of the outputs: the study's, else the label columns', else what is found, sorted."""
    if own.classes or own.kind == "regression":
        return own.classes
    if own.kind == "multilabel":
        outputs = labels.shape[1]
        is_named = len(own.label) == outputs
        return own.label if is_named else tuple(f"label {place}" for place in range(outputs))
    cells = [value for value in labels.ravel().tolist() if not is_missing(value)]
    found = {as_text(value) for value in cells}
    part = next((name for name in found if _is_fraction(name)), None)
    if part is not None or len(found) > max(FEW_CLASSES, len(cells) / 2):
        what = (
            f"the labels are numbers such as {part}"
            if part
            else f"{len(cells)} labels are {len(found)} classes"
        )
        raise DataError(what, "names, or whole numbers", "check data.label: or is it kind: regression?")
    return tuple(sorted(found, key=lambda name: (not name.isdigit(), int(name) if name.isdigit() else name)))


def _is_fraction(name: str) -> bool:
    return "." in name and is_number(name) and not float(name).is_integer()


def missing_labels(labels: Labels, own: OwnData) -> NDArray[np.bool_]:
    """Return (N,) whether a window lacks any of its labels; what ``data.classes`` names is none of it."""
    if labels.dtype.kind in "iub":
        return np.zeros(len(labels), bool)
    if labels.dtype.kind == "f":
        return np.asarray(~np.isfinite(labels).all(axis=1))
    return np.array(
        [
            any(is_missing(value) and as_text(value) not in own.classes for value in row)
            for row in labels.tolist()
        ],
        bool,
    )


def encode(
    labels: Labels, own: OwnData, classes: Sequence[str], where: Where
) -> NDArray[np.float32] | NDArray[np.int64]:
    """Return labels as :attr:`finetune.datasets.base.WindowSet.labels`; raises :class:`DataError`."""
    if own.kind == "classes":
        return _indices(labels, classes, where)
    numbers = numbers_of(labels, where).astype(np.float32)
    if own.kind == "multilabel":
        wrong = np.flatnonzero(~np.isin(numbers, (0, 1)).all(axis=1))
        if len(wrong):
            row = int(wrong[0])
            raise DataError(f"{where(row)}: label {numbers[row].tolist()} of a multi-label task", "0 or 1")
        if len(classes) != numbers.shape[1]:
            raise DataError(f"{numbers.shape[1]} columns of labels, {len(classes)} classes", "as many")
        return numbers
    return numbers


def _indices(labels: Labels, classes: Sequence[str], where: Where) -> NDArray[np.int64]:
    if labels.shape[1] != 1:
        raise DataError(f"{labels.shape[1]} columns of labels for one of several classes", "one column")
    place = {as_text(name): index for index, name in enumerate(classes)}
    names = [as_text(value) for value in labels[:, 0].tolist()]
    for row, name in enumerate(names):
        if name not in place:
            raise DataError(f"{where(row)}: class {name!r} is not in data.classes", ", ".join(classes))
    return np.array([place[name] for name in names], np.int64)


def numbers_of(labels: Labels, where: Where) -> NDArray[np.float64]:
    """Return labels as numbers, NaN for a missing one; raises :class:`DataError` for a word."""
    if labels.dtype.kind in "fiub":
        return labels.astype(np.float64)
    return np.array(
        [[_number(value, where, row) for value in cells] for row, cells in enumerate(labels.tolist())]
    )


def _number(value: Any, where: Where, row: int) -> float:
    text = as_text(value)
    if is_missing(value):
        return float("nan")
    if text.casefold() in TRUTHS:
        return TRUTHS[text.casefold()]
    if not is_number(text) or not math.isfinite(float(text)):
        raise DataError(f"{where(row)}: label {text!r}", "a number such as 0.5")
    return float(text)


def check_range(numbers: NDArray[np.float32], own: OwnData, where: Where) -> tuple[str, ...]:
    """Refuse labels outside the study's range, or many outside what their unit allows; name a few."""
    usual = {unit.casefold(): bounds for unit, bounds in UNIT_RANGES.items()}
    bounds = own.range or usual.get(own.unit.casefold())
    if own.kind != "regression" or bounds is None:
        return ()
    outside = np.flatnonzero(((numbers < bounds[0]) | (numbers > bounds[1])).any(axis=1))
    if not len(outside):
        return ()
    row = int(outside[0])
    wrong = int(np.argmax((numbers[row] < bounds[0]) | (numbers[row] > bounds[1])))
    told = f"{bounds[0]:g} to {bounds[1]:g} {own.unit}".rstrip()
    what = f"{len(outside)} of {len(numbers)} labels are outside {told}, the first {numbers[row, wrong]:g}"
    if own.range is None and (len(outside) < FEW * len(numbers) or own.allows("implausible")):
        return (what,)
    raise DataError(
        f"{what} at {where(row)}{_by_60(float(np.median(numbers)), bounds)}",
        "labels in data.unit",
        "check data.label and data.unit, or set data.range: [low, high]",
    )


def _by_60(middle: float, bounds: tuple[float, float]) -> str:
    """Return a hint where labels times 60, or by 60, would be right."""
    right = [factor for factor in (PER_MINUTE, 1 / PER_MINUTE) if bounds[0] <= middle * factor <= bounds[1]]
    if len(right) != 1 or bounds[0] <= middle <= bounds[1]:
        return ""
    return f" (times {right[0]:.3g} they would be right: per second or per minute?)"


def check_training_labels(
    labels: NDArray[np.float32] | NDArray[np.int64], own: OwnData, classes: Sequence[str]
) -> tuple[str, ...]:
    """Refuse training labels that teach nothing; return notes on classes that training never sees."""
    if own.kind == "regression":
        flat = [place for place in range(labels.shape[1]) if np.ptp(labels[:, place]) == 0]
        if flat:
            name = own.label[flat[0]] if own.label else "label"
            what = f"{name} is {float(labels[0, flat[0]]):g} in all {len(labels)} training windows"
            raise DataError(what, "labels that differ", "check data.label")
        return ()
    if own.kind == "classes":
        seen = np.bincount(labels.astype(np.int64), minlength=len(classes)) > 0
        is_learnable = bool(np.sum(seen) > 1)
    else:
        seen = labels.max(axis=0) > 0
        is_learnable = bool((seen & (labels.min(axis=0) < 1)).any())
    if not is_learnable:
        there = ", ".join(name for name, is_seen in zip(classes, seen, strict=True) if is_seen) or "none"
        raise DataError(
            f"the training windows are all of one class ({there})", "two or more", "check data.label"
        )
    unseen = [name for name, is_seen in zip(classes, seen, strict=True) if not is_seen]
    notes = [f"classes without any training window: {', '.join(unseen)}"] if unseen else []
    return (*notes, *alike("classes", classes))
