"""BIDMC PPG and Respiration Dataset 1.0.0: 53 intensive-care recordings of 8 minutes at 125 Hz.

Source: Pimentel et al., IEEE TBME 64(8):1914-1923, 2016; PhysioNet ``bidmc/1.0.0``, ``bidmc_csv/``.
Windows, labels and split are those of CM-SSL for ``bidmc_hr`` and ``bidmc_rr``; ``bidmc_rr_30s`` is ours.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import WindowSet, split_codes
from finetune.errors import DataError, MissingDataError
from finetune.signals import cut_windows
from finetune.splits import reference_subject_split
from finetune.tables import TableFault, open_table

SUBJECTS = tuple(range(1, 54))
SPLIT = reference_subject_split(SUBJECTS)
RATE_HZ = 125
STRIDE_S = 2
DURATION_S = 480
SIGNAL_ROWS = RATE_HZ * DURATION_S + 1
NUMERIC_ROWS = DURATION_S + 1
LONGEST_PAUSE_S = 60
"""Breath marks that end earlier than this before the end are taken for a truncated file (chosen by us:
the longest pause of annotator 1 in the complete set is 17.7 s)."""

BREATHS = "breaths ann1 [signal sample no]"
MEND = "compare it with the publisher's, or remove it and fetch it again: hpo data get bidmc"

Labels = NDArray[np.float64]


@dataclass(frozen=True)
class LabelRule:
    """How one task labels its windows."""

    window_s: int
    table: str
    """Second file that is read, beside ``Signals``."""
    label: Callable[[Path, int, NDArray[np.float64], int], Labels]
    """(file, subject, window starts in s, window length in s) -> a label per window, NaN for none."""
    dropped_because: str


def heart_rates(path: Path, subject: int, starts_s: NDArray[np.float64], window_s: int) -> Labels:
    """Return the mean of the monitor's ``HR`` (bpm, 1 Hz) with time in [start, start + window)."""
    time_s, rate = _columns(path, subject, ("Time [s]", "HR"), NUMERIC_ROWS)
    labels = np.full(len(starts_s), np.nan)
    for i, start in enumerate(starts_s):
        inside = rate[(time_s >= start) & (time_s < start + window_s)]
        valid = inside[np.isfinite(inside)]
        if valid.size:
            labels[i] = valid.mean()
    return labels


def breath_counts(path: Path, subject: int, starts_s: NDArray[np.float64], window_s: int) -> Labels:
    """Return breath marks of annotator 1 in [start, start + window), per minute."""
    first, last = _marks_inside(path, subject, starts_s, window_s)[1:]
    return (last - first).astype(np.float64) * (60 / window_s)


def breath_intervals(path: Path, subject: int, starts_s: NDArray[np.float64], window_s: int) -> Labels:
    """Return 60 / mean interval (s) between the marks of annotator 1 in [start, start + window).

    NaN for a window with fewer than two marks, which has no interval.
    """
    marks, first, last = _marks_inside(path, subject, starts_s, window_s)
    labels = np.full(len(starts_s), np.nan)
    for i in np.flatnonzero(last - first >= 2):
        span_s = (marks[last[i] - 1] - marks[first[i]]) / RATE_HZ
        if span_s > 0:
            labels[i] = 60 * (last[i] - first[i] - 1) / span_s
    return labels


def _marks_inside(
    path: Path, subject: int, starts_s: NDArray[np.float64], window_s: int
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the sorted marks (sample numbers), and for each window the first inside and the first after."""
    (column,) = _columns(path, subject, (BREATHS,))
    marks = np.sort(column[np.isfinite(column)])  # subjects 6 and 20 have one mark out of order each
    if marks[-1] < (DURATION_S - LONGEST_PAUSE_S) * RATE_HZ:
        found = f"marks end at {marks[-1] / RATE_HZ:.0f} s"
        raise _fault(path, subject, BREATHS, found, f"breaths until about {DURATION_S} s")
    first = np.searchsorted(marks, starts_s * RATE_HZ, "left")
    last = np.searchsorted(marks, (starts_s + window_s) * RATE_HZ, "left")
    return marks, first, last


RULES = {
    "bidmc_hr": LabelRule(10, "Numerics", heart_rates, "no valid HR"),
    "bidmc_rr": LabelRule(10, "Breaths", breath_counts, "no count"),
    "bidmc_rr_30s": LabelRule(30, "Breaths", breath_intervals, "fewer than two breath marks"),
}


@dataclass(frozen=True)
class Bidmc:
    """Reader of the CSV form, plain or gzipped."""

    name: str = "bidmc"
    folder: str = "bidmc"
    version: int = 1

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return the two files of every subject that is there; see :class:`finetune.datasets.base.Reader`.

        Raises :class:`DataError` for a subject with only one of the two.
        """
        found = [path for pair in self._pairs(root, task).values() for path in pair]
        return sorted(found)

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the windows of ``task``, subjects in the split's order; raises :class:`DataError`."""
        rule, pairs = RULES[task], self._pairs(root, task)
        parts = [_read_subject(subject, *pairs[subject], rule) for subject in SPLIT.all if subject in pairs]
        counts = [len(part.labels) for part in parts]
        absent = [subject for subject in SUBJECTS if subject not in pairs]
        notes = [f"subjects not in the folder: {', '.join(map(str, absent))}"] if absent else []
        return WindowSet(
            signal=np.concatenate([part.signal for part in parts]),
            labels=np.concatenate([part.labels for part in parts])[:, None],
            groups=np.repeat([str(part.subject) for part in parts], counts),
            split=np.repeat(split_codes([part.subject for part in parts], SPLIT), counts),
            rate_hz=RATE_HZ,
            records_found=len(pairs),
            records_expected=len(SUBJECTS),
            notes=tuple(notes + [part.note for part in parts if part.note]),
        )

    def _pairs(self, root: Path, task: str) -> dict[int, tuple[Path, Path]]:
        """Return signals and label file of each subject that has any."""
        kinds = ("Signals", RULES[task].table)
        found = {subject: [_find(root, subject, kind) for kind in kinds] for subject in SUBJECTS}
        if not any(path for pair in found.values() for path in pair):
            raise MissingDataError(
                f"no BIDMC recording in {root}",
                "files such as bidmc_csv/bidmc_01_Signals.csv (or .csv.gz)",
                "to fetch it: hpo data get bidmc",
            )
        pairs = {}
        for subject, (signals, table) in found.items():
            if signals and table:
                pairs[subject] = (signals, table)
            elif signals or table:
                kind = kinds[0] if table else kinds[1]
                what = f"bidmc_csv/bidmc_{subject:02d}_{kind}.csv of subject {subject} is missing"
                raise DataError(what, f"it in {root}", "to fetch it: hpo data get bidmc")
        return pairs


def read_channels(root: Path, subject: int, names: Sequence[str]) -> list[NDArray[np.float32]]:
    """Return whole channels (T,) of one subject's recording at 125 Hz, found by stripped column name.

    Raises :class:`MissingDataError` when the recording is not in ``root``, :class:`DataError` when broken.
    """
    path = _find(root, subject, "Signals")
    if path is None:
        raise MissingDataError(
            f"no signals of BIDMC subject {subject} in {root}", "", "to fetch them: hpo data get bidmc"
        )
    return [column.astype(np.float32) for column in _columns(path, subject, names, SIGNAL_ROWS)]


@dataclass(frozen=True)
class _SubjectWindows:
    subject: int
    signal: NDArray[np.float32]
    labels: NDArray[np.float32]
    note: str


def _read_subject(subject: int, signals: Path, table: Path, rule: LabelRule) -> _SubjectWindows:
    """Return the valid windows of one subject, with a note when some had to be dropped."""
    pleth = _pleth(signals, subject)
    windows = cut_windows(pleth, rule.window_s * RATE_HZ, STRIDE_S * RATE_HZ)
    starts_s = STRIDE_S * np.arange(len(windows), dtype=np.float64)
    labels = rule.label(table, subject, starts_s, rule.window_s)
    has_label, has_signal = np.isfinite(labels), np.isfinite(windows).all(axis=1)
    keep = has_label & has_signal
    reasons = [rule.dropped_because] * (not has_label.all()) + ["gaps in PLETH"] * (not has_signal.all())
    dropped = f"{np.sum(~keep)} of {len(keep)} windows dropped ({', '.join(reasons)})"
    note = f"subject {subject}: {dropped}{'' if keep.any() else ', none left'}" if reasons else ""
    return _SubjectWindows(subject, windows[keep], labels[keep].astype(np.float32), note)


def _pleth(path: Path, subject: int) -> NDArray[np.float32]:
    (pleth,) = _columns(path, subject, ("PLETH",), SIGNAL_ROWS)
    if np.nanmin(pleth) == np.nanmax(pleth):
        raise _fault(path, subject, "PLETH", f"is flat (always {np.nanmin(pleth):g})", "a pulse wave")
    return pleth.astype(np.float32)


def _columns(
    path: Path, subject: int, names: Sequence[str], rows: int | None = None
) -> list[NDArray[np.float64]]:
    """Return columns found by stripped name; raises :class:`DataError` for each way a file can be broken."""
    try:
        with open_table(path) as table:
            for name in names:
                if name not in table.names:
                    found = ", ".join(table.names)
                    raise _fault(path, subject, name, "is missing", f"one of its columns {found}")
            columns = table.numbers(names)
    except TableFault as error:
        what, expected = f"cannot be read ({error.what})", error.expected
        raise _fault(path, subject, names[-1], what, expected) from error
    count = len(columns[0])
    if rows is not None and count != rows:
        raise _fault(path, subject, names[-1], f"has {count} rows", f"{rows} (is the file truncated?)")
    for name, values in zip(names, columns, strict=True):
        if not np.isfinite(values).any():
            raise _fault(path, subject, name, "holds no number (empty or all NaN)", "values")
    return columns


def _find(root: Path, subject: int, kind: str) -> Path | None:
    plain = root / "bidmc_csv" / f"bidmc_{subject:02d}_{kind}.csv"
    candidates = (plain, plain.with_name(plain.name + ".gz"))
    return next((path for path in candidates if path.is_file()), None)


def _fault(path: Path, subject: int, column: str, what: str, expected: str) -> DataError:
    return DataError(f"{path}: column {column} of subject {subject} {what}", expected, MEND)


READER = Bidmc()
