"""What a confirmation compares, frozen before anything of it runs: arms, seeds, study and data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finetune.api import Mode
from hpo.ledger.values import CONFIRMS
from hpo.study import Configuration
from hpo.study.choices import NONE, Choices

Role = Literal["choice", "luckiest", "baseline", "diary", "from_scratch", "linear_probing", "trivial"]
FIRST_CONFIRMATION_SEED = 1_000_000


@dataclass(frozen=True)
class Arm:
    """One thing that is compared: a configuration in a mode, or the trivial predictor."""

    name: str
    role: Role
    mode: Mode | None
    """None: the trivial predictor, which is not trained."""
    lr: float | None = None
    backbone_lr: float | None = None
    """None also where the backbone is frozen."""
    loss: str | None = None
    weights: str | None = None
    """Of the backbone; None: as the study says."""
    choices: Choices = NONE
    """Of the recipe's keys that the study searches."""

    @property
    def ratio(self) -> float | None:
        """``lr / backbone_lr``, where both exist."""
        return self.lr / self.backbone_lr if self.lr and self.backbone_lr else None

    def what_counts(self) -> dict[str, Any]:
        """Return what can change its numbers, as plain values; choices of before keep their hash."""
        told = {key: value for key, value in asdict(self).items() if key != "name"}
        if self.weights is None:
            del told["weights"]
        if not self.choices:
            del told["choices"]
        return told

    def configuration(self, seed: int, frozen_backbone_lr: float) -> Configuration:
        """Return the run of one seed; a frozen backbone's rate only fills its column."""
        assert self.lr is not None
        assert self.loss is not None
        rates = self.lr, self.backbone_lr or frozen_backbone_lr
        return Configuration(*rates, self.loss, seed, self.choices)


@dataclass(frozen=True)
class FrozenChoice:
    """What was decided before the first confirmation run; its hash is stored before that run too."""

    study: str
    fingerprint: str
    """Of the study's spec."""
    data_hash: str
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]

    @property
    def choice_hash(self) -> str:
        """The sha256 (hex) of study fingerprint, arms' configurations, seeds and data hash."""
        arms = [arm.what_counts() for arm in self.arms]
        parts = {"study": self.fingerprint, "data": self.data_hash, "arms": arms, "seeds": list(self.seeds)}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def study_name(self, mode: Mode, weights: str | None, own_mode: Mode) -> str:
        """Return the ledger study that runs the arms of a mode and weights: a spec has one of each."""
        variant = "" if mode == own_mode else f".{mode}"
        if weights is not None:
            variant += f".weights-{weights}"
        return f"{self.study[:60]}{CONFIRMS}{self.choice_hash[:8]}{variant}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> FrozenChoice:
        """Return the choice that :meth:`to_json` wrote."""
        arms = tuple(Arm(**{**arm, "choices": Choices(arm.get("choices", {}))}) for arm in stored["arms"])
        return cls(**{**stored, "arms": arms, "seeds": tuple(stored["seeds"])})
