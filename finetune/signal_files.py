"""One signal out of a file: CSV, NumPy or a WFDB record."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import DataError, SettingError
from finetune.file_kinds import why_unreadable
from finetune.signals import Float32s
from finetune.tables import TableFault, open_table

WFDB_SUFFIXES = (".hea", ".dat", ".mat", "")


def read_signal(file: Path, rate_hz: float | None, column: str | None = None) -> tuple[Float32s, float]:
    """Return one signal (samples,) with its rate in Hz.

    ``file`` is a .csv (or .csv.gz) with a header line, a .npy, or a WFDB record (its header, its signal
    file, or the name without suffix), which knows its own rate. ``column`` names a column or a lead, or is
    the number (from 0) of a column of a .npy, or of a lead without a name; it may be left out where there is
    only one. Raises :class:`DataError` naming file and column.
    """
    if file.suffix in {".csv", ".gz"}:
        return _from_csv(file, column), _needed(rate_hz)
    if file.suffix == ".npy":
        return _from_npy(file, column), _needed(rate_hz)
    if file.suffix in WFDB_SUFFIXES and file.with_suffix(".hea").is_file():
        return _from_wfdb(file.with_suffix(""), rate_hz, column)
    raise DataError(f"{file} is no signal", "a .csv, a .npy, or a WFDB record with its .hea")


def _needed(rate_hz: float | None) -> float:
    if rate_hz is None or not rate_hz > 0:
        said = "no sampling rate is given" if rate_hz is None else f"rate {rate_hz:g} Hz"
        raise SettingError(said, "the signal's sampling rate", "type: --rate HZ")
    return rate_hz


def _from_csv(file: Path, column: str | None) -> Float32s:
    try:
        with open_table(file) as table:
            (values,) = table.numbers([table.names[_place(file, table.names, column)]])
    except TableFault as error:
        raise DataError(f"{file} cannot be read ({error.what})", error.expected) from error
    return _checked(file, values)


def _from_npy(file: Path, column: str | None) -> Float32s:
    try:
        stored = stored_array(file)
    except (ValueError, OSError, EOFError) as error:
        reason = why_unreadable(file, error, "NumPy")
        if "pickle" in reason:  # NumPy's own words advise to unpickle it
            reason = "it holds objects"
        raise DataError(f"{file} cannot be read ({reason})", "an array of numbers") from error
    if stored.ndim == 1:
        return _checked(file, stored)
    if stored.ndim != 2:
        raise DataError(f"{file} has {stored.ndim} axes", "(samples,) or (samples, columns)")
    names = [str(place) for place in range(stored.shape[1])]
    return _checked(file, stored[:, _place(file, names, column)])


def stored_array(file: Path) -> NDArray[Any]:
    """Return the array of a .npy; raises ValueError for a file that holds none, whatever NumPy raises."""
    try:
        with file.open("rb") as stream:  # NumPy leaves one that it opened itself open when it fails
            stored = np.load(stream, allow_pickle=False)
    except OSError:
        raise
    except Exception as error:  # a damaged header is read as Python: SyntaxError, TokenError, MemoryError ...
        raise ValueError(" ".join(str(error).split()) or type(error).__name__) from error
    if not isinstance(stored, np.ndarray):
        raise ValueError("it holds several arrays: a .npz")
    return stored


def _from_wfdb(record: Path, rate_hz: float | None, column: str | None) -> tuple[Float32s, float]:
    import wfdb

    try:
        read = wfdb.rdrecord(str(record))
    except Exception as error:  # wfdb raises whatever its parser meets
        raise DataError(f"{record}.hea cannot be read ({error})", "a WFDB record") from error
    rate = float(read.fs)
    if rate_hz is not None and abs(rate_hz / rate - 1) > 1e-9:
        raise SettingError(
            f"rate {rate_hz:g} Hz", f"{rate:g} Hz, which the record states", "leave --rate out"
        )
    if read.p_signal is None or read.p_signal.ndim != 2:
        raise DataError(f"{record}.hea describes no signal", "one or more, all at one rate")
    given = read.sig_name or [None] * read.p_signal.shape[1]
    names = [(name or "").strip() or str(number) for number, name in enumerate(given)]
    return _checked(record, read.p_signal[:, _place(record, names, column)]), rate


def _place(file: Path, names: Sequence[str], column: str | None) -> int:
    """Return where the wanted column is; the only one when none is named."""
    if column is None and len(names) == 1:
        return 0
    if column is None or column.strip() not in names:
        what = "no column named" if column is None else f"no column {column!r}"
        raise DataError(f"{file}: {what}", f"one of {', '.join(names)}", "type: --column NAME")
    if list(names).count(column.strip()) > 1:
        raise DataError(f"{file}: {list(names).count(column.strip())} columns are named {column!r}", "one")
    return list(names).index(column.strip())


def _checked(file: Path, values: NDArray[np.generic]) -> Float32s:
    signal = np.asarray(values)
    if signal.dtype.kind not in "fiu" or not np.isfinite(signal).any():
        raise DataError(f"{file} holds no number", "a signal")
    return np.ascontiguousarray(signal, dtype=np.float32)
