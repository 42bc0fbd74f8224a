"""Draws of the whole expected-loss landscape on the lattice of the search box.

Pathwise conditioning (Wilson et al. 2021, JMLR 22:105): a draw from the prior, moved by the kernel to meet
the observations. The kernel is a product over lr and ratio and so is the lattice: values on the lattice are
products of small matrices. Shapes: L losses, I x J lattice, n trials, r nodes, S draws.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs, dtrtrs

from hpo.analysis.basin import Floats, basin
from hpo.analysis.box import Lattice
from hpo.analysis.likelihood import KERNEL, LEVEL_VARIANCE, matern, mix
from hpo.analysis.surrogate import Fit, Surrogate

NODES = 1.02 * np.cos(np.pi * (np.arange(24) + 0.5) / 24)
"""Chebyshev nodes of the draws' one-dimensional bases (Nystrom; exact at the nodes), on [-1, 1]."""


@dataclass(frozen=True)
class Axis:
    """One coordinate: of the trials (n,), of the lattice, and of the nodes that span both (r,)."""

    trials: Floats
    lattice: Floats
    nodes: Floats

    @classmethod
    def of(cls, trials: Floats, lattice: Floats) -> Axis:
        """Return the axis whose nodes span the trials and the lattice."""
        ends = np.concatenate([trials, lattice])
        low, high = ends.min(), ends.max()
        return cls(trials, lattice, (low + high) / 2 + (high - low) / 2 * NODES)

    def bases(self, length: float) -> tuple[Floats, Floats]:
        """Return the bases (r, n) and (r, lattice) whose products are the Matern correlation."""
        gram = matern(np.abs(self.nodes[:, None] - self.nodes[None, :]), length)
        root, _ = dpotrf(gram + 1e-7 * np.eye(len(gram)), lower=1, clean=1)
        places = np.concatenate([self.trials, self.lattice])
        basis, _ = dtrtrs(root, matern(np.abs(self.nodes[:, None] - places[None, :]), length), lower=1)
        return basis[:, : len(self.trials)], basis[:, len(self.trials) :]

    def correlation(self, length: float) -> Floats:
        """Return the Matern correlation (lattice, n) of the lattice with the trials."""
        return matern(np.abs(self.lattice[:, None] - self.trials[None, :]), length)


def draw_landscapes(
    surrogate: Surrogate, lattice: Lattice, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return the mean (L, I, J) and one draw for each of the surrogate's fits (S, L, I, J).

    Infeasible points are inf.
    """
    x = surrogate.problem.x
    axes = Axis.of(x[:, 0], lattice.lr), Axis.of(x[:, 1], lattice.ratio)
    points = np.concatenate([lattice.points(loss) for loss in range(len(lattice.box.losses))])
    shape = (len(lattice.box.losses), *lattice.feasible.shape)
    mean = np.zeros(shape)
    draws = np.empty((len(surrogate.fits), *shape))
    for place, fit in enumerate(surrogate.fits):
        shared = basin(fit.theta[KERNEL:], points).reshape(shape)
        middle, drawn = _rest(surrogate, fit, axes, shape[0], rng)
        mean += (shared + middle) / len(draws)
        draws[place] = shared + drawn
    mean[:, ~lattice.feasible] = np.inf
    draws[:, :, ~lattice.feasible] = np.inf
    return surrogate.centre + surrogate.scale * mean, surrogate.centre + surrogate.scale * draws


def _rest(
    surrogate: Surrogate, fit: Fit, axes: tuple[Axis, Axis], losses: int, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Return mean and one draw (L, I, J) of what the Gaussian process adds to the basin."""
    problem, theta = surrogate.problem, fit.theta
    at_trials, prior = _prior_draw(theta, axes, problem.x[:, 2].astype(np.int64), losses, rng)
    noisy = at_trials + problem.draw_noise(theta, rng)
    weights = np.stack([fit.alpha, fit.alpha - dpotrs(fit.lower, noisy, lower=1)[0]])
    lr, ratio = axes[0].correlation(np.exp(theta[2])), axes[1].correlation(np.exp(theta[3]))
    same = (problem.x[None, :, 2] == np.arange(losses)[:, None]).astype(np.float64)  # (L, n)
    bumps = np.exp(2 * theta[1]) * mix(theta, same)
    moved = (weights[:, None, None, :] * bumps[None, :, None, :] * lr) @ ratio.T  # (2, L, I, J)
    levels = LEVEL_VARIANCE * weights.sum(axis=1)[:, None] + np.exp(2 * theta[0]) * (weights @ same.T)
    moved += levels[:, :, None, None]
    return moved[0], prior + moved[1]


def _prior_draw(
    theta: Floats,
    axes: tuple[Axis, Axis],
    losses_of_trials: NDArray[np.int64],
    losses: int,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Return one draw of the prior: at the trials (n,), on the lattice (L, I, J)."""
    rho = 1 / (1 + np.exp(-theta[4]))
    rank = len(NODES)
    own, shared = rng.standard_normal((losses, rank, rank)), rng.standard_normal((rank, rank))
    bumps = np.exp(theta[1]) * (np.sqrt(1 - rho) * own + np.sqrt(rho) * shared)
    levels = np.sqrt(LEVEL_VARIANCE) * rng.standard_normal() + np.exp(theta[0]) * rng.standard_normal(losses)
    (lr_trials, lr), (ratio_trials, ratio) = (
        axis.bases(np.exp(length)) for axis, length in zip(axes, theta[2:4], strict=True)
    )
    everywhere = np.sum((bumps.transpose(0, 2, 1) @ lr_trials) * ratio_trials, axis=1)  # (L, n)
    at_trials = (levels[:, None] + everywhere)[losses_of_trials, np.arange(len(losses_of_trials))]
    return at_trials, levels[:, None, None] + lr.T @ bumps @ ratio
