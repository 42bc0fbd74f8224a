"""Records as a user's files hold them, before windows are cut: what every layout becomes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import DataError, MissingDataError
from finetune.own import OwnData
from finetune.signals import Float32s
from finetune.tables import MISSING

MANY = 20
"""Names that an error lists at most."""
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


def lacks(where: object, name: str, there: Iterable[str], what: str = "") -> DataError:
    """Return the error for a name that a file lacks, with those that it has and the nearest."""
    names = [str(other) for other in there]
    alike = {other.casefold(): other for other in names}
    near = get_close_matches(name.casefold(), alike, n=1, cutoff=0.5)
    near = near or [other for other in alike if other.startswith(name.casefold())][:1]
    hint = f"did you mean {alike[near[0]]!r}?" if near else ""
    more = ", ..." if len(names) > MANY else ""
    return DataError(
        f"{where} has no {what}{name!r}", f"one of {', '.join(names[:MANY]) or 'nothing'}{more}", hint
    )


def as_text(value: Any) -> str:
    """Return a name as text: without blanks around it, whole numbers without a decimal point."""
    text = value.decode(errors="replace") if isinstance(value, bytes) else str(value)
    return re.sub(r"^(-?\d+)\.0+$", r"\1", text.strip())


def alike(what: str, names: Iterable[str]) -> list[str]:
    """Return a note on names that differ in capitals or leading zeros alone; none without such."""
    kinds: dict[str, set[str]] = {}
    for name in names:
        kinds.setdefault(name.casefold().lstrip("0"), set()).add(name)
    several = [", ".join(sorted(kind)) for kind in kinds.values() if len(kind) > 1]
    return [f"{what} that differ in capitals or leading zeros alone: {several[0]}"] if several else []


def is_missing(value: Any) -> bool:
    """Return whether a cell stands for a value that is not there."""
    return as_text(value).casefold() in {*MISSING, "<na>", "nat"}


def as_texts(values: Any, key: str, names: Sequence[str]) -> list[str]:
    """Return the subject or split of each record; raises :class:`DataError` where one has none."""
    cells = np.asarray(values)
    cells = cells[:, 0] if cells.ndim == 2 and cells.shape[1] == 1 else cells
    if cells.ndim != 1 or len(cells) != len(names):
        raise DataError(f"data.{key} has shape {cells.shape} beside {len(names)} records", "one a record")
    missing = [name for name, cell in zip(names, cells.tolist(), strict=True) if is_missing(cell)]
    if missing:
        what = f"{len(missing)} of {len(names)} records have no {key}, the first {missing[0]}"
        raise DataError(what, f"a {key} for each", f"leave those out, or leave data.{key} out")
    return [as_text(cell) for cell in cells.tolist()]
