"""The writing side of the cache of prepared windows: one entry per InputSpec and content.

    <cache_dir>/hashes-<data set>.json          known hashes of original files (:mod:`finetune.data.content`)
    <cache_dir>/prepared/<task>-<hash>/         written to a temporary folder and renamed: whole or not at all
        reference/ or fold-0/, fold-1/ ...      part.json, training and validation windows as .npy, sums.json
        test/                                   test windows as read, not normalised

Several processes may want the same entry at once: one builds it, the others wait and use what it made.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from finetune.data.content import content_hash
from finetune.data.integrity import is_sound, seal
from finetune.datasets import find_reader, with_leads
from finetune.datasets.base import SPLIT_NAMES, TEST, TRAIN, VALIDATION, Reader, WindowSet
from finetune.errors import DataError, MissingDataError, SettingError
from finetune.metrics import note_on_areas
from finetune.signals import CHUNK, Float32s, interpolate, position_statistics, standardise_each
from finetune.spec import DataSummary, InputSpec
from finetune.splits import first_subjects, grouped_folds
from finetune.tasks import Task, find_task
from finetune.trivial import Labels, trivial_constant, trivial_metrics, trivial_name

VERSION = 1
"""Raised with every change here or in :mod:`finetune.signals` that changes what is prepared."""

ABANDONED_S = 3600
"""A temporary folder that was not touched for so long is nobody's. Not at once, because where locks do not
work between machines another build may be under way."""

Notify = Callable[[str], None]
Rows = NDArray[np.int64]
PART, STATISTICS = "part.json", "statistics.npy"


def part_name(inputs: InputSpec, fold: int | None) -> str:
    """Return the folder of one training/validation pair; raises :class:`SettingError` for a wrong fold."""
    if inputs.folds is None:
        if fold is not None:
            raise SettingError(f"fold {fold} of the reference split", "no fold without inputs.folds")
        return "reference"
    if fold is None or not 0 <= fold < inputs.folds:
        raise SettingError(f"fold {fold} of {inputs.folds} folds", f"0 to {inputs.folds - 1}")
    return f"fold-{fold}"


def find_entry(
    inputs: InputSpec, data_dir: Path, cache_dir: Path, notify: Notify | None, needed: Sequence[str]
) -> Path:
    """Return the folder of the cache that holds ``inputs``, built first where it is not there.

    Where one of its folders that are ``needed`` is not as it was written, all of it is built again.
    """
    if inputs.samples < 2:
        raise SettingError(f"samples {inputs.samples}", "2 or more samples per window")
    if inputs.every < 1:
        raise SettingError(f"every {inputs.every}", "1 for all windows, n for every n-th")
    task = find_task(inputs.task, inputs.own)
    reader, root = _reader_of(inputs, task, data_dir)
    files = reader.files(root, task.name)
    with _writes_cache(cache_dir):
        content = content_hash(
            root if root.is_dir() else root.parent, files, cache_dir / f"hashes-{reader.name}.json"
        )
    key = _key(inputs, reader, content)
    entry = cache_dir / "prepared" / f"{task.name}-{key[:24]}"
    if not _is_whole(entry, needed):
        with _lock(entry):
            if not _is_whole(entry, needed):
                if notify is not None:
                    again = "again (the prepared data were damaged) " if entry.exists() else ""
                    notify(f"preparing {task.name} {again}from {len(files) or 'no'} files")
                windows = reader.read(root, task.name)
                shutil.rmtree(entry, ignore_errors=True)
                _build(entry, key, windows, inputs, task)
    return entry


def _is_whole(entry: Path, needed: Sequence[str]) -> bool:
    return entry.exists() and all(is_sound(entry / part) for part in needed)


def _reader_of(inputs: InputSpec, task: Task, data_dir: Path) -> tuple[Reader, Path]:
    """Return the task's reader, with the folder (or, of a user's own signals, perhaps the file) it reads."""
    if inputs.own is None:
        reader = with_leads(find_reader(task.dataset), inputs.leads)
        return reader, data_dir / reader.folder
    from finetune.datasets.own import OwnReader
    from finetune.datasets.own.records import root_of

    return cast(Reader, OwnReader(inputs.own)), root_of(inputs.own, data_dir)


def _key(inputs: InputSpec, reader: Reader, content: str) -> str:
    """Return the hash of everything that can change a prepared byte, and of nothing else."""
    settings = {key: value for key, value in asdict(inputs).items() if key != "allow_partial"}
    if inputs.every == 1:
        del settings["every"]  # entries made before it was there stay good
    if not inputs.leads:
        del settings["leads"]  # as above
    if inputs.own is None:
        del settings["own"]  # as above
    else:
        settings["own"]["file"] = ""  # the content is hashed: the same file elsewhere is the same data
    parts = {"prepare": VERSION, "reader": [reader.name, reader.version], "content": content, **settings}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextmanager
def _writes_cache(cache_dir: Path) -> Iterator[None]:
    """Turn a failure to write below ``cache_dir`` into a :class:`SettingError` that names it."""
    try:
        cache_dir.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        what = f"cannot write to the cache folder {cache_dir} ({error.strerror or error})"
        raise SettingError(what, "a folder that can be written", "name another one") from error


@contextmanager
def _lock(entry: Path) -> Iterator[None]:
    """Hold the right to build ``entry``; the system lets go of it when the process dies.

    The lock only saves the work of building twice: where a file system has no locks that work between
    machines, the rename at the end still lets exactly one build win.
    """
    with _writes_cache(entry.parent):
        handle = os.open(entry.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _build(entry: Path, key: str, windows: WindowSet, inputs: InputSpec, task: Task) -> None:
    """Write all parts of an entry to a temporary folder and rename it: whole, or not at all."""
    refuse_partial(inputs, windows.records_found, windows.records_expected, windows.notes)
    divisions = _divisions(windows, inputs)
    prefix = f".{entry.name}-"
    with _writes_cache(entry.parent):
        _remove_abandoned(entry.parent, prefix)
        temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=prefix))
        try:
            for part, rows in divisions.items():
                _write_part(temporary / part, key, windows, rows, inputs, task)
            _write_test(temporary / "test", windows)
            temporary.chmod(0o755)
            temporary.rename(entry)
        except OSError:
            if not entry.exists():
                raise
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def _remove_abandoned(folder: Path, prefix: str) -> None:
    """Remove what builds of processes that were killed have left."""
    for left in folder.glob(f"{prefix}*"):
        if time.time() - left.stat().st_mtime > ABANDONED_S:
            shutil.rmtree(left, ignore_errors=True)


def refuse_partial(inputs: InputSpec, found: int, expected: int, notes: Sequence[str]) -> None:
    """Raise :class:`MissingDataError` when records are missing and ``inputs`` does not allow it."""
    if found < expected and not inputs.allow_partial:
        which = f" ({notes[0]})" if notes else ""
        raise MissingDataError(
            f"{inputs.task}: {expected - found} of {expected} records are missing{which}",
            "the complete data set",
            f"fetch them (hpo data get {inputs.task}), or accept {found} records with --allow-partial",
        )


def _divisions(windows: WindowSet, inputs: InputSpec) -> dict[str, tuple[Rows, Rows]]:
    """Return for each part of the entry the rows of its training and of its validation windows."""
    training, validation = (_units(windows.groups[windows.split == code]) for code in (TRAIN, VALIDATION))
    if inputs.folds is None:
        units = {"reference": (list(training), list(validation))}
    else:
        everyone = {**training, **validation}
        folds = grouped_folds(everyone, inputs.folds)
        units = {
            part_name(inputs, fold): ([unit for unit in everyone if unit not in set(held)], list(held))
            for fold, held in enumerate(folds)
        }
    return {part: _rows(windows, inputs, *pair) for part, pair in units.items()}


def _rows(
    windows: WindowSet, inputs: InputSpec, training: list[str], validation: list[str]
) -> tuple[Rows, Rows]:
    """Return the rows of the units; raises :class:`DataError` when a side has no window at all."""
    if not training or not validation:
        found = f"{len(training)} training and {len(validation)} validation subjects"
        raise DataError(f"{inputs.task}: the records here have {found}", "at least one of each")
    kept = first_subjects(training, inputs.train_subjects)
    is_usable = windows.split != TEST
    train, held = (np.flatnonzero(is_usable & np.isin(windows.groups, side)) for side in (kept, validation))
    return every_nth(train, windows.groups, inputs.every), every_nth(held, windows.groups, inputs.every)


def every_nth(rows: Rows, groups: NDArray[np.str_], n: int) -> Rows:
    """Return every n-th of each unit's ``rows``, from its first; ``groups`` (N,) has every row's unit."""
    if n == 1:
        return rows
    order = np.argsort(groups[rows], kind="stable")
    _, first, counts = np.unique(groups[rows][order], return_index=True, return_counts=True)
    place = np.arange(len(rows)) - np.repeat(first, counts)
    return np.sort(rows[order[place % n == 0]])


def _units(groups: NDArray[np.str_]) -> dict[str, int]:
    """Return the windows of each unit, in the order in which the units first appear."""
    names, first, counts = np.unique(groups, return_index=True, return_counts=True)
    return {str(names[i]): int(counts[i]) for i in np.argsort(first)}


def _write_part(
    folder: Path, key: str, windows: WindowSet, rows: tuple[Rows, Rows], inputs: InputSpec, task: Task
) -> None:
    """Write the training and validation windows of one part, and what is known of them."""
    folder.mkdir()
    statistics = None
    if inputs.normalisation == "position":
        statistics = position_statistics(windows.signal[rows[0]])
        np.save(folder / STATISTICS, statistics)
    for split, chosen in zip((TRAIN, VALIDATION), rows, strict=True):
        shape = (len(chosen), *windows.signal.shape[1:-1], inputs.samples)
        path = folder / f"{SPLIT_NAMES[split]}-x.npy"
        x = np.lib.format.open_memmap(path, "w+", np.float32, shape)
        for start in range(0, len(chosen), CHUNK):
            raw = windows.signal[chosen[start : start + CHUNK]]
            x[start : start + CHUNK] = prepare_windows(raw, inputs, statistics)
        x.flush()
        _write_labels(folder, split, windows, chosen)
    mean, std = _label_statistics(task, windows.labels[rows[0]])
    stored = {
        "records": [windows.records_found, windows.records_expected],
        "label_mean": mean,
        "label_std": std,
        "summary": asdict(_summary(key, windows, rows, task)),
    }
    (folder / PART).write_text(json.dumps(stored))
    seal(folder)


def prepare_windows(raw: Float32s, inputs: InputSpec, statistics: Float32s | None) -> Float32s:
    """Return windows (B, ..., T as read) normalised, then interpolated to (B, ..., ``inputs.samples``).

    ``statistics`` (2, ..., T as read): mean and standard deviation of every position of the training windows.
    """
    if statistics is None:
        return interpolate(standardise_each(raw), inputs.samples)
    return interpolate((raw - statistics[0]) / statistics[1], inputs.samples)


def _write_test(folder: Path, windows: WindowSet) -> None:
    folder.mkdir()
    rows = np.flatnonzero(windows.split == TEST)
    np.save(folder / f"{SPLIT_NAMES[TEST]}-x.npy", windows.signal[rows])
    _write_labels(folder, TEST, windows, rows)
    seal(folder)


def _write_labels(folder: Path, split: int, windows: WindowSet, rows: Rows) -> None:
    np.save(folder / f"{SPLIT_NAMES[split]}-y.npy", windows.labels[rows])
    np.save(folder / f"{SPLIT_NAMES[split]}-groups.npy", windows.groups[rows])


def _label_statistics(task: Task, labels: Labels) -> tuple[list[float] | None, list[float] | None]:
    """Return mean and population standard deviation (0 -> 1) of each output; None but for regression."""
    if task.kind != "regression":
        return None, None
    std = labels.std(axis=0, dtype=np.float64)
    return labels.mean(axis=0, dtype=np.float64).tolist(), np.where(std == 0, 1, std).tolist()


def _summary(key: str, windows: WindowSet, rows: tuple[Rows, Rows], task: Task) -> DataSummary:
    """Return the summary of one part; of the test split it knows sizes and names, no label."""
    found, expected = windows.records_found, windows.records_expected
    of_split = dict(zip(SPLIT_NAMES, (*rows, np.flatnonzero(windows.split == TEST)), strict=True))
    training, validation = (windows.labels[chosen] for chosen in rows)
    return DataSummary(
        task=task.name,
        data_hash=key,
        windows={name: len(chosen) for name, chosen in of_split.items()},
        subjects={name: tuple(_units(windows.groups[chosen])) for name, chosen in of_split.items()},
        trivial=trivial_metrics(task, training, validation),
        trivial_name=trivial_name(task, training),
        trivial_constant=trivial_constant(task, training),
        partial=f"{found} of {expected} records" if found < expected else "",
        notes=(*windows.notes, *note_on_areas(task, validation)),
    )
