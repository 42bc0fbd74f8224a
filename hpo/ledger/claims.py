"""Slots and who holds them, one statement at a time: steps of the ledger's transactions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from hpo.ledger import optuna_rows
from hpo.ledger.values import LEASE_S, Claim, Counts, Lease, WorkerState
from hpo.storage.tables import NO_FOLD, attempts, curve, now_s, slots, studies, workers
from hpo.study import Configuration

Named = tuple[str, Configuration]
"""Origin and configuration of a slot whose configuration is fixed."""

_bind = sa.bindparam
_length_s = sa.func.coalesce(slots.c.lease_s, LEASE_S)
SEEMS_EXPIRED = sa.and_(
    slots.c.state == "running",
    # Nobody is promised more than a lease from now: a longer one is of a clock that was set since.
    (slots.c.lease_until < now_s()) | (slots.c.lease_until > now_s() + _length_s),
)
_HELD = sa.and_(
    slots.c.study_id == _bind("the_study"),
    slots.c.slot == _bind("the_slot"),
    slots.c.attempt == _bind("the_attempt"),
    slots.c.worker_id == _bind("the_holder"),
    slots.c.state == "running",
)
"""The slot while it is claimed so. The worker is asked for too: a server's crash can forget a claim that has
not begun (:mod:`hpo.ledger.on_postgresql`), and another worker then gets the same attempt."""


def lock_study(connection: sa.Connection, study_id: int) -> sa.Row[str, int, float] | None:
    """Return a few columns of a study whose row no other transaction may lock until this one ends."""
    query = sa.select(studies.c.state, studies.c.epochs, studies.c.created_at).where(
        studies.c.study_id == study_id
    )
    return connection.execute(query.with_for_update(key_share=True)).one_or_none()


def next_slot(connection: sa.Connection, study_id: int) -> int:
    """Return the number behind the study's last slot."""
    query = sa.select(sa.func.coalesce(sa.func.max(slots.c.slot) + 1, 0)).where(slots.c.study_id == study_id)
    return int(connection.execute(query).scalar_one())


def fixed_slots(connection: sa.Connection, study_id: int) -> dict[Named, int]:
    """Return the slots that were made with a configuration."""
    query = sa.select(slots.c.origin, slots.c.config, slots.c.slot).where(
        slots.c.study_id == study_id, slots.c.origin != "search"
    )
    return {
        (origin, Configuration.stored(config)): slot for origin, config, slot in connection.execute(query)
    }


_FREE = {"state": "free", "fold": NO_FOLD, "attempt": 0, "faults": 0}


def insert_slots(connection: sa.Connection, study_id: int, new: Mapping[int, Named]) -> None:
    """Insert free slots that have a configuration each."""
    rows = [
        {"study_id": study_id, "slot": slot, "origin": origin, "config": vars(configuration), **_FREE}
        for slot, (origin, configuration) in new.items()
    ]
    if rows:
        connection.execute(sa.insert(slots), rows)


def insert_searched(connection: sa.Connection, study_id: int, new: range) -> None:
    """Insert free slots whose configurations are to be searched, by one statement however many they are."""
    if not new:
        return
    number = sa.select(sa.literal(new.start).label("slot")).cte("number", recursive=True)
    last = sa.literal(new.stop - 1)
    number = number.union_all(sa.select(number.c.slot + 1).where(number.c.slot < last))
    row = {"study_id": study_id, "origin": "search", **_FREE}
    values = [sa.literal(value) for value in row.values()]
    query = sa.select(number.c.slot, *values)
    connection.execute(sa.insert(slots).from_select(["slot", *row], query))


_LOWEST_FREE = (
    sa.select(slots.c.slot)
    .where(
        slots.c.study_id == _bind("the_study"), slots.c.state == "free", slots.c.slot < _bind("below_slot")
    )
    .order_by(slots.c.slot)
    .limit(1)
    .with_for_update(skip_locked=True)
    .scalar_subquery()
)
_TAKE = (
    sa.update(slots)
    .where(slots.c.study_id == _bind("the_study"), slots.c.slot == _LOWEST_FREE, slots.c.state == "free")
    .values(
        state="running",
        attempt=slots.c.attempt + 1,
        worker_id=_bind("the_worker"),
        lease_until=now_s() + _bind("length_s", type_=sa.Double),
        lease_s=_bind("length_s", type_=sa.Double),
        started_at=now_s(),
    )
    .returning(
        slots.c.slot,
        slots.c.attempt,
        slots.c.origin,
        slots.c.config,
        slots.c.fold,
        slots.c.trial_id,
        slots.c.started_at,
    )
)


def take_slot(
    connection: sa.Connection, study_id: int, worker_id: str, lease_s: float, below: int | None
) -> sa.Row[Any] | None:
    """Make the lowest free slot the worker's, in one conditional statement; None when none is free."""
    bound = 2**31 - 1 if below is None else below
    values = {"the_study": study_id, "below_slot": bound, "the_worker": worker_id, "length_s": lease_s}
    return connection.execute(_TAKE, values).one_or_none()


def open_attempt(connection: sa.Connection, study_id: int, worker_id: str, taken: sa.Row[Any]) -> None:
    """Insert the attempt that a slot was just taken for."""
    row = {
        "study_id": study_id,
        "slot": taken.slot,
        "attempt": taken.attempt,
        "worker_id": worker_id,
        "started_at": taken.started_at,
    }
    connection.execute(sa.insert(attempts), row)


def run_trial(connection: sa.Connection, study_id: int, taken: sa.Row[Any]) -> int:
    """Return the id of the taken slot's trial in Optuna's tables, running (again)."""
    if taken.trial_id is not None:
        optuna_rows.restart_trial(connection, taken.trial_id, taken.started_at)
        return int(taken.trial_id)
    trial_id = optuna_rows.create_trial(connection, study_id, taken.slot, taken.started_at)
    this = (slots.c.study_id == study_id) & (slots.c.slot == taken.slot)
    connection.execute(sa.update(slots).where(this).values(trial_id=trial_id))
    return trial_id


def claim_of(row: sa.Row[Any], study_id: int, worker_id: str, trial_id: int, epochs: int) -> Claim:
    """Return the claim on a slot's row."""
    return Claim(
        study_id,
        row.slot,
        row.attempt,
        worker_id,
        row.origin,
        trial_id,
        epochs,
        None if row.config is None else Configuration.stored(row.config),
        None if row.fold == NO_FOLD else row.fold,
    )


def update_held(connection: sa.Connection, claim: Claim, values: Mapping[str, Any]) -> bool:
    """Write ``values`` to the claimed slot; False, and nothing written, when the claim was lost."""
    statement = sa.update(slots).where(_HELD).values(values)
    return connection.execute(statement, _held(claim)).rowcount == 1


_RENEW = (
    sa.update(slots)
    .where(_HELD)
    .values(
        lease_until=now_s() + _bind("length_s", type_=sa.Double),
        lease_s=_bind("length_s", type_=sa.Double),
    )
)


def renew_lease(connection: sa.Connection, claim: Claim, lease_s: float) -> bool:
    """Renew one lease; False when the claim was lost."""
    return connection.execute(_RENEW, _held(claim) | {"length_s": lease_s}).rowcount == 1


_NOTE = (
    sa.update(workers)
    .where(workers.c.worker_id == _bind("the_worker"))
    .values(last_seen=now_s(), state=_bind("now_is"))
)


def note_worker(connection: sa.Connection, worker_id: str, state: WorkerState) -> None:
    """Note that a worker gave a sign of life, or how it ended."""
    connection.execute(_NOTE, {"the_worker": worker_id, "now_is": state})


def slot_state(connection: sa.Connection, claim: Claim) -> str:
    """Return the state of the claimed slot."""
    this = (slots.c.study_id == claim.study_id) & (slots.c.slot == claim.slot)
    return str(connection.execute(sa.select(slots.c.state).where(this)).scalar_one())


def _held(claim: Claim) -> dict[str, Any]:
    return this_attempt(claim) | {"the_holder": claim.worker_id}


def this_attempt(claim: Claim) -> dict[str, Any]:
    """Return the bound values that name an attempt."""
    return {"the_study": claim.study_id, "the_slot": claim.slot, "the_attempt": claim.attempt}


def epochs_reached(owner: sa.Table) -> sa.ScalarSelect[int]:
    """Return the last epoch of the curve of a slot, or of the slot that an attempt is at; 0 without one."""
    this = (curve.c.study_id == owner.c.study_id) & (curve.c.slot == owner.c.slot)
    return sa.select(sa.func.coalesce(sa.func.max(curve.c.epoch), 0)).where(this).scalar_subquery()


def count_slots(connection: sa.Connection, chosen: sa.ColumnElement[bool]) -> Counts:
    """Return the counts of the chosen slots, from one query."""
    epochs = sa.func.sum(sa.case((slots.c.state == "done", slots.c.epochs), else_=epochs_reached(slots)))
    silent = sa.func.sum(sa.case((SEEMS_EXPIRED, 1), else_=0))
    query = sa.select(slots.c.state, slots.c.end, sa.func.count(), epochs, silent).where(chosen)
    return Counts.of(connection.execute(query.group_by(slots.c.state, slots.c.end)).all())


def seems_expired(connection: sa.Connection) -> bool:
    """Return whether a lease of any study seems to have run out."""
    return connection.execute(sa.select(slots.c.slot).where(SEEMS_EXPIRED).limit(1)).first() is not None


def expired_leases(connection: sa.Connection) -> list[Lease]:
    """Return the leases that seem to have run out, of all studies."""
    columns = (slots.c.study_id, slots.c.slot, slots.c.attempt, slots.c.lease_until, _length_s)
    return [Lease(*row) for row in connection.execute(sa.select(*columns).where(SEEMS_EXPIRED))]
