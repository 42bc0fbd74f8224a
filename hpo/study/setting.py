"""What one trial tries, and the same without its seed: what is ranked, replicated and confirmed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from hpo.study.choices import NONE, Choices

SAME_DECADES = 0.05
"""Two rates closer than this (12 %) are one configuration: chosen by us, well below any interval of a
best ratio that a hundred trials give."""


class HasSetting(Protocol):
    """Anything that names rates and a loss, and perhaps ``choices``, whatever else it holds."""

    @property
    def lr(self) -> float: ...  # noqa: D102
    @property
    def backbone_lr(self) -> float: ...  # noqa: D102
    @property
    def loss(self) -> str: ...  # noqa: D102


def choices_of(one: HasSetting) -> Choices:
    """Return what it chooses beside its rates and loss; nothing where it knows no choices."""
    return Choices(getattr(one, "choices", NONE))


@dataclass(frozen=True)
class Setting:
    """Learning rates of head and backbone, the training loss, and what a study chooses beside it."""

    lr: float
    backbone_lr: float
    loss: str
    choices: Choices = NONE

    @classmethod
    def of(cls, one: HasSetting) -> Setting:
        """Return the setting of a configuration, of a named one or of a choice."""
        return cls(one.lr, one.backbone_lr, one.loss, choices_of(one))

    def is_close_to(self, other: Setting) -> bool:
        """Return whether both are the same for all that trials can tell."""
        gaps = (math.log10(self.lr / other.lr), math.log10(self.backbone_lr / other.backbone_lr))
        same = self.loss == other.loss and self.choices == other.choices
        return same and max(map(abs, gaps)) < SAME_DECADES


@dataclass(frozen=True)
class Configuration:
    """One point of the search space."""

    lr: float
    backbone_lr: float
    loss: str
    seed: int
    choices: Choices = NONE
    """Of the recipe's keys that the study searches."""

    @classmethod
    def at(cls, setting: HasSetting, seed: int) -> Configuration:
        """Return a setting with a seed."""
        return cls(setting.lr, setting.backbone_lr, setting.loss, seed, choices_of(setting))

    @classmethod
    def stored(cls, config: Mapping[str, Any]) -> Configuration:
        """Return what :meth:`to_json` wrote."""
        return cls(**{**config, "choices": Choices(config.get("choices", {}))})

    def to_json(self) -> dict[str, Any]:
        """Return plain values; without choices those of the versions that knew none."""
        rates = {"lr": self.lr, "backbone_lr": self.backbone_lr, "loss": self.loss, "seed": self.seed}
        return rates | ({"choices": dict(self.choices)} if self.choices else {})

    @property
    def ratio(self) -> float:
        """``lr / backbone_lr``."""
        return self.lr / self.backbone_lr
