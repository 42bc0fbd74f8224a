"""What a run that has got to some epoch will still gain, learned from the curves of complete runs.

The error of such an extrapolation is in part a run's own, and in part common to all runs that the same
regression extrapolates: twenty of them, all too low, are not twenty witnesses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from hpo.analysis.box import Floats

MISFIT = 0.4
"""Share of an extrapolated gain's distance from the mean gain that is doubted: what was pruned is not like
what was not (chosen by us: docs/answer.md)."""
OWN = 0.3
"""Share of the scatter of gains by which a stopped run errs about the expected loss (docs/answer.md).

The rest is luck that its last epochs would have brought: what was seen of it has less than a seed's luck."""
MIN_CURVES = 4
"""Complete trials that must have reached an epoch before their curves extrapolate a pruned one."""
FEATURES = 3
"""Regressors of that extrapolation: both rates, and how steep the curve is."""
COMMON = FEATURES + 2
"""Errors that all extrapolations have in common: of the regression's level, of its slopes, and its misfit."""


@dataclass(frozen=True)
class Foretold:
    """What is expected of m runs: means, and errors that are a run's own or common to all of them."""

    mean: Floats
    """(m,)"""
    own: Floats
    """(m,) variance of the error that is a run's own."""
    late: Floats
    """(m,) variance of the luck that the epochs to come would have brought."""
    common: Floats
    """(m, COMMON) what one standard deviation of each common error does to each run."""

    @property
    def variance(self) -> Floats:
        """Of the whole error of each, (m,)."""
        return np.asarray(self.own + self.late + np.sum(self.common**2, axis=1))

    def below(self, top: Floats) -> Foretold:
        """Return what is expected of runs that end below ``top`` (m,): normals, truncated.

        The truncation takes the same share of every error.
        """
        mean, variance = _truncated(self.mean, np.sqrt(self.variance), top)
        left = variance / self.variance
        return Foretold(mean, left * self.own, left * self.late, np.sqrt(left)[:, None] * self.common)


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
    def of(
        cls,
        x: Floats,
        curves: Sequence[Floats],
        final: Floats,
        epoch: int,
        width: float,
        unseen: Floats | None = None,
    ) -> Outlook:
        """Learn from runs: points (n, 3), lowest losses up to each epoch, and final losses (n,).

        ``unseen`` (n,) is the variance of final losses that are themselves foretold; 0 of complete runs.
        """
        known = np.array([0 < epoch <= len(curve) for curve in curves], dtype=bool)
        reached = [curve[:epoch] for curve, is_known in zip(curves, known, strict=True) if is_known]
        gains = np.array([curve[-1] for curve in reached]) - final[known]
        regression = None
        if len(reached) >= MIN_CURVES:
            doubt = 0.0 if unseen is None else float(unseen[known].mean())
            regression = Regression.of(_curve_features(np.stack(reached), x[known]), gains, doubt)
        return cls(width, gains, float(final.min()), regression)

    def foretell(self, x: Floats, curves: Floats, now: Floats) -> Foretold:
        """Return what is expected of the final losses of runs at points (m, 3).

        ``curves`` (m, epoch) are their lowest losses up to each epoch, ``now`` (m,) the lowest of all: none
        ends above it.
        """
        if self.regression is None:
            gain = self._among_few(now)
        else:
            gain = self.regression.foretell(_curve_features(curves, x))
        own = gain.own + (0.02 * self.width) ** 2
        final = Foretold(now - gain.mean, own, gain.late, -gain.common)
        return final.below(now)

    def _among_few(self, now: Floats) -> Foretold:
        """Return what is expected of the gains (m,), from few complete runs, or none, and an imagined one.

        That one gains half the width, or what leads to the lowest loss seen if that is less. The error of
        their mean is common to all.
        """
        imagined = np.clip(now - self.lowest, 0.25 * self.width, 0.5 * self.width)
        count = len(self.gains) + 1
        mean = (self.gains.sum() + imagined) / count
        variance = (np.sum((self.gains[:, None] - mean) ** 2, axis=0) + imagined**2) / count
        common = np.zeros((len(now), COMMON))
        common[:, 0] = np.sqrt(variance / count)
        return Foretold(mean, variance, np.zeros(len(now)), common)


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
    root: Floats
    """(3, 3) of the slopes' covariance: root @ root.T."""
    residual_share: float
    """Of the target's variance, and of the doubt of the targets themselves."""
    count: int
    """Of the observations."""

    @classmethod
    def of(cls, features: Floats, target: Floats, doubt: float = 0.0) -> Regression:
        """Fit (n, 3) features to the target (n,), whose values are expected ones with this mean variance."""
        centre, spread = features.mean(axis=0), features.std(axis=0) + 1e-12
        scaled = (features - centre) / spread
        level, unit = float(target.mean()), float(target.std()) + 1e-12
        residual_share = 0.5
        for _ in range(3):
            precision = scaled.T @ scaled / residual_share + np.eye(features.shape[1])
            slopes = np.linalg.solve(precision, scaled.T @ ((target - level) / unit) / residual_share)
            residual = (target - level) / unit - scaled @ slopes
            degrees = max(len(target) - 1 - features.shape[1], 1)
            residual_share = max(float(residual @ residual) / degrees + doubt / unit**2, 1e-3)
        root = np.linalg.cholesky(np.linalg.inv(precision))
        return cls(centre, spread, level, unit, slopes, root, residual_share, len(target))

    def foretell(self, features: Floats) -> Foretold:
        """Return what is expected of the target at features (m, 3)."""
        place = (features - self.centre) / self.spread
        away = self.unit * (place @ self.slopes)
        level = np.full(len(place), self.unit * np.sqrt(self.residual_share / self.count))
        common = np.column_stack([level, self.unit * (place @ self.root), MISFIT * away])
        scatter = np.full(len(place), self.unit**2 * self.residual_share)
        return Foretold(self.level + away, OWN * scatter, (1 - OWN) * scatter, common)


def _truncated(mean: Floats, sd: Floats, top: Floats) -> tuple[Floats, Floats]:
    """Return mean and variance (m,) of normals below ``top`` (m,)."""
    edge = np.minimum((top - mean) / sd, 8.0)
    is_far = edge < -5
    density = -0.5 * edge**2 - 0.5 * np.log(2 * np.pi)
    hazard = np.exp(density - log_ndtr(edge))
    middle = np.where(is_far, top, mean - sd * hazard)
    return middle, sd**2 * np.where(is_far, 1.0, np.maximum(1 - edge * hazard - hazard**2, 0.05))
