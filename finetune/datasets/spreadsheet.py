"""The first sheet of an Excel workbook (.xlsx), as text: enough for a publisher's table of labels."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

from finetune.errors import DataError
from finetune.file_kinds import why_unreadable

LARGEST = 20 * 2**20
"""Bytes of a part of the workbook, unpacked: a table of labels has less."""
_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def read_rows(path: Path, mend: str) -> list[list[str]]:
    """Return the rows of the first sheet, each with a text a column; raises :class:`DataError`."""
    try:
        with zipfile.ZipFile(path) as book:
            shared = _shared(book)
            sheet = _part(book, "xl/worksheets/sheet1.xml")
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: {why_unreadable(path, error, 'zip')}", "an Excel workbook", mend) from error
    return [_row(row, shared) for row in sheet.iter(f"{_MAIN}row")]


def _part(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    if book.getinfo(name).file_size > LARGEST:
        raise ValueError(f"its {name} is larger than {LARGEST} bytes")
    return ElementTree.fromstring(book.read(name))


def _shared(book: zipfile.ZipFile) -> list[str]:
    """Return the texts that cells name by number."""
    if "xl/sharedStrings.xml" not in book.namelist():
        return []
    return [_text(one) for one in _part(book, "xl/sharedStrings.xml").iter(f"{_MAIN}si")]


def _text(element: ElementTree.Element) -> str:
    return "".join(part.text or "" for part in element.iter(f"{_MAIN}t"))


def _row(row: ElementTree.Element, shared: list[str]) -> list[str]:
    cells: dict[int, str] = {}
    for cell in row.iter(f"{_MAIN}c"):
        letters = re.match(r"[A-Z]+", cell.get("r", ""))
        place = len(cells) if letters is None else _column(letters[0])
        value = cell.findtext(f"{_MAIN}v", "")
        kind = cell.get("t")
        if kind == "s" and value.isdecimal() and int(value) < len(shared):
            value = shared[int(value)]
        cells[place] = (_text(cell) if kind == "inlineStr" else value).strip()
    return [cells.get(place, "") for place in range(min(max(cells, default=-1) + 1, 1000))]


def _column(letters: str) -> int:
    """Return the number of a column, from 0: A, B, ..., Z, AA."""
    place = 0
    for letter in letters:
        place = 26 * place + ord(letter) - ord("A") + 1
    return place - 1
