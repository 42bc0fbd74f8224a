"""Metrics of an arm on the test split, each with a 95 % interval over independent units (subjects, records).

Notation: S seeds, U units, N windows, B bootstrap draws. An arm's metric is the mean over its seeds of the
metric of one run; its interval says what other people, of whom these are a sample, would have given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.api import Task, evaluate_predictions, window_losses
from hpo.confirm.paired import Floats, interval, unit_weights

BLOCKS = 20
"""Groups of units that the jackknife leaves out in turn: every metric of every run is computed so often."""


@dataclass(frozen=True)
class Estimate:
    """A metric with the ends of its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Split:
    """The test windows: labels (N, outputs) and unit (N,) of each; names and windows of units (U,)."""

    task: Task
    labels: Floats
    unit: NDArray[np.intp]
    names: tuple[str, ...]
    windows: Floats

    @classmethod
    def of(cls, task: Task, labels: Floats, groups: NDArray[np.str_]) -> Split:
        """Return the split whose units are the distinct ``groups``."""
        names, unit = np.unique(groups, return_inverse=True)
        windows = np.bincount(unit, minlength=len(names)).astype(np.float64)
        return cls(task, labels, unit, tuple(map(str, names)), windows)

    def sums(self, values: Floats) -> Floats:
        """Return the sum over each unit's windows (U,) of ``values`` (N,)."""
        return np.bincount(self.unit, values, minlength=len(self.windows)).astype(np.float64)

    def losses(self, predictions: Sequence[NDArray[np.float32]]) -> Floats:
        """Return the yardstick of runs (S of (N, outputs)) summed over each unit's windows, (S, U)."""
        return np.stack(
            [self.sums(window_losses(self.task, one.astype(np.float64), self.labels)) for one in predictions]
        )


def estimates(
    split: Split, predictions: Sequence[NDArray[np.float32]], metrics: Sequence[dict[str, float]]
) -> dict[str, Estimate]:
    """Return every metric of an arm; ``metrics`` are those of its runs on all test windows.

    The yardstick, RMSE and R2 by the bootstrap over units, the others (areas, F1, kappa, which are no sums
    over windows) by a jackknife over blocks of units with a normal interval.
    """
    means = {name: float(np.mean([one[name] for one in metrics])) for name in split.task.metrics}
    found: dict[str, tuple[float, float]] = {}
    found[split.task.yardstick] = interval(split.losses(predictions), split.windows)
    if split.task.kind == "regression":
        found |= _regression(split, predictions)
    else:
        found |= _jackknife(split, predictions, [name for name in means if name not in found])
    return {name: Estimate(mean, *found[name]) for name, mean in means.items()}


def _regression(split: Split, predictions: Sequence[NDArray[np.float32]]) -> dict[str, tuple[float, float]]:
    """Return the intervals of RMSE and R2, whose sums over windows are all that a resample needs."""
    truth = split.labels.mean(axis=1)
    errors = [np.square(one.astype(np.float64).mean(axis=1) - truth) for one in predictions]
    squares = np.stack([split.sums(error) for error in errors])  # (S, U)
    first, second = split.sums(truth), split.sums(truth**2)
    rmse, r2 = [], []
    for weights in unit_weights(len(split.windows)):  # (B, U)
        count = weights @ split.windows
        residual = weights @ squares.T  # (B, S)
        spread = np.maximum(weights @ second - (weights @ first) ** 2 / count, 0.0)[:, None]
        rmse.append(np.sqrt(residual / count[:, None]).mean(axis=1))
        with np.errstate(divide="ignore", invalid="ignore"):
            r2.append(np.where(spread > 0, 1 - residual / spread, np.nan).mean(axis=1))
    return {"rmse": _middle(np.concatenate(rmse)), "r2": _middle(np.concatenate(r2))}


def _middle(draws: Floats) -> tuple[float, float]:
    """Return the middle 95 %; a resample of one unit with constant labels has no R2."""
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return float(low), float(high)


def _jackknife(
    split: Split, predictions: Sequence[NDArray[np.float32]], names: Sequence[str]
) -> dict[str, tuple[float, float]]:
    units = np.random.default_rng(5).permutation(len(split.windows))
    blocks = np.array_split(units, min(BLOCKS, len(units)))
    kept = [~np.isin(split.unit, block) for block in blocks]

    def means(rows: NDArray[np.bool_]) -> Floats:
        labels = split.labels[rows]
        found = [
            evaluate_predictions(split.task, one[rows].astype(np.float64), labels) for one in predictions
        ]
        return np.array([np.mean([metrics[name] for metrics in found]) for name in names])

    whole = means(np.ones(len(split.unit), dtype=bool))
    left_out = np.stack([means(rows) for rows in kept])
    spread = np.sqrt(
        (len(blocks) - 1) / len(blocks) * np.square(left_out - left_out.mean(axis=0)).sum(axis=0)
    )
    return {
        name: (float(middle - 1.96 * sd), float(middle + 1.96 * sd))
        for name, middle, sd in zip(names, whole, spread, strict=True)
    }
