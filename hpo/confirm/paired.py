"""Is one arm better than another? Paired on seeds and on subjects; pure functions on arrays.

Notation: S seeds, U independent units (subjects, patients or records), B bootstrap draws (of one arm).
    loss      (S, U)  sum of a run's loss over the windows of one unit
    windows   (U,)    windows of one unit
A run's loss on a set of units is sum(loss) / sum(windows), as if it had been measured on them alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from hpo.confirm.verdicts import Doubt, Look

Floats = NDArray[np.float64]

DRAWS = 4000
CHUNK = 200
LEVEL = 0.05
FIRST_LOOK = Look(1)
"""Two-sided 5 %: half of what all looks may spend on a false "better"."""
EXACT_FLIPS = 14
"""Up to so many seeds all 2^n sign flips are counted; beyond, RANDOM_FLIPS of them."""
RANDOM_FLIPS = 20_000
POWER = 0.8


@dataclass(frozen=True)
class Comparison:
    """The mean difference of two arms; negative: the first has the lower loss."""

    difference: float
    low: float
    high: float
    """Ends of the 95 % interval over seeds and units."""
    strict_low: float
    strict_high: float
    """The same at the level of the look: 95 % at the first, then wider."""
    p: float
    """Two-sided, of the sign-flip test over seeds, as it is before Holm."""
    seeds: int
    units: int
    detectable: float | None
    """Smallest true difference that would be called real four times in five with these seeds and units, alone
    or as the first arm; None with too few seeds to call any difference real."""


def compare(loss: Floats, other: Floats, windows: Floats, look: Look = FIRST_LOOK) -> Comparison:
    """Return the paired difference of two arms, (S, U) each with the same seeds and units.

    The interval is over seeds and units together (:meth:`Influence.half_width`). Deterministic.
    """
    gap = loss - other
    by_seed = gap.sum(axis=1) / windows.sum()
    influence = Influence.of(gap, windows)
    mean, half, strict = (
        float(by_seed.mean()),
        influence.half_width(LEVEL),
        influence.half_width(look.level),
    )
    return Comparison(
        mean,
        mean - half,
        mean + half,
        mean - strict,
        mean + strict,
        sign_flip_p(by_seed),
        len(gap),
        len(windows),
        detectable(by_seed, influence, look),
    )


@dataclass(frozen=True)
class Influence:
    """What every seed and every unit does to a mean difference (jackknife), so how far it can be trusted."""

    seeds: Floats
    """(S,); empty with one seed."""
    units: Floats
    """(U,); empty with one unit."""

    @classmethod
    def of(cls, gap: Floats, windows: Floats) -> Influence:
        """Return the influences on the mean of paired differences (S, U)."""
        nothing = np.empty(0)
        by_seed = gap.sum(axis=1) / windows.sum()
        unit = gap.mean(axis=0)
        seeds = (by_seed - by_seed.mean()) / (len(gap) - 1) if len(gap) > 1 else nothing
        if len(windows) < 2:
            return cls(seeds, nothing)
        without = (unit.sum() - unit) / (windows.sum() - windows)
        return cls(seeds, without.mean() - without)

    @property
    def variances(self) -> Floats:
        """Unbiased variance of the mean from seeds and from units, (2,)."""
        parts = (self.seeds, self.units)
        return np.array([np.sum(part**2) * (len(part) - 1) / max(len(part), 1) for part in parts])

    @property
    def degrees(self) -> float:
        """Degrees of freedom of their sum (Satterthwaite 1946, Biometrics Bulletin 2:110)."""
        shares = [
            variance**2 / (len(part) - 1)
            for variance, part in zip(self.variances, (self.seeds, self.units), strict=True)
            if len(part) > 1
        ]
        return float(self.variances.sum() ** 2 / sum(shares)) if sum(shares) > 0 else np.inf

    def half_width(self, level: float) -> float:
        """Return how far the interval's ends lie from the mean; ``level``: its two-sided chance to miss.

        Between two known ones: Satterthwaite's, which trusts the variances as they are estimated, so that two
        people who happen to be alike make it far too narrow, and Banerjee's (1960, Sankhya 22:357), which
        holds whatever they are, and is too wide where there are many. The second has the weight 2 / n, n the
        smaller of seeds and units: chosen by us on simulated nulls (docs/confirmation.md).
        """
        sizes = [len(part) for part in (self.seeds, self.units) if len(part) > 1]
        if not sizes or self.variances.sum() == 0:
            return 0.0
        reached = [stdtrit(max(len(part) - 1, 1), 1 - level / 2) for part in (self.seeds, self.units)]
        safe = np.sqrt(np.sum(np.square(reached) * self.variances))
        weight = min(1.0, 2 / min(sizes))
        return float(weight * safe + (1 - weight) * stdtrit(self.degrees, 1 - level / 2) * self.spread)

    @property
    def spread(self) -> float:
        """Standard error of the mean."""
        return float(np.sqrt(self.variances.sum()))


def interval(loss: Floats, windows: Floats) -> tuple[float, float]:
    """Return the 95 % interval of an arm's mean loss (S, U) over units: percentiles of the bootstrap."""
    sums = loss.mean(axis=0)
    draws = np.concatenate([(w @ sums) / (w @ windows) for w in unit_weights(len(windows))])
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def unit_weights(units: int) -> tuple[Floats, ...]:
    """Return how often a bootstrap draws each unit, (B, U) in chunks; the same draws for every arm."""
    return _weights(units, 1)


@lru_cache(maxsize=8)
def _weights(size: int, seed: int) -> tuple[Floats, ...]:
    """Return how often each of ``size`` is drawn, (B, size), in chunks that fit in memory. Read only."""
    rng = np.random.default_rng(seed)
    each = np.full(size, 1 / size)
    return tuple(rng.multinomial(size, each, CHUNK).astype(np.float64) for _ in range(DRAWS // CHUNK))


def sign_flip_p(differences: Floats) -> float:
    """Return the two-sided p of the mean of paired differences (S,) under random signs."""
    size = len(differences)
    means = np.abs(_signs(size) @ differences)
    return float(np.mean(means >= abs(differences.sum()) * (1 - 1e-12)))


@lru_cache(maxsize=4)
def _signs(size: int) -> Floats:
    """Return all signs of so many differences, or RANDOM_FLIPS of them with the observed first; read only."""
    if size <= EXACT_FLIPS:
        return np.array(list(itertools.product([-1.0, 1.0], repeat=size)))
    signs = np.random.default_rng(4).choice([-1.0, 1.0], (RANDOM_FLIPS, size))
    signs[0] = 1.0
    return signs


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for as many tests (Holm 1979, Scandinavian Journal of Statistics 6:65)."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = worst
    return adjusted


def detectable(
    differences: Floats, influence: Influence | None = None, look: Look = FIRST_LOOK
) -> float | None:
    """Return the true difference that this look calls real with a power of 80 %; None with too few seeds.

    Two conditions of :func:`doubt` have to be met: the test over seeds (as a paired t-test), and the interval
    over seeds and units, whose spread follows from ``influence``.
    """
    if len(differences) < look.min_seeds:
        return None
    degrees, error = len(differences) - 1, float(differences.std(ddof=1)) / np.sqrt(len(differences))
    found = float((stdtrit(degrees, 1 - look.level / 2) + stdtrit(degrees, POWER)) * error)
    if influence is None:
        return found
    reach = influence.half_width(look.level) + stdtrit(influence.degrees, POWER) * influence.spread
    return max(found, float(reach))


def doubt(found: Comparison, adjusted_p: float, look: Look = FIRST_LOOK) -> Doubt | None:
    """Return why a difference is not real (too few seeds, chance, its interval); None where it is."""
    if found.seeds < look.min_seeds:
        return Doubt.FEW_SEEDS
    if adjusted_p > look.level:
        return Doubt.CHANCE
    return Doubt.INTERVAL if found.strict_low <= 0 <= found.strict_high else None
