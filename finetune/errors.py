"""What can go wrong in finetune, and whose fault it is.

    FinetuneError
    ├── DataError            a file of a data set is missing, broken or does not hold what it must
    │   └── MissingDataError   the data set (or a part that the task needs) is not in the data folder
    ├── CheckpointError      weights or an epoch checkpoint do not fit the model that should load them
    ├── CodeError            code of a user's own may not run here, or does not do what it must
    ├── UnknownNameError     a task, loss, backbone or data set of that name does not exist
    └── SettingError         a value is out of its range, or two settings contradict each other

    DeviceLostError      the device failed, and this process cannot use it any more (no fault of the user)

All :class:`FinetuneError` are the user's to mend (exit status 2); anything else that is raised is a fault
of ours, such as :class:`SealedError`: a search that reached for the test split.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class FinetuneError(Exception):
    """A fault that the user can mend, told in three parts on one line.

    ``what`` is wrong, with the value; what was ``expected``; what to type or do ``next``.
    """

    def __init__(self, what: str, expected: str = "", next_step: str = "") -> None:
        self.what, self.expected, self.next_step = what, expected, next_step
        parts = [what, f"expected {expected}" if expected else "", next_step]
        super().__init__(_printable("; ".join(part for part in parts if part)))

    def __reduce__(self) -> tuple[type[FinetuneError], tuple[str, str, str]]:
        """Survive the way between two processes (the default would pass the joined line only)."""
        return type(self), (self.what, self.expected, self.next_step)


def _printable(text: str) -> str:
    """Return ``text`` on one line, with what could steer a terminal escaped: names come out of files."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class DeviceLostError(Exception):
    """The device failed under a run, and this process can compute on it no more: nobody's setting is wrong.

    Another process may go on; what was under way goes on from its last epoch.
    """


class DataError(FinetuneError):
    """A file of a data set is broken, or does not hold what it must: names file, column and subject."""


class MissingDataError(DataError):
    """The data set, or a part that the task needs, is not in the data folder."""


class CheckpointError(FinetuneError):
    """Weights, or an epoch checkpoint, do not fit the model that should load them: names every key."""


class CodeError(FinetuneError):
    """A study names code that this process may not run, that is not the study's, or that fails."""


class UnknownNameError(FinetuneError):
    """No task, loss, backbone or data set has that name; the nearest names are offered."""

    @classmethod
    def of(cls, kind: str, name: str, known: Iterable[str]) -> UnknownNameError:
        """Return the error for ``name``, with the nearest of the ``known`` names of that ``kind``."""
        names = sorted(known)
        near = get_close_matches(name, names, n=2, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else ""
        return cls(f"unknown {kind} {name!r}", f"one of {', '.join(names)}", hint)


class SettingError(FinetuneError):
    """A value is out of its range, or two settings contradict each other."""


class SealedError(RuntimeError):
    """The test split was asked for while a search works in this process: never the user's fault."""
