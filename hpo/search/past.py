"""What has been tried: one small record a trial, kept in memory and brought up to date by one query."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa

from hpo.spec import Configuration
from hpo.storage.tables import NO_FOLD, curve, slots

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
    .where(curve.c.slot.between(sa.bindparam("first"), sa.bindparam("last")))
    .order_by(curve.c.slot, curve.c.epoch)
)


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
    """Lowest validation loss up to each epoch, of an ended trial; only where curves are read."""


class Past:
    """The ended and running trials of one study, read once each."""

    def __init__(self, study_id: int, engine: sa.Engine, *, with_curves: bool) -> None:
        """``with_curves``: read the curve of each trial too, once, when it has ended."""
        self._study_id = study_id
        self._engine = engine
        self._with_curves = with_curves
        self.ended: dict[int, PastTrial] = {}
        """By slot, as of the last look."""
        self._first = 0  # every slot below has ended for good and is known

    def refresh(self) -> list[PastTrial]:
        """Return ended and running trials in the order of their slots; reads the database."""
        running = self.look()
        return sorted([*self.ended.values(), *running], key=lambda trial: trial.slot)

    def look(self) -> list[PastTrial]:
        """Take in what has ended since the last look and return what runs: one query of a few rows."""
        with self._engine.connect() as connection:
            rows = connection.execute(_FRESH, {"study_id": self._study_id, "first": self._first}).all()
            closed = {row.slot for row in rows if row.state != "running"}
            trials = [_past_trial(row) for row in rows if row.config is not None and row.state != "failed"]
            new = [trial for trial in trials if trial.slot in closed and trial.slot not in self.ended]
            if self._with_curves and new:
                new = self._with_their_curves(connection, new)
        self.ended.update((trial.slot, trial) for trial in new)
        while self._first in closed:
            self._first += 1
        return [trial for trial in trials if trial.slot not in closed]

    def _with_their_curves(self, connection: sa.Connection, trials: list[PastTrial]) -> list[PastTrial]:
        numbers = [trial.slot for trial in trials]
        ends = {"study_id": self._study_id, "first": min(numbers), "last": max(numbers)}
        curves: dict[int, list[float]] = {number: [] for number in numbers}
        for slot, best in connection.execute(_CURVES, ends):
            if slot in curves:
                curves[slot].append(best)
        return [replace(trial, curve=tuple(curves[trial.slot])) for trial in trials]


def _past_trial(row: sa.Row[*tuple[Any, ...]]) -> PastTrial:
    is_running = row.state == "running"
    return PastTrial(
        row.slot,
        Configuration(**row.config),
        None if is_running else row.end,
        None if is_running else row.value,
        row.epochs or 0,
        None if row.fold == NO_FOLD else row.fold,
    )
