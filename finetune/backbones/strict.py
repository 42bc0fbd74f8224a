"""Strict loading: what does not fit, is not finite or is something else is named."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from finetune.errors import CheckpointError
from finetune.file_kinds import START, FileKind, kind_of

NAMED = 12
"""Tensors that one message names of each kind of fault."""
WRAPPERS = frozenset(
    {"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
)
"""Parts of a key that torch.compile, DDP, FSDP, activation checkpoints and Lightning's Fabric put into it."""


def misfits(expected: Mapping[str, Tensor], given: Mapping[str, Tensor], prefix: str = "") -> list[str]:
    """Name the tensors that are missing, unexpected, of another shape or no numbers; empty when all fit."""
    missing = [f"missing {prefix}{key}" for key in expected if key not in given]
    unexpected = [f"unexpected {prefix}{key}" for key in given if key not in expected]
    wrong = [
        f"{prefix}{key} is {_shape(given[key])} instead of {tuple(expected[key].shape)}"
        for key in expected
        if key in given and _shape(given[key]) != str(tuple(expected[key].shape))
    ]
    return [fault for faults in (missing, unexpected, wrong) for fault in _cut(faults)]


def _shape(value: object) -> str:
    """Return the shape of a tensor of real numbers, or what stands in its place."""
    if not isinstance(value, Tensor):
        return f"a {type(value).__name__}"
    if not value.is_floating_point():
        return f"{str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    return str(tuple(value.shape))


def _cut(faults: Sequence[str]) -> list[str]:
    more = len(faults) - NAMED
    return [*faults[:NAMED], f"and {more} more"] if more > 1 else list(faults)


def unwrapped(path: Path, tensors: Mapping[str, Any], anchor: str, usual: str = "") -> dict[str, Any]:
    """Return the tensors of the model that has a tensor ``anchor``, under their own names.

    The names that wrappers put into keys are left out, wherever they stand, and then what comes before
    ``anchor``: ``usual`` where there is one, else the only other there is. Raises :class:`CheckpointError`
    when there is none (with what the keys begin with), or several to choose from.
    """
    plain = {_without_wrappers(str(key)): value for key, value in tensors.items()}
    if len(plain) < len(tensors):
        raise CheckpointError(f"{path} holds a tensor twice, with and without a wrapper's name", "one model")
    found = [key.removesuffix(anchor) for key in plain if key == anchor or key.endswith(f".{anchor}")]
    if usual in found:
        found = [usual]
    if len(found) != 1:
        starts = ", ".join(sorted({key.split(".")[0] for key in plain})[:NAMED]) or "nothing"
        what = f"{path} holds {len(found) or 'no'} tensors {anchor} ({', '.join(found) or f'but {starts}'})"
        raise CheckpointError(what, f"one, as {usual}{anchor}" if usual else "one")
    return {key.removeprefix(found[0]): value for key, value in plain.items() if key.startswith(found[0])}


def _without_wrappers(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def check_finite(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raise :class:`CheckpointError` naming the first tensor that holds a value that is not finite."""
    wrong = {name: int((~torch.isfinite(value)).sum()) for name, value in tensors.items()}
    bad = [name for name, count in wrong.items() if count]
    if bad:
        name = bad[0]
        more = f" (and {len(bad) - 1} more tensors)" if len(bad) > 1 else ""
        what = (
            f"{path}: tensor {name} holds {wrong[name]} of {tensors[name].numel()} values that are not finite"
        )
        raise CheckpointError(what + more, "finite weights (did their training diverge, or fp16 overflow?)")


def expanded(weights: str) -> Path:
    """Return the path that was given, ``~`` filled in; raises :class:`CheckpointError` without a home."""
    try:
        return Path(weights).expanduser()
    except RuntimeError as error:
        raise CheckpointError(f"{weights} needs a home folder", "HOME, or a path without ~") from error


def check_exists(path: Path) -> None:
    """Raise :class:`CheckpointError` unless ``path`` is a file."""
    if not path.is_file():
        what = "a folder" if path.is_dir() else "not there"
        raise CheckpointError(f"{path} is {what}", "a file of weights", "check backbone.weights")


def read_pickle(file: Path | IO[bytes], name: str, allowed: Sequence[Any], kind: str) -> dict[str, Any]:
    """Return the dictionary in a file of torch.save, unpickling tensors, containers and ``allowed`` only.

    ``name`` and ``kind`` (what was expected) are for the error. Raises :class:`CheckpointError` for a file
    that is broken, holds other types, or no dictionary.
    """
    mmap = isinstance(file, Path) and _members(file) is not None
    try:
        with torch.serialization.safe_globals(list(allowed)):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # torch promises no list of what a broken file raises
        why, next_step = _why_unreadable(file, error)
        raise CheckpointError(f"{name} cannot be read ({why})", kind, next_step) from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{name} holds a {type(content).__name__}", kind)
    return content


def _why_unreadable(file: Path | IO[bytes], error: Exception) -> tuple[str, str]:
    """Return why, and what to do; in our own words, because torch's advise to run what is in the file."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror, ""
    foreign = re.search(r"(?:GLOBAL |got <class ')([A-Za-z_][\w.]*)", str(error))
    if foreign is not None:
        why = f"it holds a {foreign[1]}; only tensors and plain values are read, and nothing in it was run"
        return why, "save its state_dict and hyper_parameters as plain values"
    kind = _kind(file)
    if kind is None or kind.name in ("a zip archive", "a pickle"):
        return "it is damaged or truncated" if kind is not None else "it is no file of torch.save", ""
    return f"it is {kind.name}", kind.next_step


def _kind(file: Path | IO[bytes]) -> FileKind | None:
    if not isinstance(file, Path):
        file.seek(0)
        return kind_of(file.read(START))
    with file.open("rb") as stream:
        start = stream.read(START)
    names = _members(file)
    if names is not None:
        if any(name.endswith("constants.pkl") for name in names):
            return FileKind("a TorchScript model", "save its state_dict instead")
        if not any(name.endswith("data.pkl") for name in names):
            return FileKind(f"a zip archive of {_some(names)}", "unpack it, and name the file of weights")
    return kind_of(start)


def _members(file: Path) -> list[str] | None:
    """Return the names in a zip archive; None for any other file, or a damaged one."""
    try:
        with zipfile.ZipFile(file) as archive:
            return archive.namelist()
    except Exception:  # zipfile promises no list of what a damaged directory raises
        return None


def _some(names: Iterable[str]) -> str:
    shown = list(names)
    return ", ".join(shown[:3]) + (" ..." if len(shown) > 3 else "") if shown else "nothing"
