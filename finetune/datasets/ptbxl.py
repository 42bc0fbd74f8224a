"""PTB-XL: 21,799 clinical 12-lead ECGs of 10 s; lead II at 100 Hz, five diagnostic superclasses.

Source: Wagner et al., Scientific Data 7:154, 2020; PhysioNet ``ptb-xl/1.0.3``. Labels and split are those of
CM-SSL and of the publisher's own example: every SCP code that ``scp_statements.csv`` calls diagnostic,
whatever its likelihood; ``strat_fold`` 1-8, 9, 10. A record without any such code keeps its place, with no
class.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import TEST, TRAIN, VALIDATION, WindowSet
from finetune.datasets.wfdb_record import lead_samples, parse_header
from finetune.errors import DataError, MissingDataError
from finetune.tables import TableFault, open_table
from finetune.tasks import PTB_XL_CLASSES

if TYPE_CHECKING:
    import pandas as pd

RECORDS = 21_799
RATE_HZ = 100
SAMPLES = 1000
LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""In the order of the files."""
DATABASE, STATEMENTS = "ptbxl_database.csv", "scp_statements.csv"
VALIDATION_FOLD, TEST_FOLD, FOLDS = 9, 10, range(1, 11)
MEND = "compare it with the publisher's, or remove it and fetch it again: hpo data get ptb-xl"


@dataclass(frozen=True)
class PtbXl:
    """Reader of the 100 Hz records; those that are listed but not there make the set partial."""

    name: str = "ptb-xl"
    folder: str = "ptb-xl"
    version: int = 1
    leads: tuple[str, ...] = ("II",)
    all_leads: tuple[str, ...] = LEADS

    def with_leads(self, leads: tuple[str, ...]) -> PtbXl:
        """Return a reader of these leads; see :class:`finetune.datasets.base.LeadReader`."""
        return replace(self, leads=leads)

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return both tables and the two files of every record that is there.

        Raises :class:`MissingDataError` without tables or records, :class:`DataError` for half a record.
        """
        table = _present(_database(root), root)
        pairs = [path for name in table["filename_lr"] for path in _pair(root, name)]
        return sorted([root / DATABASE, _existing(root, STATEMENTS), *pairs])

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the leads of every record, training folds first; raises :class:`DataError`."""
        listed = _database(root)
        table = _present(listed, root)
        split = np.array([_split_code(fold) for fold in table["strat_fold"]], np.int8)
        order = np.argsort(split, kind="stable")
        table, split = table.iloc[order], split[order]
        groups = np.array([str(int(patient)) for patient in table["patient_id"]])
        _demand_disjoint(groups, split, root / DATABASE)
        expected = max(RECORDS, len(listed))
        notes = [_absence(listed, table, expected)] if len(table) < expected else []
        return WindowSet(
            signal=np.stack([_signals(root, name, self.leads) for name in table["filename_lr"]]),
            labels=_superclasses(table["scp_codes"], _classes_by_code(root), root / DATABASE),
            groups=groups,
            split=split,
            rate_hz=RATE_HZ,
            records_found=len(table),
            records_expected=expected,
            notes=tuple(notes),
        )


def _database(root: Path) -> pd.DataFrame:
    """Return the table of records, indexed by ``ecg_id``; raises :class:`DataError` for any hole in it."""
    path = _existing(root, DATABASE)
    table = _table(path, ("ecg_id", "patient_id", "strat_fold"), ("scp_codes", "filename_lr"))
    table = table.set_index(table.pop("ecg_id").fillna(-1).astype(np.int64))
    for column in table.columns:
        holes = table.index[table[column].isna()]
        if len(holes):
            what = f"{path}: column {column} of record {holes[0]} is empty"
            raise DataError(what, "a value (is the file truncated?)", MEND)
    foreign = table.index[~table["strat_fold"].isin(FOLDS)]
    if len(foreign):
        what = f"{path}: strat_fold {table['strat_fold'][foreign[0]]:g} of record {foreign[0]}"
        raise DataError(what, "1 to 10", MEND)
    twice = table.index[table.index.duplicated() | table["filename_lr"].duplicated()]
    if len(twice):
        raise DataError(f"{path}: record {twice[0]} is there twice", "every record once", MEND)
    return table


def _table(path: Path, numbers: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """Return columns by name, those of ``numbers`` first; None or NaN where a cell is empty."""
    import pandas as pd  # 0.4 s, and only the first preparation needs it

    try:
        with open_table(path) as table:
            for column in (*numbers, *texts):
                if column not in table.names:
                    raise DataError(f"{path} has no column {column}", ", ".join((*numbers, *texts)), MEND)
            columns: dict[str, Any] = dict(zip(numbers, table.numbers(numbers), strict=True))
        with open_table(path) as table:
            for name, cells in table.texts(texts).items():
                columns[name] = np.array([cell or None for cell in cells], object)
    except TableFault as error:
        raise DataError(f"{path} cannot be read ({error.what})", error.expected, MEND) from error
    return pd.DataFrame(columns)


def _present(table: pd.DataFrame, root: Path) -> pd.DataFrame:
    """Return the rows whose record is in the folder; raises :class:`MissingDataError` when none is."""
    is_there = [bool(_pair(root, name)) for name in table["filename_lr"]]
    if not any(is_there):
        raise MissingDataError(
            f"no PTB-XL record at 100 Hz in {root}",
            "files such as records100/00000/00001_lr.dat",
            "to fetch them: hpo data get ptb-xl",
        )
    return table[is_there]


def _pair(root: Path, name: str) -> tuple[Path, ...]:
    """Return header and signal file of a record, or nothing when neither is there."""
    pair = tuple(root / f"{name}{suffix}" for suffix in (".dat", ".hea"))
    missing = [path for path in pair if not path.is_file()]
    if len(missing) == 1:
        raise DataError(f"{missing[0]} is missing", "it beside the other half of its record", MEND)
    return () if missing else pair


def _existing(root: Path, name: str) -> Path:
    if not (root / name).is_file():
        raise MissingDataError(f"no {name} in {root}", "the table of PTB-XL", "hpo data get ptb-xl")
    return root / name


def _classes_by_code(root: Path) -> dict[str, str]:
    """Return the superclass of each diagnostic SCP code."""
    path = root / STATEMENTS
    statements = _table(path, ("diagnostic",), ("", "diagnostic_class"))
    diagnostic = statements[statements["diagnostic"] == 1]
    by_code = {str(code): str(name) for _, code, name in diagnostic.itertuples(index=False)}
    foreign = sorted(set(by_code.values()) ^ set(PTB_XL_CLASSES))
    if foreign:
        raise DataError(
            f"{path}: superclasses differ in {', '.join(foreign)}", ", ".join(PTB_XL_CLASSES), MEND
        )
    return by_code


def _superclasses(cells: pd.Series[str], by_code: dict[str, str], path: Path) -> NDArray[np.float32]:
    """Return 0/1 labels (N, 5) of the records' SCP codes, in the order of ``PTB_XL_CLASSES``."""
    labels = np.zeros((len(cells), len(PTB_XL_CLASSES)), np.float32)
    for row, (record, text) in enumerate(cells.items()):
        try:
            codes = ast.literal_eval(text)
        except (ValueError, SyntaxError) as error:
            what = f"{path}: scp_codes of record {record} cannot be read ({text[:40]})"
            raise DataError(what, "a dictionary such as {'NORM': 100.0}", MEND) from error
        for code in codes:
            if code in by_code:
                labels[row, PTB_XL_CLASSES.index(by_code[code])] = 1
    return labels


def _signals(root: Path, name: str, leads: Sequence[str]) -> NDArray[np.float32]:
    """Return one lead of a record (1000,), or several (C, 1000), in mV."""
    signals, text = _pair(root, name)
    header = parse_header(text.read_bytes(), str(text), MEND)
    if (header.rate_hz, header.samples, len(header.leads)) != (RATE_HZ, SAMPLES, 12):
        what = f"{text} has {len(header.leads)} leads of {header.samples} samples at {header.rate_hz:g} Hz"
        raise DataError(what, f"12 leads of {SAMPLES} samples at {RATE_HZ} Hz", MEND)
    content = signals.read_bytes()
    places = [LEADS.index(lead) for lead in leads]
    parts = [lead_samples(header, content, place, str(signals), MEND).millivolts() for place in places]
    return parts[0] if len(parts) == 1 else np.stack(parts)


def _split_code(fold: float) -> int:
    return TEST if fold == TEST_FOLD else VALIDATION if fold == VALIDATION_FOLD else TRAIN


def _demand_disjoint(groups: NDArray[np.str_], split: NDArray[np.int8], path: Path) -> None:
    """Raise :class:`DataError` for a patient in two splits, which the publisher's folds never have."""
    first: dict[str, int] = {}
    for patient, code in zip(groups, split, strict=True):
        if first.setdefault(patient, code) != code:
            raise DataError(f"{path}: patient {patient} is in two splits", "one fold a patient", MEND)


def _absence(listed: pd.DataFrame, found: pd.DataFrame, expected: int) -> str:
    names = listed["filename_lr"][~listed.index.isin(found.index)].tolist()
    unlisted = expected - len(listed)
    parts = [f"{unlisted} are not in {DATABASE}"] * (unlisted > 0)
    parts += [f"{len(names)} of its records are not in the folder, the first {names[0]}"] if names else []
    return f"{len(found)} of {expected} records: {'; '.join(parts)}"


READER = PtbXl()
