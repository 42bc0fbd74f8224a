"""What a decade off costs in lr, in backbone_lr and in the ratio, each at the best of all the rest.

On a ridge this is the whole answer: one rate matters, the other does not, and no ratio is best.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from hpo.analysis.box import Floats, Lattice
from hpo.analysis.ratio import lowest_at, profile_of
from hpo.analysis.zones import SURE, WorthSource, Zones, excess_of, zones_of

FREE_DECADES = 2.0
"""A rate matters if fewer decades than these cost no more than the worth: then even a well placed value is
spoilt by a decade on one of its sides (chosen by us). In a narrower range, nine tenths of the range."""


class Mattering(StrEnum):
    """Whether a rate matters."""

    MATTERS = "matters"
    DOES_NOT_MATTER = "does_not_matter"
    OPEN = "open"


@dataclass(frozen=True)
class Cost:
    """What a decade off the best value costs, in units of the loss, with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Matters:
    """How much one rate, or the ratio, matters."""

    best: float
    """log10 of the value with the lowest expected loss; what is off is a decade off this."""
    down: Cost | None
    """A decade lower; None where that is outside the search."""
    up: Cost | None
    standing: Mattering
    zones: Zones

    def to_json(self) -> dict[str, Any]:
        """Return plain values; rates are no logarithms."""
        good = self.zones.as_good
        return {
            "standing": self.standing.value,
            "best": 10**self.best,
            "decade_down": None if self.down is None else asdict(self.down),
            "decade_up": None if self.up is None else asdict(self.up),
            "as_good": None if good is None else [10**end for end in good],
        }


def matters_of(lattice: Lattice, draws: Floats, worth: float, source: WorthSource) -> Mapping[str, Matters]:
    """Return by name what draws (S, L, I, J), in units of the loss, say of each rate and the ratio."""
    on_box = lattice.on_box(draws)  # (S, L, I, K)
    backbones = lattice.backbone_lr[::-1]
    axes = {
        "backbone_lr": (backbones, profile_of(on_box)[:, ::-1]),
        "lr": (lattice.lr, profile_of(np.swapaxes(on_box, 2, 3))),
        "ratio": (lattice.ratio, profile_of(draws)),
    }
    return {name: _matters(axis, profiles, worth, source) for name, (axis, profiles) in axes.items()}


def _matters(axis: Floats, profiles: Floats, worth: float, source: WorthSource) -> Matters:
    best = float(lowest_at(axis, profiles.mean(axis=0)[None])[0])
    step = float(axis[1] - axis[0])
    free = step * np.sum(excess_of(profiles) <= worth, axis=1)
    return Matters(
        best,
        _cost(axis, profiles, best, -1.0),
        _cost(axis, profiles, best, 1.0),
        _standing(free, min(FREE_DECADES, 0.9 * step * len(axis))),
        zones_of(axis, profiles, worth, source),
    )


def _cost(axis: Floats, profiles: Floats, best: float, decades: float) -> Cost | None:
    """Return what the profile rises from ``best`` to so many decades off it."""
    step, off = axis[1] - axis[0], best + decades
    if not axis[0] - step / 2 <= off <= axis[-1] + step / 2:
        return None
    here, there = (int(np.argmin(np.abs(axis - place))) for place in (best, off))
    rise = profiles[:, there] - profiles[:, here]
    low, high = np.quantile(rise, [0.025, 0.975])
    return Cost(float(rise.mean()), float(low), float(high))


def _standing(free: Floats, enough: float) -> Mattering:
    """Return what follows from the decades (S,) that are as good in each draw."""
    share = float(np.mean(free >= enough))
    if share >= SURE:
        return Mattering.DOES_NOT_MATTER
    return Mattering.MATTERS if share <= 1 - SURE else Mattering.OPEN
