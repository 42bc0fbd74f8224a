"""PPG-BP: 657 pieces of 2.1 s of finger PPG at 1000 Hz, three a person, beside one cuff reading of each.

Source: Liang et al., Scientific Data 5:180020, 2018; ``Data File/0_subject/2_1.txt`` and its neighbours, and
``PPG-BP dataset.xlsx``. All pieces of a person have that person's pressures. People in the table's order,
shuffled with seed 42.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import WindowSet, split_codes
from finetune.datasets.spreadsheet import read_rows
from finetune.errors import DataError, MissingDataError
from finetune.file_kinds import foreign_kind
from finetune.splits import reference_subject_split

PEOPLE, PIECES = 219, 3
RATE_HZ, SAMPLES = 1000, 2100
TABLE = "Data File/PPG-BP dataset.xlsx"
PERSON = "subject_ID"
COLUMNS = {"ppg_bp_sbp": "Systolic Blood Pressure(mmHg)", "ppg_bp_dbp": "Diastolic Blood Pressure(mmHg)"}
MEND = "remove it and fetch it again: hpo data get ppg_bp"


@dataclass(frozen=True)
class PpgBp:
    """Reader of the text files and the spreadsheet."""

    name: str = "ppg_bp"
    folder: str = "ppg_bp"
    version: int = 1

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return the table and the pieces; see :class:`finetune.datasets.base.Reader`."""
        pieces = sorted((root / "Data File/0_subject").glob("[0-9]*_[0-9].txt"))
        if not pieces or not (root / TABLE).is_file():
            what = f"no PPG-BP recording in {root}" if not pieces else f"{root / TABLE} is missing"
            raise MissingDataError(
                what, f"0_subject/2_1.txt and {TABLE}", "to fetch them: hpo data get ppg_bp"
            )
        return sorted([root / TABLE, *pieces])

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the pieces of everybody in the table, in the split's order; raises :class:`DataError`."""
        self.files(root, task)
        labels = _labels(root / TABLE, COLUMNS[task])
        split = reference_subject_split(list(labels))
        places = [
            (person, root / f"Data File/0_subject/{person}_{piece}.txt")
            for person in split.all
            for piece in range(1, PIECES + 1)
        ]
        there = [(person, path) for person, path in places if path.is_file()]
        if not there:
            raise DataError(f"{root / TABLE} names none of the people in 0_subject", "their ids", MEND)
        people = [person for person, _ in there]
        found = len(set(people))
        return WindowSet(
            signal=np.stack([_piece(path) for _, path in there]),
            labels=np.array([[labels[person]] for person in people], np.float32),
            groups=np.array(people),
            split=split_codes(people, split),
            rate_hz=RATE_HZ,
            records_found=found,
            records_expected=max(PEOPLE, len(labels)),
            notes=(f"{found} of {PEOPLE} people are in the folder",) if found < PEOPLE else (),
        )


def _labels(table: Path, column: str) -> dict[str, float]:
    """Return each person's pressure, by id, in the table's order."""
    rows = read_rows(table, MEND)
    head = next((place for place, row in enumerate(rows) if PERSON in row and column in row), None)
    if head is None:
        raise DataError(f"{table} has no columns {PERSON} and {column}", "both in one row", MEND)
    person_at, value_at = rows[head].index(PERSON), rows[head].index(column)
    labels: dict[str, float] = {}
    for row in rows[head + 1 :]:
        if len(row) <= max(person_at, value_at) or not row[person_at]:
            continue
        person = row[person_at].removesuffix(".0")
        try:
            value = float(row[value_at])
        except ValueError:
            value = float("nan")
        if not 20 <= value <= 300 or person in labels:
            what = f"{table}: {column} of person {person} is {row[value_at]!r}"
            raise DataError(what, "20 to 300 mmHg, one row a person", MEND)
        labels[person] = value
    if len(labels) < 3:
        raise DataError(f"{table} names {len(labels)} people", "3 or more", MEND)
    return labels


def _piece(path: Path) -> NDArray[np.float32]:
    """Return the samples (T,) of one file: numbers between tabs, on one line."""
    try:
        values = np.array(path.read_text(encoding="ascii").split(), np.float32)
    except (ValueError, OSError) as error:
        kind = foreign_kind(path, "text")
        what = f"it is {kind.name}" if kind else "no line of numbers"
        raise DataError(f"{path}: {what}", f"{SAMPLES} numbers", MEND) from error
    is_whole = len(values) >= SAMPLES and bool(np.isfinite(values).all()) and float(np.ptp(values)) > 0
    if not is_whole:
        raise DataError(
            f"{path} has {len(values)} usable samples", f"{SAMPLES} that are not all the same", MEND
        )
    return values[:SAMPLES]


READER = PpgBp()
