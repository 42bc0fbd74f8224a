"""How much of what the trials show is the seed, and how much each hyperparameter.

Shares are Shapley effects (Owen 2014, SIAM/ASA JUQ 2:245) of the surrogate's mean over the search box, so
that interactions are split between their partners and the shares sum to one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from hpo.analysis.box import Floats
from hpo.analysis.evidence import classify

if TYPE_CHECKING:  # a worker, which has no tables, starts without pandas
    import pandas as pd

FACTORS = ("lr", "backbone_lr", "loss")


def replicate_sd(trials: pd.DataFrame, choices: Sequence[str] = ()) -> tuple[float | None, int]:
    """Return the pooled standard deviation between seeds within configurations, and its degrees of freedom.

    None when no configuration has two complete trials. ``choices`` are names of columns, beside the loss.
    A configuration with a trial that was stopped does not count: what is left of it is the lucky ones.
    """
    kinds = classify(trials)
    ended = trials[kinds != "other"]
    keys = [ended["lr"].astype(float), ended["backbone_lr"].astype(float)]
    keys += [ended[name].astype(str) for name in ("loss", *choices)]
    is_whole = ended.assign(is_whole=kinds[kinds != "other"] == "complete")["is_whole"]
    kept = is_whole.groupby(keys).transform("all").astype(bool)
    groups = ended["value"][kept].astype(float).groupby([key[kept] for key in keys])
    squares, degrees = float((groups.var() * (groups.size() - 1)).sum()), int((groups.size() - 1).sum())
    return (math.sqrt(squares / degrees), degrees) if degrees else (None, 0)


def shares(values: Floats, noise: Mapping[str, float], choices: Sequence[str] = ()) -> dict[str, float]:
    """Return the shares of lr, backbone_lr, loss, choices and noise in the variance of a random trial.

    ``values`` (A, B, L, ...) is the expected loss over a full grid of the box, with an axis for each choice;
    ``noise`` has the variances of seed and, where there are folds, fold, in the same units. All zero when
    nothing varies.
    """
    factors = (*FACTORS, *choices)
    count = len(factors)
    explained = {
        subset: float(np.var(values.mean(axis=tuple(set(range(count)) - set(subset)))))
        for size in range(count + 1)
        for subset in itertools.combinations(range(count), size)
    }
    parts = {name: _shapley(place, explained, count) for place, name in enumerate(factors)} | dict(noise)
    total = sum(parts.values())
    return {name: part / total if total > 0 else 0.0 for name, part in parts.items()}


def _shapley(factor: int, explained: Mapping[tuple[int, ...], float], count: int) -> float:
    """Return the mean gain of knowing ``factor`` after a random set of the others of so many."""
    others = [place for place in range(count) if place != factor]
    weights = [1 / (count * math.comb(count - 1, size)) for size in range(count)]
    return sum(
        weights[size] * (explained[tuple(sorted((*known, factor)))] - explained[known])
        for size in range(count)
        for known in itertools.combinations(others, size)
    )
