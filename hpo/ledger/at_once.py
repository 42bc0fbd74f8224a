"""What PostgreSQL does in one statement that is its own transaction: a claim, and an epoch's report.

Claims of one study come one after the other. Statement by statement, the lock on its row would be held over
seven messages between client and server, each as long as a busy machine takes to wake the other side; here it
is held for the statement alone. A report is the most frequent thing that a worker does: one message instead
of five takes a third off its CPU time.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa

from hpo.ledger.claims import claim_of
from hpo.ledger.optuna_rows import finite, intermediate_type, is_kept, plain
from hpo.ledger.values import Claim, Point
from hpo.storage import writing
from hpo.storage.tables import NO_FOLD, slots

# The statement's snapshot may be older than the lock: PostgreSQL then looks again at the newest version of
# each row that it locks (READ COMMITTED), so a slot that was taken meanwhile is passed over, and one that was
# freed meanwhile may be missed until the next call. Trial ids are drawn under the lock: they grow with the
# commits. (SELECT slot FROM lowest), not a join: without statistics a join walks through all free slots.
_CLAIM = sa.text(
    """
    WITH study AS (
        SELECT state, epochs FROM hpo_study WHERE study_id = :study FOR NO KEY UPDATE
    ), lowest AS MATERIALIZED (
        SELECT free.slot FROM study, LATERAL (
            SELECT slot FROM hpo_slot
            WHERE study_id = :study AND state = 'free' AND slot < :below AND study.state = 'open'
            ORDER BY slot LIMIT 1 FOR UPDATE SKIP LOCKED
        ) AS free
    ), taken AS (
        UPDATE hpo_slot SET
            state = 'running', attempt = attempt + 1, worker_id = :worker,
            trial_id = COALESCE(trial_id, nextval(pg_get_serial_sequence('trials', 'trial_id'))),
            started_at = now.s, lease_until = now.s + :lease_s
        FROM (SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION) AS s) AS now
        WHERE study_id = :study AND hpo_slot.slot = (SELECT slot FROM lowest) AND state = 'free'
        RETURNING hpo_slot.slot, attempt, origin, config, fold, trial_id, started_at
    ), attempt AS (
        INSERT INTO hpo_attempt (study_id, slot, attempt, worker_id, started_at)
        SELECT :study, slot, attempt, :worker, started_at FROM taken
    ), trial AS (
        INSERT INTO trials (trial_id, study_id, number, state, datetime_start)
        SELECT trial_id, :study, slot, 'RUNNING', to_timestamp(started_at) AT TIME ZONE 'UTC' FROM taken
        ON CONFLICT (trial_id) DO UPDATE SET state = 'RUNNING', datetime_start = excluded.datetime_start
    )
    SELECT taken.slot, attempt, origin, config, fold, trial_id, epochs FROM taken, study
    """
).columns(config=slots.c.config.type)


def claim_at_once(
    engine: sa.Engine, study_id: int, worker_id: str, lease_s: float, below: int | None
) -> Claim | None:
    """Take the lowest free slot of an open study; None when none is free. PostgreSQL only."""
    bound = 2**31 - 1 if below is None else below
    values = {"study": study_id, "worker": worker_id, "lease_s": lease_s, "below": bound}
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        taken = connection.execute(_CLAIM, values).one_or_none()
    if taken is None:
        return None
    return claim_of(taken, study_id, worker_id, taken.trial_id, taken.epochs)


# The lowest loss of the epochs before is read as of the statement's start: they were committed by then, since
# the epochs of an attempt come one after the other.
_REPORT = sa.text(
    """
    WITH held AS (
        UPDATE hpo_slot
        SET lease_until = CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION) + :lease_s
        WHERE study_id = :study AND slot = :slot AND attempt = :attempt AND state = 'running'
        RETURNING slot
    ), before AS (
        SELECT min(best_so_far) AS best FROM hpo_curve
        WHERE study_id = :study AND slot = :slot AND epoch < :epoch
    ), point AS (
        INSERT INTO hpo_curve (
            study_id, slot, epoch, fold, train_loss, validation_loss, best_so_far, metrics, elapsed_s
        )
        SELECT :study, slot, :epoch, :fold, :train_loss, :loss, LEAST(best, :loss), :metrics, :elapsed_s
        FROM held, before
        ON CONFLICT (study_id, slot, epoch) DO UPDATE SET
            fold = excluded.fold, train_loss = excluded.train_loss,
            validation_loss = excluded.validation_loss, best_so_far = excluded.best_so_far,
            metrics = excluded.metrics, elapsed_s = excluded.elapsed_s
    ), thinned AS (
        INSERT INTO trial_intermediate_values (
            trial_id, step, intermediate_value, intermediate_value_type
        )
        SELECT :trial, :epoch, :loss, :loss_type FROM held WHERE :is_kept
        ON CONFLICT (trial_id, step) DO UPDATE SET
            intermediate_value = excluded.intermediate_value,
            intermediate_value_type = excluded.intermediate_value_type
    )
    SELECT slot FROM held
    """
).columns(sa.column("slot"))


def report_at_once(engine: sa.Engine, points: Sequence[Point], lease_s: float) -> list[bool]:
    """Store one epoch of each claim and renew its lease; return which are still held. PostgreSQL only.

    One statement for each; those of several members are one transaction.
    """
    if len(points) == 1:
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            return [_report(connection, points[0], lease_s)]
    with writing(engine) as connection:
        return [_report(connection, point, lease_s) for point in points]


def _report(connection: sa.Connection, point: Point, lease_s: float) -> bool:
    return connection.execute(_REPORT, _values(point) | {"lease_s": lease_s}).first() is not None


def _values(point: Point) -> dict[str, Any]:
    claim = point.claim
    return {
        "study": claim.study_id,
        "slot": claim.slot,
        "attempt": claim.attempt,
        "epoch": point.epoch,
        "fold": NO_FOLD if claim.fold is None else claim.fold,
        "train_loss": finite(point.train_loss),
        "loss": finite(point.validation_loss),
        "loss_type": intermediate_type(point.validation_loss).name,
        "metrics": json.dumps(plain(point.metrics)),
        "elapsed_s": point.elapsed_s,
        "trial": claim.trial_id,
        "is_kept": is_kept(point.epoch, claim.epochs),
    }
