"""How attempts end, in our tables and in Optuna's: steps of the ledger's transactions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.ledger import optuna_rows
from hpo.ledger.claims import claim_of, slot_state, this_attempt, update_held
from hpo.ledger.optuna_rows import finite, plain
from hpo.ledger.values import COMPLETE, Claim, Outcome
from hpo.storage.tables import attempts, now_s, slots, studies

FAULTS = 3
"""So many attempts may end without a result before a slot is closed as failed."""

_bind = sa.bindparam
_CLOSE = (
    sa.update(attempts)
    .where(
        attempts.c.study_id == _bind("the_study"),
        attempts.c.slot == _bind("the_slot"),
        attempts.c.attempt == _bind("the_attempt"),
    )
    .values(end=_bind("why"), message=_bind("the_message"), ended_at=now_s())
    .returning(attempts.c.ended_at)
)


def close_attempt(connection: sa.Connection, claim: Claim, end: str, message: str = "") -> float:
    """Record why an attempt ended; return when."""
    values = this_attempt(claim) | {"why": end, "the_message": message or None}
    return float(connection.execute(_CLOSE, values).scalar_one())


def has_ended(connection: sa.Connection, claim: Claim, end: str) -> bool:
    """Return whether this attempt has ended so already: a write that was repeated, not one too late."""
    query = sa.select(attempts.c.end).where(
        attempts.c.study_id == claim.study_id,
        attempts.c.slot == claim.slot,
        attempts.c.attempt == claim.attempt,
        attempts.c.worker_id == claim.worker_id,
    )
    return connection.execute(query).scalar_one_or_none() == end


def write_result(connection: sa.Connection, claim: Claim, outcome: Outcome) -> bool:
    """Close the slot with its result; False, and nothing written, when the claim was lost."""
    values = {
        "state": "done",
        "end": outcome.end,
        "value": finite(outcome.value),
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        "metrics": plain(outcome.metrics),
        "elapsed_s": outcome.elapsed_s,
        "device": outcome.device,
        "checkpoint": outcome.checkpoint,
        "lease_until": None,
        "ended_at": now_s(),
    }
    return update_held(connection, claim, values)


def end_trial(connection: sa.Connection, claim: Claim, outcome: Outcome, at: float) -> None:
    """Write a result to Optuna's tables: complete with its value, or pruned."""
    value = finite(outcome.value)
    if value is not None:
        optuna_rows.write_value(connection, claim.trial_id, value)
    optuna_rows.write_attributes(connection, claim.trial_id, result_attributes(outcome))
    optuna_rows.end_trial(connection, claim.trial_id, result_state(outcome), at)


def result_attributes(outcome: Outcome) -> dict[str, Any]:
    """Return what a trial's user attributes say of its result."""
    return {
        "end": outcome.end,
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        "elapsed_s": round(outcome.elapsed_s, 3),
        "device": outcome.device,
        "metrics": outcome.metrics,
    }


def result_state(outcome: Outcome) -> TrialState:
    """Return what a result is for Optuna."""
    return TrialState.COMPLETE if outcome.end in COMPLETE else TrialState.PRUNED


def after_fault(end: str) -> dict[str, Any]:
    """Return what a fault makes of a slot: free again, or failed after the third."""
    is_last = slots.c.faults + 1 >= FAULTS
    return {
        "state": sa.case((is_last, "failed"), else_="free"),
        "end": sa.case((is_last, end), else_=None),
        "ended_at": sa.case((is_last, now_s()), else_=None),
        "faults": slots.c.faults + 1,
        "lease_until": None,
    }


def record_fault(connection: sa.Connection, claim: Claim, end: str, message: str) -> None:
    """Record why an attempt ended without a result, and set its trial waiting or failed."""
    at = close_attempt(connection, claim, end, message)
    if slot_state(connection, claim) == "free":
        optuna_rows.let_wait(connection, claim.trial_id)
        return
    optuna_rows.write_attributes(connection, claim.trial_id, {"end": end, "message": message[-2000:]})
    optuna_rows.end_trial(connection, claim.trial_id, TrialState.FAIL, at)


_IS_EXPIRED = sa.and_(slots.c.state == "running", slots.c.lease_until < now_s())


def has_expired(connection: sa.Connection) -> bool:
    """Return whether a lease has run out."""
    return connection.execute(sa.select(slots.c.slot).where(_IS_EXPIRED).limit(1)).first() is not None


def free_expired(connection: sa.Connection) -> list[Claim]:
    """Free, or close after the third fault, every slot whose lease has run out; return what was held."""
    dead = sa.select(slots.c.study_id, slots.c.slot).where(_IS_EXPIRED)
    statement = (
        sa.update(slots)
        .where(
            sa.tuple_(slots.c.study_id, slots.c.slot).in_(dead.with_for_update(skip_locked=True)),
            slots.c.state == "running",
        )
        .values(after_fault("killed"))
        .returning(slots)
    )
    rows = connection.execute(statement).all()
    epochs = {row.study_id: row.epochs for row in connection.execute(sa.select(studies))} if rows else {}
    return [
        claim_of(row, row.study_id, row.worker_id, row.trial_id, epochs[row.study_id])
        for row in sorted(rows, key=lambda row: (row.study_id, row.slot))
    ]
