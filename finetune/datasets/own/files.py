"""Signals in files of their own: a manifest that names them, a folder a subject, a folder a class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.own.labels import numbers_of
from finetune.datasets.own.records import Labels, Records, as_texts, lacks, need_rate, visible
from finetune.errors import DataError
from finetune.own import PATTERN, OwnData
from finetune.signal_files import as_float32, read_signal, stored_array
from finetune.signals import Float32s
from finetune.tables import Table, TableFault, is_number, open_table

PATH_NAMES = ("file", "path", "filename", "record")
"""Columns that are looked for in a manifest where the study names none."""
SIGNAL_SUFFIXES = (".npy", ".csv", ".gz", ".hea")
FOLDER = "folder"
"""What a subject is where each has a folder."""


def manifest_files(file: Path, own: OwnData) -> list[Path]:
    """Return the manifest and every file that it names."""
    (paths,) = _texts(file, [_path_column(file, own, _names(file))])
    named = [path for name in _checked(file, paths) for path in _parts(file.parent / name)]
    return [file, *sorted(set(named))]


def read_manifest(file: Path, own: OwnData) -> Records:
    """Return one record for each row of a table that names signal files (WFDB, CSV, NPY)."""
    there = _names(file)
    label = own.label or tuple(name for name in ("label", "y") if name in there)[:1]
    if not label:
        raise lacks(f"no data.label is named, and {file}", "label", there, "column ")
    subject, split = None if _pattern(own) else own.subject, own.split.column
    beside = [name for name in (subject, split) if name is not None]
    named, *columns = _texts(file, [_path_column(file, own, there), *label, *beside])
    paths = _checked(file, named)
    signals, rates = _read_all([file.parent / name for name in paths], own)
    texts = dict(zip([*label, *beside], columns, strict=True))
    return Records(
        signals=signals,
        labels=list(np.array([texts[name] for name in label]).T[:, None]),
        names=paths,
        rates_hz=rates,
        subjects=_matched(own, paths) if subject is None else as_texts(texts[subject], "subject", paths),
        splits=None if split is None else as_texts(texts[split], "split", paths),
    )


def _names(file: Path) -> tuple[str, ...]:
    with _open(file) as table:
        return table.names


def _texts(file: Path, names: Sequence[str]) -> list[list[str]]:
    """Return columns of a table as they are written; raises :class:`DataError`."""
    with _open(file) as table:
        for name in names:
            if name not in table.names:
                raise lacks(file, name, table.names, "column ")
        columns = table.texts(names)
        if not any(columns.values()):
            raise DataError(f"{file} has no rows below its names", "a table")
        if any("\ufffd" in text for column in columns.values() for text in column):
            raise DataError(f"{file} is not written in UTF-8", "a table in UTF-8")
    return [columns[name] for name in names]


@contextmanager
def _open(file: Path) -> Iterator[Table]:
    try:
        with open_table(file) as table:
            yield table
    except TableFault as error:
        raise DataError(f"{file} cannot be read ({error.what})", error.expected) from error


def _path_column(file: Path, own: OwnData, there: Sequence[str]) -> str:
    name = own.path or next((usual for usual in PATH_NAMES if usual in there), None)
    if name is None:
        raise lacks(f"no data.path is named, and {file}", PATH_NAMES[0], there, "column ")
    return name


def _checked(file: Path, paths: Sequence[str]) -> Sequence[str]:
    """Return the paths of a manifest; raises :class:`DataError` for one that is not there or not below."""
    for place, path in enumerate(paths, start=1):
        if not Path(os.path.normpath(file.parent / path)).is_relative_to(file.parent):
            raise DataError(f"{file} row {place}: {path} is outside its folder", "files below the manifest")
        if not _parts(file.parent / path):
            raise DataError(
                f"{file} row {place}: {path or 'a file without a name'} is not there",
                "a file below the manifest",
            )
    return paths


def _parts(path: Path) -> list[Path]:
    """Return the files that hold one record: a WFDB header with its signals, or the file itself."""
    header = _header(path)
    if header is not None:
        stem = header.with_suffix("")
        beside = [stem.with_suffix(suffix) for suffix in (".hea", ".dat", ".mat")]
        return [one for one in beside if one.is_file()]
    return [path] if path.is_file() else []


def subject_files(root: Path, own: OwnData) -> list[Path]:
    """Return all files of the folders of a folder."""
    return [path for folder in _folders(root) for path in visible(list(folder.rglob("*"))) if path.is_file()]


def _folders(root: Path) -> list[Path]:
    found = [path for path in visible(list(root.iterdir())) if path.is_dir()]
    if not found:
        raise DataError(f"{root} holds no folders", "one folder a subject, or one a class")
    return found


def read_subjects(root: Path, own: OwnData) -> Records:
    """Return the records of ``<subject>/ppg.npy`` with labels beside them.

    A signal (T,) is one recording; one (N, T) or (N, C, T) holds windows, each with a row of labels.
    """
    signals: list[Float32s] = []
    labels: list[Labels] = []
    names: list[str] = []
    folders: list[str] = []
    for folder in _folders(root):
        windows, is_cut = _subject_signal(folder, own)
        beside = np.concatenate([_subject_label(folder, name) for name in own.label], axis=1)
        if is_cut and len(beside) != len(windows):
            raise DataError(f"{folder}: {len(beside)} labels beside {len(windows)} windows", "as many")
        signals += list(windows)
        labels += list(beside[:, None]) if is_cut else [beside]
        names += [f"{folder.name} window {row}" if is_cut else folder.name for row in range(len(windows))]
        folders += [folder.name] * len(windows)
    if own.subject not in (None, FOLDER) and not _pattern(own):
        raise DataError(f"data.subject is {own.subject!r} of a folder", f"{FOLDER}, or pattern: ...")
    rates = [need_rate(own, str(root))] * len(signals)
    return Records(signals, labels, names, rates, _matched(own, folders) or folders, None)


def _subject_signal(folder: Path, own: OwnData) -> tuple[NDArray[np.float32], bool]:
    """Return the signals of one subject (n, C, T), and whether they are windows already."""
    parts = [_numbers(folder, _array(folder, name)) for name in own.signal or ("signal",)]
    is_cut = parts[0].ndim > 1
    wide = [part if part.ndim == 3 else np.atleast_2d(part)[:, None] for part in parts]
    if len({(len(part), part.shape[-1]) for part in wide}) != 1:
        raise DataError(f"the signals of {folder} have different lengths", "one length for all channels")
    return np.concatenate([as_float32(part, folder) for part in wide], axis=1), is_cut


def _numbers(folder: Path, values: NDArray[Any]) -> NDArray[Any]:
    if values.dtype.kind in "fiu":
        return values
    return numbers_of(values[:, None], lambda row: f"{folder} sample {row}")[:, 0]


def _subject_label(folder: Path, name: str) -> Labels:
    """Return labels (n, outputs) of ``<name>.npy``, .csv or .txt, or of a column of ``labels.csv``."""
    table = folder / "labels.csv"
    if table.is_file() and name in _names(table):
        return np.array(_texts(table, [name])).T
    values = _array(folder, name)
    return values.reshape(len(values) if values.ndim else 1, -1)


def _array(folder: Path, name: str) -> NDArray[Any]:
    """Return the array in the file of that name, with or without its suffix."""
    candidates = [folder / name, *(folder / f"{name}{suffix}" for suffix in (".npy", ".csv", ".txt"))]
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        raise lacks(folder, name, [path.name for path in visible(list(folder.iterdir()))])
    return stored_array(file) if file.suffix == ".npy" else _column(file)


def _column(file: Path) -> NDArray[np.str_]:
    """Return what a text file of one column holds, or, of several, the column that is called as the file.

    Its first line is a name, unless it is a number.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except ValueError:
        lines = []  # no UTF-8: a table's reader says what it is
    if lines and is_number(lines[0]):
        return np.array([line.strip() for line in lines])
    names = _names(file)
    (texts,) = _texts(file, [names[0] if len(names) == 1 else file.stem])
    return np.array(texts)


def read_classes(root: Path, own: OwnData) -> Records:
    """Return the records of one folder a class: ``AF/a01.csv``, ``N/b07.npy`` ..."""
    found = [(folder.name, path) for folder in _folders(root) for path in _signal_paths(folder)]
    if not found:
        raise DataError(f"{root} holds no signals", "files such as AF/a01.npy, .csv or .hea")
    if own.subject is not None and not _pattern(own):
        raise DataError(f"data.subject is {own.subject!r} of a folder of classes", "pattern: ...")
    signals, rates = _read_all([path for _, path in found], own)
    paths = [path.relative_to(root).as_posix() for _, path in found]
    return Records(
        signals, [np.array([[name]]) for name, _ in found], paths, rates, _matched(own, paths), None
    )


def _signal_paths(folder: Path) -> list[Path]:
    return [path for path in visible(list(folder.rglob("*"))) if path.suffix in SIGNAL_SUFFIXES]


def _pattern(own: OwnData) -> str | None:
    """Return the regular expression that finds subjects in paths; None where subjects stand elsewhere."""
    is_one = own.subject is not None and own.subject.startswith(PATTERN)
    return own.subject.removeprefix(PATTERN).strip() if own.subject and is_one else None


def _matched(own: OwnData, paths: Iterable[str]) -> list[str] | None:
    """Return the subjects that the study's pattern finds in paths; None without a pattern."""
    pattern, subjects = _pattern(own), []
    if pattern is None:
        return None
    for path in paths:
        found = re.search(pattern, path)
        if found is None or not found[1]:
            raise DataError(f"the subject's pattern {pattern!r} finds nothing in {path}", "one group in each")
        subjects.append(found[1])
    return subjects


def _read_all(paths: Sequence[Path], own: OwnData) -> tuple[Sequence[Float32s], Sequence[float]]:
    """Return channels (C, samples) and rate of each file; leads stand in the order of the first record's."""
    header = _header(paths[0])
    if header is not None and not own.signal:
        own = replace(own, signal=tuple(_lead_names(_opened(header, "rdheader"))))
    signals, rates = zip(*(_read_channels(path, own) for path in paths), strict=True)
    return signals, rates


def _read_channels(path: Path, own: OwnData) -> tuple[Float32s, float]:
    header, rate_hz = _header(path), own.rate_hz
    if header is not None:
        return _from_wfdb(header, own)
    rate_hz = need_rate(own, str(path))
    if path.suffix == ".npy" and not own.signal:
        return _from_npy(path), rate_hz
    key = "name it in data.signal"
    parts = [read_signal(path, rate_hz, name, key)[0] for name in own.signal or (None,)]
    return np.stack(parts), rate_hz


def _header(path: Path) -> Path | None:
    header = path if path.suffix == ".hea" else path.with_name(f"{path.name}.hea")
    return header if header.is_file() else None


def _opened(header: Path, how: str) -> Any:
    import wfdb

    try:
        return getattr(wfdb, how)(str(header.with_suffix("")))
    except Exception as error:  # wfdb raises whatever its parser meets
        raise DataError(f"{header} cannot be read ({error})", "a WFDB record") from error


def _lead_names(record: Any) -> list[str]:
    return [str(name).strip() for name in record.sig_name or []] or [str(i) for i in range(record.n_sig)]


def _from_npy(path: Path) -> Float32s:
    """Return (C, samples): a plain signal is one channel; of two axes the longer one is time."""
    stored = stored_array(path)
    if stored.ndim not in (1, 2) or stored.dtype.kind not in "fiu":
        raise DataError(f"{path} has shape {stored.shape} of {stored.dtype}", "numbers, (T,) or (C, T)")
    wide = stored[None] if stored.ndim == 1 else stored if stored.shape[1] >= stored.shape[0] else stored.T
    return as_float32(wide, path)


def _from_wfdb(header: Path, own: OwnData) -> tuple[Float32s, float]:
    """Return channels (C, samples) in physical units, in float32 as our own readers have them."""
    read = _opened(header, "rdrecord")
    rate = float(read.fs)
    if own.rate_hz is not None and abs(own.rate_hz / rate - 1) > 1e-9:
        raise DataError(
            f"data.rate_hz is {own.rate_hz:g}, but {header} says {rate:g} Hz",
            "the rate that the record states",
            "leave data.rate_hz out, or use data.resample_hz to change it",
        )
    names = _lead_names(read)
    for name in own.signal:
        if names.count(name) != 1:
            raise lacks(header, name, names, "lead ")
    places = [names.index(name) for name in own.signal]
    gain, baseline = (np.asarray(part)[places] for part in (read.adc_gain, read.baseline))
    digital = np.round(read.p_signal[:, places] * gain + baseline)
    values = (digital.astype(np.float32) - baseline.astype(np.float32)) / gain.astype(np.float32)
    return np.ascontiguousarray(values.T), rate
