"""What each trial says about the expected validation loss, on a scale that a Gaussian process can bear.

Validation losses far above the good region (a plateau near the trivial predictor, a run that fell apart)
are far from normal, so losses above a knee are compressed logarithmically; below the knee, where the answer
lies, nothing is changed and a mean stays a mean. A pruned trial is a censored observation: its final loss
is extrapolated from the complete trials' curves, with the spread of that extrapolation as extra variance,
and is never above what it had already reached. A diverged trial counts as one of the worst.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import log_ndtr

from hpo.analysis.box import Box, Floats

MISFIT = 0.4
"""Share of an extrapolated gain's distance from the mean gain that is doubted: what was pruned is not like
what was not (chosen by us: docs/answer.md)."""
MIN_CURVES = 4
"""Complete trials that must have reached an epoch before their curves extrapolate a pruned one."""
FEATURES = 3
"""Regressors of that extrapolation: both rates, and how steep the curve is."""


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
    """Observations for the surrogate: points (n, 3), values, extra variances, blocks, and their scale."""

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
    rows = trials[kinds != "other"]
    best = _best_so_far(curves)
    seen = Seen(
        points(rows, box),
        kinds[kinds != "other"].to_numpy(str),
        rows["value"].to_numpy(float, na_value=np.nan),
        [best.get(number, np.empty(0)) for number in rows["number"]],
        _blocks(rows),
    )
    return seen.evidence()


@dataclass(frozen=True)
class Seen:
    """What was seen of n trials, none of which runs any more."""

    x: Floats
    """(n, 3) as in :mod:`hpo.analysis.likelihood`."""
    kinds: NDArray[np.str_]
    """(n,) complete, pruned or diverged."""
    values: Floats
    """(n,) best loss, of a pruned trial so far; anything for a diverged one."""
    curves: Sequence[Floats]
    """(n,) lowest validation loss up to each epoch; empty where the epochs are not known."""
    blocks: NDArray[np.int64] | None = None
    """(n,) what trials share beside their configuration: a validation fold, or a seed that returns."""

    @property
    def order(self) -> NDArray[np.int64]:
        """Where the rows of :meth:`evidence` stand here: complete trials, then pruned, then diverged."""
        return np.concatenate([self._rows(kind) for kind in ("complete", "pruned", "diverged")])

    def scale(self) -> Scale:
        """Return the scale on which the losses of the complete trials are compared."""
        return Scale.of(self.values[self._rows("complete")])

    def evidence(self) -> Evidence:
        """Return the observations; at least two complete trials must have a finite value."""
        scale = self.scale()
        complete, pruned, diverged = (self._rows(kind) for kind in ("complete", "pruned", "diverged"))
        y = scale.compress(self.values[complete])
        censored, variance = self._extrapolated(complete, pruned, scale)
        worst = float(max(y.max(), censored.max(initial=-np.inf)))
        return Evidence(
            self.x[self.order],
            np.concatenate([y, censored, np.full(len(diverged), worst)]),
            np.concatenate([np.zeros(len(y)), variance, np.full(len(diverged), (scale.width / 2) ** 2)]),
            None if self.blocks is None else self.blocks[self.order],
            scale,
        )

    def _rows(self, kind: str) -> NDArray[np.int64]:
        return np.flatnonzero(self.kinds == kind)

    def _extrapolated(
        self, complete: NDArray[np.int64], pruned: NDArray[np.int64], scale: Scale
    ) -> tuple[Floats, Floats]:
        """Return the expected final loss of each pruned trial and its variance, on the scale."""
        now = scale.compress(self.values[pruned])
        curves = [scale.compress(self.curves[row]) for row in complete]
        final = scale.compress(self.values[complete])
        epochs = np.array([len(self.curves[row]) for row in pruned], dtype=np.int64)
        mean, variance = np.empty(len(pruned)), np.empty(len(pruned))
        for epoch in np.unique(epochs):
            here = epochs == epoch
            outlook = Outlook.of(self.x[complete], curves, final, int(epoch), scale.width)
            own = np.stack([scale.compress(self.curves[row]) for row in pruned[here]])
            mean[here], variance[here] = outlook.foretell(self.x[pruned[here]], own, now[here])
        return mean, variance


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


def has_folds(trials: pd.DataFrame) -> bool:
    """Return whether trials were validated on folds."""
    return "fold" in trials and bool(trials["fold"].notna().any())


def _blocks(rows: pd.DataFrame) -> NDArray[np.int64] | None:
    if has_folds(rows):
        return rows["fold"].fillna(-1).to_numpy(np.int64)
    return returning(rows["seed"].fillna(-1).to_numpy(np.int64)) if "seed" in rows else None


def returning(seeds: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return the seeds (n,) of trials if they are blocks: if at least half of them have been there before."""
    return seeds if 2 * len(np.unique(seeds)) <= len(seeds) else None


def _best_so_far(curves: pd.DataFrame) -> dict[int, Floats]:
    ordered = curves.sort_values(["number", "epoch"])
    return {
        cast("int", number): np.fmin.accumulate(part["validation_loss"].to_numpy(float))
        for number, part in ordered.groupby("number")
    }


@dataclass(frozen=True)
class Outlook:
    """What a run that has got to some epoch will still gain, learned from complete runs' curves.

    A regression of what they gained after that epoch on their rates and on how steep their curves were
    then. It is a likelihood: the early loss itself is no regressor, because the complete trials were selected
    for a low one. All losses are on the surrogate's scale.
    """

    width: float
    """Of the scale."""
    gains: Floats
    """(n,) what complete runs gained after that epoch."""
    lowest: float
    """Of their final losses."""
    regression: Regression | None
    """None with fewer than ``MIN_CURVES`` curves."""

    @classmethod
    def of(cls, x: Floats, curves: Sequence[Floats], final: Floats, epoch: int, width: float) -> Outlook:
        """Learn from complete runs: points (n, 3), lowest losses up to each epoch, and final losses (n,)."""
        known = np.array([0 < epoch <= len(curve) for curve in curves], dtype=bool)
        reached = [curve[:epoch] for curve, is_known in zip(curves, known, strict=True) if is_known]
        gains = np.array([curve[-1] for curve in reached]) - final[known]
        enough = len(reached) >= MIN_CURVES
        regression = Regression.of(_curve_features(np.stack(reached), x[known]), gains) if enough else None
        return cls(width, gains, float(final.min()), regression)

    def foretell(self, x: Floats, curves: Floats, now: Floats) -> tuple[Floats, Floats]:
        """Return mean and variance (m,) of the final losses of runs at points (m, 3).

        ``curves`` (m, epoch) are their lowest losses up to each epoch, ``now`` (m,) the lowest of all. The
        normal is truncated to what is possible (<= now).
        """
        if self.regression is None:
            gain, variance = self._among_few(now)
        else:
            gain, variance = self.regression.foretell(_curve_features(curves, x))
        return _truncated(now - gain, np.sqrt(variance + (0.02 * self.width) ** 2), now)

    def _among_few(self, now: Floats) -> tuple[Floats, Floats]:
        """Return mean and variance (m,) of the gains from few complete runs, or none, and an imagined one.

        That one gains half the width, or what leads to the lowest loss seen if that is less.
        """
        imagined = np.clip(now - self.lowest, 0.25 * self.width, 0.5 * self.width)
        count = len(self.gains) + 1
        mean = (self.gains.sum() + imagined) / count
        around = np.sum((self.gains[:, None] - mean) ** 2, axis=0)
        return mean, (around + imagined**2) / count


def _curve_features(curves: Floats, x: Floats) -> Floats:
    """Return (n, 3): log10 rates, and the fall of the curve over its second half."""
    half = curves[:, (curves.shape[1] - 1) // 2]
    return np.stack([x[:, 0], x[:, 0] - x[:, 1], half - curves[:, -1]], axis=1)


@dataclass(frozen=True)
class Regression:
    """A ridge regression: a unit normal prior on each standardised slope, in units of the target's
    standard deviation."""

    centre: Floats
    spread: Floats
    level: float
    unit: float
    slopes: Floats
    precision: Floats
    own_variance: float
    """Of one observation, in units of the target's variance."""

    @classmethod
    def of(cls, features: Floats, target: Floats) -> Regression:
        """Fit (n, 3) features to the target (n,)."""
        centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-12
        scaled = (features - centre) / spread
        level, unit = float(target.mean()), float(target.std()) + 1e-12
        residual_share = 0.5
        for _ in range(3):
            precision = scaled.T @ scaled / residual_share + np.eye(features.shape[1])
            slopes = np.linalg.solve(precision, scaled.T @ ((target - level) / unit) / residual_share)
            residual = (target - level) / unit - scaled @ slopes
            degrees = max(len(target) - 1 - features.shape[1], 1)
            residual_share = max(float(residual @ residual) / degrees, 1e-3)
        return cls(centre, spread, level, unit, slopes, precision, residual_share * (1 + 1 / len(target)))

    def foretell(self, features: Floats) -> tuple[Floats, Floats]:
        """Return mean and variance (m,) of the target at features (m, 3)."""
        place = (features - self.centre) / self.spread
        doubt = self.own_variance + np.sum(place * np.linalg.solve(self.precision, place.T).T, axis=1)
        away = self.unit * (place @ self.slopes)
        return self.level + away, self.unit**2 * doubt + (MISFIT * away) ** 2


def _truncated(mean: Floats, sd: Floats, top: Floats) -> tuple[Floats, Floats]:
    """Return mean and variance (m,) of normals below ``top`` (m,)."""
    edge = np.minimum((top - mean) / sd, 8.0)
    is_far = edge < -5
    density = -0.5 * edge**2 - 0.5 * np.log(2 * np.pi)
    hazard = np.exp(density - log_ndtr(edge))
    middle = np.where(is_far, top, mean - sd * hazard)
    return middle, sd**2 * np.where(is_far, 1.0, np.maximum(1 - edge * hazard - hazard**2, 0.05))
