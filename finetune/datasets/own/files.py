"""Signals in files of their own: a manifest that names them, a folder a subject, a folder a class."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.own.records import Labels, Records, as_texts, need_rate, visible
from finetune.errors import DataError
from finetune.own import OwnData
from finetune.signal_files import read_signal, stored_array
from finetune.signals import Float32s

PATH_NAMES = ("file", "path", "filename", "record")
"""Columns that are looked for in a manifest where the study names none."""
SIGNAL_SUFFIXES = (".npy", ".csv", ".gz", ".hea")
PATTERN = "pattern:"
"""Begins a subject that is read out of paths."""


def manifest_files(file: Path, own: OwnData) -> list[Path]:
    """Return the manifest and every file that it names."""
    named = [path for name in _paths(file, own, _manifest(file)) for path in _parts(file.parent / name)]
    return [file, *sorted(set(named))]


def read_manifest(file: Path, own: OwnData) -> Records:
    """Return one record for each row of a table that names signal files (WFDB, CSV, NPY)."""
    frame = _manifest(file)
    paths = _paths(file, own, frame)
    columns = [str(name) for name in frame.columns]
    label = own.label or tuple(name for name in ("label", "y") if name in columns)[:1]
    for name in [*label, *filter(None, (_plain_subject(own), own.split.column))]:
        if name not in columns:
            raise DataError(f"{file} has no column {name!r}", f"one of {', '.join(columns)}")
    if not label:
        raise DataError(f"{file}: no column of labels is named", f"data.label, one of {', '.join(columns)}")
    signals, rates = zip(*(read_channels(file.parent / name, own) for name in paths), strict=True)
    plain, split = _plain_subject(own), own.split.column
    return Records(
        signals=signals,
        labels=[row[None] for row in frame[list(label)].to_numpy()],
        names=paths,
        rates_hz=rates,
        subjects=as_texts(frame[plain]) if plain else _matched(own, paths),
        splits=as_texts(frame[split]) if split else None,
    )


def _manifest(file: Path) -> Any:
    import pandas as pd

    try:
        frame = pd.read_csv(file, skipinitialspace=True, index_col=False)
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (ValueError, OSError) as error:
        raise DataError(f"{file} cannot be read ({' '.join(str(error).split())})", "a table") from error
    frame.columns = [str(name).strip() for name in frame.columns]
    _refuse_shifted(file, lines)
    return frame


def _refuse_shifted(file: Path, lines: Sequence[str]) -> None:
    """Refuse a row with more or fewer fields than names: its values would stand under other names."""
    import csv

    rows = [row for row in csv.reader(lines) if row]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(rows[0]):
            raise DataError(
                f"{file} line {number} has {len(row)} fields under {len(rows[0])} names: "
                "its columns are shifted",
                "as many fields as names",
            )


def _paths(file: Path, own: OwnData, frame: Any) -> list[str]:
    columns = [str(name) for name in frame.columns]
    name = own.path or next((usual for usual in PATH_NAMES if usual in columns), None)
    if name is None or name not in columns:
        raise DataError(f"{file} has no column of files", f"data.path, one of {', '.join(columns)}")
    paths = [str(value).strip() for value in frame[name]]
    for number, path in enumerate(paths, start=2):
        is_below = Path(os.path.normpath(file.parent / path)).is_relative_to(file.parent)
        if not is_below or not _parts(file.parent / path):
            raise DataError(
                f"{file} line {number}: {path} is not there", "a file below the manifest's folder"
            )
    return paths


def _parts(path: Path) -> list[Path]:
    """Return the files that hold one record: a WFDB header with its signals, or the file itself."""
    header = path if path.suffix == ".hea" else path.with_name(f"{path.name}.hea")
    if header.is_file():
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
    subjects: list[str] = []
    for folder in _folders(root):
        windows, is_cut = _subject_signal(folder, own)
        beside = np.concatenate([_subject_label(folder, name) for name in own.label], axis=1)
        if is_cut and len(beside) != len(windows):
            raise DataError(f"{folder}: {len(beside)} labels beside {len(windows)} windows", "as many")
        signals += list(windows)
        labels += list(beside[:, None]) if is_cut else [beside]
        names += [f"{folder.name} window {row}" if is_cut else folder.name for row in range(len(windows))]
        subjects += [folder.name] * len(windows)
    rates = [need_rate(own, str(root))] * len(signals)
    return Records(signals, labels, names, rates, subjects, None)


def _subject_signal(folder: Path, own: OwnData) -> tuple[NDArray[np.float32], bool]:
    """Return the signals of one subject (n, C, T), and whether they are windows already."""
    parts = [_array(folder, name) for name in own.signal or ("signal",)]
    is_cut = parts[0].ndim > 1
    wide = [part if part.ndim == 3 else np.atleast_2d(part)[:, None] for part in parts]
    if len({(len(part), part.shape[-1]) for part in wide}) != 1:
        raise DataError(f"the signals of {folder} have different lengths", "one length for all channels")
    return np.concatenate(wide, axis=1).astype(np.float32), is_cut


def _subject_label(folder: Path, name: str) -> Labels:
    """Return labels (n, outputs) of ``<name>.npy``, .csv or .txt, or of a column of ``labels.csv``."""
    table = folder / "labels.csv"
    if table.is_file():
        frame = _manifest(table)
        if name in frame.columns:
            return np.asarray(frame[[name]].to_numpy())
    values = _array(folder, name)
    return values.reshape(len(values) if values.ndim else 1, -1)


def _array(folder: Path, name: str) -> NDArray[Any]:
    """Return the array in the file of that name, with or without its suffix."""
    candidates = [folder / name, *(folder / f"{name}{suffix}" for suffix in (".npy", ".csv", ".txt"))]
    file = next((path for path in candidates if path.is_file()), None)
    if file is None:
        there = ", ".join(path.name for path in visible(list(folder.iterdir()))[:10]) or "nothing"
        raise DataError(f"{folder} has no {name!r}", f"one of {there}")
    try:
        if file.suffix == ".npy":
            return stored_array(file)
        return np.asarray(_loose_table(file))
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{file} cannot be read ({error})", "numbers") from error


def _loose_table(file: Path) -> NDArray[Any]:
    """Return the numbers of a text file, whose first line may be a name; one column becomes (n,)."""
    import pandas as pd

    first = file.read_text(encoding="utf-8-sig").split("\n", 1)[0]
    has_names = not re.fullmatch(r"[-+\d.eE,;\s]+|nan", first.strip())
    frame = pd.read_csv(file, header=0 if has_names else None, skipinitialspace=True)
    values = frame.to_numpy()
    return values[:, 0] if values.shape[1] == 1 else values


def read_classes(root: Path, own: OwnData) -> Records:
    """Return the records of one folder a class: ``AF/a01.csv``, ``N/b07.npy`` ..."""
    found = [(folder.name, path) for folder in _folders(root) for path in _signal_paths(folder)]
    if not found:
        raise DataError(f"{root} holds no signals", "files such as AF/a01.npy, .csv or .hea")
    signals, rates = zip(*(read_channels(path, own) for _, path in found), strict=True)
    paths = [path.relative_to(root).as_posix() for _, path in found]
    return Records(
        signals, [np.array([[name]]) for name, _ in found], paths, rates, _matched(own, paths), None
    )


def _signal_paths(folder: Path) -> list[Path]:
    return [path for path in visible(list(folder.rglob("*"))) if path.suffix in SIGNAL_SUFFIXES]


def _plain_subject(own: OwnData) -> str | None:
    is_pattern = own.subject is not None and own.subject.startswith(PATTERN)
    return None if is_pattern else own.subject


def _matched(own: OwnData, paths: Iterable[str]) -> list[str] | None:
    """Return the subjects that the study's pattern finds in paths; None without a pattern."""
    if own.subject is None:
        return None
    pattern, subjects = own.subject.removeprefix(PATTERN).strip(), []
    for path in paths:
        found = re.search(pattern, path)
        if found is None or not found.groups():
            raise DataError(f"the subject's pattern {pattern!r} finds nothing in {path}", "one group in each")
        subjects.append(found[1])
    return subjects


def read_channels(path: Path, own: OwnData) -> tuple[Float32s, float]:
    """Return the channels (C, samples) of one file, with its rate in Hz."""
    header = path if path.suffix == ".hea" else path.with_name(f"{path.name}.hea")
    if header.is_file():
        return _from_wfdb(header.with_suffix(""), own)
    if path.suffix == ".npy" and not own.signal:
        return _from_npy(path), need_rate(own, str(path))
    rate_hz = need_rate(own, str(path))
    parts = [read_signal(path, rate_hz, name)[0] for name in own.signal or (None,)]
    return np.stack(parts), rate_hz


def _from_npy(path: Path) -> Float32s:
    """Return (C, samples): a plain signal is one channel; of two axes the longer one is time."""
    try:
        stored = stored_array(path)
    except (ValueError, OSError, EOFError) as error:
        raise DataError(f"{path} cannot be read ({error})", "an array of numbers") from error
    if stored.ndim not in (1, 2) or stored.dtype.kind not in "fiu":
        raise DataError(f"{path} has shape {stored.shape} of {stored.dtype}", "numbers, (T,) or (C, T)")
    wide = stored[None] if stored.ndim == 1 else stored if stored.shape[1] >= stored.shape[0] else stored.T
    return np.ascontiguousarray(wide, dtype=np.float32)


def _from_wfdb(record: Path, own: OwnData) -> tuple[Float32s, float]:
    """Return channels (C, samples) in physical units, in float32 as our own readers have them."""
    import wfdb

    try:
        read = wfdb.rdrecord(str(record))
    except Exception as error:  # wfdb raises whatever its parser meets
        raise DataError(f"{record}.hea cannot be read ({error})", "a WFDB record") from error
    rate = float(read.fs)
    if own.rate_hz is not None and abs(own.rate_hz / rate - 1) > 1e-9:
        raise DataError(
            f"data.rate_hz is {own.rate_hz:g}, but {record}.hea says {rate:g} Hz",
            "the rate that the record states",
            "leave data.rate_hz out, or use data.resample_hz to change it",
        )
    names = [str(name).strip() for name in read.sig_name or []] or [str(i) for i in range(read.n_sig)]
    wanted = own.signal or tuple(names)
    missing = [name for name in wanted if name not in names]
    if missing:
        raise DataError(f"{record}.hea has no lead {missing[0]!r}", f"one of {', '.join(names)}")
    places = [names.index(name) for name in wanted]
    gain, baseline = (np.asarray(part)[places] for part in (read.adc_gain, read.baseline))
    digital = np.round(read.p_signal[:, places] * gain + baseline)
    values = (digital.astype(np.float32) - baseline.astype(np.float32)) / gain.astype(np.float32)
    return np.ascontiguousarray(values.T), rate
