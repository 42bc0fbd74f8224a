"""What is to be expected of a run that goes on: will it end better than the best configuration? Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from scipy.special import ndtr

from hpo.analysis.box import Floats
from hpo.analysis.evidence import MIN_CURVES, Outlook, Scale, Seen

TOP = 0.1
"""Share of the complete trials (3 at least) whose mean stands for the best configuration's expected loss:
the lowest loss of all would be mostly luck."""


@dataclass(frozen=True)
class Prospects:
    """What complete trials teach about runs under way."""

    x: Floats
    """(n, 3) of the complete trials; only rates are read."""
    curves: list[Floats]
    """Lowest losses up to each epoch, on the scale."""
    final: Floats
    scale: Scale
    _outlooks: dict[int, Outlook] = field(default_factory=dict)
    """By epoch, learned when first asked for."""

    @classmethod
    def of(cls, seen: Seen) -> Prospects | None:
        """Learn from what was seen; None while too few trials are complete."""
        complete = np.flatnonzero(seen.kinds == "complete")
        if len(complete) < MIN_CURVES:
            return None
        scale = seen.scale()
        curves = [scale.compress(seen.curves[row]) for row in complete]
        return cls(seen.x[complete], curves, scale.compress(seen.values[complete]), scale)

    @property
    def incumbent(self) -> float:
        """Expected loss of the best configuration, on the scale."""
        size = max(3, int(np.ceil(TOP * len(self.final))))
        return float(np.mean(np.sort(self.final)[:size]))

    def chance(self, x: Floats, curve: Floats) -> float:
        """Return the probability that a run at point (3,) ends below the best configuration's expected loss.

        ``curve`` (epochs,) holds the run's lowest losses up to each epoch, as they are.
        """
        epoch = len(curve)
        if epoch not in self._outlooks:
            self._outlooks[epoch] = Outlook.of(self.x, self.curves, self.final, epoch, self.scale.width)
        own = self.scale.compress(curve)
        mean, variance = self._outlooks[epoch].foretell(x[None], own[None], own[-1:])
        return float(ndtr((self.incumbent - mean[0]) / np.sqrt(variance[0])))
