"""A configuration without its seed: what is ranked, replicated and confirmed."""

from __future__ import annotations

import math
from dataclasses import dataclass

SAME_DECADES = 0.05
"""Two rates closer than this (12 %) are one configuration: chosen by us, well below any interval of a
best ratio that a hundred trials give."""


@dataclass(frozen=True)
class Setting:
    """Learning rates of head and backbone, and the training loss."""

    lr: float
    backbone_lr: float
    loss: str

    def is_close_to(self, other: Setting) -> bool:
        """Return whether both are the same for all that trials can tell."""
        gaps = (math.log10(self.lr / other.lr), math.log10(self.backbone_lr / other.backbone_lr))
        return self.loss == other.loss and max(map(abs, gaps)) < SAME_DECADES
