"""One signal out of a file: CSV, NumPy or a WFDB record."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import DataError, SettingError
from finetune.file_kinds import why_unreadable
from finetune.signals import CHUNK, Float32s
from finetune.tables import TableFault, open_table

COARSE = 1e-3
"""Of a signal's swing: what float32 may lose of it, as much as a converter of 10 bits."""
CLOCK = re.compile(r"(time|seconds?|sec|t)\b", re.IGNORECASE)
"""Begins the name of a column of times."""
EVEN = 10
"""Samples that times may be away from even ones; a record with a gap has no one rate."""
WFDB_SUFFIXES = (".hea", ".dat", ".mat", "")


def read_signal(
    file: Path, rate_hz: float | None, column: str | None = None, key: str = "type: --column NAME"
) -> tuple[Float32s, float]:
    """Return one signal (samples,) with its rate in Hz.

    ``file`` is a .csv (or .csv.gz) with a header line, a .npy, or a WFDB record (its header, its signal
    file, or the name without suffix), which knows its own rate. ``column`` names a column or a lead, or is
    the number (from 0) of a column of a .npy, or of a lead without a name; it may be left out where there is
    only one; ``key`` says how. Raises :class:`DataError` naming file and column.
    """
    if file.suffix in {".csv", ".gz"}:
        return _from_csv(file, column, key, _needed(rate_hz)), _needed(rate_hz)
    if file.suffix == ".npy":
        return _from_npy(file, column, key), _needed(rate_hz)
    if file.suffix in WFDB_SUFFIXES and file.with_suffix(".hea").is_file():
        return _from_wfdb(file.with_suffix(""), rate_hz, column, key)
    raise DataError(f"{file} is no signal", "a .csv, a .npy, or a WFDB record with its .hea")


def _needed(rate_hz: float | None) -> float:
    if rate_hz is None or not rate_hz > 0:
        said = "no sampling rate is given" if rate_hz is None else f"rate {rate_hz:g} Hz"
        raise SettingError(said, "the signal's sampling rate", "type: --rate HZ")
    return rate_hz


def as_float32(values: NDArray[Any], where: object) -> Float32s:
    """Return signals (..., T) in float32; raises :class:`DataError` where its 7 digits lose their swing."""
    with np.errstate(over="ignore", invalid="ignore"):
        single = np.ascontiguousarray(values, dtype=np.float32)
    if np.can_cast(values.dtype, np.float32) or not values.size:
        return single
    rows, rounded = (each.reshape(-1, values.shape[-1]) for each in (values, single))
    for start in range(0, len(rows), CHUNK):
        part = rows[start : start + CHUNK].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            swing = np.fmax.reduce(part, axis=1) - np.fmin.reduce(part, axis=1)
            lost = np.fmax.reduce(np.abs(part - rounded[start : start + CHUNK]), axis=1)
        coarse = np.flatnonzero((swing > 0) & (lost > COARSE * swing))
        if len(coarse):
            top = np.fmax.reduce(np.abs(part[coarse[0]]))
            what = f"{where}: a signal that reaches {top:g} and varies by {swing[coarse[0]]:g}"
            raise DataError(what, "what 7 digits hold", "take its offset away, or use another unit")
    return single


def _from_csv(file: Path, column: str | None, key: str, rate_hz: float) -> Float32s:
    try:
        values, times = _with_clock(file, column, key)
    except TableFault as error:
        raise DataError(f"{file} cannot be read ({error.what})", error.expected) from error
    _check_clock(file, times, rate_hz)
    return _checked(file, values)


def _with_clock(file: Path, column: str | None, key: str) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return a column of a table, and the times beside it: empty where there are none, or no numbers."""
    with open_table(file) as table:
        wanted = table.names[_place(file, table.names, column, key)]
        clocks = [name for name in table.names if CLOCK.match(name) and name != wanted][:1]
        try:
            values, *times = table.numbers([wanted, *clocks])
            return values, times[0] if times else np.empty(0)
        except TableFault:
            if not clocks:
                raise
    with open_table(file) as table:
        return table.numbers([wanted])[0], np.empty(0)


def _check_clock(file: Path, times: NDArray[Any], rate_hz: float) -> None:
    """Raise :class:`DataError` where times step otherwise than by one sample, in s, ms, us or samples."""
    step = float(times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
    away = np.abs(times - times[0] - step * np.arange(len(times))) if step > 0 else np.full(1, np.inf)
    is_even = bool(away.max() < EVEN * step)  # times may be written with few digits
    if is_even and not any(abs(step * rate_hz / unit - 1) < 0.05 for unit in (1, 1e3, 1e6, rate_hz)):
        what = (
            f"{file}: its times step by {step:g}, which is {1 / step:.4g} Hz in seconds, not {rate_hz:g} Hz"
        )
        raise DataError(what, "the rate of its times", "check the rate, or remove the column of times")


def _from_npy(file: Path, column: str | None, key: str) -> Float32s:
    stored = stored_array(file)
    if stored.ndim == 1:
        return _checked(file, stored)
    if stored.ndim != 2:
        raise DataError(f"{file} has {stored.ndim} axes", "(samples,) or (samples, columns)")
    names = [str(place) for place in range(stored.shape[1])]
    return _checked(file, stored[:, _place(file, names, column, key)])


def stored_array(file: Path) -> NDArray[Any]:
    """Return the array of a .npy; raises :class:`DataError` for a file that holds none."""
    arrays = stored_arrays(file, "an array of numbers, without objects")
    if not isinstance(arrays, np.ndarray):
        raise DataError(f"{file} cannot be read (it holds several arrays: a .npz)", "one array of numbers")
    return arrays


def stored_arrays(file: Path, expected: str) -> NDArray[Any] | dict[str, NDArray[Any]]:
    """Return what a .npy or .npz holds; raises :class:`DataError` for all that NumPy raises."""
    try:
        with file.open("rb") as stream:  # NumPy leaves one that it opened itself open when it fails
            stored = np.load(stream, allow_pickle=False)
            return stored if isinstance(stored, np.ndarray) else {name: stored[name] for name in stored.files}
    except Exception as error:  # a damaged header is read as Python: SyntaxError, TokenError, MemoryError ...
        reason = why_unreadable(file, error, "NumPy", "zip")
        if "pickle" in reason:  # NumPy's own words advise to unpickle it
            reason = "it holds objects"
        raise DataError(f"{file} cannot be read ({reason})", expected) from error


def _from_wfdb(record: Path, rate_hz: float | None, column: str | None, key: str) -> tuple[Float32s, float]:
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
    return _checked(record, read.p_signal[:, _place(record, names, column, key)]), rate


def _place(file: Path, names: Sequence[str], column: str | None, key: str) -> int:
    """Return where the wanted column is; the only one when none is named."""
    if column is None and len(names) == 1:
        return 0
    if column is None or column.strip() not in names:
        what = "no column named" if column is None else f"no column {column!r}"
        raise DataError(f"{file}: {what}", f"one of {', '.join(names[:20])}", key)
    if list(names).count(column.strip()) > 1:
        raise DataError(f"{file}: {list(names).count(column.strip())} columns are named {column!r}", "one")
    return list(names).index(column.strip())


def _checked(file: Path, values: NDArray[np.generic]) -> Float32s:
    signal = np.asarray(values)
    if signal.dtype.kind not in "fiu" or not np.isfinite(signal).any():
        raise DataError(f"{file} holds no number", "a signal")
    return as_float32(signal, file)
