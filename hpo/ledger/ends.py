"""How attempts end, in our tables and in Optuna's: steps of the ledger's transactions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.ledger import optuna_rows
from hpo.ledger.claims import claim_of, epochs_reached, slot_state, this_attempt, update_held
from hpo.ledger.optuna_rows import finite, plain
from hpo.ledger.values import COMPLETE, Claim, Lease, Outcome
from hpo.storage.tables import attempts, now_s, slots, studies

FAULTS = 3
"""So many attempts may end in a fault before a slot is closed as failed. A worker that was killed is a fault
of the trial only where the trial has got to no new epoch since: one that goes on is healthy."""
_ERRORS = ("error", "out_of_memory")
"""Faults whatever went before: the run itself broke."""
EXPIRED = "expired"
"""End of an attempt whose lease ran out: its worker may have died, or slept, or lost the network."""
LOST_LEASES = 30
"""So many leases of a slot may run out, without a new epoch since, before it is closed as failed: a lost
lease is no fault, but a trial that takes every worker with it must come to an end."""

_bind = sa.bindparam
_CLOSE = (
    sa.update(attempts)
    .where(
        attempts.c.study_id == _bind("the_study"),
        attempts.c.slot == _bind("the_slot"),
        attempts.c.attempt == _bind("the_attempt"),
    )
    .values(
        end=_bind("why"), message=_bind("the_message"), ended_at=now_s(), reached=epochs_reached(attempts)
    )
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
    is_this = attempts.c.attempt == slots.c.attempt
    counts = attempts.c.end.in_(_ERRORS) | (_is_stuck() & ((attempts.c.end == "killed") | is_this))
    faults = _attempts_of_slot(counts | is_this if end in _ERRORS else counts)
    return _free_or_failed(faults >= FAULTS, end) | {"faults": faults}


def _after_expiry() -> dict[str, Any]:
    """Return what a lost lease makes of a slot: free again, or failed after very many without an epoch."""
    lost = (attempts.c.end == EXPIRED) | (attempts.c.attempt == slots.c.attempt)
    return _free_or_failed(_attempts_of_slot(_is_stuck() & lost) >= LOST_LEASES, EXPIRED)


def _is_stuck() -> sa.ColumnElement[bool]:
    """Claim that an attempt came after the one in which its slot's trial got to its last epoch so far."""
    before, reached = attempts.alias("before"), epochs_reached(slots)
    arrived = sa.select(sa.func.min(before.c.attempt)).where(
        before.c.study_id == slots.c.study_id, before.c.slot == slots.c.slot, before.c.reached >= reached
    )
    in_this_one = slots.c.attempt  # no attempt that has ended got so far
    last = sa.func.coalesce(arrived.scalar_subquery(), in_this_one)
    return attempts.c.attempt > sa.case((reached == 0, 0), else_=last)


def _attempts_of_slot(chosen: sa.ColumnElement[bool]) -> sa.ScalarSelect[int]:
    """Return how many attempts at a slot are the chosen ones."""
    mine = (attempts.c.study_id == slots.c.study_id) & (attempts.c.slot == slots.c.slot)
    return sa.select(sa.func.count()).select_from(attempts).where(mine, chosen).scalar_subquery()


def _free_or_failed(is_last: sa.ColumnElement[bool], end: str) -> dict[str, Any]:
    return {
        "state": sa.case((is_last, "failed"), else_="free"),
        "end": sa.case((is_last, end), else_=None),
        "ended_at": sa.case((is_last, now_s()), else_=None),
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


def free_dead_workers(connection: sa.Connection, worker_id: str) -> list[Claim]:
    """Free, or close after the third fault, all that a worker held that was seen dead; return it."""
    held = (slots.c.worker_id == worker_id) & (slots.c.state == "running")
    statement = sa.update(slots).where(held).values(after_fault("killed")).returning(slots)
    dead = _claims_of(connection, statement)
    for claim in dead:
        record_fault(connection, claim, "killed", "its worker died")
    return dead


def free_expired(connection: sa.Connection, dead: Sequence[Lease]) -> list[Claim]:
    """Free what these leases held, unless one was renewed meanwhile; return it."""
    freed: list[Claim] = []
    for lease in dead:
        this = (slots.c.study_id == lease.study_id) & (slots.c.slot == lease.slot)
        is_same = (slots.c.attempt == lease.attempt) & (slots.c.lease_until == lease.until)
        statement = sa.update(slots).where(this, is_same, slots.c.state == "running")
        freed += _claims_of(connection, statement.values(_after_expiry()).returning(slots))
    for claim in freed:
        record_fault(connection, claim, EXPIRED, "its worker gave no sign of life")
    return freed


def _claims_of(connection: sa.Connection, statement: sa.Executable) -> list[Claim]:
    rows = connection.execute(statement).all()
    epochs = {row.study_id: row.epochs for row in connection.execute(sa.select(studies))} if rows else {}
    return [
        claim_of(row, row.study_id, row.worker_id, row.trial_id, epochs[row.study_id])
        for row in sorted(rows, key=lambda row: (row.study_id, row.slot))
    ]
