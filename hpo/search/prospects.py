"""What is to be expected of a run that goes on: may its configuration be better than the best one? Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr

from hpo.analysis.box import Floats
from hpo.analysis.evidence import Scale, Seen
from hpo.analysis.outlook import FEATURES, Outlook
from hpo.search.history import MAX_CURVES, PastTrial
from hpo.study import Configuration

CHANCE = 0.1
"""Probability that its configuration is better, below which a run is stopped (docs/search.md)."""
MIN_CURVES = 6
"""Complete trials before which nothing is stopped; more than an answer asks for, because a run that is
stopped cannot show that it would have come good."""
NEAR_DECADES = 0.3
"""Trials so near in lr and ratio count as one configuration when its expected loss is guessed."""
OTHER_LOSS = 0.3
"""Weight of a trial with another loss in that guess."""
FEW = 0.3
"""Least share of the weights of a local variance that counts as degrees of freedom (chosen by us)."""
OTHER_CHOICE = 0.6
"""And of one with another value of a choice: most matter less than the loss (chosen by us)."""


@dataclass(frozen=True)
class Runs:
    """What n runs have shown."""

    x: Floats
    """(n, 3 + K) as in :mod:`hpo.analysis.likelihood`; in an outlook only rates are read."""
    curves: list[Floats]
    """Lowest losses up to each epoch, on the scale."""

    @classmethod
    def of(cls, seen: Seen, kind: str, scale: Scale) -> Runs:
        """Return the latest runs of a kind."""
        rows = np.flatnonzero(seen.kinds == kind)[-MAX_CURVES:]
        return cls(seen.x[rows], [scale.compress(seen.curves[row]) for row in rows])

    @property
    def lowest(self) -> Floats:
        """(n,) lowest losses."""
        return np.array([curve[-1] for curve in self.curves])

    @property
    def epochs(self) -> NDArray[np.int64]:
        """(n,) how many each got."""
        return np.array([len(curve) for curve in self.curves], dtype=np.int64)


@dataclass(frozen=True)
class Prospects:
    """What ended trials teach about runs under way."""

    complete: Runs
    pruned: Runs
    scale: Scale
    _outlooks: dict[int, Outlook] = field(default_factory=dict)
    """By epoch, learned when first asked for."""

    @classmethod
    def of(cls, seen: Seen, startup_trials: int = MIN_CURVES) -> Prospects | None:
        """Learn from what was seen; None while fewer trials than that, or ``MIN_CURVES``, are complete."""
        if np.count_nonzero(seen.kinds == "complete") < max(startup_trials, MIN_CURVES):
            return None
        scale = seen.scale()
        return cls(Runs.of(seen, "complete", scale), Runs.of(seen, "pruned", scale), scale)

    @property
    def incumbent(self) -> float:
        """Expected loss of the best configuration, on the scale."""
        return self._best[0]

    @property
    def noise(self) -> float:
        """Variance between the runs of one configuration, on the scale, as those near the best show it."""
        return self._best[1]

    @cached_property
    def _best(self) -> tuple[float, float]:
        """Mean and variance of runs at the best place: the lowest of local means.

        The lowest loss itself would be mostly luck, and a bar that only luck can reach; and so would be a
        mean of complete trials only, because the unlucky ones were stopped. A stopped trial counts as what
        it is expected to have reached, the more the further it came.
        """
        runs, at = self.complete, np.concatenate([self.complete.x, self.pruned.x])
        final = np.concatenate([runs.lowest, self._expected(self.pruned)])
        share = np.concatenate([np.ones(len(runs.x)), self.pruned.epochs / runs.epochs.max()])
        far = (runs.x[:, None, :2] - at[None, :, :2]) / NEAR_DECADES
        weights = share.clip(max=1.0) * np.exp(-0.5 * np.sum(far**2, axis=2))
        weights *= np.where(runs.x[:, None, 2] == at[None, :, 2], 1.0, OTHER_LOSS)
        weights *= OTHER_CHOICE ** (runs.x[:, None, 3:] != at[None, :, 3:]).sum(axis=2)
        weights /= weights.sum(axis=1, keepdims=True)
        means = weights @ final
        best = int(np.argmin(means))
        own, mean = weights[best], float(means[best])
        degrees = max(1 - float(own @ own), FEW)
        return mean, float(own @ (final - mean) ** 2) / degrees

    def _expected(self, runs: Runs) -> Floats:
        """Return the expected final losses (n,) of runs that went on."""
        expected = np.empty(len(runs.x))
        for epoch in np.unique(runs.epochs):
            here = np.flatnonzero(runs.epochs == epoch)
            curves = np.stack([runs.curves[row] for row in here])
            expected[here] = self._outlook(int(epoch)).foretell(runs.x[here], curves, curves[:, -1]).mean
        return expected

    def _outlook(self, epoch: int) -> Outlook:
        if epoch not in self._outlooks:
            runs = self.complete
            self._outlooks[epoch] = Outlook.of(runs.x, runs.curves, runs.lowest, epoch, self.scale.width)
        return self._outlooks[epoch]

    def chance(self, lr_and_ratio: tuple[float, float], curve: Floats) -> float:
        """Return the probability that a run's configuration is expected to end below the best one.

        The run itself has luck of its own, a seed's: to stop the unlucky runs of good configurations would
        leave the lucky ones to judge them by. ``lr_and_ratio`` are log10; ``curve`` (epochs,) holds the run's
        lowest losses up to each epoch.
        """
        own, x = self.scale.compress(curve), np.array([[*lr_and_ratio, 0.0]])
        foretold = self._outlook(len(curve)).foretell(x, own[None], own[-1:])
        # Student's t: with few curves the regression's own spread is hardly known.
        degrees = max(len(self.complete.x) - FEATURES - 1, 1)
        spread = np.sqrt(foretold.variance[0] + self.noise)
        return float(stdtr(degrees, (self.incumbent - foretold.mean[0]) / spread))

    def is_hopeless(self, configuration: Configuration, curve: Sequence[float]) -> bool:
        """Return whether the chance that a configuration is better is too small for its run to go on."""
        return self.chance(rates(configuration), np.array(curve)) < CHANCE


def learned_from(trials: Sequence[PastTrial], startup_trials: int = MIN_CURVES) -> Prospects | None:
    """Return what ended trials of one fold teach; None while too few are complete (:meth:`Prospects.of`)."""
    known = [trial for trial in trials if trial.value is not None and trial.curve and trial.end != "diverged"]
    factors = [{"loss": trial.configuration.loss, **trial.configuration.choices} for trial in known]
    names = ["loss", *sorted({name for own in factors for name in own} - {"loss"})]
    values = {name: list(dict.fromkeys(own.get(name) for own in factors)) for name in names}
    x = [
        (*rates(trial.configuration), *(values[name].index(own.get(name)) for name in names))
        for trial, own in zip(known, factors, strict=True)
    ]
    kinds = ["pruned" if trial.end == "pruned" else "complete" for trial in known]
    lowest = np.array([trial.value for trial in known], dtype=np.float64)
    curves = [np.array(trial.curve) for trial in known]
    at = np.array(x).reshape(len(known), 2 + len(names))
    seen = Seen(at, np.array(kinds, dtype=str), lowest, curves)
    return Prospects.of(seen, min(startup_trials, MAX_CURVES))  # no more curves than these are held


def rates(configuration: Configuration) -> tuple[float, float]:
    """Return log10 lr and log10 ratio."""
    return math.log10(configuration.lr), math.log10(configuration.ratio)
