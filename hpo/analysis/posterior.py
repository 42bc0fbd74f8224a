"""Draws from the posterior of the surrogate's parameters, so that no best guess is taken for the truth.

Climb to the modes from several starts, take a normal approximation at each, and a broad one where no rate
matters; draw from their mixture, weight by the true density, resample, and let each draw walk a few steps of
Metropolis: importance resampling with rejuvenation (Gilks and Berzuini 2001, JRSS B 63:127). Deterministic
for a given seed.
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
from hpo.analysis.likelihood import KERNEL, Problem, problem_of
from hpo.analysis.surrogate import Fit, Surrogate

STARTS = 3
NOTHING = 0.35
"""Share of the proposals for which the basin does not matter."""
SHALLOW = -1.7
"""Their log A, in standard deviations of its prior."""
PROPOSALS = 160
CHAINS = 50
STEPS = 12
KEEP_EVERY = 3
LIMIT = 3.5
"""Standard deviations of the prior beyond which no parameter goes."""


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
    draws: int = 200,
    seed: int = 0,
) -> Surrogate:
    """Return the surrogate of (n, 3) points and (n,) finite observations, n >= 2.

    Time grows with n^3: thin first (:func:`hpo.analysis.evidence.thinned`) above a few hundred. ``extra``
    (n,) is variance beyond the seed's, in units of y squared; ``common`` (n, q) what each of q errors that
    are common to all rows does to each; ``groups`` (n,) the fold of each row; ``draws`` how many draws of the
    parameters stand for their posterior.
    """
    rng = np.random.default_rng(seed)
    extra = np.zeros(len(y)) if extra is None else extra
    common = np.zeros((len(y), 0)) if common is None else common
    problem, centre, scale = problem_of(x, y, extra, common, groups, box)
    with threadpool_limits(1):  # matrices are small; threads cost 10x where workers keep the cores busy
        proposal = Proposal.of(problem, rng)
        walked = _walk(problem, proposal, _resampled(problem, proposal, rng), rng)
        chosen = walked[np.linspace(0, len(walked) - 1, min(draws, len(walked))).round().astype(int)]
        return Surrogate(problem, [Fit.of(problem, z) for z in chosen], centre, scale)


@dataclass(frozen=True)
class Proposal:
    """A mixture of normals that is close to the posterior."""

    modes: Sequence[Mode]
    shares: Floats

    @classmethod
    def of(cls, problem: Problem, rng: np.random.Generator) -> Proposal:
        """Return the mixture: the modes by Laplace's approximation, and a share where nothing matters."""
        modes = find_modes(problem, rng)
        logs = np.array([mode.log_density + np.linalg.slogdet(mode.root)[1] for mode in modes])
        shares = np.exp(logs - logs.max()).clip(min=1e-3)
        return cls([*modes, _nothing(problem)], np.append((1 - NOTHING) * shares / shares.sum(), NOTHING))

    @property
    def main(self) -> Mode:
        """The heaviest of the modes."""
        return self.modes[int(np.argmax(self.shares[:-1]))]

    def draw(self, size: int, rng: np.random.Generator) -> Floats:
        """Return (size, P) draws of z; as many from each mode as its share says, in random order."""
        picks = np.searchsorted(np.cumsum(self.shares), (rng.permutation(size) + rng.random()) / size)
        normal = rng.standard_normal((size, len(self.modes[0].z)))
        picked = [self.modes[min(pick, len(self.modes) - 1)] for pick in picks]
        return np.array([mode.z + mode.root @ row for mode, row in zip(picked, normal, strict=True)])

    def log_density(self, z: Floats) -> Floats:
        """Return the log density (n,) of each row, up to a constant."""
        logs = []
        for share, mode in zip(self.shares, self.modes, strict=True):
            offset = np.linalg.solve(mode.root, (z - mode.z).T)
            logs.append(np.log(share) - np.linalg.slogdet(mode.root)[1] - 0.5 * np.sum(offset**2, axis=0))
        return np.asarray(np.logaddexp.reduce(logs, axis=0))


def find_modes(problem: Problem, rng: np.random.Generator) -> list[Mode]:
    """Return the distinct modes found from the best trials' places, best first."""
    size = len(problem.prior.mean)
    order = np.argsort(problem.y + np.sqrt(problem.extra + np.diag(problem.common_variance)))
    starts = np.zeros((STARTS, size))
    best = problem.x[order[rng.integers(0, max(1, len(order) // 4), STARTS)]]
    places = np.stack([best[:, 0], best[:, 0] - best[:, 1]], axis=1)
    centre = slice(KERNEL + 1, KERNEL + 3)
    starts[1:, centre] = ((places - problem.prior.mean[centre]) / problem.prior.sd[centre])[1:]
    climbs = sorted((_climb(problem, start) for start in starts), key=lambda climb: climb[1])
    kept: list[Mode] = []
    for z, height in climbs:
        near = any(np.linalg.norm(np.linalg.solve(mode.root, z - mode.z)) < 3 for mode in kept)
        if height < climbs[0][1] + 8 and not near:
            kept.append(Mode(z, _root(problem, z, np.arange(size)), -height))
    return kept


def _climb(problem: Problem, start: Floats, fixed: slice = slice(0)) -> tuple[Floats, float]:
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
        options={"maxiter": 60},
    )
    return np.asarray(found.x), float(found.fun)


def _nothing(problem: Problem) -> Mode:
    """Return a broad normal where the basin is too shallow to matter: its other parameters as their prior.

    No climb ends there (any noise has some best basin), but the posterior may well have its mass there.
    """
    start = np.zeros(len(problem.prior.mean))
    start[KERNEL] = SHALLOW
    z, height = _climb(problem, start, slice(KERNEL, None))
    root = np.eye(len(z))
    root[:KERNEL, :KERNEL] = _root(problem, z, np.arange(KERNEL))
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


def _resampled(problem: Problem, proposal: Proposal, rng: np.random.Generator) -> Floats:
    """Return (CHAINS, P) draws of z: from the proposal, weighted by the true density."""
    drawn = proposal.draw(PROPOSALS, rng).clip(-LIMIT, LIMIT)
    weights = np.array([problem.log_density(z) for z in drawn]) - proposal.log_density(drawn)
    weights = np.exp(weights - weights.max())
    marks = (rng.random() + np.arange(CHAINS)) / CHAINS
    chosen = np.searchsorted(np.cumsum(weights / weights.sum()), marks).clip(max=PROPOSALS - 1)
    return np.asarray(drawn[chosen])


def _walk(problem: Problem, proposal: Proposal, chains: Floats, rng: np.random.Generator) -> Floats:
    """Return the states of all chains after every ``KEEP_EVERY`` Metropolis steps, the last states last.

    Steps are by turns small, along the main mode's shape, and anew from the proposal.
    """
    states = chains.copy()
    stride = 1.6 / np.sqrt(states.shape[1]) * proposal.main.root.T
    logs = np.array([problem.log_density(z) for z in states])
    kept = []
    for step in range(STEPS):
        if step % 2:
            moves, odds = proposal.draw(len(states), rng), proposal.log_density(states)
            odds = odds - proposal.log_density(moves)
        else:
            moves, odds = states + rng.standard_normal(states.shape) @ stride, np.zeros(len(states))
        news = np.array([problem.log_density(z) if np.abs(z).max() <= LIMIT else -np.inf for z in moves])
        taken = np.log(rng.random(len(states))) < news - logs + odds
        states[taken], logs[taken] = moves[taken], news[taken]
        if (step + 1) % KEEP_EVERY == 0:
            kept.append(states.copy())
    return np.concatenate(kept)
