"""Prepared windows of a task: read once, kept on disk, mapped by every process that trains on them.

The folder of the cache and how it is filled: :mod:`finetune.data.cache`. Nothing here imports torch.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.data.cache import (
    PART,
    STATISTICS,
    Notify,
    find_entry,
    part_name,
    prepare_windows,
    refuse_partial,
)
from finetune.data.seal import refuse_when_sealed
from finetune.datasets.base import SPLIT_NAMES, TEST, TRAIN, VALIDATION
from finetune.errors import DataError
from finetune.signals import Float32s
from finetune.spec import DataSummary, InputSpec
from finetune.trivial import Labels


@dataclass(frozen=True)
class Windows:
    """Windows of one split, ready for a model."""

    x: Float32s
    """(N, T) or (N, C, T) normalised, T = ``InputSpec.samples``. Mapped copy-on-write: processes share it."""
    y: Labels
    """As :attr:`finetune.datasets.base.WindowSet.labels`, in label units."""
    groups: NDArray[np.str_]
    """(N,) independent unit of each window."""


@dataclass(frozen=True)
class Prepared:
    """What a run trains and validates on."""

    train: Windows
    validation: Windows
    label_mean: NDArray[np.float64] | None
    """(outputs,) over the training labels; None but for regression."""
    label_std: NDArray[np.float64] | None
    """(outputs,) population standard deviation over the training labels, 0 -> 1; None but for regression."""
    summary: DataSummary


def prepare(
    inputs: InputSpec,
    data_dir: Path,
    cache_dir: Path,
    *,
    fold: int | None = None,
    notify: Notify | None = None,
) -> Prepared:
    """Return the training and validation windows of ``inputs``, from the cache where they are in it.

    ``fold`` is needed with ``inputs.folds`` and only then. Raises :class:`MissingDataError` when the data
    set, or a part that was not allowed to be missing, is not there; :class:`DataError` for a broken file;
    :class:`SettingError` for a value out of range or a cache folder that cannot be written.
    """
    part = part_name(inputs, fold)
    folder = find_entry(inputs, data_dir, cache_dir, notify, [part]) / part
    stored = _stored(folder, inputs)
    mean, std = (_array(stored[key]) for key in ("label_mean", "label_std"))
    train, validation = (_open(folder, split) for split in (TRAIN, VALIDATION))
    return Prepared(train, validation, mean, std, _summary(stored))


def describe(inputs: InputSpec, data_dir: Path, cache_dir: Path) -> DataSummary:
    """Return what a search must know of the data; raises as :func:`prepare`.

    With ``inputs.folds``: of all folds together. Then every non-test subject stands under
    train and under validation, and the trivial predictor's metrics are means over the folds.
    """
    if inputs.folds is None:
        return prepare(inputs, data_dir, cache_dir).summary
    names = [part_name(inputs, number) for number in range(inputs.folds)]
    entry = find_entry(inputs, data_dir, cache_dir, None, names)
    return _pooled([_summary(_stored(entry / name, inputs)) for name in names])


def load_test(inputs: InputSpec, data_dir: Path, cache_dir: Path, *, fold: int | None = None) -> Windows:
    """Return the test windows, prepared with what the run of that ``fold`` knew of its training windows.

    The only function that opens the test split: a search never calls it, and while one works in this process
    it cannot (:class:`finetune.errors.SealedError`). Raises as :func:`prepare`.
    """
    refuse_when_sealed()
    part = part_name(inputs, fold)
    entry = find_entry(inputs, data_dir, cache_dir, None, [part, "test"])
    _stored(entry / part, inputs)
    statistics = np.load(entry / part / STATISTICS) if inputs.normalisation == "position" else None
    raw = _open(entry / "test", TEST)
    return replace(raw, x=prepare_windows(raw.x, inputs, statistics))


@dataclass(frozen=True)
class Preparation:
    """How raw windows become a model's input: what a model needs beside its weights."""

    samples: int
    """Of a raw window, at the data set's own rate."""
    statistics: Float32s | None
    """(2, samples) or (2, C, samples) mean and standard deviation of every position; None when by window."""
    label_mean: NDArray[np.float64] | None
    label_std: NDArray[np.float64] | None


def preparation(
    inputs: InputSpec, data_dir: Path, cache_dir: Path, *, fold: int | None = None
) -> Preparation:
    """Return how the run of that ``fold`` prepared its windows; raises as :func:`prepare`.

    Of the stored raw windows only the shape is read.
    """
    part = part_name(inputs, fold)
    entry = find_entry(inputs, data_dir, cache_dir, None, [part])
    stored = _stored(entry / part, inputs)
    statistics = np.load(entry / part / STATISTICS) if inputs.normalisation == "position" else None
    samples = _open(entry / "test", TEST).x.shape[-1]
    return Preparation(samples, statistics, _array(stored["label_mean"]), _array(stored["label_std"]))


def _stored(folder: Path, inputs: InputSpec) -> dict[str, Any]:
    """Return what is known of one part; refuses a partial set that ``inputs`` does not allow."""
    try:
        stored: dict[str, Any] = json.loads((folder / PART).read_text())
    except (OSError, ValueError) as error:
        raise _damaged(folder) from error
    found, expected = stored["records"]
    refuse_partial(inputs, found, expected, stored["summary"]["notes"])
    return stored


def _summary(stored: dict[str, Any]) -> DataSummary:
    fields = dict(stored["summary"])
    fields["subjects"] = {split: tuple(names) for split, names in fields["subjects"].items()}
    fields["notes"] = tuple(fields["notes"])
    fields["trivial_constant"] = tuple(fields.get("trivial_constant", ()))  # older caches do not have it
    return DataSummary(**fields)


def _pooled(parts: list[DataSummary]) -> DataSummary:
    """Return one summary of all folds: each non-test subject validates in exactly one of them."""
    validation = tuple(name for part in parts for name in part.subjects["validation"])
    windows = sum(part.windows["validation"] for part in parts)
    first = parts[0]
    return replace(
        first,
        windows={"train": windows, "validation": windows, "test": first.windows["test"]},
        subjects={"train": validation, "validation": validation, "test": first.subjects["test"]},
        trivial={key: float(np.mean([part.trivial[key] for part in parts])) for key in first.trivial},
        trivial_name=f"{first.trivial_name} in the first of {len(parts)} folds; scores are means over them",
        notes=(*first.notes, f"{len(parts)} grouped folds: every non-test subject validates in one of them"),
    )


def _open(folder: Path, split: int) -> Windows:
    """Map the windows of one split, and read their labels.

    Mapped copy-on-write (mode "c") because torch.from_numpy warns of a read-only array; nobody writes.
    """
    name = SPLIT_NAMES[split]
    try:
        x = np.load(folder / f"{name}-x.npy", mmap_mode="c")
        y, groups = (np.load(folder / f"{name}-{part}.npy") for part in ("y", "groups"))
    except (OSError, EOFError, ValueError) as error:
        raise _damaged(folder) from error
    return Windows(x, y, groups)


def _array(values: list[float] | None) -> NDArray[np.float64] | None:
    return None if values is None else np.array(values)


def _damaged(folder: Path) -> DataError:
    return DataError(
        f"the prepared data in {folder} are damaged", "what was written there", f"remove {folder.parent}"
    )
