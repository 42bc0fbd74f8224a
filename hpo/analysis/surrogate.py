"""What the trials say about expected validation loss everywhere, averaged over the surrogate's parameters.

Notation as in :mod:`hpo.analysis.likelihood`: x (n, 3 + K) is log10 lr, log10 ratio, and the indices of the
loss and of the value of each choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.linalg.lapack import dpotri, dpotrs, dtrtrs

from hpo.analysis.basin import Floats, basin
from hpo.analysis.likelihood import Pairs, Problem, covariance, of_basin, own_variance

CHUNK = 200
"""Points whose expected loss is worked out at a time: a processor keeps what that takes in its cache."""


@dataclass(frozen=True)
class Fit:
    """The Gaussian process at one draw of the parameters."""

    theta: Floats
    lower: Floats
    alpha: Floats

    @classmethod
    def of(cls, problem: Problem, z: Floats) -> Fit:
        """Return the Gaussian process at the parameters ``z``."""
        theta = problem.theta(z)
        lower, residual = problem.factor(theta)
        return cls(theta, lower, dpotrs(lower, residual, lower=1)[0])

    def at(self, problem: Problem, x: Floats) -> tuple[Floats, Floats]:
        """Return mean and variance (m,) of the expected loss at the rows of ``x``."""
        mean, cross = self._cross(problem, x)
        half, _ = dtrtrs(self.lower, cross.T, lower=1)
        own = own_variance(self.theta, x.shape[1] - 3)
        return mean, np.maximum(own - np.sum(half**2, axis=0), 0.0)

    def draw(self, problem: Problem, x: Floats, size: int, rng: np.random.Generator) -> Floats:
        """Return joint draws (size, m) of the expected loss."""
        mean, cross = self._cross(problem, x)
        half, _ = dtrtrs(self.lower, cross.T, lower=1)
        own = covariance(self.theta, Pairs.of(x, x)) - half.T @ half
        values, vectors = np.linalg.eigh(own)
        root = vectors * np.sqrt(np.maximum(values, 0))
        return np.asarray(mean + rng.standard_normal((size, len(x))) @ root.T)

    def mean(self, problem: Problem, x: Floats, pairs: Pairs) -> Floats:
        """Return the mean (m,) of the expected loss at ``x``; ``pairs``: of its rows and the observations."""
        return self._cross(problem, x, pairs)[0]

    def _cross(self, problem: Problem, x: Floats, pairs: Pairs | None = None) -> tuple[Floats, Floats]:
        cross = covariance(self.theta, pairs or Pairs.of(x, problem.x))
        return basin(of_basin(x, self.theta), x) + cross @ self.alpha, cross


@dataclass(frozen=True)
class Surrogate:
    """Posterior of the expected loss: an equal mixture of Gaussian processes, one a draw of z."""

    problem: Problem
    fits: Sequence[Fit]
    centre: float
    scale: float

    @classmethod
    def of(cls, runs: Sequence[Surrogate]) -> Surrogate:
        """Return the posterior of several runs on the same problem: the draws of one after the other's."""
        fits = [fit for run in runs for fit in run.fits]
        return cls(runs[0].problem, fits, runs[0].centre, runs[0].scale)

    def expected(self, x: Floats) -> Floats:
        """Return the mean of the expected loss at each row (m,): the first half of :meth:`posterior`."""
        chunks = np.array_split(x, 1 + len(x) // CHUNK)
        means = np.concatenate([self._means(part) for part in chunks], axis=1)
        return np.asarray(self.centre + self.scale * np.mean(means, axis=0))

    def _means(self, x: Floats) -> Floats:
        """Return each draw's mean (S, m) of the expected loss at the rows of ``x``."""
        pairs = Pairs.of(x, self.problem.x)
        return np.array([fit.mean(self.problem, x, pairs) for fit in self.fits])

    def posterior(self, x: Floats) -> tuple[Floats, Floats]:
        """Return mean and standard deviation of the expected loss at each row, (m,) each."""
        means, variances = zip(*(fit.at(self.problem, x) for fit in self.fits), strict=True)
        variance = np.mean(variances, axis=0) + np.var(means, axis=0)
        return self.centre + self.scale * np.mean(means, axis=0), self.scale * np.sqrt(variance)

    def draw(self, x: Floats, size: int, rng: np.random.Generator) -> Floats:
        """Return (size, m) joint draws of the expected loss at the rows of ``x`` (m up to a few hundred).

        For a whole box :func:`hpo.analysis.landscape.draw_landscapes` is faster.
        """
        counts = rng.permutation(np.bincount(np.arange(size) % len(self.fits), minlength=len(self.fits)))
        draws = [fit.draw(self.problem, x, int(n), rng) for fit, n in zip(self.fits, counts, strict=True)]
        return np.asarray(self.centre + self.scale * rng.permutation(np.concatenate(draws)))

    def leave_one_out(self) -> tuple[Floats, Floats]:
        """Return mean and standard deviation (n,) foretold for each observation from all the others."""
        means, variances = [], []
        for fit in self.fits:
            inverse = np.diag(dpotri(fit.lower, lower=1)[0])
            means.append(self.problem.y - fit.alpha / inverse)
            variances.append(1 / inverse)
        variance = np.mean(variances, axis=0) + np.var(means, axis=0)
        return self.centre + self.scale * np.mean(means, axis=0), self.scale * np.sqrt(variance)

    @property
    def block_sd(self) -> float:
        """Standard deviation between blocks (folds, seeds), median over the draws of z; 0 without blocks."""
        if not self.problem.same_group.any():
            return 0.0
        return self.scale * self._spread(6)

    @property
    def noise_sd(self) -> float:
        """Standard deviation between runs of one configuration in one block, at the best observed place.

        Median over the draws of z.
        """
        return self.scale * self._spread(5)

    def _spread(self, entry: int) -> float:
        """Return the median over the draws of the deviation at ``entry`` of theta, at the best place."""
        some = Surrogate(self.problem, self.fits[:: max(1, len(self.fits) // 16)], self.centre, self.scale)
        best = self.problem.from_middle[int(np.argmin(some.expected(self.problem.x)))]
        return float(np.median([np.exp(fit.theta[entry] + best @ fit.theta[8:10]) for fit in self.fits]))
