"""What can go wrong in hpo, and whose fault it is.

    HpoError
    ├── SpecError         a study file is wrong: every fault at once, each with its line
    ├── MismatchError     a database or study was made with another spec, data, code or schema version
    ├── StorageError      the database cannot be opened, reached or written
    │   └── LostDatabaseError  its file was deleted or replaced while it was in use
    ├── UnknownStudyError no study of that name is shipped, is a file, or is in the database
    └── UsageError        a value on the command line is out of its range, or two contradict each other
    Interrupted           a person or the system asked for the end (not a fault; exit status 130)

All :class:`HpoError` are the user's to mend (exit status 2); anything else that is raised is ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self


class HpoError(Exception):
    """A fault that the user can mend, told in three parts on one line.

    ``what`` is wrong, with the value; what was ``expected``; what to type or do ``next``.
    """

    def __init__(self, what: str, expected: str = "", next_step: str = "") -> None:
        self.what, self.expected, self.next_step = what, expected, next_step
        parts = [what, f"expected {expected}" if expected else "", next_step]
        super().__init__("; ".join(part for part in parts if part))

    def __reduce__(self) -> tuple[type[HpoError], tuple[str, str, str]]:
        """Survive the way between two processes (the default would pass the joined line only)."""
        return type(self), (self.what, self.expected, self.next_step)


class SpecError(HpoError):
    """A study file is wrong; the message lists every fault, each with its line and the nearest name."""


class MismatchError(HpoError):
    """A database or study was made with another spec, data, code or schema version: says what differs."""


class StorageError(HpoError):
    """The database cannot be opened, reached or written; the password in its URL is never shown."""


class LostDatabaseError(StorageError):
    """The SQLite file was deleted or replaced while it was in use: what is written now would be lost."""


class UnknownStudyError(HpoError):
    """No study of that name is shipped, is a file, or is in the database."""

    @classmethod
    def among(cls, name: str, names: Sequence[str]) -> Self:
        """Return the error of a database that holds the studies of these ``names``."""
        there = ", ".join(names) or "none"
        return cls(f"the database has no study {name!r}", f"one of its studies: {there}", "type: hpo studies")


class UsageError(HpoError):
    """A value on the command line is out of its range, or two contradict each other."""


class Interrupted(Exception):  # noqa: N818 - an event, not an error
    """A person or the system asked for the end; what was under way has been given back."""
