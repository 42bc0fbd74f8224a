"""What may be said of an arm beside the published default: values that reports turn into words. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

ALPHA = 0.05
"""The chance of ever calling a choice better that is not, over all looks at one test split."""


class Finding(StrEnum):
    """What an arm is, beside the published default."""

    BETTER = "better"
    BETTER_UNLESS_IT_FAILS = "better_unless_it_fails"
    """In seeds that train; failures too rare for so many seeds to show could undo it."""
    WORSE = "worse"
    CANNOT_BE_TOLD = "cannot_be_told"
    NO_BETTER_THAN_CONSTANT = "no_better_than_constant"
    SEEDS_FAILED = "seeds_failed"
    """Of the arm or of the default: nothing else is said before that."""
    ALL_FAILED = "all_failed"

    @property
    def is_real(self) -> bool:
        """Whether a difference was found; what the arms behind the first wait for."""
        return self in {Finding.BETTER, Finding.BETTER_UNLESS_IT_FAILS, Finding.WORSE}


class Doubt(StrEnum):
    """Why a difference cannot be told; the first that holds."""

    FEW_SEEDS = "few_seeds"
    CHANCE = "chance"
    """The sign-flip test."""
    INTERVAL = "interval"
    """It holds zero: other people might show nothing."""
    FIRST_ARM = "first_arm"
    """The search's choice comes first, and is not told apart itself."""


@dataclass(frozen=True)
class Look:
    """One look at a test split, and what it may spend of the 5 %: half of what was left (alpha spending)."""

    number: int = 1

    @property
    def alpha(self) -> float:
        """Return the chance of a false "better" at this look."""
        return float(ALPHA / 2**self.number)

    @property
    def level(self) -> float:
        """Return the largest two-sided p that is called real: a false "worse" has the same chance."""
        return 2 * self.alpha

    @property
    def min_seeds(self) -> int:
        """Return the fewest seeds that can say "real": with n the smallest two-sided p is 2 / 2^n."""
        return math.ceil(math.log2(1 / self.alpha))


@dataclass(frozen=True)
class Failures:
    """How many seeds of both arms failed (diverged, or ended without weights), and what that means."""

    seeds: int
    """Of each arm, failed ones too."""
    arm: int = 0
    baseline: int = 0

    @property
    def any(self) -> bool:
        """Whether there is one."""
        return self.arm + self.baseline > 0

    @property
    def not_excluded(self) -> float:
        """Return the failure rate below which so many seeds without a failure exclude none: 3 / n.

        The rule of three, an upper 95 % bound (Hanley and Lippman-Hand 1983, JAMA 249:1743).
        """
        return min(1.0, 3 / self.seeds) if self.seeds else 1.0


def break_even(gain: float, margin: float) -> float:
    """Return the share of failing seeds that would undo a ``gain`` over the default.

    ``margin``: how far the arm's loss lies below the trivial predictor's, which a failed run is worth.
    """
    return min(1.0, gain / margin) if margin > 0 else 1.0
