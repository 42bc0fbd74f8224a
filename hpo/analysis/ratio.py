"""Which ratio is best, how sure that is, and which ratios cannot be told from it.

The profile of a landscape over log10(lr / backbone_lr) is its minimum over lr and loss at each ratio. Each
draw of the surrogate's posterior has its own profile and its own best ratio; the spread of the latter is
the 95 % interval (shapes as in :mod:`hpo.analysis.landscape`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpo.analysis.box import Floats, Lattice

LEVEL = 0.95


@dataclass(frozen=True)
class RatioCurve:
    """The profile over log10 ratio, and what it says about the best ratio (all log10 but the losses)."""

    ratio: Floats
    mean: Floats
    low: Floats
    high: Floats
    best: float | None
    interval: tuple[float, float]
    indistinguishable: tuple[float, float]
    identified: bool

    def is_known_within(self, factor: float) -> bool:
        """Return whether the best ratio is identified, with both ends of its interval that near or nearer."""
        if self.best is None or not self.identified:
            return False
        low, high = self.interval
        return max(high - self.best, self.best - low) <= math.log10(factor)


def ratio_curve(lattice: Lattice, mean: Floats, draws: Floats) -> RatioCurve:
    """Return the curve of a mean landscape (L, I, J) and of posterior draws (S, L, I, J)."""
    profile, profiles = profile_of(mean[None])[0], profile_of(draws)
    best, bests = lowest_at(lattice.ratio, profile[None])[0], lowest_at(lattice.ratio, profiles)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(bests, [tail, 1 - tail])
    band = np.quantile(profiles, [tail, 1 - tail], axis=0)
    return RatioCurve(
        lattice.ratio,
        profiles.mean(axis=0),
        band[0],
        band[1],
        float(best),
        (float(min(low, best)), float(max(high, best))),
        _indistinguishable(lattice.ratio, profiles, float(best)),
        bool(high - low <= 0.5 * lattice.box.narrower_decades),
    )


def unknown_curve(ratio: tuple[float, float], best: float | None) -> RatioCurve:
    """Return the curve of trials that say nothing: no profile, and any ratio of the range may be the best."""
    nothing = np.empty(0)
    return RatioCurve(nothing, nothing, nothing, nothing, best, ratio, ratio, False)


def profile_of(landscapes: Floats) -> Floats:
    """Return the minimum (S, J) over loss and lr of landscapes (S, L, I, J), interpolated along lr.

    So with other axes than lr and ratio: over the second but last.
    """
    size, _, lrs, ratios = landscapes.shape
    by_lr = landscapes.min(axis=1)
    return _parabola_minimum(np.moveaxis(by_lr, 1, 2).reshape(-1, lrs))[1].reshape(size, ratios)


def lowest_at(grid: Floats, profiles: Floats) -> Floats:
    """Return where on the evenly spaced ``grid`` (J,) each profile (S, J) is lowest, interpolated."""
    offset, _ = _parabola_minimum(profiles)
    place = np.argmin(profiles, axis=1)
    return np.asarray(np.clip(grid[place] + offset * (grid[1] - grid[0]), grid[0], grid[-1]))


def _parabola_minimum(rows: Floats) -> tuple[Floats, Floats]:
    """Return, for each row, the offset (in steps from the lowest point) and value of its parabola's minimum.

    At an end of a row, or beside an infeasible (inf) point, the lowest point itself.
    """
    places = np.argmin(rows, axis=1)
    index = np.arange(len(rows))
    middle = rows[index, places]
    left = rows[index, np.maximum(places - 1, 0)]
    right = rows[index, np.minimum(places + 1, rows.shape[1] - 1)]
    inner = (places > 0) & (places < rows.shape[1] - 1) & np.isfinite(left) & np.isfinite(right)
    left, right, safe = (np.where(inner, values, 0.0) for values in (left, right, middle))
    bend = left - 2 * safe + right
    offset = np.where(inner & (bend > 0), 0.5 * (left - right) / np.where(bend > 0, bend, 1.0), 0.0)
    return offset, middle - 0.25 * (left - right) * offset


def bowl_minimum(around: Floats) -> Floats | None:
    """Return the offset (2,), in steps from the middle of a 3 x 3 patch, of its quadratic's minimum.

    At most one step each way; None where the patch is cut off, infeasible in part (inf), or no bowl. A tilted
    bowl's minimum is not where a parabola along each axis has its own.
    """
    if around.shape != (3, 3) or not np.isfinite(around).all():
        return None
    slope = np.array([around[2, 1] - around[0, 1], around[1, 2] - around[1, 0]]) / 2
    bend = np.array([around[2, 1] + around[0, 1], around[1, 2] + around[1, 0]]) - 2 * around[1, 1]
    twist = (around[2, 2] - around[2, 0] - around[0, 2] + around[0, 0]) / 4
    if bend.min() <= 0 or bend[0] * bend[1] <= twist**2:
        return None
    return np.asarray(
        -np.linalg.solve([[bend[0], twist], [twist, bend[1]]], slope).clip(-1, 1), dtype=np.float64
    )


def _indistinguishable(ratio: Floats, profiles: Floats, best: float) -> tuple[float, float]:
    """Return the ends of the ratios whose profile is not above the best ratio's in 97.5 % of the draws."""
    place = int(np.argmin(np.abs(ratio - best)))
    tied = np.mean(profiles <= profiles[:, place : place + 1], axis=0) > (1 - LEVEL) / 2
    tied[place] = True
    found = np.flatnonzero(tied)
    return float(ratio[found[0]]), float(ratio[found[-1]])
