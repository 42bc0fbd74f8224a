"""CSN (Chapman-Shaoxing-Ningbo): 45,152 12-lead ECGs of 10 s at 500 Hz; lead II, 94 SNOMED CT codes.

Source: Zheng et al., Scientific Data 7:48, 2020, and PhysioNet ``ecg-arrhythmia/1.0.0`` (2022),
``WFDBRecords/**``. Labels and split are those of CM-SSL: the codes of a header's ``#Dx:`` line (``# Dx:`` in
some editions), records in the order of their paths, 80/10/10 at random. Broken records and records without
a code are left out, as there; the split is drawn over the records that are left.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import WindowSet, data_files
from finetune.datasets.record_split import RecordSplit, random_record_split
from finetune.datasets.wfdb_record import Header, LeadSamples, lead_samples, parse_header
from finetune.errors import DataError, MissingDataError
from finetune.tasks import CSN_CODES

RECORDS = 45_152
RATE_HZ = 500
SAMPLES = 5000
LEAD_NAMES = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
"""In the order of the files."""
LEADS = len(LEAD_NAMES)
BROKEN_SHARE = 0.01
"""From this share of broken records on, the set is refused (chosen by us: two of the publisher's are)."""
SNOMED_CODE = re.compile(r"\d+")
MEND = "compare it with the publisher's, or remove it and fetch it again: hpo data get csn"


@dataclass(frozen=True)
class Csn:
    """Reader of the folder tree; counts and names broken records while they are under 1 %."""

    name: str = "csn"
    folder: str = "csn"
    version: int = 1
    leads: tuple[str, ...] = ("II",)
    all_leads: tuple[str, ...] = LEAD_NAMES

    def with_leads(self, leads: tuple[str, ...]) -> Csn:
        """Return a reader of these leads; see :class:`finetune.datasets.base.LeadReader`."""
        return replace(self, leads=leads)

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return every header and signal file; see :class:`finetune.datasets.base.Reader`."""
        found = [path for path in data_files(root / "WFDBRecords") if path.suffix in (".hea", ".mat")]
        if not any(path.suffix == ".hea" for path in found):
            raise MissingDataError(
                f"no CSN record in {root}",
                "files such as WFDBRecords/01/010/JS00001.hea",
                "to fetch them: hpo data get csn",
            )
        return sorted(found)

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the leads of every sound record, in the split's order; raises :class:`DataError`."""
        headers = [path for path in self.files(root, task) if path.suffix == ".hea"]
        records, broken = _read_all(headers, self.leads)
        if len(broken) >= BROKEN_SHARE * len(headers):
            first = "; ".join(broken[:3])
            what = f"{len(broken)} of {len(headers)} CSN records are broken: {first}"
            raise DataError(what, "under 1 %", MEND)
        split = _split(len(records))
        shape = (SAMPLES,) if len(self.leads) == 1 else (len(self.leads), SAMPLES)
        signal = np.empty((len(records), *shape), np.float32)
        for row, place in zip(signal, split.order, strict=True):
            row[:] = np.stack([lead.millivolts() for lead in records[place].leads]).reshape(shape)
        ordered = [records[place] for place in split.order]
        return WindowSet(
            signal=signal,
            labels=np.stack([_labels(record.codes) for record in ordered]),
            groups=np.array([record.name for record in ordered]),
            split=split.codes,
            rate_hz=RATE_HZ,
            records_found=len(headers),
            records_expected=max(RECORDS, len(headers)),
            notes=_notes(records, broken, len(headers)),
        )


@dataclass(frozen=True)
class _Record:
    """One sound record; its leads stay at 16 bits until all are counted, at half the memory."""

    name: str
    leads: tuple[LeadSamples, ...]
    codes: tuple[str, ...]


def _read_all(headers: Sequence[Path], leads: Sequence[str]) -> tuple[list[_Record], list[str]]:
    """Return the sound records in the order of ``headers``, and a clause for each broken one."""
    records, broken = [], []
    for path in headers:
        try:
            records.append(_read_record(path, leads))
        except DataError as error:
            broken.append(f"{path.stem} ({error.what})")
    return records, broken


def _read_record(path: Path, leads: Sequence[str]) -> _Record:
    """Return one record; raises :class:`DataError` in its own words."""
    header = parse_header(path.read_bytes(), path.name, MEND)
    if (header.rate_hz, header.samples, len(header.leads)) != (RATE_HZ, SAMPLES, LEADS):
        what = f"{len(header.leads)} leads of {header.samples} samples at {header.rate_hz:g} Hz"
        raise DataError(what, f"{LEADS} leads of {SAMPLES} samples at {RATE_HZ} Hz", MEND)
    codes = diagnosis_codes(header)
    if not codes:
        raise DataError("no code in its Dx line", "one or more", MEND)
    signals = path.with_suffix(".mat")
    if not signals.is_file():
        raise DataError(f"{signals.name} is missing", "it beside its header", MEND)
    content, places = signals.read_bytes(), [LEAD_NAMES.index(lead) for lead in leads]
    samples = tuple(lead_samples(header, content, place, signals.name, MEND) for place in places)
    return _Record(path.stem, samples, codes)


def diagnosis_codes(header: Header) -> tuple[str, ...]:
    """Return the SNOMED CT codes of the first ``Dx`` comment, in its order; empty where there is none."""
    lines = [line.partition(":")[2] for line in header.comments if line.partition(":")[0].strip() == "Dx"]
    return tuple(SNOMED_CODE.findall(lines[0])) if lines else ()


def _labels(codes: tuple[str, ...]) -> NDArray[np.float32]:
    """Return 0/1 for each of the 94 codes."""
    return np.isin(CSN_CODES, codes).astype(np.float32)


def _split(count: int) -> RecordSplit:
    try:
        return random_record_split(count)
    except ValueError as error:
        raise DataError(f"{count} CSN records cannot be split", "at least 3", "fetch the rest") from error


def _notes(records: Sequence[_Record], broken: Sequence[str], found: int) -> tuple[str, ...]:
    """Return what a reader of the results must know: what is missing, broken, or has a foreign code."""
    notes = [f"{found} of {RECORDS} records are in the folder"] if found < RECORDS else []
    if broken:
        notes.append(f"{len(broken)} of {found} records are broken and left out: {', '.join(broken)}")
    foreign = sorted({code for record in records for code in record.codes} - set(CSN_CODES))
    if foreign:
        notes.append(f"codes that are not among the {len(CSN_CODES)}, ignored: {', '.join(foreign)}")
    return tuple(notes)


READER = Csn()
