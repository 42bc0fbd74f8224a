"""What can go wrong in finetune, and whose fault it is.

    FinetuneError            as hpo's own, a UserError
    ├── DataError            a file of a data set is missing, broken or does not hold what it must
    │   └── MissingDataError   the data set (or a part that the task needs) is not in the data folder
    ├── CheckpointError      weights or an epoch checkpoint do not fit the model that should load them
    ├── CodeError            code of a user's own may not run here, or does not do what it must
    ├── UnknownNameError     a task, loss, backbone or data set of that name does not exist
    └── SettingError         a value is out of its range, or two settings contradict each other
        └── NoDeviceError      the GPU is not there, or CUDA cannot open it

    DeviceLostError      the device failed, and this process cannot use it any more (no fault of the user)

All :class:`FinetuneError` are the user's to mend (exit status 2); anything else that is raised is a fault
of ours, such as :class:`SealedError`: a search that reached for the test split.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from difflib import get_close_matches
from functools import partial
from typing import Self


class Said(str):
    """A sentence in English that keeps apart what was put into it, so that another language can say it.

    ``Said("no loss {name!r}", name=name)`` reads as ``f"no loss {name!r}"``; without values a sentence stands
    as it is, braces and all.
    """

    sentence: str
    values: dict[str, object]

    def __new__(cls, sentence: str, /, **values: object) -> Said:
        """Return ``sentence`` with ``values`` put in; of what is neither text nor number the text is kept."""
        said = super().__new__(cls, sentence.format(**values) if values else sentence)
        said.sentence = sentence
        said.values = {
            name: value if isinstance(value, str | int | float) else str(value)
            for name, value in values.items()
        }
        return said

    @classmethod
    def of(cls, text: str) -> Said:
        """Return a text that may be one already."""
        return text if isinstance(text, Said) else cls(text)

    @classmethod
    def listed(cls, parts: Iterable[str], between: str = ", ") -> Said:
        """Return several, one after the other."""
        named = {f"part{place}": cls.of(part) for place, part in enumerate(parts)}
        return cls(between.join(f"{{{name}}}" for name in named), **named)

    def __reduce__(self) -> tuple[Callable[[], Said], tuple[()]]:
        """Survive the way between two processes, in parts."""
        return partial(Said, self.sentence, **self.values), ()


class UserError(Exception):
    """A fault that the user can mend, told in three parts on one line, each plain or a :class:`Said`.

    ``what`` is wrong, with the value; what was ``expected``; what to type or do ``next``.
    """

    def __init__(self, what: str, expected: str = "", next_step: str = "") -> None:
        self.what, self.expected, self.next_step = what, expected, next_step
        wanted = Said("expected {expected}", expected=Said.of(expected)) if expected else ""
        self.line = Said.listed((part for part in (what, wanted, next_step) if part), "; ")
        super().__init__(self.line)

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        """Survive the way between two processes (the default would pass the joined line only)."""
        return type(self), (self.what, self.expected, self.next_step)


class FinetuneError(UserError):
    """A fault of data, weights, code or settings; what could steer a terminal is escaped in its line."""

    def __str__(self) -> str:
        """Return the line."""
        return printable(super().__str__())


def printable(text: str) -> str:
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
        hint = Said("did you mean {near}?", near=Said.listed(near, " or ")) if near else ""
        return cls(
            Said("unknown {kind} {name!r}", kind=Said(kind), name=name),
            Said("one of {names}", names=", ".join(names)),
            hint,
        )


class SettingError(FinetuneError):
    """A value is out of its range, or two settings contradict each other."""


class NoDeviceError(SettingError):
    """The GPU that a run should train on is not there, or cannot be opened: no run has begun on it."""


class SealedError(RuntimeError):
    """The test split was asked for while a search works in this process: never the user's fault."""
