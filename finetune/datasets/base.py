"""What every reader of a public data set gives: windows with labels, independent units and a split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from finetune.splits import Subject, SubjectSplit

TRAIN, VALIDATION, TEST = 0, 1, 2
"""Codes of :attr:`WindowSet.split`."""
SPLIT_NAMES = ("train", "validation", "test")


@dataclass(frozen=True)
class WindowSet:
    """All windows of one task at the data set's own rate, before any preparation."""

    signal: NDArray[np.float32]
    """(N, T) one channel, or (N, C, T) several; no NaN."""
    labels: NDArray[np.float32] | NDArray[np.int64]
    """(N, outputs) float32 in label units (regression) or 0/1 (multi-label); (N,) int64 for classes."""
    groups: NDArray[np.str_]
    """(N,) name of the independent unit (subject, patient, record or block) of each window. Units first
    appear in the split's own order: ``train_subjects=n`` takes the first n that train."""
    split: NDArray[np.int8]
    """(N,) TRAIN, VALIDATION or TEST of the reference protocol; no group is in two of them."""
    rate_hz: float
    records_found: int
    records_expected: int
    """Of the publisher's complete set, in the data set's own unit (subjects, records or files)."""
    notes: tuple[str, ...] = ()
    """One sentence for each thing that was dropped or mended, naming file, column and subject; where
    records are missing, the first note says which."""


def split_codes(subjects: Sequence[Subject], split: SubjectSplit[Subject]) -> NDArray[np.int8]:
    """Return the split's code of each subject, as :attr:`WindowSet.split` has them."""
    codes = dict.fromkeys(split.train, TRAIN) | dict.fromkeys(split.validation, VALIDATION)
    return np.array([codes.get(subject, TEST) for subject in subjects], np.int8)


def is_hidden(inside: PurePath) -> bool:
    """Return whether a path inside a data set's folder or archive is none of its data.

    What begins with a dot is hidden: a Mac writes ``._NAME`` beside each file of a foreign disk (and packs it
    below ``__MACOSX``), notebooks keep ``.ipynb_checkpoints``, rsync writes ``.NAME.XXXXXX``.
    """
    return any(part.startswith(".") or part == "__MACOSX" for part in inside.parts)


def data_files(folder: Path) -> Iterator[Path]:
    """Yield all files in a folder and below that are not hidden, in no order."""
    for path in folder.rglob("*"):
        if not is_hidden(path.relative_to(folder)) and path.is_file():
            yield path


class LeadReader(Protocol):
    """A reader of a set with several leads that are known by name."""

    all_leads: tuple[str, ...]

    def with_leads(self, leads: tuple[str, ...]) -> Reader:
        """Return a reader of these leads, (N, C, T) in their order; one lead gives (N, T)."""
        ...


class Reader(Protocol):
    """One public data set: original files in, :class:`WindowSet` out. One module, one instance each."""

    name: str
    """As in :attr:`finetune.tasks.Task.dataset`."""
    folder: str
    """Its folder in the data folder, such as ``bidmc``."""
    version: int
    """Raised with every change of this reader that changes its output: part of the cache's key."""

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return the files that ``task`` is read from, sorted; ``root`` is the data set's own folder.

        Raises :class:`finetune.errors.MissingDataError` when the set is not there. A partial set is
        returned as it is.
        """
        ...

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the windows of ``task``.

        Raises :class:`finetune.errors.DataError` naming file, column and subject for a broken file.
        """
        ...
