"""Curves of trials, every epoch in our table, an even few in Optuna's: steps of transactions."""

from __future__ import annotations

from functools import cache
from typing import Any

import sqlalchemy as sa

from hpo.ledger import optuna_rows
from hpo.ledger.optuna_rows import finite, plain, upsert
from hpo.ledger.values import Claim, Point
from hpo.storage.tables import NO_FOLD, curve

_bind = sa.bindparam


@cache
def _curve_upsert(dialect: str) -> sa.Insert:
    """Return the INSERT of one epoch, with the best loss so far taken from the epochs before it."""
    before = curve.alias("before")
    best = (
        sa.select(sa.func.min(before.c.best_so_far))
        .where(
            before.c.study_id == _bind("new_study_id"),
            before.c.slot == _bind("new_slot"),
            before.c.epoch < _bind("new_epoch"),
        )
        .scalar_subquery()
    )
    loss = _bind("new_validation_loss", type_=sa.Double)
    values: dict[str, Any] = {
        column.name: _bind(f"new_{column.name}", type_=column.type) for column in curve.columns
    }
    values["best_so_far"] = sa.case((best < loss, best), else_=sa.func.coalesce(loss, best))
    return upsert(dialect, curve, ("study_id", "slot", "epoch")).values(values)


def write_points(connection: sa.Connection, points: list[Point]) -> None:
    """Store an epoch of each claim's curve, thinned out in Optuna's table; a repeated one overwrites."""
    rows = [
        {
            "new_study_id": point.claim.study_id,
            "new_slot": point.claim.slot,
            "new_epoch": point.epoch,
            "new_fold": NO_FOLD if point.claim.fold is None else point.claim.fold,
            "new_train_loss": finite(point.train_loss),
            "new_validation_loss": finite(point.validation_loss),
            "new_metrics": plain(point.metrics),
            "new_elapsed_s": point.elapsed_s,
        }
        for point in points
    ]
    connection.execute(_curve_upsert(connection.dialect.name), rows)
    kept = [
        (point.claim.trial_id, point.epoch, point.validation_loss)
        for point in points
        if optuna_rows.is_kept(point.epoch, point.claim.epochs)
    ]
    optuna_rows.write_intermediate(connection, kept)


def drop_later_epochs(connection: sa.Connection, claim: Claim, epochs: int) -> None:
    """Delete what an earlier attempt reported beyond the end of this one."""
    mine = (curve.c.study_id == claim.study_id) & (curve.c.slot == claim.slot)
    connection.execute(sa.delete(curve).where(mine, curve.c.epoch > epochs))
    optuna_rows.drop_intermediate_after(connection, claim.trial_id, epochs)
