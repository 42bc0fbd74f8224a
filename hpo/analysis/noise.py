"""How much of what the trials show is the seed, and how much each hyperparameter.

Shares are Shapley effects (Owen 2014, SIAM/ASA JUQ 2:245) of the surrogate's mean over the search box, so
that interactions are split between their partners and the shares sum to one.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from hpo.analysis.box import Floats
from hpo.analysis.evidence import classify

if TYPE_CHECKING:
    import pandas as pd

FACTORS = ("lr", "backbone_lr", "loss")


def replicate_sd(trials: pd.DataFrame) -> tuple[float | None, int]:
    """Return the pooled standard deviation between seeds within configurations, and its degrees of freedom.

    None when no configuration has two complete trials.
    """
    complete = trials[classify(trials) == "complete"]
    keys = [complete["lr"].astype(float), complete["backbone_lr"].astype(float), complete["loss"].astype(str)]
    groups = complete["value"].astype(float).groupby(keys)
    squares, degrees = float((groups.var() * (groups.size() - 1)).sum()), int((groups.size() - 1).sum())
    return (math.sqrt(squares / degrees), degrees) if degrees else (None, 0)


def shares(values: Floats, noise: Mapping[str, float]) -> dict[str, float]:
    """Return the shares of lr, backbone_lr, loss and the sources of noise in the variance of a random trial.

    ``values`` (A, B, L) is the expected loss over a full grid of the box; ``noise`` has the variances of seed
    and, where there are folds, fold, in the same units. All zero when nothing varies.
    """
    explained = {
        subset: float(np.var(values.mean(axis=tuple(set(range(3)) - set(subset)))))
        for size in range(4)
        for subset in itertools.combinations(range(3), size)
    }
    parts = {name: _shapley(place, explained) for place, name in enumerate(FACTORS)} | dict(noise)
    total = sum(parts.values())
    return {name: part / total if total > 0 else 0.0 for name, part in parts.items()}


def _shapley(factor: int, explained: Mapping[tuple[int, ...], float]) -> float:
    """Return the mean gain of knowing ``factor`` after a random set of the other two."""
    others = [place for place in range(3) if place != factor]
    weights = {0: 1 / 3, 1: 1 / 6, 2: 1 / 3}
    return sum(
        weights[size] * (explained[tuple(sorted((*known, factor)))] - explained[known])
        for size in range(3)
        for known in itertools.combinations(others, size)
    )
