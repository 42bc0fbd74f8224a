"""Draws from the posterior of the surrogate's parameters, so that no best guess is taken for the truth.

Climb to the modes from many starts (:mod:`hpo.analysis.modes`); the mixture q of normals there is the first
of a sequence of densities, q^(1 - t) p^t, that ends at the posterior p: particles go through it by weights,
resampling and Metropolis moves (sequential Monte Carlo: Del Moral, Doucet and Jasra 2006, JRSS B 68:411), so
that modes get the weight that they have. Deterministic for a given seed.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # 3.6 ships no types

from hpo.analysis.basin import Floats
from hpo.analysis.box import Box
from hpo.analysis.cloud import WHOLE, Cloud, moved
from hpo.analysis.likelihood import Problem, problem_of
from hpo.analysis.modes import Proposal
from hpo.analysis.surrogate import Fit, Surrogate

PARTICLES = 100
MOVES = 2
"""Metropolis moves of all parameters after each weighting."""
LAST_MOVES = 16
"""The same at the posterior itself."""
BASIN_MOVES = 8
"""Moves of the basin alone after each."""


def fit_surrogates(
    x: Floats,
    y: Floats,
    box: Box,
    extra: Floats | None = None,
    common: Floats | None = None,
    groups: NDArray[np.int64] | None = None,
    *,
    late: Floats | None = None,
    draws: int = PARTICLES,
    seed: int = 0,
    runs: int = 1,
    thorough: bool = True,
) -> list[Surrogate]:
    """Return the surrogate of (n, 3 + K) points and (n,) finite observations, n >= 2, once a run.

    Time grows with n^3: thin first (:func:`hpo.analysis.evidence.thinned`) above a few hundred. ``extra``
    (n,) is variance beyond the seed's, in units of y squared, and ``late`` (n,) that of luck which y, being
    expected, has not; ``common`` (n, q) what each of q errors that
    are common to all rows does to each; ``groups`` (n,) the fold of each row; ``draws`` how many draws of the
    parameters stand for their posterior; ``runs`` of the particles are independent but for where they start.
    Not ``thorough``: a third of the time, for suggestions.
    """
    rng = np.random.default_rng(seed)
    extra = np.zeros(len(y)) if extra is None else extra
    common = np.zeros((len(y), 0)) if common is None else common
    problem, centre, scale = problem_of(x, y, extra, common, groups, box, late)
    with threadpool_limits(1):  # matrices are small; threads cost 10x where workers keep the cores busy
        proposal = Proposal.of(problem, rng, thorough=thorough)
        drawn = [draw_parameters(problem, proposal, draws, rng, thorough=thorough) for _ in range(runs)]
        return [Surrogate(problem, [Fit.of(problem, z) for z in run], centre, scale) for run in drawn]


def draw_parameters(
    problem: Problem, proposal: Proposal, size: int, rng: np.random.Generator, *, thorough: bool = True
) -> Floats:
    """Return (size, P) draws of z from its posterior, by particles that start in the proposal."""
    cloud = Cloud.of(problem, proposal, proposal.draw(size, rng))
    warmth = 0.0
    while warmth < 1:
        step = _next_step(cloud.log_p - cloud.log_q, 1 - warmth)
        warmth += step
        cloud = cloud.rows(_resampled(step * (cloud.log_p - cloud.log_q), rng))
        for _ in range(LAST_MOVES if thorough and warmth >= 1 else MOVES):
            cloud = moved(problem, proposal, cloud, warmth, WHOLE, rng)
            for _ in range(BASIN_MOVES):
                cloud = moved(problem, proposal, cloud, warmth, problem.basin, rng)
    return cloud.z


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
