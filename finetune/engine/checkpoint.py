"""Epoch checkpoints: a run goes on from its last epoch with the numbers of an uninterrupted one.

Because all randomness is a pure function of (seed, purpose, step), weights, optimiser moments and the
epoch number are the whole state of a run.
"""

from __future__ import annotations

import hashlib
import os
import pickle
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from finetune.errors import CheckpointError
from finetune.spec import RunSpec

LAST, BEST = "last.pt", "best.safetensors"


@dataclass
class Progress:
    """Where a run stands after an epoch (mutable: the one piece of state of the training loop)."""

    epoch: int = 0
    best_epoch: int = 0
    best_validation_loss: float = float("inf")
    best_metrics: dict[str, float] = field(default_factory=dict)
    best_weights: dict[str, Tensor] = field(default_factory=dict)
    elapsed_s: float = 0.0


def spec_hash(spec: RunSpec) -> str:
    """Name a run by everything that can change its numbers."""
    return hashlib.sha256(repr(spec).encode()).hexdigest()


def save_last(
    folder: Path, spec: RunSpec, progress: Progress, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> None:
    """Write ``last.pt`` into ``folder``, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "spec": spec_hash(spec),
        "progress": vars(progress),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
    }
    temporary = folder / f"{LAST}.{os.getpid()}"
    torch.save(state, temporary)
    temporary.replace(folder / LAST)


def load_last(
    folder: Path | None, spec: RunSpec, model: torch.nn.Module, optimizer: torch.optim.Optimizer
) -> Progress:
    """Restore model and optimiser from ``folder``; a fresh :class:`Progress` when it holds nothing usable.

    A file that is broken (a power cut), or that another configuration left in this folder, counts as
    nothing: the run then starts anew, with the same numbers, which is better than to end a search.
    """
    if folder is None or not (folder / LAST).exists():
        return Progress()
    try:
        state = torch.load(folder / LAST, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError):
        return Progress()
    if state["spec"] != spec_hash(spec):
        return Progress()
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return Progress(**state["progress"])


def save_best(folder: Path, progress: Progress) -> Path:
    """Write the weights of the best epoch as ``best.safetensors`` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"{BEST}.{os.getpid()}"
    save_file({name: weight.contiguous() for name, weight in progress.best_weights.items()}, temporary)
    temporary.replace(folder / BEST)
    return folder / BEST


def load_best(path: Path, model: torch.nn.Module) -> None:
    """Load the weights of a best epoch, strictly; raises :class:`CheckpointError` naming the keys."""
    weights = load_file(path)
    expected = model.state_dict().keys()
    missing, unexpected = sorted(expected - weights.keys()), sorted(weights.keys() - expected)
    if missing or unexpected:
        raise CheckpointError(
            f"{path} does not fit: missing {missing}, unexpected {unexpected}", "the run's model"
        )
    model.load_state_dict(weights)
