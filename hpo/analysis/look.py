"""One look at the trials of a study: the model's posterior by two independent runs, and whether it fits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from hpo.analysis.box import Box, Floats, Lattice
from hpo.analysis.evidence import Evidence, has_folds, surrogates_of, thinned
from hpo.analysis.fitting import ModelFit, model_fit
from hpo.analysis.landscape import draw_landscapes, draw_lowest
from hpo.analysis.matters import Matters, matters_of
from hpo.analysis.noise import replicate_sd, shares
from hpo.analysis.options import Options, options_of
from hpo.analysis.posterior import PARTICLES
from hpo.analysis.ratio import profile_of
from hpo.analysis.surrogate import Surrogate
from hpo.analysis.values import Noise
from hpo.analysis.zones import WorthSource, disagreement

if TYPE_CHECKING:
    import pandas as pd

MAX_MODEL = 300
"""Trials in the model; of more, those where a first model expects the lowest losses, and a quarter spread
over the others. Time grows with the cube."""
RANKING = 10
"""Of a first model's draws, those that rank all trials: with every draw it would take half of the time."""
EACH = 4
"""Landscapes drawn of each particle: of two hundred in all, a share of 97.5 % would be known to a hundredth
only, and the ends of zones would tell of the draws."""
MIN_REPLICATES = 8
"""Degrees of freedom from which the replicates' standard deviation is reported instead of the model's."""


@dataclass(frozen=True)
class Look:
    """The posterior of one study's landscape (shapes as in :mod:`hpo.analysis.landscape`)."""

    evidence: Evidence
    surrogate: Surrogate
    lattice: Lattice
    mean: Floats
    """(C, I, J), on the surrogate's scale."""
    draws: Floats
    """(S, L, I, J): one run's, then as many of the other; with choices (S, 1, I, J): of all combinations the
    lowest."""
    noise: Noise
    worth: tuple[float, WorthSource]
    matters: Mapping[str, Matters]
    options: Mapping[str, Options]
    """Of a study with choices: what each value of them, and each loss, costs."""
    fit: ModelFit
    left_out: Floats
    """(m,) errors of the complete trials, each foretold from all others."""

    @classmethod
    def at(
        cls, evidence: Evidence, box: Box, trials: pd.DataFrame, worth: float | None, *, effort: int = 1
    ) -> Look:
        """Return the look; ``effort`` multiplies the particles of each run."""
        evidence = _those_that_matter(evidence, box)
        runs = surrogates_of(evidence, box, draws=effort * PARTICLES, seed=effort - 1, runs=2)
        surrogate = Surrogate.of(runs)
        lattice = Lattice.of(box)
        mean, draws, lowest = _landscapes(surrogate, lattice)
        noise = _noise(surrogate, trials, lattice, mean)
        assert noise.seed_sd is not None
        own = (noise.seed_sd, WorthSource.SEED_SD) if worth is None else (worth, WorthSource.STUDY)
        losses = np.where(np.isfinite(draws), evidence.scale.expand(draws), np.inf)
        profiles = profile_of(losses)
        half = len(profiles) // 2
        apart = disagreement(lattice.ratio, (profiles[:half], profiles[half:]), own[0])
        foretold, sd = surrogate.leave_one_out()
        complete = evidence.extra == 0
        error = (evidence.y - foretold)[complete]
        fit = model_fit(error, sd[complete], apart)
        matters = matters_of(lattice, losses, *own)
        options = {} if lowest is None else options_of(box, evidence.scale.expand(lowest), own[0])
        return cls(evidence, surrogate, lattice, mean, draws, noise, own, matters, options, fit, error)

    def diagnostics(self) -> dict[str, float | None]:
        """Return how well each complete trial is foretold from all others, on the surrogate's scale."""
        spread = float(np.var(self.evidence.y[self.evidence.extra == 0]))
        squares = float(np.mean(self.left_out**2))
        return {
            "leave_one_out_rmse": float(np.sqrt(squares)),
            "leave_one_out_r2": 1 - squares / spread if spread > 0 else None,
            "within_95": self.fit.within_95,
            "standardised_rms": self.fit.standardised_rms,
        }


def _landscapes(surrogate: Surrogate, lattice: Lattice) -> tuple[Floats, Floats, Floats | None]:
    """Return mean and draws as a look has them, and with choices the lowest of each combination (S, C)."""
    rng = np.random.default_rng(1)
    if lattice.box.choices:
        return draw_lowest(surrogate, lattice, rng, each=EACH)
    return *draw_landscapes(surrogate, lattice, rng, each=EACH), None


def _those_that_matter(evidence: Evidence, box: Box) -> Evidence:
    """Return the evidence that the model rests on: of many trials, those that matter to a first model."""
    if len(evidence.y) <= MAX_MODEL:
        return evidence
    sample = np.random.default_rng(3).permutation(len(evidence.y))[: MAX_MODEL // 2]
    (first,) = surrogates_of(evidence.rows(np.sort(sample)), box, draws=PARTICLES // 2)
    ranking = replace(first, fits=first.fits[:: len(first.fits) // RANKING])
    return thinned(evidence, ranking.expected(evidence.x), MAX_MODEL)


def _noise(surrogate: Surrogate, trials: pd.DataFrame, lattice: Lattice, mean: Floats) -> Noise:
    model, between = surrogate.noise_sd, surrogate.block_sd
    by_fold = has_folds(trials)
    if not by_fold:
        model = float(np.hypot(model, between))  # blocks are seeds: their effect is the seed's
    names = [name for name, _ in lattice.box.choices]
    replicated, degrees = replicate_sd(trials, names)
    by_model = replicated is None or degrees < MIN_REPLICATES
    sources = {"seed": model**2} | ({"fold": between**2} if by_fold and between > 0 else {})
    grid = by_rates(lattice, mean)
    spread = shares(grid.reshape(*grid.shape[:2], *lattice.box.sizes), sources, names)
    return Noise(model if by_model else replicated, "model" if by_model else "replicates", degrees, spread)


def by_rates(lattice: Lattice, mean: Floats) -> Floats:
    """Return the mean landscape (C, I, J) as (lr, backbone_lr, combination)."""
    return np.moveaxis(lattice.on_box(mean), 0, 2)
