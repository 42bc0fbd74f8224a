"""One file with one window a row: NPZ and Parquet. Axes: N rows, C channels, T samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.own.records import Records, as_texts, lacks, need_rate
from finetune.errors import DataError, SettingError
from finetune.own import OwnData
from finetune.signal_files import as_float32, stored_arrays
from finetune.signals import Float32s

SIGNAL_NAMES, LABEL_NAMES = ("x", "signal", "windows"), ("y", "label", "labels")
"""What is looked for where the study names none."""


def read_npz(file: Path, own: OwnData) -> Records:
    """Return the windows of a .npz: arrays (N, T) or (N, C, T), and (N,) or (N, outputs) beside them."""
    arrays = stored_arrays(file, "a .npz of numpy.savez, without objects")
    if isinstance(arrays, np.ndarray):
        raise DataError(f"{file} holds one array without a name", "a .npz of numpy.savez")
    channels = [arrays[name] for name in _names(file, own.signal, SIGNAL_NAMES, arrays, "signal")]
    return _records(file, own, arrays, _stacked(file, channels))


def read_parquet(file: Path, own: OwnData) -> Records:
    """Return the windows of a .parquet: columns of lists, or a column a sample (``ppg_0`` ...)."""
    frame = _frame(file)
    arrays = {str(name): frame[name].to_numpy() for name in frame.columns}
    if not len(frame):
        raise DataError(f"{file} has no rows", "a window a row")
    wanted = own.signal or tuple(name for name in SIGNAL_NAMES if name in arrays or f"{name}_0" in arrays)[:1]
    if not wanted:
        raise lacks(file, "signal", arrays, "column of signals, such as ")
    channels = [_column(file, name, arrays) for name in wanted]
    return _records(file, own, arrays, _stacked(file, channels))


def _frame(file: Path) -> Any:
    import pandas as pd

    try:
        return pd.read_parquet(file)
    except ImportError as error:
        raise SettingError(
            f"{file} needs pyarrow, which is not installed",
            "a reader of Parquet",
            "type: pip install pyarrow (or save the windows as .npz)",
        ) from error
    except (ValueError, OSError) as error:
        raise DataError(f"{file} cannot be read ({' '.join(str(error).split())})", "a .parquet") from error


def _column(file: Path, name: str, arrays: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return one channel (N, T), or several (N, C, T), out of lists or of numbered columns."""
    numbers = {int(end): other for other in arrays if (end := other.removeprefix(f"{name}_")).isdigit()}
    if name not in arrays and numbers:
        missing = sorted(set(range(min(numbers), max(numbers))) - set(numbers))
        if missing:
            raise DataError(f"{file} has no column {name}_{missing[0]}", "a column for each sample")
        return np.stack([arrays[numbers[place]] for place in sorted(numbers)], axis=1)
    if name not in arrays:
        raise lacks(file, name, arrays, "column ")
    for row, cell in enumerate(arrays[name]):
        if not isinstance(cell, list | np.ndarray):
            raise DataError(
                f"{file} row {row}: {name} is {str(cell)[:40]!r}", "a list of numbers, one window"
            )
    rows = [np.stack([np.asarray(part) for part in row]) for row in arrays[name]]
    lengths = {row.shape for row in rows}
    if len(lengths) != 1:
        raise DataError(f"{file}: windows of column {name!r} have {len(lengths)} different lengths", "one")
    return np.stack(rows)


def _stacked(file: Path, channels: Sequence[NDArray[Any]]) -> NDArray[np.float32]:
    """Return channels as (N, C, T) float32."""
    for values in channels:
        if values.dtype.kind not in "fiu" or values.ndim not in (2, 3):
            what = f"the signal in {file} has shape {values.shape} of {values.dtype}"
            raise DataError(what, "numbers, (N, T) or (N, C, T)")
        if values.ndim == 3 and values.shape[1] > values.shape[2]:
            what = f"the signal in {file} has shape {values.shape}: more channels than samples"
            raise DataError(what, "(N, C, T)", "is it (N, T, C)? turn it: x.transpose(0, 2, 1)")
    if len({(len(values), values.shape[-1]) for values in channels}) != 1:
        raise DataError(f"the channels in {file} have different shapes", "one shape for all")
    wide = [values if values.ndim == 3 else values[:, None] for values in channels]
    return np.concatenate([as_float32(values, file) for values in wide], axis=1)


def _names(
    file: Path, given: Sequence[str], usual: Sequence[str], arrays: Mapping[str, Any], key: str
) -> Sequence[str]:
    """Return the names to read; raises :class:`DataError` for one that is not there."""
    names = given or [name for name in usual if name in arrays][:1]
    if not names:
        raise lacks(f"no data.{key} is named, and {file}", key, arrays)
    for name in names:
        if name not in arrays:
            raise lacks(file, name, arrays)
    return names


def _records(
    file: Path, own: OwnData, arrays: Mapping[str, NDArray[Any]], signal: NDArray[np.float32]
) -> Records:
    named = _names(file, own.label, LABEL_NAMES, arrays, "label")
    beside = [name for name in (own.subject, own.split.column) if name is not None]
    for name in (*named, *beside):
        if name not in arrays:
            raise lacks(file, name, arrays)
        if not arrays[name].ndim or len(arrays[name]) != len(signal) or not len(signal):
            rows = len(arrays[name]) if arrays[name].ndim else 1
            raise DataError(
                f"{file}: {rows} rows of {name} beside {len(signal)} windows", "as many, 3 or more"
            )
    labels = np.concatenate([arrays[name].reshape(len(signal), -1) for name in named], axis=1)
    names = [f"{file.name} row {row}" for row in range(len(signal))]
    subject, split = own.subject, own.split.column
    return Records(
        signals=cast(Sequence[Float32s], signal),  # an array is its rows, and stays one
        labels=list(labels[:, None]),
        names=names,
        rates_hz=[need_rate(own, str(file))] * len(signal),
        subjects=None if subject is None else as_texts(arrays[subject], "subject", names),
        splits=None if split is None else as_texts(arrays[split], "split", names),
    )
