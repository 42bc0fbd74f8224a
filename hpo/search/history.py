"""What has been tried: one small record a trial, kept in memory and brought up to date by one query."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from hpo.ledger.values import tried
from hpo.storage import reading
from hpo.storage.tables import NO_FOLD, curve, slots
from hpo.study import Configuration

_FRESH = (
    sa.select(
        slots.c.slot,
        slots.c.state,
        slots.c.config,
        slots.c.fold,
        slots.c.end,
        slots.c.value,
        slots.c.epochs,
    )
    .where(slots.c.study_id == sa.bindparam("study_id"), slots.c.slot >= sa.bindparam("first"))
    .where(slots.c.state.in_(("running", "done", "failed")))
    .order_by(slots.c.slot)
)
"""Slots are claimed in order, so those from the first unfinished one on are a small window."""
_CURVES = (
    sa.select(curve.c.slot, curve.c.best_so_far)
    .where(curve.c.study_id == sa.bindparam("study_id"), curve.c.best_so_far.is_not(None))
    .where(curve.c.slot.in_(sa.bindparam("wanted", expanding=True)))
    .order_by(curve.c.slot, curve.c.epoch)
)
MAX_CURVES = 500
"""Complete trials, the latest, whose curves are read, and as many pruned ones: more would teach hardly more,
and a worker that comes to 10,000 trials would wait for half a million points."""

_Curved = tuple[frozenset[int], frozenset[int]]
"""Slots of the complete and of the pruned trials whose curves are held."""


@dataclass(frozen=True)
class PastTrial:
    """What a sampler may know of a trial."""

    slot: int
    configuration: Configuration
    end: str | None
    """Why it ended; None while it runs."""
    value: float | None
    """Best validation loss, of a pruned trial so far; None when it runs or diverged."""
    epochs: int
    fold: int | None = None
    """Validation fold; None on the reference split."""
    curve: tuple[float, ...] = ()
    """Lowest validation loss up to each epoch, of an ended trial; only where curves are held."""


class Past:
    """The ended and running trials of one study, read once each."""

    def __init__(self, study_id: int, engine: sa.Engine, *, with_curves: bool) -> None:
        """``with_curves``: hold the curves of the latest ended trials too, each read once.

        The latest are those of the highest slots, so that it does not matter when a worker came.
        """
        self._study_id = study_id
        self._engine = engine
        self._with_curves = with_curves
        self.ended: dict[int, PastTrial] = {}
        """By slot, as of the last look."""
        self._first = 0  # every slot below has ended for good and is known
        self._curved: _Curved = (frozenset(), frozenset())

    def refresh(self) -> list[PastTrial]:
        """Return ended and running trials in the order of their slots; reads the database."""
        running = self.look()
        return sorted([*self.ended.values(), *running], key=lambda trial: trial.slot)

    def look(self) -> list[PastTrial]:
        """Take in what has ended since the last look and return what runs: one query of a few rows."""
        with reading(self._engine) as connection:
            rows = connection.execute(_FRESH, {"study_id": self._study_id, "first": self._first}).all()
            closed = {row.slot for row in rows if row.state != "running"}
            trials = [_past_trial(row) for row in rows if tried(row.config) and row.state != "failed"]
            new = {
                trial.slot: trial for trial in trials if trial.slot in closed and trial.slot not in self.ended
            }
            latest = self._latest(new) if self._with_curves else self._curved
            # Nothing is taken in before all is read: if the connection breaks, the next look finds it again.
            new |= self._with_their_curves(connection, new, latest)
        self._let_go(latest)
        self.ended |= new
        while self._first in closed:
            self._first += 1
        return [trial for trial in trials if trial.slot not in closed]

    def _latest(self, new: Mapping[int, PastTrial]) -> _Curved:
        """Return the slots whose curves are held once ``new`` are taken in."""
        kinds = {slot: _is_complete(trial) for slot, trial in new.items() if trial.value is not None}
        complete = {slot for slot, is_complete in kinds.items() if is_complete}
        both = (self._curved[0] | complete, self._curved[1] | (kinds.keys() - complete))
        return _latest_of(both[0]), _latest_of(both[1])

    def _with_their_curves(
        self, connection: sa.Connection, new: Mapping[int, PastTrial], latest: _Curved
    ) -> dict[int, PastTrial]:
        wanted = [slot for slot in new if slot in latest[0] or slot in latest[1]]
        if not wanted:
            return {}
        curves: dict[int, list[float]] = {slot: [] for slot in wanted}
        for slot, best in connection.execute(_CURVES, {"study_id": self._study_id, "wanted": wanted}):
            curves[slot].append(best)
        return {slot: replace(new[slot], curve=tuple(points)) for slot, points in curves.items()}

    def _let_go(self, latest: _Curved) -> None:
        """Forget the curves of trials that are among the latest no more."""
        for before, now in zip(self._curved, latest, strict=True):
            for slot in before - now:
                self.ended[slot] = replace(self.ended[slot], curve=())
        self._curved = latest


def _latest_of(slots_of_kind: Set[int]) -> frozenset[int]:
    if len(slots_of_kind) <= MAX_CURVES:
        return frozenset(slots_of_kind)
    return frozenset(sorted(slots_of_kind)[-MAX_CURVES:])


def _is_complete(trial: PastTrial) -> bool:
    return trial.end not in {"pruned", "diverged"}


def _past_trial(row: sa.Row[*tuple[Any, ...]]) -> PastTrial:
    is_running = row.state == "running"
    return PastTrial(
        row.slot,
        Configuration.stored(row.config),
        None if is_running else row.end,
        None if is_running else row.value,
        row.epochs or 0,
        None if row.fold == NO_FOLD else row.fold,
    )
