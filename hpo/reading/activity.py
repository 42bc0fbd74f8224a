"""Who works on what, how fast it goes, what went wrong: a glance at a service. Free of pandas and Optuna."""

from __future__ import annotations

import math
from dataclasses import dataclass

import sqlalchemy as sa

from hpo.ledger.values import WorkerState
from hpo.storage import reading
from hpo.storage.tables import attempts, curve, now_s, slots, studies, workers


@dataclass(frozen=True)
class Activity:
    """A worker, and one trial that it runs."""

    worker: str
    host: str
    pid: int
    device: str
    state: WorkerState
    silent_s: float
    """Seconds since its last sign of life, by the database's clock."""
    study: str | None
    """With ``number`` and ``epoch`` (the last one reported; 0: none yet) None for an idle worker."""
    number: int | None
    epoch: int | None


def activities(engine: sa.Engine, *, within_s: float | None = None) -> list[Activity]:
    """Return one row for each worker and each trial that it runs, the latest sign of life first.

    With ``within_s``, only workers that run something or gave a sign of life in the last so many seconds.
    """
    epoch = (
        sa.select(sa.func.coalesce(sa.func.max(curve.c.epoch), 0))
        .where(curve.c.study_id == slots.c.study_id, curve.c.slot == slots.c.slot)
        .scalar_subquery()
    )
    runs = (slots.c.worker_id == workers.c.worker_id) & (slots.c.state == "running")
    query = (
        sa.select(
            workers.c.worker_id,
            workers.c.host,
            workers.c.pid,
            workers.c.device,
            workers.c.state,
            now_s() - workers.c.last_seen,
            studies.c.name,
            slots.c.slot,
            sa.case((slots.c.slot.is_not(None), epoch), else_=None),
        )
        .select_from(
            workers.outerjoin(slots, runs).outerjoin(studies, studies.c.study_id == slots.c.study_id)
        )
        .order_by(workers.c.last_seen.desc(), workers.c.worker_id, slots.c.study_id, slots.c.slot)
    )
    if within_s is not None:
        query = query.where(slots.c.slot.is_not(None) | (workers.c.last_seen > now_s() - within_s))
    with reading(engine) as connection:
        return [Activity(*row) for row in connection.execute(query)]


@dataclass(frozen=True)
class Throughput:
    """How fast a study has been going lately."""

    trials_per_hour: float
    epochs_per_hour: float
    remaining_s: float
    """Until every slot is closed, at that rate; NaN when nothing ended lately."""


def throughput(engine: sa.Engine, study_id: int, *, window_s: float = 3600.0) -> Throughput:
    """Return the rate at which results came in during the last ``window_s`` seconds.

    Imported trials are no speed: they took nobody here any time.
    """
    # Asked once, not for each row: on SQLite the clock is a function of ours, which reads the kernel's.
    now = sa.select(now_s()).scalar_subquery()
    since = now - window_s
    is_ours = slots.c.origin != "imported"
    lately = sa.and_(slots.c.state == "done", slots.c.ended_at > since, is_ours)
    query = sa.select(
        sa.func.count().filter(lately),
        sa.func.coalesce(sa.func.sum(slots.c.epochs).filter(lately), 0),
        now - sa.func.min(slots.c.started_at).filter(is_ours),
        sa.func.count().filter(slots.c.state.in_(("free", "running"))),
    ).where(slots.c.study_id == study_id)
    with reading(engine) as connection:
        trials, epochs, age_s, left = connection.execute(query).one()
    span_h = min(window_s, max(age_s or 0.0, 1.0)) / 3600
    remaining_s = 3600 * left * span_h / trials if trials else (math.nan if left else 0.0)
    return Throughput(trials / span_h, int(epochs) / span_h, remaining_s)


@dataclass(frozen=True)
class FailedSlot:
    """A slot that was closed after its third fault, and its last attempt."""

    number: int
    attempts: int
    worker: str
    end: str
    """Why the last attempt ended: error, out_of_memory or killed."""
    message: str
    """What it left behind; of an error the traceback."""


def failed_slots(engine: sa.Engine, study_id: int) -> list[FailedSlot]:
    """Return the slots of a study that were closed as failed, by number."""
    last = sa.and_(
        attempts.c.study_id == slots.c.study_id,
        attempts.c.slot == slots.c.slot,
        attempts.c.attempt == slots.c.attempt,
    )
    query = (
        sa.select(
            slots.c.slot,
            slots.c.attempt,
            attempts.c.worker_id,
            attempts.c.end,
            sa.func.coalesce(attempts.c.message, ""),
        )
        .join(attempts, last)
        .where(slots.c.study_id == study_id, slots.c.state == "failed")
        .order_by(slots.c.slot)
    )
    with reading(engine) as connection:
        return [FailedSlot(*row) for row in connection.execute(query)]
