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

from finetune.errors import Said, UserError, printable

__all__ = [
    "HpoError",
    "Interrupted",
    "LostDatabaseError",
    "MismatchError",
    "Said",
    "SpecError",
    "StorageError",
    "UnknownStudyError",
    "UsageError",
    "UserError",
    "apart",
    "at",
    "printable",
]


class HpoError(UserError):
    """A fault that the user can mend, told in three parts on one line."""


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
        """Return the error of a database with searches of these ``names``; the nearest are offered."""
        from difflib import get_close_matches

        near = get_close_matches(name, names, n=2)
        hint = Said("; did you mean {near}?", near=Said.listed(near, " or ")) if near else ""
        known = ", ".join(names) or Said("none")
        there = Said("one of its studies: {names}{nearest}", names=known, nearest=hint)
        return cls(Said("the database has no study {name!r}", name=name), there, "type: hpo studies")


class UsageError(HpoError):
    """A value on the command line is out of its range, or two contradict each other."""


def at(file: object, line: int, fault: str) -> Said:
    """Return what is wrong in a line of a file."""
    return Said("{file}:{line}: {fault}", file=file, line=line, fault=Said.of(fault))


def apart(key: str, here: object, there: object) -> Said:
    """Return that a thing is one here and another in a study that was made elsewhere or before."""
    return Said("{key}: {here} here, {there} there", key=key, here=here, there=there)


class Interrupted(Exception):  # noqa: N818 - an event, not an error
    """A person or the system asked for the end; what was under way has been given back."""
