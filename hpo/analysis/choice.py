"""Which configuration is chosen: the lowest expected loss among the places that trials support.

A model has its own best place anywhere; where no trial has been nearby that is an extrapolation, and worth a
trial, not an answer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.analysis.box import Floats, Lattice
from hpo.analysis.evidence import Evidence
from hpo.analysis.ratio import bowl_minimum, lowest_at
from hpo.analysis.surrogate import Surrogate

SUPPORT_DECADES = 0.3
"""A place is supported by a complete trial of its loss and choices, with rates at most a factor 2 away."""
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Places:
    """Points (3 + K): log10 lr, log10 ratio, indices of the loss and of the value of each choice."""

    choice: Floats
    worth_trying: Floats | None
    """Expected to be better than the choice, without support; None: the choice is the lowest of all."""


def chosen_places(
    lattice: Lattice, mean: Floats, evidence: Evidence, surrogate: Surrogate, *, from_model: bool
) -> Places:
    """Return the choice from the mean landscape (C, I, J), or, not ``from_model``, among complete trials."""
    tried = evidence.x[evidence.extra == 0]
    among = tried[int(np.argmin(surrogate.expected(tried)))]
    if not from_model:
        return Places(among, None)
    best = lowest_place(lattice, mean)
    if is_supported(best[None], tried)[0]:
        return Places(best, None)
    near = np.stack([is_supported(lattice.points(place), tried) for place in range(len(mean))])
    inside = np.where(near.reshape(mean.shape), mean, np.inf)
    if not np.isfinite(inside).any():
        return Places(among, best)
    place = _on_lattice(lattice, inside)
    is_lower = np.argmin(surrogate.expected(np.stack([place, among]))) == 0
    return Places(place if is_lower else among, best)


def is_supported(x: Floats, tried: Floats) -> NDArray[np.bool_]:
    """Return whether each of the points (m, 3 + K) has one of the tried (n, 3 + K) near it."""
    lr = np.abs(x[:, None, 0] - tried[None, :, 0])
    backbone_lr = np.abs((x[:, 0] - x[:, 1])[:, None] - (tried[:, 0] - tried[:, 1])[None, :])
    same = (x[:, None, 2:] == tried[None, :, 2:]).all(axis=2)
    return np.asarray((same & (np.maximum(lr, backbone_lr) <= SUPPORT_DECADES + _ROUNDING)).any(axis=1))


def _on_lattice(lattice: Lattice, mean: Floats) -> Floats:
    combination, row, column = np.unravel_index(int(np.argmin(mean)), mean.shape)
    return lattice.place(int(combination), lattice.lr[row], lattice.ratio[column])


def lowest_place(lattice: Lattice, mean: Floats) -> Floats:
    """Return the point (3 + K) where the mean landscape (C, I, J) is lowest, between the lattice's points."""
    combination, row, column = (int(place) for place in np.unravel_index(int(np.argmin(mean)), mean.shape))
    offset = bowl_minimum(mean[combination, max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2])
    if offset is None:
        lr = lowest_at(lattice.lr, mean[None, combination, :, column])[0]
        ratio = lowest_at(lattice.ratio, mean[None, combination, row, :])[0]
    else:
        lr, ratio = np.array([lattice.lr[row], lattice.ratio[column]]) + lattice.step * offset
    lr = float(np.clip(lr, *lattice.box.lr))
    backbone_lr = float(np.clip(lr - ratio, *lattice.box.backbone_lr))
    return lattice.place(combination, lr, lr - backbone_lr)
