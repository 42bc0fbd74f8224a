"""What a confirmation compares, frozen before anything of it runs: arms, seeds, study and data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from finetune.api import Mode
from hpo.study import Configuration

Role = Literal["choice", "baseline", "diary", "linear_probing", "trivial"]
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

    @property
    def ratio(self) -> float | None:
        """``lr / backbone_lr``, where both exist."""
        return self.lr / self.backbone_lr if self.lr and self.backbone_lr else None

    def configuration(self, seed: int, frozen_backbone_lr: float) -> Configuration:
        """Return the run of one seed; a frozen backbone's rate only fills its column."""
        assert self.lr is not None
        assert self.loss is not None
        return Configuration(self.lr, self.backbone_lr or frozen_backbone_lr, self.loss, seed)


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
        arms = [{key: value for key, value in asdict(arm).items() if key != "name"} for arm in self.arms]
        parts = {"study": self.fingerprint, "data": self.data_hash, "arms": arms, "seeds": list(self.seeds)}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def study_name(self, mode: Mode, own_mode: Mode) -> str:
        """Return the ledger study that runs the arms of ``mode``: one a mode, since a spec has one."""
        variant = "" if mode == own_mode else f".{mode}"
        return f"{self.study[:60]}.confirm-{self.choice_hash[:8]}{variant}"

    def to_json(self) -> dict[str, Any]:
        """Return plain values that :meth:`from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> FrozenChoice:
        """Return the choice that :meth:`to_json` wrote."""
        arms = tuple(Arm(**arm) for arm in stored["arms"])
        return cls(**{**stored, "arms": arms, "seeds": tuple(stored["seeds"])})
