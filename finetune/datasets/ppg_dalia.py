"""PPG-DaLiA: 15 people through about 2.5 hours of daily life, wrist PPG at 64 Hz beside a chest belt.

Source: Reiss et al., Sensors 19(14):3079, 2019; UCI repository 495, ``PPG_FieldStudy/S1/S1.pkl`` to S15.
Windows, labels and splits are those of CM-SSL (``data_preprocessing.ipynb``); the two tasks list the
subjects in different orders before the same shuffle, so their splits differ.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import WindowSet, split_codes
from finetune.datasets.wrist_pickle import column, demand, find_pickles, read_person, wrist_pulse
from finetune.signals import cut_windows
from finetune.splits import SubjectSplit, reference_subject_split

SUBJECTS = tuple(f"S{number}" for number in range(1, 16))
BVP_HZ = 64
RESP_HZ = 700
RESP_BAND_HZ = (0.08, 2.0)
BREATHING_HZ = (0.1, 0.5)
"""6 to 30 breaths/min: where the peak of the spectrum is looked for."""
CHUNK = 256
"""Respiration windows filtered at a time: 28 MB in float64."""
MEND = "remove it and fetch it again: hpo data get ppg_dalia"

Float64s = NDArray[np.float64]
Labels = Callable[[dict[Any, Any], Path], Float64s]


def heart_rates(content: dict[Any, Any], path: Path) -> Float64s:
    """Return the file's own heart rate (bpm, from the chest ECG) of each 8 s window, shifted by 2 s."""
    return column(content, ("label",), path, MEND)


def breathing_frequencies(content: dict[Any, Any], path: Path) -> Float64s:
    """Return the respiratory frequency in Hz of each 19.53 s window, shifted by 1 s; NaN where there is none.

    The highest peak in 0.1 to 0.5 Hz of the Welch spectrum (one Hamming segment) of chest ``Resp``, after a
    zero-phase second-order Butterworth of 0.08 to 2 Hz on the window alone. A window is 13,671 samples at
    700 Hz, so labels are multiples of 0.0512 Hz. A window with gaps, or without any movement, has none.
    """
    resp = column(content, ("signal", "chest", "Resp"), path, MEND)
    length = int(RULES["ppg_dalia_rr"].length / BVP_HZ * RESP_HZ)
    if resp.size < length:
        return np.empty(0)
    windows = np.lib.stride_tricks.sliding_window_view(resp, length)[::RESP_HZ]
    parts = [_peak_frequencies(windows[start : start + CHUNK]) for start in range(0, len(windows), CHUNK)]
    return np.concatenate(parts)


def _peak_frequencies(windows: Float64s) -> Float64s:
    """Return the peak (Hz) of each of the windows (N, T) of respiration at 700 Hz."""
    from scipy.signal import butter, filtfilt, welch  # 0.5 s, and only the first preparation needs it

    numerator, denominator = butter(2, np.array(RESP_BAND_HZ) / (0.5 * RESP_HZ), btype="band")
    filtered = filtfilt(numerator, denominator, windows, axis=1)
    frequencies, power = welch(filtered, RESP_HZ, window="hamming", nperseg=windows.shape[1], axis=1)
    inside = (frequencies >= BREATHING_HZ[0]) & (frequencies <= BREATHING_HZ[1])
    peaks = np.asarray(frequencies[inside][power[:, inside].argmax(axis=1)], np.float64)
    has_breathing = np.isfinite(windows).all(axis=1) & (np.ptp(windows, axis=1) > 0)
    return np.where(has_breathing, peaks, np.nan)


@dataclass(frozen=True)
class WindowRule:
    """How one task cuts and labels its windows, and splits its subjects."""

    length: int
    """Samples of BVP."""
    stride: int
    """Samples of BVP."""
    labels: Labels
    dropped_because: str
    split: SubjectSplit[str]


RULES = {
    # The reference finds heart-rate files by a sorted glob (S1, S10, ..., S9) and the others by counting.
    "ppg_dalia_hr": WindowRule(
        512, 128, heart_rates, "no heart rate", reference_subject_split(sorted(SUBJECTS))
    ),
    "ppg_dalia_rr": WindowRule(
        1250, 64, breathing_frequencies, "no respiration", reference_subject_split(SUBJECTS)
    ),
}


@dataclass(frozen=True)
class _Recording:
    """Windows of one subject, kept as one recording until all are counted."""

    subject: str
    windows: NDArray[np.float32]
    """(N, T) view of the whole BVP."""
    labels: Float64s
    """(N,) NaN where there is none."""
    keep: NDArray[np.bool_]
    note: str

    @property
    def kept_labels(self) -> NDArray[np.float32]:
        """Labels of the windows that are kept."""
        return self.labels[self.keep].astype(np.float32)


@dataclass(frozen=True)
class PpgDalia:
    """Reader of the pickles, with a restricted unpickler."""

    name: str = "ppg_dalia"
    folder: str = "ppg_dalia"
    version: int = 1

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return the pickles that are there; see :class:`finetune.datasets.base.Reader`."""
        return sorted(_paths(root).values())

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the windows of ``task``, subjects in the split's order; raises :class:`DataError`."""
        rule, paths = RULES[task], _paths(root)
        present = [subject for subject in rule.split.all if subject in paths]
        recordings = [_read_subject(subject, paths[subject], rule) for subject in present]
        counts = [int(recording.keep.sum()) for recording in recordings]
        absent = [subject for subject in SUBJECTS if subject not in paths]
        notes = [f"subjects not in the folder: {', '.join(absent)}"] if absent else []
        return WindowSet(
            signal=_gather(recordings, sum(counts), rule.length),
            labels=np.concatenate([each.kept_labels for each in recordings])[:, None],
            groups=np.repeat(present, counts),
            split=np.repeat(split_codes(present, rule.split), counts),
            rate_hz=BVP_HZ,
            records_found=len(present),
            records_expected=len(SUBJECTS),
            notes=tuple(notes + [each.note for each in recordings if each.note]),
        )


def _paths(root: Path) -> dict[str, Path]:
    return find_pickles(root, "PPG_FieldStudy", SUBJECTS, "ppg_dalia", "PPG-DaLiA")


def _read_subject(subject: str, path: Path, rule: WindowRule) -> _Recording:
    """Return the windows of one subject, with a note when some have to be dropped."""
    content = read_person(path, subject, MEND)
    pulse = wrist_pulse(content, path, MEND)
    windows, labels = (
        cut_windows(pulse, rule.length, rule.stride),
        rule.labels(content, path),
    )
    count = min(len(windows), len(labels))
    demand(count > 0, path, f"has {len(windows)} windows and {len(labels)} labels", "some of both", MEND)
    windows, labels = windows[:count], labels[:count]
    has_label, has_signal = np.isfinite(labels), np.isfinite(windows).all(axis=1)
    reasons = [rule.dropped_because] * (not has_label.all()) + ["gaps in BVP"] * (not has_signal.all())
    dropped = f"{np.sum(~(has_label & has_signal))} of {count} windows dropped ({', '.join(reasons)})"
    return _Recording(
        subject, windows, labels, has_label & has_signal, f"subject {subject}: {dropped}" if reasons else ""
    )


def _gather(recordings: Sequence[_Recording], count: int, length: int) -> NDArray[np.float32]:
    """Return the kept windows of all subjects (``count``, ``length``), written once into one array."""
    signal, first = np.empty((count, length), np.float32), 0
    for recording in recordings:
        kept = np.flatnonzero(recording.keep)
        signal[first : first + len(kept)] = recording.windows[kept]
        first += len(kept)
    return signal


READER = PpgDalia()
