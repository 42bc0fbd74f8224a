"""PTB diagnostic: 549 records of 290 people at 1000 Hz, with the reason for which they came.

Source: Bousseljot et al., Biomedizinische Technik 40(S1), 1995; PhysioNet ``ptbdb/1.0.0``, files such as
``patient001/s0010_re.hea``. Classes are ours: healthy controls, myocardial infarction, all other reasons;
people without a reason are left out. Windows are the full 10 s from a record's start; people are parted
80/10/10 at random, stratified by class.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import WindowSet, data_files
from finetune.datasets.csn import LEAD_NAMES
from finetune.datasets.record_split import RecordSplit, random_record_split
from finetune.datasets.wfdb_record import Header, lead_samples, parse_header
from finetune.errors import DataError, MissingDataError
from finetune.tasks import PTB_CLASSES

RECORDS = 549
RATE_HZ, WINDOW = 1000, 10_000
REASON = "Reason for admission"
OF_REASON = {"healthy control": 0, "myocardial infarction": 1}
"""Of a reason's beginning, without case; every other is of the last class."""
UNKNOWN = {"", "n/a"}
MEND = "compare it with the publisher's, or remove it and fetch it again: hpo data get ptb"


@dataclass(frozen=True)
class Ptb:
    """Reader of the folder tree; the Frank leads (``.xyz``) are not read."""

    name: str = "ptb"
    folder: str = "ptb"
    version: int = 1
    leads: tuple[str, ...] = ("II",)
    all_leads: tuple[str, ...] = LEAD_NAMES

    def with_leads(self, leads: tuple[str, ...]) -> Ptb:
        """Return a reader of these leads; see :class:`finetune.datasets.base.LeadReader`."""
        return replace(self, leads=leads)

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return every header and signal file; see :class:`finetune.datasets.base.Reader`."""
        found = [path for path in data_files(root) if path.parent.name.startswith("patient")]
        found = sorted(path for path in found if path.suffix in (".hea", ".dat"))
        if not any(path.suffix == ".hea" for path in found):
            raise MissingDataError(
                f"no PTB record in {root}",
                "files such as patient001/s0010_re.hea",
                "to fetch them: hpo data get ptb",
            )
        return found

    def read(self, root: Path, task: str) -> WindowSet:
        """Read the windows of everybody with a reason, in the split's order; raises :class:`DataError`."""
        headers = [path for path in self.files(root, task) if path.suffix == ".hea"]
        parsed = {path: _header(path) for path in headers}
        known = {path: one for path, one in parsed.items() if _class(one) is not None}
        people = sorted({path.parent.name for path in known})
        classes = {path.parent.name: _class(one) for path, one in reversed(known.items())}  # by the first
        split = _split(np.array([classes[person] for person in people], np.int64))
        signal, labels, groups, codes = [], [], [], []
        for place, code in zip(split.order, split.codes, strict=True):
            for path in (path for path in known if path.parent.name == people[place]):
                windows = _windows(path, known[path], self.leads)
                signal.append(windows)
                labels += [_class(known[path])] * len(windows)
                groups += [people[place]] * len(windows)
                codes += [code] * len(windows)
        return WindowSet(
            signal=np.concatenate(signal),
            labels=np.array(labels, np.int64),
            groups=np.array(groups),
            split=np.array(codes, np.int8),
            rate_hz=RATE_HZ,
            records_found=len(headers),
            records_expected=max(RECORDS, len(headers)),
            notes=_notes(len(headers), len(headers) - len(known)),
        )


def _header(path: Path) -> Header:
    """Return what a header says of the record's ``.dat``: twelve leads, without those of the ``.xyz``."""
    lines = path.read_bytes().decode("latin-1").splitlines()
    standard = [line for line in lines if line.split()[:1] == [f"{path.stem}.dat"]]
    rest = [line for line in lines[1:] if line.split()[:1] != [f"{path.stem}.xyz"] and line not in standard]
    words = lines[0].split() if lines and standard else []
    first = " ".join([words[0], str(len(standard)), *words[2:]]) if len(words) > 3 else "\n".join(lines[:1])
    header = parse_header("\n".join([first, *standard, *rest]).encode("latin-1"), str(path), MEND)
    names = [line.name.lower() for line in header.leads]
    if names != [lead.lower() for lead in LEAD_NAMES] or header.rate_hz != RATE_HZ:
        what = f"{path}: leads {', '.join(names)} at {header.rate_hz:g} Hz"
        raise DataError(what, f"{', '.join(LEAD_NAMES)} at {RATE_HZ} Hz", MEND)
    return header


def _class(header: Header) -> int | None:
    """Return the class of a record's reason; None where there is none."""
    said = dict(line.partition(":")[::2] for line in reversed(header.comments))
    reason = said.get(REASON, "").strip().lower()
    if reason in UNKNOWN:
        return None
    found = [place for start, place in OF_REASON.items() if reason.startswith(start)]
    return found[0] if found else len(PTB_CLASSES) - 1


def _windows(path: Path, header: Header, leads: Sequence[str]) -> NDArray[np.float32]:
    """Return the full windows of a record, (N, T) of one lead or (N, C, T); none of a shorter one."""
    signals = path.with_suffix(".dat")
    if not signals.is_file():
        raise DataError(f"{signals} is missing", "it beside its header", MEND)
    content, count = signals.read_bytes(), header.samples // WINDOW
    picked = [lead_samples(header, content, LEAD_NAMES.index(lead), str(signals), MEND) for lead in leads]
    cut = np.stack([lead.millivolts()[: count * WINDOW].reshape(count, WINDOW) for lead in picked], axis=1)
    return cut[:, 0] if len(leads) == 1 else cut


def _split(classes: NDArray[np.int64]) -> RecordSplit:
    try:
        return random_record_split(len(classes), classes)
    except ValueError as error:
        what = f"{len(classes)} people of PTB cannot be parted by class"
        raise DataError(what, "10 or more of each class", "fetch the rest: hpo data get ptb") from error


def _notes(found: int, unknown: int) -> tuple[str, ...]:
    notes = [f"{found} of {RECORDS} records are in the folder"] if found < RECORDS else []
    if unknown:
        notes.append(f"{unknown} of {found} records are of people without a reason, and left out")
    return tuple(notes)


READER = Ptb()
