"""A trainer behind the doorway whose state is all in its checkpoint: does a trial really go on where it was?

Least squares on 64 fixed rows by gradient descent with momentum, two rates for two halves of the weights,
batches drawn from (seed, epoch). An epoch's loss depends on every step before it, so a trial that lost its
weights, its momentum or its place would end with other numbers. Epochs last as long as the file ``epoch_s``
in the data folder says (sleep, not work), and each appends a byte to the file ``epochs_trained`` there.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from finetune.spec import DataSummary, InputSpec, Report, Run, RunResult, RunSource, RunSpec

ENGINE_VERSION = "stateful"
ROWS, FEATURES, BATCHES, MOMENTUM = 64, 8, 8, 0.9

_rng = np.random.Generator(np.random.Philox(key=0))
INPUTS = _rng.normal(size=(2, ROWS, FEATURES))  # training, validation
LABELS = INPUTS @ _rng.normal(size=FEATURES) + 0.1 * _rng.normal(size=(2, ROWS))


@dataclass
class State:
    """What an epoch needs of those before it."""

    epoch: int = 0
    weights: np.ndarray = field(default_factory=lambda: np.zeros(FEATURES))
    velocity: np.ndarray = field(default_factory=lambda: np.zeros(FEATURES))
    best: float = math.inf
    best_epoch: int = 0


def check_model(spec: RunSpec) -> None:
    """Every encoder will do: there is none."""


def describe_data(inputs: InputSpec, *, data_dir: Path, cache_dir: Path, **_: object) -> DataSummary:
    windows = {"train": ROWS, "validation": ROWS, "test": 0}
    trivial = float(np.abs(LABELS[1] - np.median(LABELS[0])).mean())
    return DataSummary(inputs.task, "stateful", windows, {}, {"validation_loss": trivial}, "median")


def train(
    source: RunSource, *, data_dir: Path, cache_dir: Path, device: str = "auto", slots: int = 1
) -> None:
    while (run := source.next_run()) is not None:
        source.finish(run_one(run, source, data_dir))


def run_one(run: Run, source: RunSource, data_dir: Path) -> RunResult:
    """Train to the last epoch, or until the loss diverges or the source says stop."""
    assert run.checkpoint is not None
    state, reason, began = load(run.checkpoint), "finished", time.monotonic()
    epoch_s = float((data_dir / "epoch_s").read_text())
    while state.epoch < run.spec.recipe.epochs:
        time.sleep(epoch_s)
        train_loss, loss = train_epoch(state, run)
        count_epoch(data_dir)
        is_finite = math.isfinite(loss)
        metrics, elapsed_s = {"mae": loss}, time.monotonic() - began
        report = Report(run.run_id, state.epoch, train_loss, loss, metrics, elapsed_s, is_finite=is_finite)
        (goes_on,) = source.report([report])
        if not is_finite or not goes_on:
            reason = "pruned" if is_finite else "diverged"
            break
        save(state, run.checkpoint)
        if run.on_kept is not None:
            run.on_kept(run.checkpoint / "last.pt")
    elapsed_s, best = time.monotonic() - began, {"mae": state.best}
    return RunResult(
        run.run_id, reason, state.epoch, state.best_epoch, state.best, best, elapsed_s, "cpu", None
    )


def train_epoch(state: State, run: Run) -> tuple[float, float]:
    """Take one epoch's steps; return the training loss and the validation MAE."""
    state.epoch += 1
    order = np.random.Generator(np.random.Philox(key=[run.spec.seed, state.epoch])).permutation(ROWS)
    half = FEATURES // 2
    rates = 30 * np.repeat([run.spec.backbone_lr, run.spec.lr], half)
    losses = []
    with np.errstate(all="ignore"):  # a rate that is too high diverges: that is a result
        for batch in order.reshape(BATCHES, -1):
            residual = INPUTS[0, batch] @ state.weights - LABELS[0, batch]
            slope = {"mse": 2 * residual, "l1": np.sign(residual)}[run.spec.loss]
            state.velocity = MOMENTUM * state.velocity + INPUTS[0, batch].T @ slope / len(batch)
            state.weights = state.weights - rates * state.velocity
            losses.append(np.abs(residual).mean())
        loss = float(np.abs(INPUTS[1] @ state.weights - LABELS[1]).mean())
    if loss < state.best:
        state.best, state.best_epoch = loss, state.epoch
    return float(np.mean(losses)), loss


def load(folder: Path) -> State:
    """Return the state after the last epoch that was kept, or that of a new run."""
    file = folder / "last.pt"
    if not file.exists():
        return State()
    with np.load(file) as kept:
        return State(
            int(kept["epoch"]),
            kept["weights"],
            kept["velocity"],
            float(kept["best"]),
            int(kept["best_epoch"]),
        )


def save(state: State, folder: Path) -> None:
    """Keep the state, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f"last.pt.{os.getpid()}"
    with temporary.open("wb") as file:
        np.savez(file, **vars(state))
    temporary.replace(folder / "last.pt")


def count_epoch(data_dir: Path) -> None:
    with (data_dir / "epochs_trained").open("ab") as file:
        file.write(b".")
