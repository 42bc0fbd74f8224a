"""Replicates at claim time: decided from the database, inside the transaction that begins the run.

So several workers never give one seed to one configuration twice, and a slot that changes hands keeps what it
was given. What takes time, the ranking of all trials, is worked out before that transaction, and only until
every place in the race is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from hpo.ledger.ledger import Ledger
from hpo.ledger.values import COMPLETE, Claim, NotBegun
from hpo.search.replication import Tried, contenders, first_replicate, next_replicate
from hpo.storage.tables import slots
from hpo.study import Configuration, StudySpec
from hpo.study.setting import Setting


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
            Configuration(**row.config),
            row.state in {"done", "failed"},
            row.value if row.end in COMPLETE else None,
        )
        for row in connection.execute(query.order_by(slots.c.slot))
    ]
