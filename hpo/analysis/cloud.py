"""Particles on their way to the posterior, and the Metropolis moves that spread them.

The basin's parameters say how a rate matters, and a move of them alone needs no new matrix: the factor of the
observations' covariance depends on the kernel's parameters only. Such moves cost a tenth of a whole one, so
that there are many of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dtrtrs

from hpo.analysis.basin import Floats, basins
from hpo.analysis.likelihood import Problem, of_basin
from hpo.analysis.modes import LIMIT, Proposal

FEW = 4
"""Parameters that a move of a few changes, in the mean."""
WHOLE = slice(None)
"""A move of all parameters."""


@dataclass(frozen=True)
class Cloud:
    """Particles of z with what is known of each."""

    z: Floats
    """(N, P)"""
    lowers: Sequence[Floats]
    """N factors (n, n) of the observations' covariance."""
    misfit: Floats
    """(N,) half the squared length of the whitened residuals."""
    log_p: Floats
    """(N,) log density in the posterior, up to a constant; -inf outside the limits."""
    log_q: Floats
    """(N,) log density in the first mixture."""

    @classmethod
    def of(cls, problem: Problem, proposal: Proposal, z: Floats) -> Cloud:
        """Return the particles (N, P) with their densities."""
        found = [_root(problem, row) if is_in else None for row, is_in in zip(z, _inside(z), strict=True)]
        none = np.eye(len(problem.y))
        lowers = [none if lower is None else lower for lower in found]
        half_logs = np.array([np.log(np.diag(lower)).sum() for lower in lowers])
        half_logs += [problem.lacking(problem.theta(row)).sum() for row in z]
        misfit = _misfit(problem, z, lowers)
        is_usable = np.array([lower is not None for lower in found])
        log_p = np.where(is_usable, -misfit - half_logs - 0.5 * np.sum(z**2, axis=1), -np.inf)
        return cls(z, lowers, misfit, log_p, proposal.log_density(z))

    def with_basins(self, problem: Problem, proposal: Proposal, z: Floats) -> Cloud:
        """Return the particles at other basins: ``z`` (N, P) differs in the basin's parameters only."""
        misfit = _misfit(problem, z, self.lowers)
        gained = self.misfit - misfit + 0.5 * (np.sum(self.z**2, axis=1) - np.sum(z**2, axis=1))
        log_p = np.where(_inside(z), self.log_p + gained, -np.inf)
        return replace(self, z=z, misfit=misfit, log_p=log_p, log_q=proposal.log_density(z))

    def rows(self, chosen: NDArray[np.int64]) -> Cloud:
        """Return some of the particles."""
        lowers = [self.lowers[row] for row in chosen]
        return Cloud(self.z[chosen], lowers, self.misfit[chosen], self.log_p[chosen], self.log_q[chosen])

    def replaced(self, rows: NDArray[np.int64], other: Cloud) -> Cloud:
        """Return the particles with those at ``rows`` from another cloud."""
        order = np.arange(len(self.z))
        order[rows] = len(self.z) + np.arange(len(rows))
        both = Cloud(
            np.concatenate([self.z, other.z]),
            [*self.lowers, *other.lowers],
            *(
                np.concatenate([mine, theirs])
                for mine, theirs in (
                    (self.misfit, other.misfit),
                    (self.log_p, other.log_p),
                    (self.log_q, other.log_q),
                )
            ),
        )
        return both.rows(order)


def _inside(z: Floats) -> NDArray[np.bool_]:
    return np.asarray(np.abs(z).max(axis=1) <= LIMIT)


def _root(problem: Problem, z: Floats) -> Floats | None:
    """Return the factor of the observations' covariance; None where it cannot be computed."""
    try:
        return problem.root(problem.theta(z))
    except np.linalg.LinAlgError:
        return None


def _misfit(problem: Problem, z: Floats, lowers: Sequence[Floats]) -> Floats:
    """Return half the squared length (N,) of the whitened residuals."""
    residuals = problem.y - basins(of_basin(problem.x, problem.theta(z)), problem.x)
    halves = [dtrtrs(lower, rest, lower=1)[0] for lower, rest in zip(lowers, residuals, strict=True)]
    return np.asarray(0.5 * np.sum(np.square(halves), axis=1))


def moved(
    problem: Problem,
    proposal: Proposal,
    cloud: Cloud,
    warmth: float,
    part: slice,
    rng: np.random.Generator,
) -> Cloud:
    """Return the particles after one Metropolis move of each half, of a part of their parameters.

    The part is all of them, or the basin's.

    Particles are at q^(1 - warmth) p^warmth and stay so.
    """
    size = len(cloud.z)
    for first in (0, 1):
        mine, others = np.arange(first, size, 2), np.arange(1 - first, size, 2)
        olds = cloud.rows(mine)
        z = olds.z.copy()
        z[:, part] += _steps(cloud.z[others, part], len(mine), proposal.modes[0].root[part], rng)
        news = (
            olds.with_basins(problem, proposal, z)
            if part == problem.basin
            else Cloud.of(problem, proposal, z)
        )
        odds = warmth * (news.log_p - olds.log_p) + (1 - warmth) * (news.log_q - olds.log_q)
        taken = np.log(rng.random(len(mine))) < odds
        cloud = cloud.replaced(mine[taken], news.rows(np.flatnonzero(taken)))
    return cloud


def _steps(others: Floats, size: int, root: Floats, rng: np.random.Generator) -> Floats:
    """Return steps (size, D), each in one of three ways, from particles (M, D) that stay.

    Along a difference of two, now and then a whole one, which leads from one mode to another (differential
    evolution: ter Braak 2006, Stat. Comput. 16:239); by the best mode's shape, ``root`` (D, P); or a few
    parameters alone. Without the last two the cloud stays in the span of its few ancestors.
    """
    parameters = others.shape[1]
    one = rng.integers(0, len(others), size)
    another = (one + rng.integers(1, len(others), size)) % len(others)
    length = 2.38 / np.sqrt(2 * parameters) * rng.uniform(0.3, 1.2, (size, 1))
    length[rng.random(size) < 0.1] = 1.0
    normal = rng.standard_normal((size, parameters))
    along = length * (others[one] - others[another]) + 0.02 * normal
    shaped = rng.uniform(0.1, 0.5, (size, 1)) * rng.standard_normal((size, root.shape[1])) @ root.T
    alone = 0.8 * normal * (rng.random((size, parameters)) < FEW / parameters)
    return np.asarray(np.choose(rng.integers(0, 3, (size, 1)), [along, shaped, alone]))
