"""Records as a user's files hold them, before windows are cut: what every layout becomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import DataError, MissingDataError
from finetune.own import OwnData
from finetune.signals import Float32s

Labels = NDArray[Any]
"""(n, outputs) numbers or names: one row for a record, one a window, or a series in time."""


@dataclass(frozen=True)
class Records:
    """What stands in the files, in their order."""

    signals: Sequence[Float32s]
    """Each (C, samples)."""
    labels: Sequence[Labels]
    names: Sequence[str]
    """Where each stands: a row, or a path below the root."""
    rates_hz: Sequence[float]
    subjects: Sequence[str] | None
    """None: not known."""
    splits: Sequence[str] | None
    """What the split's column says; None without one."""


def root_of(own: OwnData, data_dir: Path) -> Path:
    """Return where the signals are: absolute, below the data folder, or below the working folder.

    Raises :class:`MissingDataError`.
    """
    given = Path(own.file).expanduser()
    for place in (data_dir / given, given):
        if place.exists():
            return place.absolute()
    raise MissingDataError(
        f"data.file {own.file!r} is not there",
        f"it below the data folder {data_dir} or below the working folder",
        "check data.file, or name the folder with --data",
    )


def need_rate(own: OwnData, where: str) -> float:
    """Return the rate that the study states; raises :class:`DataError` where nothing states one."""
    if own.rate_hz is None:
        raise DataError(f"{where} does not say its sampling rate", "data.rate_hz in Hz", "add data.rate_hz")
    return own.rate_hz


def visible(paths: Sequence[Path]) -> list[Path]:
    """Return the paths whose names do not begin with a dot (a system's own files), sorted."""
    return sorted(path for path in paths if not path.name.startswith("."))


def as_texts(values: Any) -> list[str]:
    """Return names of subjects or splits as texts; whole numbers without a decimal point."""
    return [
        str(int(value))
        if isinstance(value, float | np.floating) and float(value).is_integer()
        else str(value)
        for value in np.asarray(values).tolist()
    ]
