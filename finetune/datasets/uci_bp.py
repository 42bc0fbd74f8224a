"""UCI cuff-less blood pressure: 5 s of PPG at 125 Hz, in the cleaned form or the raw one.

The cleaned form is figshare 20496258 (Gonzalez et al., Scientific Data 10:149, 2023, repository
inventec-ai-center/bp-benchmark): ``uci2_dataset/signal_fold_0.mat`` to ``_2``, MATLAB 5, one row a window in
``patient, trial, SP, DP, signal, abp_signal``. The raw form is :mod:`finetune.datasets.uci_raw`; it is read
where the cleaned one is not there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import TEST, TRAIN, VALIDATION, WindowSet
from finetune.datasets.uci_raw import RATE_HZ, SAMPLES, read_raw
from finetune.errors import DataError, MissingDataError
from finetune.file_kinds import why_unreadable

FOLDS = (TRAIN, VALIDATION, TEST)
"""The split of files 0, 1 and 2, in the order in which the reference protocol names them. The benchmark's own
code (``data_splitting.py``, ``share_dataset.py``) writes its test part (Part_4) first, validation (Part_3)
second and training (Part_1, Part_2) last. Which order the published numbers of CM-SSL have is not known: its
converter is lost. Decided by us: the protocol's, and every summary says so."""
ORDER = (
    "files 0, 1 and 2 train, validate and test, as the reference protocol names them; "
    "the benchmark that published them trains on file 2 and tests on file 0"
)
MEND = "compare it with the publisher's, or remove it and fetch it again: hpo data get uci_bp"
PRESSURES = {"uci_sbp": "SP", "uci_dbp": "DP"}


@dataclass(frozen=True)
class UciBp:
    """Reader of both forms."""

    name: str = "uci_bp"
    folder: str = "uci_bp"
    version: int = 2

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return the files of the cleaned form, or of the raw one where there is none of the cleaned."""
        found = list(_fold_paths(root).values()) or _part_paths(root)
        if not found:
            raise MissingDataError(
                f"no UCI blood pressure file in {root}",
                "uci2_dataset/signal_fold_0.mat to _2, or Part_1.mat to Part_4.mat",
                "to fetch them: hpo data get uci_bp",
            )
        return sorted(found)

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the windows of ``task``; raises :class:`DataError` naming file and variable or cell."""
        paths = self.files(root, task)
        folds = _fold_paths(root)
        if folds:
            return _read_folds(folds, PRESSURES[task])
        return read_raw(paths, list(PRESSURES).index(task))


@dataclass(frozen=True)
class _Fold:
    """The windows of one file that have a signal and a label."""

    signal: NDArray[np.float32]
    labels: NDArray[np.float32]
    patients: NDArray[np.str_]
    note: str


def _read_folds(paths: dict[int, Path], variable: str) -> WindowSet:
    folds = {number: _read_fold(path, variable) for number, path in paths.items()}
    counts = [len(fold.labels) for fold in folds.values()]
    absent = [f"signal_fold_{number}.mat" for number in range(len(FOLDS)) if number not in folds]
    groups, shared = _group_names(folds)
    notes = [f"files not in the folder: {', '.join(absent)}"] * bool(absent)
    notes += [fold.note for fold in folds.values() if fold.note]
    notes += [f"{shared} names of patients are in more than one file"] * bool(shared)
    return WindowSet(
        signal=np.concatenate([fold.signal for fold in folds.values()]),
        labels=np.concatenate([fold.labels for fold in folds.values()])[:, None],
        groups=groups,
        split=np.repeat(np.array([FOLDS[number] for number in folds], np.int8), counts),
        rate_hz=RATE_HZ,
        records_found=len(folds),
        records_expected=len(FOLDS),
        notes=(*notes, ORDER, "cleaned form: whether its files share patients cannot be verified"),
    )


def _group_names(folds: dict[int, _Fold]) -> tuple[NDArray[np.str_], int]:
    """Return the group of each window, and how many patients' names are in more than one file.

    ``patient`` is a cell of the raw form (such as Part_1_12). Where files share names, the file's number is
    put before all of them, so that no group is in two splits.
    """
    names = [name for fold in folds.values() for name in np.unique(fold.patients)]
    shared = len(names) - len(set(names))
    prefixes = {number: f"fold {number} " if shared else "" for number in folds}
    return np.concatenate([np.char.add(prefixes[n], fold.patients) for n, fold in folds.items()]), shared


def _read_fold(path: Path, variable: str) -> _Fold:
    """Return one file; raises :class:`DataError` naming the variable that is missing or misshapen."""
    content = _variables(path, ["patient", variable, "signal"])
    signal = np.asarray(content["signal"])
    if signal.ndim != 2 or signal.shape[1] != SAMPLES or signal.dtype.kind not in "fiu":
        raise _fault(path, "signal", f"has the shape {signal.shape}", f"rows of {SAMPLES} samples")
    rows = len(signal)
    pressure = np.asarray(content[variable])
    if pressure.size != rows or pressure.dtype.kind not in "fiu":
        raise _fault(path, variable, f"has the shape {pressure.shape}", f"{rows} numbers")
    patients = np.asarray(content["patient"]).astype(str)
    if patients.size != rows:
        raise _fault(path, "patient", f"has the shape {patients.shape}", f"{rows} names")
    keep = np.isfinite(signal).all(axis=1) & np.isfinite(pressure.ravel())
    dropped = f"{path.name}: {np.sum(~keep)} of {rows} windows dropped (gaps in signal or {variable})"
    return _Fold(
        signal=signal[keep].astype(np.float32),
        labels=pressure.ravel()[keep].astype(np.float32),
        patients=np.char.strip(patients.ravel())[keep],
        note="" if keep.all() else dropped,
    )


def _variables(path: Path, names: Sequence[str]) -> dict[str, Any]:
    """Return variables of a MATLAB 5 file, and leave the others where they are."""
    from scipy.io import loadmat  # 0.5 s, and only the first preparation needs it

    try:
        content: dict[str, Any] = loadmat(path, variable_names=list(names))
    except Exception as error:  # scipy.io promises no list of what a broken file raises
        reason = why_unreadable(path, error, "MATLAB")
        raise DataError(f"{path} cannot be read ({reason})", "a complete MATLAB 5 file", MEND) from error
    for name in names:
        if name not in content:
            raise _fault(path, name, "is missing", f"the variables {', '.join(names)}")
    return content


def _fault(path: Path, variable: str, what: str, expected: str) -> DataError:
    return DataError(f"{path}: {variable} {what}", expected, MEND)


def _fold_paths(root: Path) -> dict[int, Path]:
    paths = {number: root / "uci2_dataset" / f"signal_fold_{number}.mat" for number in range(len(FOLDS))}
    return {number: path for number, path in paths.items() if path.is_file()}


def _part_paths(root: Path) -> list[Path]:
    paths = [root / f"Part_{number}.mat" for number in range(1, 5)]
    return [path for path in paths if path.is_file()]


READER = UciBp()
