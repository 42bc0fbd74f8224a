"""The answer of a study as a value, and the same as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpo.analysis.fitting import ModelFit
from hpo.analysis.matters import Matters
from hpo.analysis.options import Options
from hpo.analysis.ratio import RatioCurve
from hpo.analysis.zones import Zones
from hpo.study.choices import NONE, Choices

Against = Literal["beats", "does not beat", "cannot be told"]


class NoteKind(StrEnum):
    """What cannot be said, and why."""

    ALL_PRUNED = "all_pruned"
    """All ``count`` trials were pruned."""
    ALL_DIVERGED = "all_diverged"
    """All ``count`` trials diverged."""
    FEW_COMPLETE = "few_complete"
    """``count`` complete trials of ``needed``: too few for an interval, zones, a map and importances."""
    FEW_RATIOS = "few_ratios"
    """``count`` ratios of ``needed`` have complete trials."""
    ONE_LOSS = "one_loss"
    """Only the loss ``name`` has complete trials."""
    ONE_VALUE = "one_value"
    """Of a choice only the value in ``name`` (``layer_decay 1``) has complete trials."""
    NO_BASELINE = "no_baseline"
    """Nothing says whether the search was worth it."""
    ALL_EQUAL = "all_equal"
    """All ``count`` complete trials have the same validation loss."""
    DOES_NOT_FIT = "does_not_fit"
    """The model does not fit: only configurations that were tried are spoken of."""
    TOO_MANY = "too_many"
    """More than ``count`` trials: the answer of study ``name`` is not worked out while serving."""


@dataclass(frozen=True)
class Note:
    """One thing that cannot be said, with its numbers."""

    kind: NoteKind
    count: int = 0
    needed: int = 0
    name: str = ""


@dataclass(frozen=True)
class Choice:
    """A configuration with its expected validation loss: the lowest among those that trials support."""

    lr: float
    backbone_lr: float
    ratio: float
    loss: str
    expected_validation_loss: float | None
    standard_error: float | None
    choices: Choices = NONE


@dataclass(frozen=True)
class Expected:
    """An expected validation loss with its standard error."""

    value: float
    standard_error: float | None
    """None where there is no model: the mean of the runs, then."""
    runs: tuple[float, ...] = ()
    """Validation losses of the complete trials of this very configuration: what stands behind the model."""


@dataclass(frozen=True)
class RateMap:
    """Expected validation loss over both rates, with the loss that is best there."""

    lr: NDArray[np.float64]
    """(I,) log10, rising."""
    backbone_lr: NDArray[np.float64]
    """(K,) log10, falling."""
    loss: NDArray[np.float64]
    """(I, K), in units of the loss."""


@dataclass(frozen=True)
class BestTrial:
    """The trial with the lowest validation loss: what a naive reader would report."""

    number: int
    lr: float
    backbone_lr: float
    ratio: float
    loss: str
    seed: int
    validation_loss: float
    choices: Choices = NONE


@dataclass(frozen=True)
class Noise:
    """How much of what the trials show is the seed (with its fold, where validation has folds)."""

    seed_sd: float | None = None
    """Between seeds of one configuration, in units of the loss."""
    source: Literal["replicates", "model", "nothing"] = "nothing"
    degrees_of_freedom: int = 0
    """Of the replicates: complete trials minus configurations, where a configuration has several."""
    shares: Mapping[str, float] = field(default_factory=dict)
    """Of the variance of a random trial: lr, backbone_lr, loss, seed (and fold); they sum to one."""


@dataclass(frozen=True)
class Answer:
    """What the trials of a study say. None stands for what they do not say; ``notes`` says why.

    ``zones``, ``matters``, ``rates``, ``fit`` and the curve's profile are there from 10 complete trials on.
    """

    trials: Mapping[str, int]
    best: BestTrial | None
    trivial: float
    choice: Choice | None = None
    """A complete trial of the same loss is within 0.3 decades in both rates."""
    worth_trying: Choice | None = None
    """A place that is expected to be better still, without such support: never the answer."""
    zones: Zones | None = None
    """Of the ratio axis."""
    matters: Mapping[str, Matters] = field(default_factory=dict)
    """By ``backbone_lr``, ``lr`` and ``ratio``."""
    options: Mapping[str, Options] = field(default_factory=dict)
    """Of a study with choices, by ``loss`` and the key: its best value, and what another costs."""
    fit: ModelFit | None = None
    baseline: Expected | None = None
    against_trivial: Against = "cannot be told"
    against_baseline: Against = "cannot be told"
    optimism: float | None = None
    """Expected loss of the best trial's configuration minus that trial's loss, in units of the loss."""
    curve: RatioCurve | None = None
    rates: RateMap | None = None
    noise: Noise = field(default_factory=lambda: Noise())
    diagnostics: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[Note, ...] = ()

    def has(self, kind: NoteKind) -> bool:
        """Return whether there is a note of this kind."""
        return any(note.kind is kind for note in self.notes)

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, names, lists and None, ready for any JSON writer; notes as values."""
        baseline = self.baseline.value if self.baseline else None
        choice = asdict(self.choice) if self.choice else dict.fromkeys(Choice.__dataclass_fields__)
        return {
            "trials": dict(self.trials),
            "best": asdict(self.best) if self.best else None,
            "answer": {**choice, "baseline": baseline, "trivial": self.trivial},
            "ratio": _ratio_json(self.curve),
            "baseline": baseline,
            "baseline_standard_error": self.baseline.standard_error if self.baseline else None,
            "baseline_runs": list(self.baseline.runs) if self.baseline else [],
            "trivial": self.trivial,
            "against_trivial": self.against_trivial,
            "against_baseline": self.against_baseline,
            "noise": asdict(self.noise),
            "optimism": self.optimism,
            "profile": _profile_json(self.curve),
            "diagnostics": dict(self.diagnostics),
            "worth_trying": asdict(self.worth_trying) if self.worth_trying else None,
            "zones": self.zones.to_json() if self.zones else None,
            "matters": {name: one.to_json() for name, one in self.matters.items()},
            "options": {name: one.to_json() for name, one in self.options.items()},
            "fit": {**asdict(self.fit), "fits": self.fit.fits} if self.fit else None,
            "note_keys": [{**asdict(note), "kind": note.kind.value} for note in self.notes],
        }


def _ratio_json(curve: RatioCurve | None) -> dict[str, Any]:
    if curve is None:
        return {"best": None, "low": None, "high": None, "identified": False, "indistinguishable": None}
    low, high = curve.interval
    return {
        "best": None if curve.best is None else 10**curve.best,
        "low": 10**low,
        "high": 10**high,
        "identified": curve.identified,
        "indistinguishable": [10**end for end in curve.indistinguishable],
    }


def _profile_json(curve: RatioCurve | None) -> dict[str, list[float]] | None:
    if curve is None:
        return None
    names = {"ratio": 10**curve.ratio, "mean": curve.mean, "low": curve.low, "high": curve.high}
    return {name: [float(value) for value in values] for name, values in names.items()}
