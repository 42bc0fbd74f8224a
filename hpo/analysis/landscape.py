"""Draws of the whole expected-loss landscape on the lattice of the search box.

Pathwise conditioning (Wilson et al. 2021, JMLR 22:105): a draw from the prior, moved by the kernel to meet
the observations. The kernel is a product over lr and ratio and so is the lattice: values on the lattice are
products of small matrices. Shapes: C combinations of losses and choices (hpo/analysis/box.py), I x J lattice,
n trials, r nodes, S draws.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dpotrf, dpotrs, dtrtrs

from hpo.analysis.basin import Floats, basin
from hpo.analysis.box import Box, Lattice
from hpo.analysis.likelihood import (
    LEVEL_VARIANCE,
    Pairs,
    choice_rhos,
    choice_variances,
    loss_rho,
    matern,
    mix,
    mix_choices,
    of_basin,
)
from hpo.analysis.surrogate import Fit, Surrogate

NODES = 1.02 * np.cos(np.pi * (np.arange(24) + 0.5) / 24)
"""Chebyshev nodes of the draws' one-dimensional bases (Nystrom; exact at the nodes), on [-1, 1]."""


Bases = tuple[Floats, Floats]
"""Of one coordinate: (r, n) at the trials, (r, lattice) on the lattice."""


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

    def bases(self, length: float) -> Bases:
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
    surrogate: Surrogate, lattice: Lattice, rng: np.random.Generator, *, each: int = 1
) -> tuple[Floats, Floats]:
    """Return the mean (C, I, J) and ``each`` draws of every fit of the surrogate (S, C, I, J), fit by fit.

    Infeasible points are inf.
    """
    mean, drawn = _collected(surrogate, lattice, rng, lambda draw: draw, each)
    return mean, np.stack(drawn)


def draw_lowest(
    surrogate: Surrogate, lattice: Lattice, rng: np.random.Generator, *, each: int = 1
) -> tuple[Floats, Floats, Floats]:
    """Return the mean (C, I, J), the lowest of all combinations in each draw (S, 1, I, J), and the lowest
    loss of each combination (S, C): all that is asked of draws, in a memory that does not grow with C.
    """
    mean, drawn = _collected(
        surrogate,
        lattice,
        rng,
        lambda draw: (draw.min(axis=0, keepdims=True), draw.min(axis=(1, 2))),
        each,
    )
    return mean, np.stack([lowest for lowest, _ in drawn]), np.stack([each for _, each in drawn])


_Kept = TypeVar("_Kept")


def _collected(
    surrogate: Surrogate,
    lattice: Lattice,
    rng: np.random.Generator,
    keep: Callable[[Floats], _Kept],
    each: int,
) -> tuple[Floats, list[_Kept]]:
    """Return the mean (C, I, J), and what to keep of each draw (C, I, J)."""
    x, box = surrogate.problem.x, lattice.box
    axes = Axis.of(x[:, 0], lattice.lr), Axis.of(x[:, 1], lattice.ratio)
    points = np.concatenate([lattice.points(place) for place in range(len(box.combinations))])
    shape = (len(box.combinations), *lattice.feasible.shape)
    mean, kept = np.zeros(shape), []
    for fit in surrogate.fits:
        shared = basin(of_basin(x, fit.theta), points).reshape(shape)
        middle, *draws = _rest(surrogate, fit, axes, box, rng, each)
        mean += (shared + middle) / len(surrogate.fits)
        for drawn in draws:
            draw = surrogate.centre + surrogate.scale * (shared + drawn)
            draw[:, ~lattice.feasible] = np.inf
            kept.append(keep(draw))
    mean[:, ~lattice.feasible] = np.inf
    return surrogate.centre + surrogate.scale * mean, kept


def _rest(
    surrogate: Surrogate, fit: Fit, axes: tuple[Axis, Axis], box: Box, rng: np.random.Generator, each: int
) -> Floats:
    """Return the mean, then ``each`` draws (1 + each, C, I, J), of what is added to the basin."""
    problem, theta = surrogate.problem, fit.theta
    bases = tuple(axis.bases(np.exp(length)) for axis, length in zip(axes, theta[2:4], strict=True))
    levels_of_trials = problem.x[:, 2:].astype(np.int64)
    at_trials, prior = zip(
        *(_prior_draw(theta, bases, levels_of_trials, box, rng) for _ in range(each)), strict=True
    )
    noisy = np.stack([values + problem.draw_noise(theta, rng) for values in at_trials], axis=1)
    weights = np.vstack([fit.alpha, fit.alpha - dpotrs(fit.lower, noisy, lower=1)[0].T])
    lr, ratio = axes[0].correlation(np.exp(theta[2])), axes[1].correlation(np.exp(theta[3]))
    pairs = Pairs.of(lattice_levels(box), problem.x)  # what is the same: (C, n) and (C, n, K)
    bumps = np.exp(2 * theta[1]) * mix(theta, pairs.same_loss)
    levels = LEVEL_VARIANCE * weights.sum(axis=1)[:, None] + np.exp(2 * theta[0]) * (
        weights @ pairs.same_loss.T
    )
    if box.choices:
        bumps = bumps * mix_choices(theta, pairs.same_choice).prod(axis=-1)
        levels = levels + weights @ (pairs.same_choice @ choice_variances(theta, len(box.choices))).T
    moved = (weights[:, None, None, :] * bumps[None, :, None, :] * lr) @ ratio.T  # (1 + each, C, I, J)
    moved += levels[:, :, None, None]
    moved[1:] += prior
    return np.asarray(moved)


def lattice_levels(box: Box) -> Floats:
    """Return points (C, 3 + K) of all combinations, of no rates."""
    return np.pad(box.combinations, ((0, 0), (2, 0)))


def _prior_draw(
    theta: Floats,
    bases: tuple[Bases, ...],
    levels_of_trials: NDArray[np.int64],
    box: Box,
    rng: np.random.Generator,
) -> tuple[Floats, Floats]:
    """Return one draw of the prior: at the trials (n,), on the lattice (C, I, J).

    What a loss or a value has of its own and what all share are drawn apart, for each set of factors.
    """
    rank, sizes = len(NODES), box.sizes
    rhos = [loss_rho(theta), *choice_rhos(theta, len(sizes) - 1)]
    bumps = rng.standard_normal((*(size + 1 for size in sizes), rank, rank))
    for axis, rho in enumerate(rhos):
        own, shared = np.split(bumps, [sizes[axis]], axis=axis)
        bumps = np.sqrt(1 - rho) * own + np.sqrt(rho) * shared
    bumps = np.exp(theta[1]) * bumps.reshape(-1, rank, rank)
    levels = _level_draw(theta, box, rng)
    (lr_trials, lr), (ratio_trials, ratio) = bases
    everywhere = np.sum((bumps.transpose(0, 2, 1) @ lr_trials) * ratio_trials, axis=1)  # (C, n)
    combination = np.ravel_multi_index(tuple(levels_of_trials.T), sizes)
    at_trials = (levels[:, None] + everywhere)[combination, np.arange(len(combination))]
    return at_trials, levels[:, None, None] + lr.T @ bumps @ ratio


def _level_draw(theta: Floats, box: Box, rng: np.random.Generator) -> Floats:
    """Return one draw of the prior's levels, (C,)."""
    whole, of_losses = np.sqrt(LEVEL_VARIANCE) * rng.standard_normal(), rng.standard_normal(box.sizes[0])
    levels = (whole + np.exp(theta[0]) * of_losses)[box.combinations[:, 0].astype(np.int64)]
    variances = choice_variances(theta, len(box.choices))
    for place, (size, variance) in enumerate(zip(box.sizes[1:], variances, strict=True), start=1):
        own = np.sqrt(variance) * rng.standard_normal(size)
        levels = levels + own[box.combinations[:, place].astype(np.int64)]
    return np.asarray(levels)
