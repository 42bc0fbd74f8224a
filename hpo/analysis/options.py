"""Which value of a choice is best, and what another costs: at the best rates, loss and other choices each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from hpo.analysis.box import Box, Floats
from hpo.analysis.matters import Cost, Mattering
from hpo.analysis.zones import Standing, standings_of
from hpo.study.choices import Value


@dataclass(frozen=True)
class Option:
    """One value of a choice."""

    value: Value
    cost: Cost
    """Of it instead of the best one; nothing of the best itself."""
    standing: Standing

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {"value": self.value, "cost": asdict(self.cost), "standing": self.standing.value}


@dataclass(frozen=True)
class Options:
    """How much a choice matters; with several values at least."""

    best: Value
    """Of the lowest expected loss."""
    values: tuple[Option, ...]
    standing: Mattering
    """Whether any value is known to cost more than the worth; or all are known not to."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "best": self.best,
            "standing": self.standing.value,
            "values": [one.to_json() for one in self.values],
        }


def options_of(box: Box, lowest: Floats, worth: float) -> Mapping[str, Options]:
    """Return by name what the lowest loss of each combination (S, C) says of the loss and each choice.

    In units of the loss; inf where a combination has no feasible point. The loss is one choice more; nothing
    is said of what has one value.
    """
    factors = [("loss", box.losses), *box.choices]
    by_factor = lowest.reshape(-1, *box.sizes)
    axes = range(1, by_factor.ndim)
    return {
        name: _options(values, by_factor.min(axis=tuple(set(axes) - {axis})), worth)
        for axis, (name, values) in zip(axes, factors, strict=True)
        if len(values) > 1
    }


def _options(values: tuple[Value, ...], lowest: Floats, worth: float) -> Options:
    best = int(np.argmin(lowest.mean(axis=0)))
    standings = standings_of(lowest, worth)
    rise = lowest - lowest[:, best : best + 1]
    ends = np.quantile(rise, [0.025, 0.975], axis=0)
    found = tuple(
        Option(value, Cost(float(rise[:, place].mean()), *map(float, ends[:, place])), standings[place])
        for place, value in enumerate(values)
    )
    return Options(values[best], found, _mattering(standings))


def _mattering(standings: list[Standing]) -> Mattering:
    if Standing.WORSE in standings:
        return Mattering.MATTERS
    is_known = all(standing is Standing.AS_GOOD for standing in standings)
    return Mattering.DOES_NOT_MATTER if is_known else Mattering.OPEN
