"""Where the next trial tells most: rules on joint draws of the expected-loss landscape. Pure.

Shapes as in :mod:`hpo.analysis.landscape`: draws (S, C, I, J) over combinations of loss and choices, log10 lr
and log10 ratio, inf where a point is outside the box.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from hpo.analysis.box import Floats, Lattice

Ints = NDArray[np.int64]
Rule = Literal["decision", "information", "improvement", "thompson", "confidence"]
PLACES = 64
"""Places that may become the choice: with the lowest means, and the lowest of each draw."""
OUTCOMES = ndtri((np.arange(15) + 0.5) / 15)
"""Standardised outcomes of a trial, equally likely."""
NEAR_DECADES = 1.0
"""How far a trial's news reaches in :func:`decision`: half of it is left after 1.2 of these."""
OTHER_LOSS = 0.7
"""How much of it another loss is told, and so for each choice (chosen by us: as little as half a hundred
draws can tell apart)."""
TINY = 1e-300
"""Where nothing is uncertain nothing moves."""
CONFIDENCE = 1.5
"""Standard deviations below the mean in the rule ``confidence``."""


def best_point(lattice: Lattice, draws: Floats, noise: float, rule: Rule) -> Floats:
    """Return the point (3 + K) of the lattice that ``rule`` likes best; ``noise`` is a seed's variance.

    ``decision``: by how much a trial there lowers the expected loss of what is chosen next, if it will not be
    pruned; ``confidence``: where the mean less so many standard deviations is lowest;
    ``information``: what a trial there tells about where the lowest expected loss is, and how low it is, if
    it will not be pruned;
    ``improvement``: how far it is expected to lie below the lowest mean, noise aside; ``thompson``: where the
    first draw is lowest.
    """
    if rule == "thompson":
        worth = -draws[0]
    elif rule == "improvement":
        lowest = draws.mean(axis=0).min()
        worth = np.maximum(lowest - draws, 0.0).mean(axis=0)
    elif rule == "confidence":
        inside = np.where(lattice.feasible, draws, 0.0)
        worth = CONFIDENCE * inside.std(axis=0, ddof=1) - inside.mean(axis=0)
    elif rule == "decision":
        worth = decision(lattice, draws, noise) * completes(draws, noise)
    else:
        worth = information(lattice, draws, noise) * completes(draws, noise)
    worth = np.where(lattice.feasible[None], worth, -np.inf)
    combination, row, column = np.unravel_index(int(np.argmax(worth)), worth.shape)
    return lattice.place(int(combination), lattice.lr[row], lattice.ratio[column])


def completes(draws: Floats, noise: float) -> Floats:
    """Return (C, I, J): the probability that a run at each point is not so bad that it will be pruned.

    A pruned run tells little: that it is worse than the lowest mean by more than two seeds' deviations.
    """
    return np.asarray(np.mean(draws < draws.mean(axis=0).min() + 2 * np.sqrt(noise), axis=0))


def decision(lattice: Lattice, draws: Floats, noise: float) -> Floats:
    """Return (C, I, J): by how much a trial at each point lowers the lowest mean, as is expected before it.

    The knowledge gradient of correlated normal beliefs (Frazier, Powell and Dayanik 2009, INFORMS Journal on
    Computing 21:599): the trial's outcome moves the mean of every place in proportion to its covariance with
    the point, and what is then lowest is chosen. The covariances are those of the draws, tapered with
    distance as ensembles are (Gaspari and Cohn 1999): those of far places are mostly chance.
    """
    points = np.argwhere(
        np.broadcast_to(lattice.feasible, draws.shape[1:])
    )  # (N, 3): combination, row, column
    values = draws[:, lattice.feasible[None].repeat(draws.shape[1], axis=0)]  # (S, N), in the same order
    mean = values.mean(axis=0)
    places = np.union1d(np.argmin(values, axis=1), np.argsort(mean, kind="stable")[:PLACES])
    spread = values - mean
    covariance = spread.T @ spread[:, places] / (len(values) - 1)  # (N, M)
    covariance *= _reach(lattice, points, points[places])
    variance = np.mean(spread**2, axis=0) * len(values) / (len(values) - 1)
    moves = covariance / np.sqrt(np.maximum(variance + noise, TINY))[:, None]
    after = np.zeros(len(points))
    for outcome in OUTCOMES:
        after += np.min(mean[places] + outcome * moves, axis=1) / len(OUTCOMES)
    found = np.zeros(draws.shape[1:])
    found[tuple(points.T)] = np.maximum(mean[places].min() - after, 0.0)
    return found


def _reach(lattice: Lattice, points: Ints, places: Ints) -> Floats:
    """Return (N, M): how much of their covariance is believed, by distance, loss and choices."""
    here, there = (
        np.stack([lattice.lr[at[:, 1]], lattice.ratio[at[:, 2]]], axis=1) for at in (points, places)
    )
    far = np.sum((here[:, None] - there[None]) ** 2, axis=2) / NEAR_DECADES**2
    levels = lattice.box.combinations
    others = (levels[points[:, None, 0]] != levels[places[None, :, 0]]).sum(axis=2)
    return np.asarray(np.exp(-0.5 * far) * OTHER_LOSS**others)


def information(lattice: Lattice, draws: Floats, noise: float) -> Floats:
    """Return (C, I, J), in nats: how much a trial at each point tells about the landscape's lowest point.

    Joint entropy search (Hvarfner, Hutter and Nardi 2022, arXiv 2206.04771; Tu et al. 2022, arXiv
    2206.04772), with the entropies taken from the draws: how much of the variance of the loss there goes
    away once the place (lr, ratio, loss, choices) and the height of the lowest point are known, by a
    regression of the draws on both.
    """
    values = draws[:, :, lattice.feasible]
    size = len(values)
    flat = values.reshape(size, -1)
    features = _lowest_points(lattice, draws)
    spread = flat - flat.mean(axis=0)
    basis, sizes, _ = np.linalg.svd(features - features.mean(axis=0), full_matrices=False)
    basis = basis[:, sizes > 1e-6 * max(1.0, sizes[0])]
    left = spread - basis @ (basis.T @ spread)
    whole = np.sum(spread**2, axis=0) / (size - 1)
    rest = np.sum(left**2, axis=0) / max(size - 1 - basis.shape[1], 1)
    gain = 0.5 * np.log((whole + noise) / (np.minimum(rest, whole) + noise))
    found = np.zeros(draws.shape[1:])
    found[:, lattice.feasible] = gain.reshape(values.shape[1:])
    return found


def _lowest_points(lattice: Lattice, draws: Floats) -> Floats:
    """Return (S, 5 + ...): place (rates, loss, choices) and height of the lowest point of each draw.

    With the rates' second powers, and for each loss but the first, and so for the values of each choice,
    whether it is the place's.
    """
    size = len(draws)
    flat = draws.reshape(size, -1)
    places = np.argmin(flat, axis=1)
    combinations, rows, columns = np.unravel_index(places, draws.shape[1:])
    lr, ratio, height = lattice.lr[rows], lattice.ratio[columns], flat[np.arange(size), places]
    features = np.stack([lr, ratio, height], axis=1)
    features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-12)
    lr, ratio = features[:, 0], features[:, 1]
    box = lattice.box
    levels = box.combinations[combinations]
    ours = [levels[:, [axis]] == np.arange(1, size) for axis, size in enumerate(box.sizes)]
    return np.column_stack([features, lr * lr, lr * ratio, ratio * ratio, *ours])
