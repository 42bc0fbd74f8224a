"""What each trial says about the expected validation loss, on a scale that a Gaussian process can bear.

Validation losses far above the good region (a plateau near the trivial predictor, a run that fell apart)
are far from normal, so losses above a knee are compressed logarithmically; below the knee, where the answer
lies, nothing is changed and a mean stays a mean. A pruned trial is a censored observation: its final loss
is extrapolated from the complete trials' curves, with the spread of that extrapolation as extra variance,
and is never above what it had already reached. A diverged trial counts as one of the worst.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm

from hpo.analysis.box import Box, Floats

MIN_CURVES = 6
"""Complete trials that must have reached an epoch before their curves extrapolate a pruned one."""


@dataclass(frozen=True)
class Scale:
    """Identity up to ``knee``, logarithmic above: knee + width log(1 + (loss - knee) / width)."""

    knee: float
    width: float

    @classmethod
    def of(cls, losses: Floats) -> Scale:
        """Return the scale whose knee lies well above the noise among the best of ``losses``."""
        low, quartile = float(losses.min()), float(np.quantile(losses, 0.4))
        best = np.sort(losses)[: max(4, len(losses) // 3)]
        spread = float(np.quantile(best, 0.8) - low)
        width = max(quartile - low, 3 * spread, 1e-9 * max(1.0, abs(low)))
        return cls(low + width, width)

    def compress(self, loss: Floats) -> Floats:
        """Return losses on the surrogate's scale."""
        above = np.maximum(loss - self.knee, 0.0)
        return np.asarray(np.minimum(loss, self.knee) + self.width * np.log1p(above / self.width))

    def expand(self, value: Floats) -> Floats:
        """Return the inverse of :meth:`compress`."""
        above = np.clip(value - self.knee, 0.0, 50 * self.width)
        return np.asarray(np.minimum(value, self.knee) + self.width * np.expm1(above / self.width))


@dataclass(frozen=True)
class Evidence:
    """Observations for the surrogate: points (n, 3), values, extra variances, folds, and their scale."""

    x: Floats
    y: Floats
    extra: Floats
    groups: NDArray[np.int64] | None
    scale: Scale

    def rows(self, chosen: NDArray[np.int64]) -> Evidence:
        """Return the evidence of some trials only."""
        groups = None if self.groups is None else self.groups[chosen]
        return replace(self, x=self.x[chosen], y=self.y[chosen], extra=self.extra[chosen], groups=groups)


def thinned(evidence: Evidence, expected: Floats, size: int) -> Evidence:
    """Return ``size`` trials: three quarters where ``expected`` (n,) is lowest, the others spread evenly.

    ``expected`` is to come from a model, not from the trials' own losses: who is kept must not depend on its
    own noise.
    """
    order = np.argsort(expected, kind="stable")
    near = 3 * size // 4
    far = near + np.linspace(0, len(order) - near - 1, size - near).round().astype(np.int64)
    return evidence.rows(np.sort(np.concatenate([order[:near], order[far]])))


def gather(trials: pd.DataFrame, curves: pd.DataFrame, box: Box) -> Evidence:
    """Return the evidence in the complete, pruned and diverged trials of a study.

    There must be at least two complete trials with a finite value.
    """
    kinds = classify(trials)
    complete, pruned, diverged = (trials[kinds == kind] for kind in ("complete", "pruned", "diverged"))
    losses = complete["value"].to_numpy(float)
    scale = Scale.of(losses)
    y = scale.compress(losses)
    censored, variance = _extrapolate(complete, pruned, curves, scale)
    worst = float(max(y.max(), censored.max(initial=-np.inf)))
    rows = pd.concat([complete, pruned, diverged])
    return Evidence(
        points(rows, box),
        np.concatenate([y, censored, np.full(len(diverged), worst)]),
        np.concatenate([np.zeros(len(y)), variance, np.full(len(diverged), (scale.width / 2) ** 2)]),
        _folds(rows),
        scale,
    )


def classify(trials: pd.DataFrame) -> pd.Series:
    """Return for each trial: complete, pruned (with a finite loss so far), diverged, or other."""
    finite = np.isfinite(trials["value"].to_numpy(float, na_value=np.nan))
    state, end = trials["state"].astype(str), trials["end"].astype(str)
    finished = state.isin(["complete", "pruned"])
    kinds = pd.Series("other", index=trials.index)
    kinds[finished & ((end == "diverged") | ~finite)] = "diverged"
    kinds[(state == "complete") & finite & (end != "diverged")] = "complete"
    kinds[(state == "pruned") & finite & (end != "diverged")] = "pruned"
    return kinds


def points(rows: pd.DataFrame, box: Box) -> Floats:
    """Return the surrogate's points of trials; a loss that the space lacks raises KeyError."""
    index = {loss: float(place) for place, loss in enumerate(box.losses)}
    lr = np.log10(rows["lr"].to_numpy(float))
    ratio = lr - np.log10(rows["backbone_lr"].to_numpy(float))
    return np.stack([lr, ratio, np.array([index[loss] for loss in rows["loss"]], dtype=float)], axis=1)


def _folds(rows: pd.DataFrame) -> NDArray[np.int64] | None:
    if "fold" not in rows or rows["fold"].isna().all():
        return None
    return rows["fold"].fillna(-1).to_numpy(np.int64)


def _extrapolate(
    complete: pd.DataFrame, pruned: pd.DataFrame, curves: pd.DataFrame, scale: Scale
) -> tuple[Floats, Floats]:
    """Return the expected final loss of each pruned trial and its variance, on the surrogate's scale."""
    final = scale.compress(complete["value"].to_numpy(float))
    reached = scale.compress(pruned["value"].to_numpy(float))
    best = {number: scale.compress(curve) for number, curve in _best_so_far(curves).items()}
    found = [
        _final_given(now, row, complete, final, best, scale.width)
        for now, row in zip(reached, pruned.itertuples(), strict=True)
    ]
    mean, variance = np.array(found, dtype=np.float64).reshape(-1, 2).T
    return mean, variance


def _best_so_far(curves: pd.DataFrame) -> dict[int, Floats]:
    ordered = curves.sort_values(["number", "epoch"])
    return {
        cast("int", number): np.fmin.accumulate(part["validation_loss"].to_numpy(float))
        for number, part in ordered.groupby("number")
    }


def _final_given(
    now: float, row: Any, complete: pd.DataFrame, final: Floats, best: Mapping[int, Floats], width: float
) -> tuple[float, float]:
    """Return mean and variance of the final loss of the pruned trial ``row``, whose best so far is ``now``.

    What it would still have gained is what complete trials gained after that epoch, in a regression on their
    rates and on how steep their curves were then. It is a likelihood: the early loss itself is no regressor,
    because the complete trials were selected for a low one. The normal is truncated to what is possible
    (<= now). With fewer than ``MIN_CURVES`` curves: anywhere within the knee's width below ``now``.
    """
    own = best.get(row.number, np.empty(0))
    epoch = len(own)
    known = np.array([epoch > 0 and len(best.get(n, ())) >= epoch for n in complete["number"]], dtype=bool)
    if known.sum() < MIN_CURVES:
        return now - 0.5 * width, (0.5 * width) ** 2
    others = complete[known]
    curves = np.stack([best[number][:epoch] for number in others["number"]])
    features = _curve_features(curves, others["lr"].to_numpy(float), others["backbone_lr"].to_numpy(float))
    asked = _curve_features(own[None], np.array([row.lr]), np.array([row.backbone_lr]))[0]
    gain, variance = _regress(features, curves[:, -1] - final[known], asked)
    return _truncated(now - gain, float(np.sqrt(variance + (0.02 * width) ** 2)), now)


def _curve_features(curves: Floats, lr: Floats, backbone_lr: Floats) -> Floats:
    """Return (n, 3): log10 rates, and the fall of the curve over its second half."""
    half = curves[:, (curves.shape[1] - 1) // 2]
    return np.stack([np.log10(lr), np.log10(backbone_lr), half - curves[:, -1]], axis=1)


def _regress(features: Floats, target: Floats, asked: Floats) -> tuple[float, float]:
    """Return mean and variance foretold at ``asked`` by a ridge regression, a unit normal prior on each
    standardised slope in units of the target's standard deviation."""
    centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-12
    scaled, place = (features - centre) / spread, (asked - centre) / spread
    level, unit = float(target.mean()), float(target.std()) + 1e-12
    residual_share = 0.5
    for _ in range(3):
        precision = scaled.T @ scaled / residual_share + np.eye(features.shape[1])
        slopes = np.linalg.solve(precision, scaled.T @ ((target - level) / unit) / residual_share)
        residual = (target - level) / unit - scaled @ slopes
        residual_share = max(float(residual @ residual) / max(len(target) - 1 - features.shape[1], 1), 1e-3)
    doubt = residual_share * (1 + 1 / len(target)) + place @ np.linalg.solve(precision, place)
    return level + unit * float(place @ slopes), unit**2 * float(doubt)


def _truncated(mean: float, sd: float, top: float) -> tuple[float, float]:
    """Return mean and variance of a normal below ``top``."""
    edge = min((top - mean) / sd, 8.0)
    if edge < -5:
        return top, sd**2
    hazard = float(np.exp(norm.logpdf(edge) - norm.logcdf(edge)))
    return mean - sd * hazard, float(sd**2 * max(1 - edge * hazard - hazard**2, 0.05))
