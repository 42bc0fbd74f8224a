"""Is one arm better than another? Paired on seeds and on subjects; pure functions on arrays.

Notation: S seeds, U independent units (subjects, patients or records), B bootstrap draws.
    loss      (S, U)  sum of a run's loss over the windows of one unit
    windows   (U,)    windows of one unit
A run's loss on a set of units is sum(loss) / sum(windows), as if it had been measured on them alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.float64]
Verdict = Literal["better", "worse", "cannot be told apart"]

DRAWS = 4000
CHUNK = 200
LEVEL = 0.05
MIN_SEEDS = 6
"""With n seeds the smallest two-sided sign-flip p is 2 / 2^n: 0.0625 at 5, 0.031 at 6."""
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
    p: float
    """Two-sided, of the sign-flip test over seeds, as it is before Holm."""
    seeds: int
    units: int
    detectable: float | None
    """Smallest true difference that would be called real four times in five with these seeds and units, alone
    or as the first arm; None with too few seeds to call any difference real."""


def compare(loss: Floats, other: Floats, windows: Floats) -> Comparison:
    """Return the paired difference of two arms, (S, U) each with the same seeds and units.

    The interval resamples seeds and units, each as a whole, is corrected for bias and acceleration (BCa,
    Efron 1987, JASA 82:171; the acceleration from the jackknife over both), and widened for how few they
    are (:attr:`Influence.reach`). Deterministic.
    """
    gap = loss - other
    by_seed = gap.sum(axis=1) / windows.sum()
    influence = Influence.of(gap, windows)
    low, high = _bca(float(by_seed.mean()), _two_way_draws(gap, windows), influence)
    return Comparison(
        float(by_seed.mean()),
        low,
        high,
        sign_flip_p(by_seed),
        len(gap),
        len(windows),
        detectable(by_seed, influence),
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

    @property
    def reach(self) -> float:
        """How many standard deviations of the bootstrap the ends of the interval lie from its middle.

        With few seeds and units a bootstrap is too narrow: its variance by (n - 1) / n, and its quantiles
        are the normal's, not Student's (Hesterberg 2015, American Statistician 69:371, expanded intervals).
        """
        sizes = np.array([max(len(self.seeds), 2), max(len(self.units), 2)])
        drawn = float(np.sum(self.variances * (sizes - 1) / sizes))
        narrow = np.sqrt(self.variances.sum() / drawn) if drawn > 0 else 1.0
        return float(narrow * stats.t.ppf(1 - LEVEL / 2, self.degrees))


def interval(loss: Floats, windows: Floats) -> tuple[float, float]:
    """Return the 95 % interval of an arm's mean loss (S, U) over units: percentiles of the bootstrap."""
    sums = loss.mean(axis=0)
    draws = np.concatenate([(w @ sums) / (w @ windows) for w in unit_weights(len(windows))])
    low, high = np.quantile(draws, [0.025, 0.975])
    return float(low), float(high)


def unit_weights(units: int) -> list[Floats]:
    """Return how often a bootstrap draws each unit, (B, U) in chunks; the same draws for every arm."""
    return _weights(units, 1)


def _weights(size: int, seed: int) -> list[Floats]:
    """Return how often each of ``size`` things is drawn, (B, size) in chunks that fit in memory."""
    rng = np.random.default_rng(seed)
    each = np.full(size, 1 / size)
    return [rng.multinomial(size, each, CHUNK).astype(np.float64) for _ in range(DRAWS // CHUNK)]


def _two_way_draws(gap: Floats, windows: Floats) -> Floats:
    seeds, units = _weights(len(gap), 2), _weights(len(windows), 3)
    draws = [
        np.einsum("bs,su,bu->b", s, gap, u, optimize=True) / (len(gap) * (u @ windows))
        for s, u in zip(seeds, units, strict=True)
    ]
    return np.concatenate(draws)


def _bca(estimate: float, draws: Floats, influence: Influence) -> tuple[float, float]:
    if np.ptp(draws) == 0:
        return float(draws[0]), float(draws[0])
    below = np.clip(np.mean(draws < estimate), 1 / len(draws), 1 - 1 / len(draws))
    bias = stats.norm.ppf(below)
    every = np.concatenate([influence.seeds, influence.units])
    spread = float(np.sum(every**2))
    acceleration = float(np.sum(every**3)) / (6 * spread**1.5) if spread > 0 else 0.0
    ends = bias + influence.reach * np.array([-1.0, 1.0])
    places = stats.norm.cdf(bias + ends / (1 - acceleration * ends))
    low, high = np.quantile(draws, places)
    return float(low), float(high)


def sign_flip_p(differences: Floats) -> float:
    """Return the two-sided p of the mean of paired differences (S,) under random signs."""
    size = len(differences)
    if size <= EXACT_FLIPS:
        signs = np.array(list(itertools.product([-1.0, 1.0], repeat=size)))
    else:
        signs = np.random.default_rng(4).choice([-1.0, 1.0], (RANDOM_FLIPS, size))
        signs[0] = 1.0
    means = np.abs(signs @ differences)
    return float(np.mean(means >= abs(differences.sum()) * (1 - 1e-12)))


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for as many tests (Holm 1979, Scandinavian Journal of Statistics 6:65)."""
    order = sorted(range(len(p)), key=lambda place: p[place])
    adjusted, worst = [0.0] * len(p), 0.0
    for rank, place in enumerate(order):
        worst = max(worst, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = worst
    return adjusted


def adjust(p: Sequence[float]) -> list[float]:
    """Return the p-values of several arms so that the chance of any false claim stays at the level.

    The first arm, the search's choice, is the question of a confirmation and is tested first, alone; the
    others count only if it is real too, and among themselves by Holm (fixed sequence: Dmitrienko and Tamhane
    2007, Pharmaceutical Statistics 6:171). Holm over all alike would cost the choice power: docs/answer.md.
    """
    return [*p[:1], *(max(p[0], other) for other in holm(p[1:]))]


def detectable(differences: Floats, influence: Influence | None = None) -> float | None:
    """Return the true difference that is called real with a power of 80 %; None below ``MIN_SEEDS`` seeds.

    Both conditions of :func:`verdict` have to be met: the test over seeds (as a paired t-test at 5 %), and
    the interval over seeds and units, whose spread follows from ``influence``.
    """
    if len(differences) < MIN_SEEDS:
        return None
    found = _found(float(differences.var(ddof=1)) / len(differences), len(differences) - 1)
    if influence is None:
        return found
    return max(found, _found(float(influence.variances.sum()), influence.degrees))


def _found(variance: float, degrees: float) -> float:
    """Return the shift of a mean with this variance that is found four times in five."""
    return float((stats.t.ppf(1 - LEVEL / 2, degrees) + stats.t.ppf(POWER, degrees)) * np.sqrt(variance))


def verdict(found: Comparison, adjusted_p: float) -> Verdict:
    """Return what may be said: a difference needs 6 seeds, the sign-flip test, and the interval."""
    if found.seeds < MIN_SEEDS or adjusted_p > LEVEL or found.low <= 0 <= found.high:
        return "cannot be told apart"
    return "better" if found.difference < 0 else "worse"
