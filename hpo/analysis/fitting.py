"""Does the model fit these trials, and did its posterior arrive? Asked for every answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import bdtrc  # scipy.stats takes a second of CPU to load

from hpo.analysis.box import Floats

AGREE_DECADES = 0.2
"""Two independent runs of the posterior agree if they contradict each other over no longer stretch of the
ratio axis (chosen by us)."""
RARE = 0.005
"""Left-out trials beyond their 95 % intervals are too many where so many or more have this probability."""
MOST_RMS = 1.5
"""The largest root mean square of standardised leave-one-out errors (1 is right) of a model that fits."""


@dataclass(frozen=True)
class ModelFit:
    """How the model stands to the complete trials, each foretold from all the others."""

    trials: int
    within_95: float
    """Share of the trials in their 95 % interval."""
    standardised_rms: float
    """Root mean square of the errors, in their standard errors."""
    agreement_decades: float | None
    """Longest stretch of the ratio axis on which two runs contradict each other; None: one run."""

    @property
    def fits(self) -> bool:
        """Whether the model may speak of places that were not tried."""
        outside = round(self.trials * (1 - self.within_95))
        # The binomial probability of so many or more; of none or more it is 1.
        too_many = outside > 0 and float(bdtrc(outside - 1, self.trials, 0.05)) < RARE
        agrees = self.agreement_decades is None or self.agreement_decades <= AGREE_DECADES + 1e-9
        return not too_many and self.standardised_rms <= MOST_RMS and agrees


def model_fit(error: Floats, sd: Floats, agreement_decades: float | None) -> ModelFit:
    """Return the fit from leave-one-out errors (n,) and their standard deviations (n,)."""
    within = float(np.mean(np.abs(error) <= 1.96 * sd))
    return ModelFit(len(error), within, float(np.sqrt(np.mean((error / sd) ** 2))), agreement_decades)
