"""A configuration without its seed: what is ranked, replicated and confirmed."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

SAME_DECADES = 0.05
"""Two rates closer than this (12 %) are one configuration: chosen by us, well below any interval of a
best ratio that a hundred trials give."""


class HasSetting(Protocol):
    """Anything that names rates and a loss, whatever else it holds."""

    @property
    def lr(self) -> float: ...  # noqa: D102
    @property
    def backbone_lr(self) -> float: ...  # noqa: D102
    @property
    def loss(self) -> str: ...  # noqa: D102


@dataclass(frozen=True)
class Setting:
    """Learning rates of head and backbone, and the training loss."""

    lr: float
    backbone_lr: float
    loss: str

    @classmethod
    def of(cls, one: HasSetting) -> Setting:
        """Return the setting of a configuration, of a named one or of a choice."""
        return cls(one.lr, one.backbone_lr, one.loss)

    def is_close_to(self, other: Setting) -> bool:
        """Return whether both are the same for all that trials can tell."""
        gaps = (math.log10(self.lr / other.lr), math.log10(self.backbone_lr / other.backbone_lr))
        return self.loss == other.loss and max(map(abs, gaps)) < SAME_DECADES
