"""The pickles of PPG-DaLiA and WESAD: nested dictionaries of columns, a file a person."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.restricted_pickle import read_arrays
from finetune.errors import DataError, MissingDataError


def find_pickles(root: Path, folder: str, subjects: Sequence[str], name: str, title: str) -> dict[str, Path]:
    """Return the file of each person who has one; raises :class:`MissingDataError` for none.

    ``name`` is the data set's for ``hpo data get``, ``title`` what people call it.
    """
    candidates = {subject: root / folder / subject / f"{subject}.pkl" for subject in subjects}
    found = {subject: path for subject, path in candidates.items() if path.is_file()}
    if not found:
        raise MissingDataError(
            f"no {title} recording in {root}",
            f"files such as {folder}/{subjects[0]}/{subjects[0]}.pkl",
            f"to fetch them: hpo data get {name}",
        )
    return found


def wrist_pulse(content: dict[Any, Any], path: Path, mend: str) -> NDArray[np.float32]:
    """Return the pulse wave of a person's wrist (samples,); raises :class:`DataError` for a flat one."""
    bvp = column(content, ("signal", "wrist", "BVP"), path, mend)
    demand(bool(np.nanmin(bvp) < np.nanmax(bvp)), path, "signal/wrist/BVP is flat", "a pulse wave", mend)
    return bvp.astype(np.float32)


def read_person(path: Path, subject: str, mend: str) -> dict[Any, Any]:
    """Return what the file holds; raises :class:`DataError` for another person's, and for no dictionary."""
    content = read_arrays(path, mend)
    demand(isinstance(content, dict), path, f"holds a {type(content).__name__}", "a dictionary", mend)
    is_theirs = content.get("subject", subject) == subject
    demand(is_theirs, path, f"is subject {content.get('subject')}", subject, mend)
    return dict(content)


def column(content: dict[Any, Any], keys: tuple[str, ...], path: Path, mend: str) -> NDArray[np.float64]:
    """Return one array of the nested dictionaries as (samples,); raises :class:`DataError` naming the key."""
    value: Any = content
    for depth, key in enumerate(keys):
        is_there = isinstance(value, dict) and key in value
        demand(is_there, path, f"has no key {'/'.join(keys[: depth + 1])}", f"{'/'.join(keys)}", mend)
        value = value[key]
    name = "/".join(keys)
    is_numeric = isinstance(value, np.ndarray) and value.dtype.kind in "fiu"
    demand(is_numeric, path, f"{name} is no array of numbers", "one", mend)
    is_column = value.ndim == 1 or (value.ndim == 2 and 1 in value.shape)
    demand(is_column, path, f"{name} has the shape {value.shape}", "one column", mend)
    has_numbers = bool(np.isfinite(value).any())
    demand(has_numbers, path, f"{name} holds no number (empty or all NaN)", "values", mend)
    return np.asarray(value, np.float64).ravel()


def demand(holds: bool, path: Path, what: str, expected: str, mend: str) -> None:
    """Raise :class:`DataError` unless something holds of a file."""
    if not holds:
        raise DataError(f"{path}: {what}" if " " in what else f"{path} {what}", expected, mend)
