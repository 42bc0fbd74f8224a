"""Epoch checkpoints: a run goes on from its last epoch with the numbers of an uninterrupted one.

Because all randomness is a pure function of (seed, purpose, step), weights, optimiser moments and the
epoch number are the whole state of a run. Both files carry checksums: what is not as it was written, or does
not fit to the last tensor, counts as not there. ``last.pt`` names the checksum of the best weights that
belong to it, which lie beside it and are written only when they change.
"""

from __future__ import annotations

import hashlib
import math
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from finetune import private
from finetune.errors import CheckpointError
from finetune.spec import RunSpec

LAST, BEST = "last.pt", "best.safetensors"
CHECKSUM = "checksum"
"""Key in the header of ``best.safetensors``."""


@dataclass
class Progress:
    """Where a run stands after an epoch (mutable: the one piece of state of the training loop)."""

    epoch: int = 0
    best_epoch: int = 0
    best_validation_loss: float = float("inf")
    best_metrics: dict[str, float] = field(default_factory=dict)
    elapsed_s: float = 0.0
    best_checksum: str = ""
    """Of the best weights that lie beside the checkpoint that this was read from."""


@dataclass(frozen=True)
class State:
    """A run at the end of an epoch: copies on the host, that nothing changes any more."""

    progress: Progress
    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Any]
    """Its ``state_dict``."""


@dataclass(frozen=True)
class Kept:
    """The best weights that lie in a folder."""

    epoch: int
    checksum: str


def spec_hash(spec: RunSpec) -> str:
    """Name a run by everything that can change its numbers; keys of later at their default do not count."""
    text = repr(spec)
    for later in (", accumulate=1", ", checkpoint_activations=False", ", sha256=''"):
        text = text.replace(later, "")
    return hashlib.sha256(text.encode()).hexdigest()


def save_state(
    folder: Path, spec: RunSpec, state: State, kept: Kept, best: Mapping[str, Tensor] | None
) -> Kept:
    """Write ``last.pt``, and ``best.safetensors`` where there is another ``best``; return what lies there.

    Each is whole or not at all. Both are written before either takes its place: a process that dies between
    the two leaves a ``last.pt`` that names other best weights, and so counts as not there. Raises
    :class:`CheckpointError` where there is no room.
    """
    with _writing(folder):
        private.make_folder(folder)
        renames = []
        if best is not None:
            temporary, checksum = _write_best(folder, best)
            kept = Kept(state.progress.best_epoch, checksum)
            renames.append((temporary, folder / BEST))
        content = {
            "spec": spec_hash(spec),
            "progress": vars(replace(state.progress, best_checksum=kept.checksum)),
            "model": dict(state.weights),
            "optimizer": state.optimizer,
        }
        temporary = folder / f"{LAST}.{os.getpid()}"
        torch.save(content, private.make_file(temporary))
        for written, name in [*renames, (temporary, folder / LAST)]:
            written.replace(name)
    return kept


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Raise :class:`CheckpointError` for what cannot be written: a full disk is no fault of a run."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        # torch says of a full disk: "unexpected pos 889792 vs 889684"
        reason = error.strerror if isinstance(error, OSError) else "is the disk full?"
        raise CheckpointError(
            f"cannot write a checkpoint into {folder} ({reason})",
            "a folder that can be written, with room",
            "then type the same command again: it goes on",
        ) from error


def load_last(
    folder: Path | None, spec: RunSpec, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Restore model and optimiser from ``folder``; a fresh :class:`Progress` when it holds nothing usable.

    A file that is broken (a power cut, a flipped bit), or that another configuration or version left in this
    folder, counts as nothing: the run then starts anew, with the same numbers, which is better than to end a
    search.
    """
    if folder is None or not (folder / LAST).exists():
        return Progress()
    state = _read_last(folder / LAST)
    if state is None or not _fits(state, spec, model, optimizer):
        return Progress()
    if not _has_best(folder, state["progress"], model):
        return Progress()
    model.load_state_dict(_once(state["model"]))
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])


def _read_last(path: Path) -> dict[str, Any] | None:
    """Return what the file holds; None unless all its checksums (torch writes a zip file) are right."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:
                return None
        state = torch.load(path, weights_only=True, map_location="cpu")
    except Exception:  # neither zipfile nor torch promises a list of what a broken file raises
        return None
    return state if isinstance(state, dict) else None


def _fits(
    state: Mapping[str, Any], spec: RunSpec, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> bool:
    """Tell, before anything is changed, whether all of a state can be loaded."""
    if state.keys() != {"spec", "progress", "model", "optimizer"} or state["spec"] != spec_hash(spec):
        return False
    progress, weights = state["progress"], model.state_dict()
    if not isinstance(progress, dict) or progress.keys() != {part.name for part in fields(Progress)}:
        return False
    return (
        _are_alike(state["model"], weights)
        and 0 <= progress["best_epoch"] <= progress["epoch"]
        and not math.isnan(progress["best_validation_loss"])
        and _fits_optimizer(state["optimizer"], optimizer)
    )


def _has_best(folder: Path, progress: Mapping[str, Any], model: torch.nn.Module) -> bool:
    """Return whether the best weights that a state names lie beside it, as they were written."""
    if not progress["best_epoch"]:
        return True
    try:
        weights, _ = read_best(folder / BEST)
    except CheckpointError:
        return False
    return _are_alike(weights, model.state_dict()) and _checksum(weights) == progress["best_checksum"]


def _are_alike(given: object, wanted: Mapping[str, Tensor]) -> bool:
    return (
        isinstance(given, Mapping)
        and given.keys() == wanted.keys()
        and all(
            isinstance(given[name], Tensor)
            and (given[name].shape, given[name].dtype) == (wanted[name].shape, wanted[name].dtype)
            for name in wanted
        )
    )


def _fits_optimizer(given: object, optimizer: torch.optim.Optimizer) -> bool:
    if not isinstance(given, Mapping) or given.keys() != {"state", "param_groups"}:
        return False
    fresh = optimizer.state_dict()["param_groups"]
    shapes = [parameter.shape for group in optimizer.param_groups for parameter in group["params"]]
    groups, states = given["param_groups"], given["state"]
    if [(group.keys(), group["params"]) for group in groups] != [(g.keys(), g["params"]) for g in fresh]:
        return False
    return all(
        place in range(len(shapes)) and tensor.shape in (shapes[place], torch.Size())
        for place, state in states.items()
        for tensor in state.values()
    )


def save_best(folder: Path, weights: Mapping[str, Tensor]) -> str:
    """Write the weights of the best epoch as ``best.safetensors`` and return their checksum."""
    with _writing(folder):
        private.make_folder(folder)
        temporary, checksum = _write_best(folder, weights)
        temporary.replace(folder / BEST)
    return checksum


def _write_best(folder: Path, weights: Mapping[str, Tensor]) -> tuple[Path, str]:
    temporary, checksum = folder / f"{BEST}.{os.getpid()}", _checksum(weights)
    alone = {name: weight.clone(memory_format=torch.contiguous_format) for name, weight in weights.items()}
    save_file(alone, private.make_file(temporary), {CHECKSUM: checksum})
    return temporary, checksum


def _once(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out what files of before hold twice: an encoder of a user's own was in them under two names."""
    return {name: weight for name, weight in weights.items() if not name.startswith("backbone._call.")}


def load_best(path: Path, model: torch.nn.Module) -> None:
    """Load the weights of a best epoch, strictly; raises :class:`CheckpointError` naming the keys."""
    weights, checksum = read_best(path)
    if checksum is not None and checksum != _checksum(weights):
        raise CheckpointError(
            f"{path} is damaged: its weights are not those that were written", "its checksum"
        )
    weights, expected = _once(weights), model.state_dict()
    missing, unexpected = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
    if missing or unexpected:
        raise CheckpointError(
            f"{path} does not fit: missing {missing}, unexpected {unexpected}", "the run's model"
        )
    if not _are_alike(weights, expected):
        wrong = [name for name in expected if weights[name].shape != expected[name].shape]
        raise CheckpointError(f"{path} does not fit: {', '.join(wrong) or 'other types'}", "the run's model")
    model.load_state_dict(weights)


def read_best(path: Path) -> tuple[dict[str, Tensor], str | None]:
    """Return weights and the checksum in their header (None: written before there was one)."""
    try:
        with safe_open(path, framework="pt") as file:
            weights = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118  # not a mapping
            return weights, (file.metadata() or {}).get(CHECKSUM)
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path} is damaged or truncated", "the weights of a run") from error


def _checksum(weights: Mapping[str, Tensor]) -> str:
    """Return a hash of names, types, shapes and values."""
    digest = hashlib.blake2b(digest_size=16)
    for name, weight in sorted(weights.items()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}\n".encode())
        digest.update(weight.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
