"""Tables of comma-separated values, read by the names in their first line, and never by a shifted place.

A row with another number of fields than the first line has names is refused, because nothing says which of
them is too many: row names without a name of their own, decimal commas and a lost field all look like this.
Only empty fields after the last name pass (some programs end every line with a comma). pandas would take the
first field for row names, or pad what is missing, and shift or lose numbers without a word.
"""

from __future__ import annotations

import csv
import gzip
import math
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from finetune.file_kinds import START, TEXT, kind_of

if TYPE_CHECKING:
    from _csv import Reader

Float64s = NDArray[np.float64]

MISSING = frozenset({"", "nan", "na", "n/a", "null", "none", "-"})
"""Words, in small letters, that stand for a value that is not there."""
CHUNK = 65_536
"""Rows held as text at a time."""
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


class TableFault(ValueError):  # noqa: N818 - told by the reader that knows the data set, as its own error
    """A table that cannot be read as it should: ``what`` is wrong, and what was ``expected``."""

    def __init__(self, what: str, expected: str) -> None:
        self.what, self.expected = what, expected
        super().__init__(f"{what}; expected {expected}")


@dataclass(frozen=True)
class Rows:
    """Some rows in a row, each with as many fields as there are names."""

    lines: Sequence[int]
    """Where each ends in the file, from 1."""
    fields: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Table:
    """A table that is open for one reading."""

    names: tuple[str, ...]
    """Stripped; in the file's order."""
    _chunks: Iterator[Rows]

    def numbers(self, names: Sequence[str]) -> list[Float64s]:
        """Return columns of numbers, NaN where a value is missing; raises :class:`TableFault`."""
        parts: list[list[Float64s]] = [[] for _ in names]
        places = [self._place(name) for name in names]
        for rows in self._chunks:
            for name, place, part in zip(names, places, parts, strict=True):
                part.append(_to_numbers(name, place, rows))
        return [np.concatenate(part) if part else np.empty(0) for part in parts]

    def texts(self, names: Sequence[str]) -> dict[str, list[str]]:
        """Return columns as they are written, without spaces around them; raises :class:`TableFault`."""
        places = {name: self._place(name) for name in names}
        columns: dict[str, list[str]] = {name: [] for name in names}
        for rows in self._chunks:
            for name, place in places.items():
                columns[name] += [fields[place].strip() for fields in rows.fields]
        return columns

    def _place(self, name: str) -> int:
        if self.names.count(name) != 1:
            what = f"column {name!r} is there {self.names.count(name)} times"
            raise TableFault(what, f"it once among {', '.join(self.names)}")
        return self.names.index(name)


@contextmanager
def open_table(path: Path) -> Iterator[Table]:
    """Hold a table open, plain or gzipped; raises :class:`TableFault`, from reading its rows too."""
    try:
        with _open(path) as stream:
            lines = csv.reader(stream, skipinitialspace=True, strict=True)
            names = _names(next(lines, []))
            yield Table(names, _chunks(lines, len(names)))
    except (OSError, EOFError, zlib.error, csv.Error) as error:
        raise TableFault(" ".join(str(error).split()) or type(error).__name__, "a whole table") from error


@contextmanager
def _open(path: Path) -> Iterator[IO[str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rb") as peek:
        start = peek.read(START)
    if start.startswith(_UTF_16):
        raise TableFault("it is written in UTF-16", "a table in UTF-8")
    kind = kind_of(start)
    if kind is not None and kind != TEXT:
        raise TableFault(f"it is {kind.name}", "a table of comma-separated values")
    with opener(path, "rt", encoding="utf-8-sig", errors="replace", newline="") as stream:
        yield stream


def _names(fields: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the first line; raises :class:`TableFault` where it holds none."""
    names = [field.strip() for field in fields]
    while names and not names[-1]:
        names.pop()
    if not names:
        raise TableFault("its first line is empty", "names of columns in it")
    for separator, name in ((";", "semicolons"), ("\t", "tabs")):
        if len(names) == 1 and separator in fields[0]:
            raise TableFault(f"its fields are parted by {name}", "commas between fields, and decimal points")
    if all(is_number(name) for name in names if name):
        raise TableFault(f"its first line is {', '.join(names[:4])}", "names of columns in it, not numbers")
    return tuple(names)


def _chunks(lines: Reader, width: int) -> Iterator[Rows]:
    """Yield the rows below the names, some at a time; raises :class:`TableFault` at one of another width."""
    blanks: list[int] = []
    before = lines.line_num
    while fields := list(islice(lines, CHUNK)):
        ends: Sequence[int] = range(before + 1, lines.line_num + 1)
        if len(ends) != len(fields):
            ends = list(accumulate((1 + _breaks(row) for row in fields), initial=before))[1:]
        before = lines.line_num
        if blanks or set(map(len, fields)) != {width}:
            checked = list(_checked(zip(ends, fields, strict=True), width, blanks))
            ends, fields = [end for end, _ in checked], [row for _, row in checked]
        yield Rows(ends, fields)


def _breaks(fields: Sequence[str]) -> int:
    """Count the ends of lines inside quoted fields."""
    return "".join(fields).count("\n")


def _checked(
    rows: Iterable[tuple[int, list[str]]], width: int, blanks: list[int]
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows, each of ``width`` fields; raises :class:`TableFault` at any other.

    A blank line is no row; in a table of one column, and before its last value, it is a missing value:
    ``blanks`` holds the lines of those that still wait for a value to come.
    """
    for line, row in rows:
        if not any(field.strip() for field in row):
            blanks += [line] * (width == 1)
            continue
        if len(row) < width:
            raise TableFault(f"line {line} has {len(row)} fields", _as_many(width, "is the file truncated?"))
        if any(field.strip() for field in row[width:]):
            hint = "are there row names or decimal commas?"
            raise TableFault(f"line {line} has {len(row)} fields", _as_many(width, hint))
        yield from ((blank, [""]) for blank in blanks)
        blanks.clear()
        yield line, row


def _as_many(width: int, hint: str) -> str:
    return f"as many as the names in its first line, {width} ({hint})"


def _to_numbers(name: str, place: int, rows: Rows) -> Float64s:
    cells = [fields[place] for fields in rows.fields]
    if "_" not in "".join(cells):  # Python's numbers may have one, those of a table may not
        try:
            return np.array(list(map(float, cells)))
        except ValueError:
            pass  # some are missing, or none: told apart below
    return np.array([_to_number(name, line, cell) for line, cell in zip(rows.lines, cells, strict=True)])


def _to_number(name: str, line: int, cell: str) -> float:
    if cell.strip().lower() in MISSING:
        return math.nan
    if not is_number(cell):
        raise TableFault(f"line {line}: column {name} is {cell.strip()[:40]!r}", "a number such as 0.5")
    return float(cell)


def is_number(text: str) -> bool:
    """Return whether a cell holds a number as tables write it."""
    try:
        float(text)
    except ValueError:
        return False
    return "_" not in text
