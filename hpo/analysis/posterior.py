"""Draws from the posterior of the surrogate's parameters, so that no best guess is taken for the truth.

Climb to the modes from many starts; take a normal approximation at each, and a broad one where no rate
matters. Their mixture q is the first of a sequence of densities, q^(1 - t) p^t, that ends at the posterior p:
particles go through it by weights, resampling and Metropolis moves (sequential Monte Carlo: Del Moral, Doucet
and Jasra 2006, JRSS B 68:411), so that modes get the weight that they have. Deterministic for a given seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, minimize
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # 3.6 ships no types

from hpo.analysis.basin import Floats
from hpo.analysis.box import Box
from hpo.analysis.likelihood import KERNEL, Problem, of_basin, problem_of
from hpo.analysis.surrogate import Fit, Surrogate

GUESSES = 2
"""Starts of climbs at random good trials, beside one in the middle, one a loss and one a direction."""
CLIMB_ROWS = 150
"""Of more trials, the first part of a climb sees so many."""
BEST = 4
"""So many of the first parts go on to the top."""
NOTHING = 0.25
"""Share of the first mixture for which the basin does not matter."""
SHALLOW = -1.7
"""Their log A, in standard deviations of its prior."""
PARTICLES = 100
MOVES = 3
"""Metropolis moves after each weighting."""
LAST_MOVES = 24
"""Moves at the posterior itself."""
FEW = 4
"""Parameters that a move of a few changes, in the mean."""
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


def fit_surrogate(
    x: Floats,
    y: Floats,
    box: Box,
    extra: Floats | None = None,
    common: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
    *,
    draws: int = PARTICLES,
    seed: int = 0,
    thorough: bool = True,
) -> Surrogate:
    """Return the surrogate of (n, 3) points and (n,) finite observations, n >= 2.

    Time grows with n^3: thin first (:func:`hpo.analysis.evidence.thinned`) above a few hundred. ``extra``
    (n,) is variance beyond the seed's, in units of y squared; ``common`` (n, q) what each of q errors that
    are common to all rows does to each; ``groups`` (n,) the fold of each row; ``draws`` how many draws of the
    parameters stand for their posterior. Not ``thorough``: a third of the time, for suggestions.
    """
    rng = np.random.default_rng(seed)
    extra = np.zeros(len(y)) if extra is None else extra
    common = np.zeros((len(y), 0)) if common is None else common
    problem, centre, scale = problem_of(x, y, extra, common, groups, box)
    with threadpool_limits(1):  # matrices are small; threads cost 10x where workers keep the cores busy
        drawn = draw_parameters(problem, draws, rng, thorough=thorough)
        return Surrogate(problem, [Fit.of(problem, z) for z in drawn], centre, scale)


def draw_parameters(
    problem: Problem, size: int, rng: np.random.Generator, *, thorough: bool = True
) -> Floats:
    """Return (size, P) draws of z from its posterior."""
    proposal = Proposal.of(problem, rng, thorough=thorough)
    cloud = Cloud.of(problem, proposal, proposal.draw(size, rng))
    warmth = 0.0
    while warmth < 1:
        step = _next_step(cloud.log_p - cloud.log_q, 1 - warmth)
        warmth += step
        cloud = cloud.rows(_resampled(step * (cloud.log_p - cloud.log_q), rng))
        for _ in range(LAST_MOVES if thorough and warmth >= 1 else MOVES):
            cloud = _moved(problem, proposal, cloud, warmth, rng)
    return cloud.z


@dataclass(frozen=True)
class Proposal:
    """A mixture of normals that is close to the posterior."""

    modes: Sequence[Mode]
    shares: Floats

    @classmethod
    def of(cls, problem: Problem, rng: np.random.Generator, *, thorough: bool = True) -> Proposal:
        """Return the mixture: the modes by Laplace's approximation, and a share where nothing matters."""
        modes = find_modes(problem, rng, thorough=thorough)
        logs = np.array([mode.log_density + np.linalg.slogdet(mode.root)[1] for mode in modes])
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
            offset = np.linalg.solve(mode.root, (z - mode.z).T)
            logs.append(np.log(share) - np.linalg.slogdet(mode.root)[1] - 0.5 * np.sum(offset**2, axis=0))
        return np.asarray(np.logaddexp.reduce(logs, axis=0))


@dataclass(frozen=True)
class Cloud:
    """Particles (N, P) of z, with the log density of each in the posterior and in the first mixture (N,)."""

    z: Floats
    log_p: Floats
    log_q: Floats

    @classmethod
    def of(cls, problem: Problem, proposal: Proposal, z: Floats) -> Cloud:
        """Return the particles with their densities; outside the limits there is none."""
        inside = np.abs(z).max(axis=1) <= LIMIT
        log_p = [problem.log_density(row) if is_in else -np.inf for row, is_in in zip(z, inside, strict=True)]
        return cls(z, np.array(log_p), proposal.log_density(z))

    def rows(self, chosen: NDArray[np.int64]) -> Cloud:
        """Return some of the particles."""
        return Cloud(self.z[chosen], self.log_p[chosen], self.log_q[chosen])

    def replaced(self, rows: NDArray[np.int64], other: Cloud) -> Cloud:
        """Return the particles with those at ``rows`` from another cloud."""
        parts = zip((self.z, self.log_p, self.log_q), (other.z, other.log_p, other.log_q), strict=True)
        kept = [(mine.copy(), theirs) for mine, theirs in parts]
        for mine, theirs in kept:
            mine[rows] = theirs
        return Cloud(*(mine for mine, _ in kept))


def _next_step(logs: Floats, most: float) -> float:
    """Return how far the warmth may rise so that half of the particles' weight is left."""

    def left(step: float) -> float:
        weights = np.exp(step * (logs - logs.max()))
        return float(weights.sum() ** 2 / np.sum(weights**2) / len(weights))

    low, high = 0.0, most
    if left(most) >= 0.5:
        return most
    for _ in range(30):
        middle = (low + high) / 2
        low, high = (middle, high) if left(middle) >= 0.5 else (low, middle)
    return max(low, 1e-4 * most)


def _resampled(logs: Floats, rng: np.random.Generator) -> NDArray[np.int64]:
    """Return which particles (N,) go on, by their log weights (N,), in random order."""
    weights = np.exp(logs - logs.max())
    marks = (rng.random() + np.arange(len(logs))) / len(logs)
    chosen = np.searchsorted(np.cumsum(weights / weights.sum()), marks).clip(max=len(logs) - 1)
    return np.asarray(rng.permutation(chosen))


def _moved(
    problem: Problem, proposal: Proposal, cloud: Cloud, warmth: float, rng: np.random.Generator
) -> Cloud:
    """Return the particles after one Metropolis move of each half, in one of three ways.

    Along a difference within the other half, now and then a whole one, which leads from one mode to another
    (differential evolution: ter Braak 2006, Stat. Comput. 16:239); by the best mode's shape; or a few
    parameters alone. Without the last two the cloud stays in the span of its few ancestors, half as wide as
    it should be.
    """
    size, parameters = cloud.z.shape
    for first in (0, 1):
        mine, others = np.arange(first, size, 2), np.arange(1 - first, size, 2)
        pair = np.array([rng.choice(others, 2, replace=False) for _ in mine])
        length = 2.38 / np.sqrt(2 * parameters) * rng.uniform(0.3, 1.2, (len(mine), 1))
        length[rng.random(len(mine)) < 0.1] = 1.0
        steps = length * (cloud.z[pair[:, 0]] - cloud.z[pair[:, 1]])
        normal = rng.standard_normal(steps.shape)
        shaped = rng.uniform(0.1, 0.5, (len(mine), 1)) * normal @ proposal.modes[0].root.T
        alone = 0.8 * normal * (rng.random(steps.shape) < FEW / parameters)
        way = rng.integers(0, 3, (len(mine), 1))
        moves = cloud.z[mine] + np.choose(way, [steps + 0.02 * normal, shaped, alone])
        news, olds = Cloud.of(problem, proposal, moves), cloud.rows(mine)
        odds = warmth * (news.log_p - olds.log_p) + (1 - warmth) * (news.log_q - olds.log_q)
        taken = np.log(rng.random(len(mine))) < odds
        cloud = cloud.replaced(mine[taken], news.rows(np.flatnonzero(taken)))
    return cloud


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
        near = any(np.linalg.norm(np.linalg.solve(mode.root, z - mode.z)) < 3 for mode in kept)
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
    basin = slice(KERNEL, KERNEL + len(of_basin(problem.x, start)))
    others = np.delete(np.arange(len(start)), basin)
    z, height = _climb(problem, start, basin)
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
