"""What a decade off costs in lr, in backbone_lr and in the ratio, each at the best of all the rest.

On a ridge this is the whole answer: one rate matters, the other does not, and no ratio is best.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np

from hpo.analysis.box import Floats, Lattice
from hpo.analysis.ratio import lowest_at, profile_of
from hpo.analysis.zones import WorthSource, Zones, zones_of

HARDLY = 2.0
"""What does not matter costs, a decade off, no more than the worth, and at the upper end of its interval no
more than so many times the worth (chosen by us: of seeds' deviations, nobody sees fewer in a few runs)."""


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
    """log10 of the middle of what is as good, else of the lowest expected loss; what is off is off this."""
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
    zones = zones_of(axis, profiles, worth, source)
    good = zones.as_good
    best = float(lowest_at(axis, profiles.mean(axis=0)[None])[0]) if good is None else sum(good) / 2
    down, up = (_cost(axis, profiles, best, decades) for decades in (-1.0, 1.0))
    return Matters(best, down, up, _standing([cost for cost in (down, up) if cost], worth), zones)


def _cost(axis: Floats, profiles: Floats, best: float, decades: float) -> Cost | None:
    """Return what the profile rises from ``best`` to so many decades off it."""
    step, off = axis[1] - axis[0], best + decades
    if not axis[0] - step / 2 <= off <= axis[-1] + step / 2:
        return None
    here, there = (int(np.argmin(np.abs(axis - place))) for place in (best, off))
    rise = profiles[:, there] - profiles[:, here]
    low, high = np.quantile(rise, [0.025, 0.975])
    return Cost(float(rise.mean()), float(low), float(high))


def _standing(costs: Sequence[Cost], worth: float) -> Mattering:
    """Return what follows from the costs of a decade off on the sides that are inside the search."""
    if any(cost.low > worth for cost in costs):
        return Mattering.MATTERS
    is_small = bool(costs) and all(cost.value <= worth and cost.high <= HARDLY * worth for cost in costs)
    return Mattering.DOES_NOT_MATTER if is_small else Mattering.OPEN
