"""How wrong are an answer's zones, where the truth is known?"""

from __future__ import annotations

import math

import numpy as np
from foreign_families import STEP, Floats

from hpo.analysis.zones import Zones

NEAR_DECADES = 0.2
"""A zone's end may be off by so much."""
_TOLD = ("zone_wrong", "resolved", "resolved_wrong")
JUDGED = (*_TOLD, *(f"likely_{name}" for name in _TOLD), "as_good", "worth")
"""What :func:`judged` says."""


def judged(ratio: Floats, excess: Floats, zones: Zones | None) -> dict[str, float]:
    """Return how the zones stand to the truth at log10 ``ratio`` (n,): ``excess`` (n,) over the lowest loss.

    ``zone_wrong``: decades by which a ratio lies in the wrong zone, by the worth that the zones themselves
    state; ``resolved`` and, of the whole axis, ``resolved_wrong``, and the same of what is at least likely;
    ``as_good``: the share that truly is; ``worth``. All NaN without zones.
    """
    if zones is None:
        return dict.fromkeys(JUDGED, math.nan)
    sure, likely = (_judged(ratio, excess, one) for one in (zones, zones.with_likely))
    found = sure | {f"likely_{name}": likely[name] for name in _TOLD}
    return found | {"as_good": float(np.mean(excess <= zones.worth)), "worth": zones.worth}


def _judged(ratio: Floats, excess: Floats, zones: Zones) -> dict[str, float]:
    said = np.array([str(zones.at(place).value) for place in ratio])
    is_good = excess <= zones.worth
    wrong = ((said == "as_good") & ~is_good) | ((said == "worse") & is_good)
    far = max(
        (_distance(ratio, ratio[is_good != is_good[at]], at) for at in np.flatnonzero(wrong)), default=0.0
    )
    return {
        "zone_wrong": far,
        "resolved": float(np.mean(said != "open")),
        "resolved_wrong": float(np.mean(wrong)),
    }


def _distance(ratio: Floats, others: Floats, at: int) -> float:
    """Return decades from a ratio to the nearest for which what was said of it would be true."""
    nearest = np.abs(others - ratio[at]).min() if len(others) else ratio[-1] - ratio[0]
    return float(nearest - STEP / 2)
