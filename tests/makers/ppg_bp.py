"""``Data File/0_subject/2_1.txt`` (tabs behind numbers) and ``PPG-BP dataset.xlsx``, its head in row 2."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

import numpy as np

from makers.waves import pulse_wave

HEAD = (
    "Num.",
    "subject_ID",
    "Sex(M/F)",
    "Age(year)",
    "Systolic Blood Pressure(mmHg)",
    "Diastolic Blood Pressure(mmHg)",
    "Hypertension",
)
TABLE = "Data File/PPG-BP dataset.xlsx"
_MAIN = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """Write a workbook as Excel does: texts in a table of their own, numbers in cells, no empty cells."""
    shared: list[str] = []
    lines = []
    for number, row in enumerate(rows, start=1):
        cells = []
        for place, value in enumerate(row):
            name = f"{chr(65 + place)}{number}"
            if isinstance(value, str):
                shared.append(value)
                cells.append(f'<c r="{name}" t="s"><v>{len(shared) - 1}</v></c>')
            elif value is not None:
                cells.append(f'<c r="{name}"><v>{value}</v></c>')
        lines.append(f'<row r="{number}">{"".join(cells)}</row>')
    texts = "".join(f"<si><t>{escape(text)}</t></si>" for text in shared)
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as book:
        sheet = f'<worksheet xmlns="{_MAIN}"><sheetData>{"".join(lines)}</sheetData></worksheet>'
        book.writestr("xl/worksheets/sheet1.xml", sheet)
        book.writestr("xl/sharedStrings.xml", f'<sst xmlns="{_MAIN}">{texts}</sst>')


def people_rows(people: Sequence[int]) -> list[list[object]]:
    rows = [[n, p, "Female", 45, 100 + p, 60 + p // 2, "Normal"] for n, p in enumerate(people, 1)]
    return [["Subject information", None], list(HEAD), *rows]


def write(data_dir: Path, people: Sequence[int] = tuple(range(2, 22))) -> Path:
    """Write twenty people with three pieces each."""
    root = data_dir / "ppg_bp"
    write_table(root / TABLE, people_rows(people))
    folder = root / "Data File/0_subject"
    folder.mkdir(parents=True, exist_ok=True)
    for person in people:
        for piece in (1, 2, 3):
            wave = np.round(2000 + 400 * pulse_wave(2100, 1000, 60 + person, 3 * person + piece)).astype(int)
            (folder / f"{person}_{piece}.txt").write_text("\t".join(map(str, wave)) + "\t")
    return root
