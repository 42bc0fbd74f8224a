"""The answer of a study as a value, and the same as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hpo.analysis.ratio import RatioCurve

Against = Literal["beats", "does not beat", "cannot be told"]


@dataclass(frozen=True)
class Choice:
    """The configuration with the best expected validation loss."""

    lr: float
    backbone_lr: float
    ratio: float
    loss: str
    expected_validation_loss: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Expected:
    """An expected validation loss with its standard error."""

    value: float
    standard_error: float
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
    """What the trials of a study say. None stands for what they do not say; ``notes`` says why."""

    trials: Mapping[str, int]
    best: BestTrial | None
    trivial: float
    choice: Choice | None = None
    baseline: Expected | None = None
    against_trivial: Against = "cannot be told"
    against_baseline: Against = "cannot be told"
    optimism: float | None = None
    """Expected loss of the best trial's configuration minus that trial's loss, in units of the loss."""
    curve: RatioCurve | None = None
    rates: RateMap | None = None
    noise: Noise = field(default_factory=lambda: Noise())
    diagnostics: Mapping[str, float | None] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain numbers, texts, lists and None, ready for any JSON writer."""
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
            "notes": list(self.notes),
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
