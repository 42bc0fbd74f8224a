"""CPSC 2018: 6,877 12-lead ECGs of 6 to 60 s at 500 Hz, nine rhythms and forms; lead II.

Source: Liu et al., Journal of Medical Imaging and Health Informatics 8(7), 2018, as PhysioNet serves them in
``challenge-2020/1.0.2/training/cpsc_2018``: WFDB headers with SNOMED CT codes. The first 10 s of each record,
zeros behind a shorter one; records 80/10/10 at random, as CSN's (chosen by us: the challenge's own test split
is not public).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import WindowSet, data_files
from finetune.datasets.csn import LEAD_NAMES, diagnosis_codes
from finetune.datasets.record_split import RecordSplit, random_record_split
from finetune.datasets.wfdb_record import Header, lead_samples, parse_header
from finetune.errors import DataError, MissingDataError
from finetune.tasks import CPSC2018_CLASSES

RECORDS = 6_877
RATE_HZ, WINDOW = 500, 5000
MEND = "compare it with the publisher's, or remove it and fetch it again: hpo data get cpsc2018"


@dataclass(frozen=True)
class Cpsc2018:
    """Reader of the folder tree."""

    name: str = "cpsc2018"
    folder: str = "cpsc2018"
    version: int = 1
    leads: tuple[str, ...] = ("II",)
    all_leads: tuple[str, ...] = LEAD_NAMES

    def with_leads(self, leads: tuple[str, ...]) -> Cpsc2018:
        """Return a reader of these leads; see :class:`finetune.datasets.base.LeadReader`."""
        return replace(self, leads=leads)

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return every header and signal file; see :class:`finetune.datasets.base.Reader`."""
        found = [path for path in data_files(root / "training") if path.suffix in (".hea", ".mat")]
        if not any(path.suffix == ".hea" for path in found):
            raise MissingDataError(
                f"no CPSC 2018 record in {root}",
                "files such as training/cpsc_2018/g1/A0001.hea",
                "to fetch them: hpo data get cpsc2018",
            )
        return sorted(found)

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the leads of every record, in the split's order; raises :class:`DataError`."""
        headers = [path for path in self.files(root, task) if path.suffix == ".hea"]
        parsed = [_header(path) for path in headers]
        split = _split(len(headers))
        shape = (WINDOW,) if len(self.leads) == 1 else (len(self.leads), WINDOW)
        signal = np.zeros((len(headers), *shape), np.float32)
        for row, place in zip(signal, split.order, strict=True):
            _fill(row.reshape(len(self.leads), WINDOW), headers[place], parsed[place], self.leads)
        codes = [diagnosis_codes(parsed[place]) for place in split.order]
        return WindowSet(
            signal=signal,
            labels=np.stack([np.isin(CPSC2018_CLASSES, each).astype(np.float32) for each in codes]),
            groups=np.array([headers[place].stem for place in split.order]),
            split=split.codes,
            rate_hz=RATE_HZ,
            records_found=len(headers),
            records_expected=max(RECORDS, len(headers)),
            notes=(f"{len(headers)} of {RECORDS} records are in the folder",)
            if len(headers) < RECORDS
            else (),
        )


def _header(path: Path) -> Header:
    header = parse_header(path.read_bytes(), str(path), MEND)
    if (header.rate_hz, len(header.leads)) != (RATE_HZ, len(LEAD_NAMES)):
        what = f"{path}: {len(header.leads)} leads at {header.rate_hz:g} Hz"
        raise DataError(what, f"{len(LEAD_NAMES)} leads at {RATE_HZ} Hz", MEND)
    if not set(diagnosis_codes(header)) & set(CPSC2018_CLASSES):
        raise DataError(f"{path}: none of the nine codes in its Dx line", "one or more", MEND)
    return header


def _fill(row: NDArray[np.float32], path: Path, header: Header, leads: Sequence[str]) -> None:
    """Write the first 10 s of a record's leads into ``row`` (C, T)."""
    signals = path.with_suffix(".mat")
    if not signals.is_file():
        raise DataError(f"{signals} is missing", "it beside its header", MEND)
    content = signals.read_bytes()
    for place, lead in enumerate(leads):
        samples = lead_samples(header, content, LEAD_NAMES.index(lead), str(signals), MEND).millivolts()
        row[place, : len(samples)] = samples[:WINDOW]


def _split(count: int) -> RecordSplit:
    try:
        return random_record_split(count)
    except ValueError as error:
        raise DataError(
            f"{count} CPSC 2018 records cannot be split", "at least 3", "fetch the rest"
        ) from error


READER = Cpsc2018()
