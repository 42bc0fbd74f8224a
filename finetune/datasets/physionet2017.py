"""PhysioNet/CinC Challenge 2017: 8,528 single-lead ECGs of 9 to 61 s at 300 Hz, in four classes.

Source: Clifford et al., Computing in Cardiology 44, 2017; PhysioNet ``challenge-2017/1.0.0``, as
``training2017.zip`` or the folder that it unpacks to, with the final labels ``REFERENCE-v3.csv`` beside it or
inside. Padding and split are those of CM-SSL: zeros up to 61 s, stratified by class.
"""

from __future__ import annotations

import csv
import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import WindowSet, data_files, is_hidden
from finetune.datasets.record_split import RecordSplit, random_record_split
from finetune.datasets.wfdb_record import lead_samples, parse_header
from finetune.errors import DataError, MissingDataError
from finetune.file_kinds import START, TEXT, kind_of, why_unreadable
from finetune.tasks import PHYSIONET2017_CLASSES

RECORDS = 8528
RATE_HZ = 300
SAMPLES = 61 * RATE_HZ
FOLDER, ARCHIVE, REFERENCE = "training2017", "training2017.zip", "REFERENCE-v3.csv"
MEND = "compare it with the publisher's, or remove it and fetch it again: hpo data get physionet2017"


@dataclass(frozen=True)
class Physionet2017:
    """Reader of the folder or, where there is none, of the archive as it is."""

    name: str = "physionet2017"
    folder: str = "physionet2017"
    version: int = 1

    def files(self, root: Path, task: str) -> Sequence[Path]:
        """Return the archive or all files of the folder, and the labels beside them."""
        beside = [path for path in (root / REFERENCE,) if path.is_file()]
        if (root / FOLDER).is_dir():
            records = [path for path in data_files(root / FOLDER) if path.suffix in (".hea", ".mat", ".csv")]
        elif (root / ARCHIVE).is_file():
            records = [root / ARCHIVE]
        else:
            raise MissingDataError(
                f"no PhysioNet 2017 record in {root}",
                f"{ARCHIVE} or the folder {FOLDER}, and {REFERENCE}",
                "to fetch them: hpo data get physionet2017",
            )
        return sorted(beside + records)

    def read(self, root: Path, task: str) -> WindowSet:
        """Read every record that the labels name, in the split's order; raises :class:`DataError`."""
        self.files(root, task)
        with _open(root) as members:
            listed = _reference(root, members)
            present = {name: label for name, label in listed.items() if _is_there(name, members)}
            if not present:
                raise MissingDataError(f"none of the records of {REFERENCE} is in {root}", "A00001.mat", MEND)
            split = _split(np.array(list(present.values()), np.int64))
            names = np.array(list(present))[split.order]
            signal = np.zeros((len(names), SAMPLES), np.float32)
            for row, name in zip(signal, names, strict=True):
                _read_into(row, name, members)
        missing = f"{len(names)} of {RECORDS} records are in the folder"
        return WindowSet(
            signal=signal,
            labels=np.array([present[name] for name in names], np.int64),
            groups=names,
            split=split.codes,
            rate_hz=RATE_HZ,
            records_found=len(names),
            records_expected=max(RECORDS, len(listed)),
            notes=(missing,) if len(names) < RECORDS else (),
        )


@dataclass(frozen=True)
class _Members:
    """The files of the training set by name, wherever they lie."""

    source: str
    paths: dict[str, Path]
    archive: zipfile.ZipFile | None = None

    def read(self, name: str) -> bytes:
        """Return a file's bytes; raises :class:`DataError` when the archive does not give them."""
        if self.archive is None:
            return self.paths[name].read_bytes()
        try:
            return self.archive.read(self.paths[name].as_posix())
        except (
            zipfile.BadZipFile,
            zlib.error,
            EOFError,
            OSError,
            NotImplementedError,
            RuntimeError,
        ) as error:
            what = f"{self.source}: {name} cannot be unpacked ({' '.join(str(error).split())})"
            raise DataError(what, "a whole archive", MEND) from error


@contextmanager
def _open(root: Path) -> Iterator[_Members]:
    """Hold the folder or the archive open; raises :class:`DataError` for an archive that is broken."""
    folder, path = root / FOLDER, root / ARCHIVE
    if folder.is_dir():
        yield _Members(str(folder), {path.name: path for path in data_files(folder)})
        return
    try:
        archive = zipfile.ZipFile(path)
    except Exception as error:  # zipfile promises no list of what a damaged directory raises
        why = why_unreadable(path, error, "zip")
        raise DataError(f"{path} cannot be read ({why})", "a whole zip archive", MEND) from error
    with archive:
        inside = [Path(name) for name in archive.namelist() if not name.endswith("/")]
        kept = {path.name: path for path in inside if path.parent.name == FOLDER and not is_hidden(path)}
        yield _Members(str(path), kept, archive)


def _reference(root: Path, members: _Members) -> dict[str, int]:
    """Return the class of each record, in the table's order; raises :class:`DataError` with the line."""
    beside = root / REFERENCE
    if not beside.is_file() and REFERENCE not in members.paths:
        raise MissingDataError(f"no {REFERENCE} in {root}", "the final labels", "hpo data get physionet2017")
    content = beside.read_bytes() if beside.is_file() else members.read(REFERENCE)
    kind = kind_of(content[:START])
    if kind is not None and kind != TEXT:
        raise DataError(f"{REFERENCE} in {root} is {kind.name}", "the final labels", MEND)
    labels: dict[str, int] = {}
    for number, row in enumerate(csv.reader(io.StringIO(content.decode("utf-8-sig", "replace"))), 1):
        if not row:
            continue
        if len(row) != 2 or row[1] not in PHYSIONET2017_CLASSES or row[0] in labels:
            what = f"{REFERENCE} in {root}: line {number} is {','.join(row)!r}"
            raise DataError(what, f"a new record and one of {' '.join(PHYSIONET2017_CLASSES)}", MEND)
        labels[row[0]] = PHYSIONET2017_CLASSES.index(row[1])
    return labels


def _is_there(name: str, members: _Members) -> bool:
    """Return whether a record is there; raises :class:`DataError` for half a record."""
    missing = [suffix for suffix in (".hea", ".mat") if name + suffix not in members.paths]
    if len(missing) == 1:
        what = f"{name}{missing[0]} is missing in {members.source}"
        raise DataError(what, "it beside the other half of its record", MEND)
    return not missing


def _split(labels: NDArray[np.int64]) -> RecordSplit:
    try:
        return random_record_split(len(labels), labels)
    except ValueError as error:
        what = f"{len(labels)} PhysioNet 2017 records cannot be split by class ({error})"
        raise DataError(what, "at least 20, and 3 of each class", "fetch the missing records") from error


def _read_into(row: NDArray[np.float32], name: str, members: _Members) -> None:
    """Write one record (mV) to the beginning of ``row``, whose zeros are the padding."""
    source = f"{members.source}/{name}"
    header = parse_header(members.read(f"{name}.hea"), f"{source}.hea", MEND)
    if header.rate_hz != RATE_HZ or not 0 < header.samples <= SAMPLES:
        what = f"{source}.hea has {header.samples} samples at {header.rate_hz:g} Hz"
        raise DataError(what, f"1 to {SAMPLES} at {RATE_HZ} Hz", MEND)
    lead = lead_samples(header, members.read(f"{name}.mat"), 0, f"{source}.mat", MEND)
    row[: header.samples] = lead.millivolts()


READER = Physionet2017()
