"""Every arm beside the published default: failures first, then the difference, the choice before the others.

Pure. Notation of :mod:`hpo.confirm.paired`: S seeds, U units. A seed whose run failed counts as the worst of
its arm's seeds, so that failing never makes an arm look better.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from hpo.confirm.paired import Comparison, Floats, compare, doubt, holm
from hpo.confirm.verdicts import Doubt, Failures, Finding, Look, break_even

Losses = Mapping[int, Floats]
"""Seed -> loss summed over each unit's windows (U,); a seed whose run failed is not there."""


@dataclass(frozen=True)
class Against:
    """An arm beside the baseline, on the yardstick: negative differences are better."""

    difference: float
    low: float
    high: float
    """Ends of the 95 % interval over seeds and units."""
    strict_low: float
    strict_high: float
    """The same at the level of the look."""
    p: float
    """Sign-flip test over seeds, two-sided, adjusted for the arms before and beside it."""
    p_unadjusted: float
    detectable: float | None
    """Smallest true difference that this look would call real four times in five."""
    finding: Finding
    doubt: Doubt | None
    """Why it cannot be told; None for every other finding."""
    pairs: int
    """Seeds that trained in both arms."""
    failures: Failures
    break_even: float | None
    """Share of failing seeds that would undo a gain; None where there is none."""


@dataclass(frozen=True)
class _Arm:
    """One arm, with its comparison and what a constant leaves of it."""

    compared: Comparison
    failures: Failures
    pairs: int
    mean: float
    constant: float
    """The trivial predictor's mean loss."""


def judge_arms(
    arms: Sequence[Losses],
    baseline: Losses,
    trivial: Losses,
    *,
    seeds: Sequence[int],
    windows: Floats,
    look: Look,
) -> list[Against | None]:
    """Return every arm beside the baseline, the search's choice first; None where all of one side failed.

    The choice is the question of a confirmation and is tested first, alone; the others count only if it is
    told apart itself (so its verdict is their gate), and among themselves by Holm (fixed sequence: Dmitrienko
    and Tamhane 2007, Pharmaceutical Statistics 6:171).
    """
    found = [_compared(arm, baseline, trivial, seeds, windows, look) for arm in arms]
    behind = holm([one.compared.p for one in found[1:] if one is not None])
    first = None if found[0] is None else _against(found[0], found[0].compared.p, look)
    adjusted = iter(behind)
    others = [None if one is None else _against(one, next(adjusted), look) for one in found[1:]]
    return [first, *(None if other is None else _behind(first, other) for other in others)]


def with_failed(losses: Losses, seeds: Sequence[int]) -> Floats:
    """Return the losses of all seeds (S, U), a failed one as the worst of those that trained."""
    worst = losses[worst_seed(losses)]
    return np.stack([losses.get(seed, worst) for seed in seeds])


def worst_seed(losses: Losses) -> int:
    """Return the seed with the highest loss over all windows."""
    return max(losses, key=lambda seed: float(losses[seed].sum()))


def _compared(
    arm: Losses, baseline: Losses, trivial: Losses, seeds: Sequence[int], windows: Floats, look: Look
) -> _Arm | None:
    if not arm or not baseline:
        return None
    mine, theirs, constant = (with_failed(one, seeds) for one in (arm, baseline, trivial))
    total = windows.sum() * len(seeds)
    return _Arm(
        compare(mine, theirs, windows, look),
        Failures(len(seeds), len(seeds) - len(arm), len(seeds) - len(baseline)),
        len(arm.keys() & baseline.keys()),
        float(mine.sum() / total),
        float(constant.sum() / total),
    )


def _against(arm: _Arm, p: float, look: Look) -> Against:
    found = arm.compared
    margin = arm.constant - arm.mean
    undone = break_even(-found.difference, margin) if found.difference < 0 else None
    why = doubt(found, p, look)
    finding = _finding(arm, why, undone)
    return Against(
        found.difference,
        found.low,
        found.high,
        found.strict_low,
        found.strict_high,
        p,
        found.p,
        found.detectable,
        finding,
        why if finding is Finding.CANNOT_BE_TOLD else None,
        arm.pairs,
        arm.failures,
        undone,
    )


def _finding(arm: _Arm, why: Doubt | None, undone: float | None) -> Finding:
    """Return the first that holds: failures, a constant that is as good, doubt, the difference."""
    if arm.failures.any:
        return Finding.SEEDS_FAILED
    if arm.mean >= arm.constant:
        return Finding.NO_BETTER_THAN_CONSTANT
    if why is not None:
        return Finding.CANNOT_BE_TOLD
    if undone is None:
        return Finding.WORSE
    return Finding.BETTER if undone >= arm.failures.not_excluded else Finding.BETTER_UNLESS_IT_FAILS


def _behind(first: Against | None, other: Against) -> Against:
    """Return an arm as it stands behind the choice: where that is not told apart, nothing of it is real."""
    waiting = replace(other, p=max(1.0 if first is None else first.p, other.p))
    if not other.finding.is_real or (first is not None and first.finding.is_real):
        return waiting
    return replace(waiting, finding=Finding.CANNOT_BE_TOLD, doubt=Doubt.FIRST_ARM)
