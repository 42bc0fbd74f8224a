"""Signals of a user's own, of any of five layouts, as the windows that every task trains on.

    .npz or .parquet   one window a row, (N, T) or (N, C, T), with label, subject and split beside
    .csv               a manifest: a row names a signal file (WFDB, CSV, NPY) and has its labels
    folder             <subject>/ppg.npy with labels beside it; without data.label one folder a class

files --layout--> Records --cut--> windows --assign--> splits --screen--> WindowSet
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import TEST, TRAIN, WindowSet
from finetune.datasets.own import plausibility, screening
from finetune.datasets.own.cutting import Cut, cut
from finetune.datasets.own.files import (
    FOLDER,
    manifest_files,
    read_classes,
    read_manifest,
    read_subjects,
    subject_files,
)
from finetune.datasets.own.labels import (
    check_range,
    check_training_labels,
    class_names,
    encode,
    missing_labels,
)
from finetune.datasets.own.records import Records, alike, as_text, root_of
from finetune.datasets.own.splitting import Assigned, assign
from finetune.datasets.own.tables import read_npz, read_parquet
from finetune.errors import DataError, SettingError
from finetune.own import Allowance, OwnData
from finetune.signals import Float32s

NO_SUBJECTS = "subjects are not known: windows of one person may be in several splits"
BY_RECORD = "split by record: one person may be in several splits"


@dataclass(frozen=True)
class OwnReader:
    """Reader of one study's signals; see :class:`finetune.datasets.base.Reader`."""

    own: OwnData
    name: str = "own"
    folder: str = ""
    version: int = 2

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return every file that is read; ``root`` is the file or folder itself."""
        if root.is_dir():
            return subject_files(root, self.own)
        return manifest_files(root, self.own) if root.suffix.lower() == ".csv" else [root]

    def read(self, root: Path, task: str) -> WindowSet:
        """Read, cut, split and screen the windows; raises :class:`DataError` for every fault."""
        records = read_records(root, self.own)
        windows = cut(records, self.own)
        assigned = assign(records, self.own)
        return _window_set(records, windows, assigned, self.own)


def read_records(root: Path, own: OwnData) -> Records:
    """Return the records of a file or folder, by its layout."""
    if root.is_dir():
        return read_subjects(root, own) if own.label else read_classes(root, own)
    match root.suffix.lower():
        case ".npz":
            return read_npz(root, own)
        case ".parquet":
            return read_parquet(root, own)
        case ".csv":
            return read_manifest(root, own)
    raise SettingError(f"data.file {root}", "a .npz, .parquet or .csv, or a folder")


def settle(own: OwnData, data_dir: Path) -> OwnData:
    """Return ``own`` with what only the files say: classes, window length and rate."""
    root = root_of(own, data_dir)
    windows = cut(read_records(root, own), own)
    window_s = own.window_s or windows.signal.shape[2] / windows.rate_hz
    stated = own.rate_hz if own.rate_hz or own.resample_hz else windows.rate_hz
    return replace(
        own,
        subject=own.subject or (FOLDER if root.is_dir() and own.label else None),
        classes=class_names(windows.labels, own),
        window_s=window_s,
        rate_hz=stated,
        channels=windows.signal.shape[1],
    )


def _window_set(records: Records, windows: Cut, assigned: Assigned, own: OwnData) -> WindowSet:
    if windows.signal.shape[1] != own.channels:
        raise DataError(f"data.channels is {own.channels}", f"{windows.signal.shape[1]}, or no such key")
    names = [records.names[row] for row in windows.record]
    kept, notes = _usable(windows, names, own)
    order = _in_split_order(assigned, windows.record, kept)
    signal, record = windows.signal[order], windows.record[order]
    groups, split = assigned.groups[record], assigned.codes[record]
    names = [names[row] for row in order]
    labels = windows.labels[order]
    classes = class_names(windows.labels, own)
    encoded = encode(labels, own, classes, lambda row: names[row])
    notes += check_range(encoded.astype(np.float32), own, lambda row: names[row])
    notes += _screen(signal, encoded, names, groups, split, windows.rate_hz, own)
    notes += alike("subjects", groups.tolist()) if own.knows_subjects else []
    notes += check_training_labels(encoded[split == TRAIN], own, classes)
    if own.split.records is not None:
        notes = [BY_RECORD, *notes]
    elif not own.knows_subjects:
        notes = [NO_SUBJECTS, *notes]
    return WindowSet(
        signal=signal[:, 0] if signal.shape[1] == 1 else signal,
        labels=encoded,
        groups=groups,
        split=split,
        rate_hz=windows.rate_hz,
        records_found=len(records.names),
        records_expected=len(records.names),
        notes=(*windows.notes, *notes),
    )


def _usable(windows: Cut, names: Sequence[str], own: OwnData) -> tuple[NDArray[np.int64], list[str]]:
    """Return the rows without gaps and with a pulse of any kind; refuses what the study does not allow."""
    screen = screening.Screen(own)
    gaps = np.asarray(~np.isfinite(windows.signal).all(axis=(1, 2)))
    unlabelled = missing_labels(windows.labels, own)
    flat = np.asarray(~gaps & (np.ptp(windows.signal, axis=2) == 0).any(axis=1))
    faults: tuple[tuple[Allowance, NDArray[np.bool_], str], ...] = (
        ("gaps", gaps, "have missing samples (NaN, infinite)"),
        ("gaps", unlabelled, "have no label"),
        ("flat", flat, "are flat: one value throughout"),
    )
    for fault, rows, what in faults:
        if rows.any():
            first = int(np.flatnonzero(rows)[0])
            told = f" ({as_text(windows.labels[first][0])!r})" if rows is unlabelled else ""
            said = f"{int(rows.sum())} of {len(rows)} windows {what}{told}, the first {names[first]}"
            is_word = rows is unlabelled and own.kind == "classes"
            mend = "if it is a class, name it in data.classes" if is_word else ""
            screen.found(fault, said, "none", mend, "to leave them out")
    return np.flatnonzero(~gaps & ~unlabelled & ~flat), screen.notes


def _in_split_order(
    assigned: Assigned, record: NDArray[np.int64], kept: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Return the rows with units in the split's order: train, validation, test, each in its own."""
    rank = {unit: place for place, unit in enumerate(assigned.order)}
    of_kept = record[kept]
    codes = assigned.codes[of_kept].astype(np.int64)
    if assigned.is_drawn:
        ranks = np.array([rank[unit] for unit in assigned.groups[of_kept].tolist()])
        return kept[np.lexsort((kept, ranks, codes))]
    return kept[np.argsort(codes, kind="stable")]


def _screen(
    signal: Float32s,
    labels: NDArray[np.float32] | NDArray[np.int64],
    names: Sequence[str],
    groups: NDArray[np.str_],
    split: NDArray[np.int8],
    rate_hz: float,
    own: OwnData,
) -> list[str]:
    """Return the notes of all looks at the windows; raises :class:`DataError` for what is refused."""
    for code, name in ((TRAIN, "training"), (1, "validation"), (TEST, "test")):
        if not (split == code).any():
            raise DataError(f"no {name} window", "windows in all three splits", "check data.split")
    screen = screening.Screen(own)
    screening.check_units(screen, groups, split, "subject" if own.knows_subjects else "record")
    screening.check_duplicates(screen, signal, names, groups, split)
    screening.check_overlap(screen, signal, names, split)
    plausibility.check_scale(screen, signal, names)
    plausibility.check_clipping(screen, signal, names)
    plausibility.check_shape(screen, signal, own)
    plausibility.check_pulse(screen, signal, labels, rate_hz, own)
    return screen.notes
