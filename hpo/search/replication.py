"""Which configuration meets which seed next, when the last part of a budget goes to replicates. Pure.

A race in rounds: in round j every contender that is left meets the same fresh tuning seed, the leader and the
baseline first, so that a challenger is always compared with them on equal seeds; one that is clearly behind
meets no further seed, and what it would have cost goes to the others (racing: Maron and Moore 1997,
Artificial Intelligence Review 11:193; paired as in irace, Lopez-Ibanez et al. 2016).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from hpo.ledger.values import Origin
from hpo.search import seed_of_round
from hpo.study import Configuration, StudySpec
from hpo.study.setting import Setting

CLEARLY = 2.0
"""Standard errors behind the leader, over at least MIN_PAIRS seeds, that end a challenger's race."""
MIN_PAIRS = 2


@dataclass(frozen=True)
class Tried:
    """One trial that has a configuration, ended or not."""

    slot: int
    origin: Origin
    configuration: Configuration
    has_ended: bool
    value: float | None
    """Validation loss of a complete trial; None while it runs, and when it diverged."""

    @property
    def setting(self) -> Setting:
        """The configuration without its seed."""
        return Setting.of(self.configuration)


def first_replicate(spec: StudySpec, total: int) -> int:
    """Return the slot from which on a budget of ``total`` is spent on replicates; ``total`` for none.

    Never more than half of what is left of the budget after the baseline and the known configurations.
    """
    if spec.replicate is None:
        return total
    wanted = (spec.replicate.top + 1) * spec.replicate.seeds
    return total - max(0, min(wanted, (total - 1 - len(spec.known)) // 2))


def contenders(
    spec: StudySpec, tried: Sequence[Tried], ranking: Sequence[Setting], first: int
) -> list[Setting]:
    """Return who races from slot ``first`` on: the leader, the baseline, then the others by rank.

    Those that have begun stay, whatever later trials show; ``ranking`` (best first) fills the free places.
    """
    assert spec.replicate is not None
    baseline = Setting.of(spec.baseline)
    begun = [one.setting for one in tried if one.origin == "replicate" and one.slot >= first]
    racing = [one for one in dict.fromkeys(begun) if one != baseline]
    for setting in ranking:
        if len(racing) < spec.replicate.top and not any(setting.is_close_to(r) for r in [*racing, baseline]):
            racing.append(setting)
    return [*racing[:1], baseline, *racing[1:]]


def next_replicate(
    spec: StudySpec, tried: Sequence[Tried], racing: Sequence[Setting], rounds: int
) -> Configuration | None:
    """Return the first (contender, seed) of the race that no trial has; None after ``rounds`` rounds."""
    results = _results(tried)
    taken = {(one.setting, one.configuration.seed) for one in tried}
    seeds = list(_seeds(spec, rounds))
    for seed in seeds:
        for place, setting in enumerate(racing):
            is_in = place < 2 or not is_behind(results, setting, racing[0], seeds)
            if is_in and (setting, seed) not in taken:
                return Configuration(setting.lr, setting.backbone_lr, setting.loss, seed)
    return None


def _seeds(spec: StudySpec, rounds: int) -> Iterator[int]:
    """Give the distinct seeds of the rounds."""
    return iter(dict.fromkeys(seed_of_round(spec, number) for number in range(rounds)))


def _results(tried: Sequence[Tried]) -> dict[tuple[Setting, int], float]:
    """Return the loss of every ended run; a diverged one is infinite."""
    return {
        (one.setting, one.configuration.seed): math.inf if one.value is None else one.value
        for one in tried
        if one.has_ended
    }


def is_behind(
    results: dict[tuple[Setting, int], float], setting: Setting, leader: Setting, seeds: Sequence[int]
) -> bool:
    """Return whether a challenger is clearly behind the leader on the seeds that both have met."""
    gaps = np.array(
        [
            results[setting, seed] - results[leader, seed]
            for seed in seeds
            if (setting, seed) in results and math.isfinite(results.get((leader, seed), math.inf))
        ]
    )
    if np.isposinf(gaps).any():
        return True
    if len(gaps) < MIN_PAIRS:
        return False
    return bool(gaps.mean() > CLEARLY * gaps.std(ddof=1) / math.sqrt(len(gaps)) and (gaps > 0).all())
