"""Which configuration meets which seed next, when the last part of a budget goes to replicates.

A race in rounds: in round j every contender that is left meets the same fresh tuning seed, the leader and the
baseline first, so that a challenger is always compared with them on equal seeds; one that is clearly behind
meets no further seed, and what it would have cost goes to the others (racing: Maron and Moore 1997,
Artificial Intelligence Review 11:193; paired as in irace, Lopez-Ibanez et al. 2016). The rules are pure;
:class:`Replicator` asks them when a slot is claimed, inside the transaction that begins the run: so several
workers never give one seed to one configuration twice, and a slot that changes hands keeps what it was given.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa

from hpo.ledger.ledger import Ledger
from hpo.ledger.values import COMPLETE, Claim, NotBegun, Origin
from hpo.search import seed_of_round
from hpo.storage.tables import slots
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
                return Configuration.at(setting, seed)
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


class Replicator:
    """Gives the last slots of one study to replicates, as the spec's ``replicate`` says."""

    def __init__(self, spec: StudySpec, study_id: int, engine: sa.Engine, below: int | None) -> None:
        self._spec = spec
        self._study_id = study_id
        self._engine = engine
        self._below = below
        self._ranking: list[Setting] | None = None

    def begin(self, ledger: Ledger, claim: Claim, attributes: Mapping[str, Any]) -> Claim | NotBegun:
        """Begin the claimed slot as a replicate, if the race has a run left to give.

        There is nothing to repeat where the slot is not in the last part of the budget, or has its
        configuration already: it is the search's then.
        """
        if self._spec.replicate is None or claim.configuration is not None or claim.origin != "search":
            return NotBegun.NOTHING_TO_REPEAT
        first = first_replicate(self._spec, self._total())
        if claim.slot < first:
            return NotBegun.NOTHING_TO_REPEAT
        ranking = self._ranked()

        def pick(connection: sa.Connection) -> Configuration | None:
            tried = _tried(connection, self._study_id)
            racing = contenders(self._spec, tried, ranking, first)
            run = sum(one.origin == "replicate" for one in tried)
            return next_replicate(self._spec, tried, racing, rounds=run + 1)

        return ledger.begin_replicate(
            claim, pick, self._spec.space, attributes, lambda found: self._spec.run_spec(found).fold
        )

    def _total(self) -> int:
        """Return the budget as all workers see it: the study's slots, or fewer where fewer were asked for."""
        query = sa.select(sa.func.count()).select_from(slots).where(slots.c.study_id == self._study_id)
        with self._engine.connect() as connection:
            total = connection.execute(query).scalar_one()
        return total if self._below is None else min(total, self._below)

    def _ranked(self) -> list[Setting]:
        """Return the ranking, worked out once: later trials have no place to take in this race."""
        assert self._spec.replicate is not None
        if self._ranking is None:
            from hpo.analysis.leaders import leaders  # with SciPy and pandas, which no other claim needs
            from hpo.reading.frames import curves_frame, trials_frame

            trials = trials_frame(self._engine, self._study_id)
            curves = curves_frame(self._engine, self._study_id)
            # As many more as may be close to the baseline or to those that race already.
            self._ranking = leaders(trials, curves, self._spec.space, 2 * self._spec.replicate.top + 1)
        return self._ranking


def _tried(connection: sa.Connection, study_id: int) -> list[Tried]:
    columns = (slots.c.slot, slots.c.origin, slots.c.config, slots.c.state, slots.c.end, slots.c.value)
    query = sa.select(*columns).where(slots.c.study_id == study_id, slots.c.config.is_not(None))
    return [
        Tried(
            row.slot,
            row.origin,
            Configuration.stored(row.config),
            row.state in {"done", "failed"},
            row.value if row.end in COMPLETE else None,
        )
        for row in connection.execute(query.order_by(slots.c.slot))
    ]
