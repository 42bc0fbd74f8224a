"""One file with one window a row: NPZ and Parquet. Axes: N rows, C channels, T samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.own.records import Labels, Records, as_texts, need_rate
from finetune.errors import DataError, SettingError
from finetune.own import OwnData
from finetune.signals import Float32s

SIGNAL_NAMES, LABEL_NAMES = ("x", "signal", "windows"), ("y", "label", "labels")
"""What is looked for where the study names none."""


def read_npz(file: Path, own: OwnData) -> Records:
    """Return the windows of a .npz: arrays (N, T) or (N, C, T), and (N,) or (N, outputs) beside them."""
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            arrays = {name: stored[name] for name in stored.files}
    except Exception as error:  # a damaged archive or header: BadZipFile, zlib's error, SyntaxError ...
        said = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{file} cannot be read ({said})", "a .npz of numpy.savez, without objects"
        ) from error
    channels = [np.asarray(arrays[name]) for name in _names(file, own.signal, SIGNAL_NAMES, arrays, "signal")]
    return _records(file, own, arrays, _stacked(file, channels))


def read_parquet(file: Path, own: OwnData) -> Records:
    """Return the windows of a .parquet: columns of lists, or a column a sample (``ppg_0`` ...)."""
    frame = _frame(file)
    columns = [str(name) for name in frame.columns]
    arrays = {name: frame[name].to_numpy() for name in columns}
    wanted = own.signal or tuple(name for name in SIGNAL_NAMES if _is_there(name, columns))[:1]
    if not wanted:
        raise DataError(f"{file} has no column of signals", f"data.signal, one of {', '.join(columns[:20])}")
    channels = [_column(file, name, columns, arrays) for name in wanted]
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


def _is_there(name: str, columns: Sequence[str]) -> bool:
    return name in columns or f"{name}_0" in columns


def _column(
    file: Path, name: str, columns: Sequence[str], arrays: Mapping[str, NDArray[Any]]
) -> NDArray[Any]:
    """Return one channel (N, T), or several (N, C, T), out of lists or of numbered columns."""
    numbered = [other for other in columns if other.removeprefix(f"{name}_").isdigit()]
    if name not in arrays and numbered:
        order = sorted(numbered, key=lambda other: int(other.removeprefix(f"{name}_")))
        return np.stack([arrays[other] for other in order], axis=1)
    if name not in arrays:
        raise DataError(f"{file} has no column {name!r}", f"one of {', '.join(columns[:20])}")
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
    if len({(len(values), values.shape[-1]) for values in channels}) != 1:
        raise DataError(f"the channels in {file} have different shapes", "one shape for all")
    wide = [values if values.ndim == 3 else values[:, None] for values in channels]
    return np.concatenate(wide, axis=1).astype(np.float32)


def _names(
    file: Path, given: Sequence[str], usual: Sequence[str], arrays: Mapping[str, Any], key: str
) -> Sequence[str]:
    """Return the names to read; raises :class:`DataError` for one that is not there."""
    names = given or [name for name in usual if name in arrays][:1]
    missing = [name for name in names if name not in arrays]
    if missing or not names:
        what = f"{file} has no {missing[0]!r}" if missing else f"{file} has nothing that is called {key}"
        raise DataError(what, f"data.{key}, one of {', '.join(map(str, list(arrays)[:20]))}")
    return names


def _records(
    file: Path, own: OwnData, arrays: Mapping[str, NDArray[Any]], signal: NDArray[np.float32]
) -> Records:
    columns = [np.asarray(arrays[name]) for name in _names(file, own.label, LABEL_NAMES, arrays, "label")]
    labels = np.concatenate([column.reshape(len(column), -1) for column in columns], axis=1)
    beside = {name: _beside(file, own_name, arrays) for name, own_name in _texts(own).items()}
    for name, values in {"label": labels, **beside}.items():
        if values is not None and len(values) != len(signal):
            raise DataError(f"{file}: {len(values)} rows of {name} beside {len(signal)} windows", "as many")
    return Records(
        signals=cast(Sequence[Float32s], signal),  # an array is its rows, and stays one
        labels=_rows(labels),
        names=[f"{file.name} row {row}" for row in range(len(signal))],
        rates_hz=[need_rate(own, str(file))] * len(signal),
        subjects=beside["subject"],
        splits=beside["split"],
    )


def _texts(own: OwnData) -> dict[str, str | None]:
    return {"subject": own.subject, "split": own.split.column}


def _beside(file: Path, name: str | None, arrays: Mapping[str, NDArray[Any]]) -> list[str] | None:
    if name is None:
        return None
    if name not in arrays:
        raise DataError(f"{file} has no {name!r}", f"one of {', '.join(map(str, list(arrays)[:20]))}")
    return as_texts(arrays[name])


def _rows(labels: Labels) -> list[Labels]:
    return list(labels[:, None])
