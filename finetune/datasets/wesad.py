"""WESAD: 15 people through about 100 minutes of rest, stress and amusement; wrist PPG at 64 Hz.

Source: Schmidt et al., ICMI 2018; ``WESAD/S2/S2.pkl`` to S17 (S1 and S12 do not exist). Windows of 60 s as
there, every 30 s (chosen by us: theirs move by 0.25 s); a window counts where its whole minute has one of the
three labels that the paper tells apart: 1 baseline, 2 stress, 3 amusement.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import WindowSet, split_codes
from finetune.datasets.wrist_pickle import column, demand, find_pickles, read_person, wrist_pulse
from finetune.signals import cut_windows
from finetune.splits import reference_subject_split
from finetune.tasks import WESAD_CLASSES

SUBJECTS = tuple(f"S{number}" for number in (*range(2, 12), *range(13, 18)))
BVP_HZ, LABEL_HZ = 64, 700
WINDOW_S, STRIDE_S = 60, 30
FIRST_LABEL = 1
"""Of the classes, which follow one another. 0 is between conditions, 4 meditation, 5 to 7 say nothing."""
MEND = "remove it and fetch it again: hpo data get wesad"


@dataclass(frozen=True)
class Wesad:
    """Reader of the pickles, with a restricted unpickler."""

    name: str = "wesad"
    folder: str = "wesad"
    version: int = 1

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return the pickles that are there; see :class:`finetune.datasets.base.Reader`."""
        return sorted(_paths(root).values())

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the windows of all subjects, in the split's order; raises :class:`DataError`."""
        split, paths = reference_subject_split(SUBJECTS), _paths(root)
        present = [subject for subject in split.all if subject in paths]
        read = [_read_subject(subject, paths[subject]) for subject in present]
        counts = [len(labels) for _, labels in read]
        absent = [subject for subject in SUBJECTS if subject not in paths]
        return WindowSet(
            signal=np.concatenate([signal for signal, _ in read]),
            labels=np.concatenate([labels for _, labels in read]),
            groups=np.repeat(present, counts),
            split=np.repeat(split_codes(present, split), counts),
            rate_hz=BVP_HZ,
            records_found=len(present),
            records_expected=len(SUBJECTS),
            notes=(f"subjects not in the folder: {', '.join(absent)}",) if absent else (),
        )


def _paths(root: Path) -> dict[str, Path]:
    return find_pickles(root, "WESAD", SUBJECTS, "wesad", "WESAD")


def _read_subject(subject: str, path: Path) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return the windows (N, T) of one subject that lie in one condition, and their classes (N,)."""
    content = read_person(path, subject, MEND)
    pulse = wrist_pulse(content, path, MEND)
    conditions = column(content, ("label",), path, MEND)
    signal = cut_windows(pulse, WINDOW_S * BVP_HZ, STRIDE_S * BVP_HZ)
    spans = cut_windows(conditions.astype(np.float32), WINDOW_S * LABEL_HZ, STRIDE_S * LABEL_HZ)
    count = min(len(signal), len(spans))
    signal, first = signal[:count], spans[:count, :1]
    is_one = (spans[:count] == first).all(axis=1) & np.isin(
        first[:, 0], FIRST_LABEL + np.arange(len(WESAD_CLASSES))
    )
    keep = is_one & np.isfinite(signal).all(axis=1)
    demand(bool(keep.any()), path, "has no minute in one condition", "some in 1, 2 or 3", MEND)
    return signal[keep], first[keep, 0].astype(np.int64) - FIRST_LABEL


READER = Wesad()
