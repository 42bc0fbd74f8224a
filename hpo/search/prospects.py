"""What is to be expected of a run that goes on: will it end better than the best configuration? Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from scipy.special import stdtr

from hpo.analysis.box import Floats
from hpo.analysis.evidence import Scale, Seen
from hpo.analysis.outlook import FEATURES, Outlook
from hpo.search.past import MAX_CURVES, PastTrial
from hpo.spec import Configuration

CHANCE = 0.1
"""Probability of ending better below which a run is stopped (chosen by us: docs/search.md)."""
MIN_CURVES = 6
"""Complete trials before which nothing is stopped for its chance; more than an answer asks for, because a
run that is stopped cannot show that it would have come good."""
NEAR_DECADES = 0.3
"""Trials so near in lr and ratio count as one configuration when its expected loss is guessed."""
OTHER_LOSS = 0.3
"""Weight of a trial with another loss in that guess."""


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
        complete = np.flatnonzero(seen.kinds == "complete")[-MAX_CURVES:]
        if len(complete) < MIN_CURVES:
            return None
        scale = seen.scale()
        curves = [scale.compress(seen.curves[row]) for row in complete]
        return cls(seen.x[complete], curves, scale.compress(seen.values[complete]), scale)

    @cached_property
    def incumbent(self) -> float:
        """Expected loss of the best configuration, on the scale: the lowest of local means.

        The lowest loss itself would be mostly luck, and a bar that only luck can reach.
        """
        far = (self.x[:, None, :2] - self.x[None, :, :2]) / NEAR_DECADES
        weights = np.exp(-0.5 * np.sum(far**2, axis=2))
        weights *= np.where(self.x[:, None, 2] == self.x[None, :, 2], 1.0, OTHER_LOSS)
        return float(np.min(weights @ self.final / weights.sum(axis=1)))

    def chance(self, lr_and_ratio: tuple[float, float], curve: Floats) -> float:
        """Return the probability that a run ends below the best configuration's expected loss.

        ``lr_and_ratio`` are log10; ``curve`` (epochs,) holds the run's lowest losses up to each epoch.
        """
        epoch = len(curve)
        if epoch not in self._outlooks:
            self._outlooks[epoch] = Outlook.of(self.x, self.curves, self.final, epoch, self.scale.width)
        own, x = self.scale.compress(curve), np.array([[*lr_and_ratio, 0.0]])
        foretold = self._outlooks[epoch].foretell(x, own[None], own[-1:])
        # Student's t: with few curves the regression's own spread is hardly known.
        degrees = max(len(self.final) - FEATURES - 1, 1)
        return float(stdtr(degrees, (self.incumbent - foretold.mean[0]) / np.sqrt(foretold.variance[0])))

    def is_hopeless(self, configuration: Configuration, curve: Sequence[float]) -> bool:
        """Return whether a run's chance of ending better is too small to go on."""
        return self.chance(rates(configuration), np.array(curve)) < CHANCE


def learned_from(trials: Sequence[PastTrial]) -> Prospects | None:
    """Return what ended trials of one fold teach; None while too few are complete."""
    complete = [
        trial
        for trial in trials
        if trial.value is not None and trial.curve and trial.end not in {"pruned", "diverged"}
    ]
    if len(complete) < MIN_CURVES:
        return None
    losses = sorted({trial.configuration.loss for trial in complete})
    x = [(*rates(trial.configuration), losses.index(trial.configuration.loss)) for trial in complete]
    values = [trial.value for trial in complete if trial.value is not None]
    curves = [np.array(trial.curve) for trial in complete]
    return Prospects.of(Seen(np.array(x), np.full(len(complete), "complete"), np.array(values), curves))


def rates(configuration: Configuration) -> tuple[float, float]:
    """Return log10 lr and log10 ratio."""
    return math.log10(configuration.lr), math.log10(configuration.ratio)
