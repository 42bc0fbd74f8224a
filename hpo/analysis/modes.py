"""Where the posterior's mass may lie: its modes, found by climbs from many starts, and a broad part.

At each mode a normal approximation; one more, broad, where no rate matters. Their mixture is what the
particles of :mod:`hpo.analysis.posterior` begin as.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize

from hpo.analysis.basin import Floats
from hpo.analysis.likelihood import KERNEL, Problem

GUESSES = 2
"""Starts of climbs at random good trials, beside one in the middle, one a loss and one a direction."""
CLIMB_ROWS = 150
"""Of more trials, the first part of a climb sees so many."""
BEST = 4
"""So many of the first parts go on to the top."""
NOTHING = 0.25
"""Share of the mixture for which the basin does not matter."""
SHALLOW = -1.7
"""Their log A, in standard deviations of its prior."""
LIMIT = 3.5
"""Standard deviations of the prior beyond which no parameter goes."""
CENTRE = slice(KERNEL + 1, KERNEL + 3)
WIDTHS = slice(KERNEL + 3, KERNEL + 7)


@dataclass(frozen=True)
class Mode:
    """A local maximum of the density, with a square root of the covariance there: both in z."""

    z: Floats
    root: Floats
    log_density: float

    @cached_property
    def log_volume(self) -> float:
        """Log determinant of the root."""
        return float(np.linalg.slogdet(self.root)[1])

    @cached_property
    def whitener(self) -> Floats:
        """Inverse of the root."""
        return np.asarray(np.linalg.inv(self.root))


@dataclass(frozen=True)
class Proposal:
    """A mixture of normals that is close to the posterior."""

    modes: Sequence[Mode]
    shares: Floats

    @classmethod
    def of(cls, problem: Problem, rng: np.random.Generator, *, thorough: bool = True) -> Proposal:
        """Return the mixture: the modes by Laplace's approximation, and a share where nothing matters."""
        modes = find_modes(problem, rng, thorough=thorough)
        logs = np.array([mode.log_density + mode.log_volume for mode in modes])
        shares = np.exp((logs - logs.max()) / 2)
        return cls([*modes, _nothing(problem)], np.append((1 - NOTHING) * shares / shares.sum(), NOTHING))

    def draw(self, size: int, rng: np.random.Generator) -> Floats:
        """Return (size, P) draws of z; as many from each mode as its share says, in random order."""
        picks = np.searchsorted(np.cumsum(self.shares), (rng.permutation(size) + rng.random()) / size)
        normal = rng.standard_normal((size, len(self.modes[0].z)))
        picked = [self.modes[min(pick, len(self.modes) - 1)] for pick in picks]
        drawn = [mode.z + mode.root @ row for mode, row in zip(picked, normal, strict=True)]
        return np.array(drawn).clip(-LIMIT, LIMIT)

    def log_density(self, z: Floats) -> Floats:
        """Return the log density (n,) of each row, up to a constant."""
        logs = []
        for share, mode in zip(self.shares, self.modes, strict=True):
            offset = (z - mode.z) @ mode.whitener.T
            logs.append(np.log(share) - mode.log_volume - 0.5 * np.sum(offset**2, axis=1))
        return np.asarray(np.logaddexp.reduce(logs, axis=0))


def find_modes(problem: Problem, rng: np.random.Generator, *, thorough: bool = True) -> list[Mode]:
    """Return the distinct modes found from all starts (not ``thorough``: the first few), best first."""
    size = len(problem.prior.mean)
    early = problem if len(problem.y) <= CLIMB_ROWS else problem.rows(_spread(len(problem.y), CLIMB_ROWS))
    starts = _starts(problem, rng)
    starts = starts if thorough else starts[: 1 + len(np.unique(problem.x[:, 2]))]
    first = sorted((_climb(early, start, most=50) for start in starts), key=lambda climb: climb[1])
    climbs = sorted(
        (_climb(problem, z) for z, _ in first[: BEST if thorough else 1]), key=lambda climb: climb[1]
    )
    kept: list[Mode] = []
    for z, height in climbs:
        near = any(np.linalg.norm(mode.whitener @ (z - mode.z)) < 3 for mode in kept)
        if height < climbs[0][1] + 8 and not near:
            kept.append(Mode(z, _root(problem, z, np.arange(size)), -height))
    return kept


def _spread(size: int, many: int) -> NDArray[np.int64]:
    return np.linspace(0, size - 1, many).round().astype(np.int64)


def _starts(problem: Problem, rng: np.random.Generator) -> Floats:
    """Return starts (m, P): the prior's middle, each loss's best trial, good ones, and a ridge each way."""
    order = np.argsort(problem.y + np.sqrt(problem.extra + np.diag(problem.common_variance)))
    losses = problem.x[order, 2]
    firsts = [order[np.flatnonzero(losses == loss)[0]] for loss in np.unique(losses)]
    good = order[rng.integers(0, max(1, len(order) // 4), GUESSES)]
    best = problem.x[np.concatenate([firsts, good, np.repeat(order[:1], 4)]).astype(np.int64)]
    places = np.stack([best[:, 0], best[:, 0] - best[:, 1]], axis=1)
    starts = np.zeros((len(best) + 1, len(problem.prior.mean)))
    starts[1:, CENTRE] = (places - problem.prior.mean[CENTRE]) / problem.prior.sd[CENTRE]
    starts[-4:, WIDTHS] = 1.0 - 2.0 * np.eye(4)
    return starts


def _climb(problem: Problem, start: Floats, fixed: slice = slice(0), most: int = 150) -> tuple[Floats, float]:
    """Return where the density is highest, and minus its logarithm there; ``fixed`` entries stay."""
    start = np.asarray(start.clip(-LIMIT, LIMIT))
    low, high = np.full(len(start), -LIMIT), np.full(len(start), LIMIT)
    low[fixed] = high[fixed] = start[fixed]
    found = minimize(
        problem.objective,
        start,
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(low, high),
        options={"maxiter": most, "ftol": 1e-4},
    )
    return np.asarray(found.x), float(found.fun)


def _nothing(problem: Problem) -> Mode:
    """Return a broad normal where the basin is too shallow to matter: its other parameters as their prior.

    No climb ends there (any noise has some best basin), but the posterior may well have its mass there.
    """
    start = np.zeros(len(problem.prior.mean))
    start[KERNEL] = SHALLOW
    z, height = _climb(problem, start, problem.basin)
    others = np.delete(np.arange(len(z)), problem.basin)
    root = np.eye(len(z))
    root[np.ix_(others, others)] = _root(problem, z, others)
    root[KERNEL, KERNEL] = 0.7
    return Mode(z, root, -height)


def _root(problem: Problem, z: Floats, entries: NDArray[np.int64]) -> Floats:
    """Return a root of the inverse curvature at ``z`` in some entries, nowhere wider than the prior."""
    step = 1e-3
    _, here = problem.objective(z)
    units = step * np.eye(len(z))[entries]
    rows = np.array([(problem.objective(z + unit)[1] - here)[entries] / step for unit in units])
    values, vectors = np.linalg.eigh((rows + rows.T) / 2)
    return np.asarray(vectors / np.sqrt(np.maximum(values, 0.8)))
