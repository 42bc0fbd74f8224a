"""The ledger on PostgreSQL: the steps of every trial as one statement each, which is its own transaction.

:class:`hpo.ledger.ledger.Ledger` describes each step and works on PostgreSQL too. Statement by statement it
sends five to ten messages for each, and a busy machine takes its time to wake the other side for each; this
subclass sends one. Measured with 32 workers (benchmarks/ledger.py --plain-steps, docs/storage.md): 8.8 and
13.4 zero-cost trials a second with plain steps, 54.7 and 24.9 with these, in turn, on 2 cores under a load
of 30.

**A claim can be forgotten.** Claims of one study come one after the other, and a claim here does not wait
until the disk has it: the lock on the study's row would be held meanwhile, and no study could start more
trials a second than the disk can flush. What follows a claim waits, and the log is flushed in order: once a
trial has begun, its claim cannot be lost. When the server crashes in between, the slot is free as if it had
never been claimed, ``begin`` says that the claim was lost, and another worker may get the *same attempt*:
so every step that writes for a claim asks for attempt and worker (``_HELD`` in :mod:`hpo.ledger.claims`,
``held`` below).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from hpo.ledger import ends
from hpo.ledger.claims import claim_of
from hpo.ledger.ledger import Ledger, trial_attributes
from hpo.ledger.optuna_rows import attribute_rows, finite, intermediate_type, is_kept, param_rows, plain
from hpo.ledger.values import Claim, Outcome, Point
from hpo.storage import writing
from hpo.storage.tables import NO_FOLD, slots
from hpo.study import Configuration, Space


def ledger_on(engine: sa.Engine) -> Ledger:
    """Return the ledger of a database, as a worker uses it: with the steps that cost least there."""
    return PostgresqlLedger(engine) if engine.dialect.name == "postgresql" else Ledger(engine)


class PostgresqlLedger(Ledger):
    """The same steps with the same results, in one message each."""

    def claim(
        self,
        study_id: int,
        worker_id: str,
        *,
        lease_s: float,
        below: int | None = None,
        made_at: float | None = None,
    ) -> Claim | None:
        """Take the lowest free slot of an open study; None when none is free."""
        bound = 2**31 - 1 if below is None else below
        values = {"study": study_id, "worker": worker_id, "lease_s": lease_s, "below": bound}
        with self._at_once() as connection:
            taken = connection.execute(_CLAIM, values | {"made_at": made_at}).one_or_none()
        if taken is None:
            return None
        return claim_of(taken, study_id, worker_id, taken.trial_id, taken.epochs)

    def begin(
        self,
        claim: Claim,
        configuration: Configuration,
        space: Space,
        attributes: Mapping[str, Any],
        *,
        fold: int | None = None,
    ) -> Claim | None:
        """Write what a claimed trial tries; None when the claim was lost."""
        told = trial_attributes(claim, configuration, attributes, fold)
        values = _names(claim) | {
            "config": json.dumps(configuration.to_json()),
            "fold": NO_FOLD if fold is None else fold,
            "params": json.dumps(param_rows(configuration, space)),
            "attributes": json.dumps(attribute_rows(told)),
        }
        with self._at_once() as connection:
            is_held = connection.execute(_BEGIN, values).first() is not None
        return replace(claim, configuration=configuration, fold=fold) if is_held else None

    def report(self, points: Sequence[Point], *, lease_s: float) -> list[bool]:
        """Store one epoch of each claim and renew its lease; return which are still held.

        One statement for each; those of several members are one transaction.
        """
        if len(points) == 1:
            with self._at_once() as connection:
                return [_report(connection, points[0], lease_s)]
        with writing(self._engine) as connection:
            return [_report(connection, point, lease_s) for point in points]

    def _write_result(self, claim: Claim, outcome: Outcome) -> bool:
        with self._at_once() as connection:
            if connection.execute(_FINISH, _result_values(claim, outcome)).first() is not None:
                return True
            return ends.has_ended(connection, claim, outcome.end)

    def _at_once(self) -> sa.Connection:
        """Return a connection on which each statement is a transaction."""
        return self._engine.connect().execution_options(isolation_level="AUTOCOMMIT")


# The statement's snapshot may be older than the lock: PostgreSQL then looks again at the newest version of
# each row that it locks (READ COMMITTED), so a slot that was taken meanwhile is passed over, and one that was
# freed meanwhile may be missed until the next call. Trial ids are drawn under the lock: they grow with the
# commits. (SELECT slot FROM lowest), not a join: without statistics a join walks through all free slots.
_CLAIM = sa.text(
    """
    WITH study AS (
        SELECT state, epochs FROM hpo_study
        WHERE study_id = :study AND (CAST(:made_at AS DOUBLE PRECISION) IS NULL OR created_at = :made_at)
        FOR NO KEY UPDATE
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
            started_at = now.s, lease_until = now.s + :lease_s, lease_s = :lease_s
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
    SELECT taken.slot, attempt, origin, config, fold, trial_id, epochs,
           set_config('synchronous_commit', 'off', true)
    FROM taken, study
    """
).columns(config=slots.c.config.type)


_BEGIN = sa.text(
    """
    WITH held AS (
        UPDATE hpo_slot SET config = :config, fold = :fold
        WHERE study_id = :study AND slot = :slot AND attempt = :attempt AND worker_id = :worker
            AND state = 'running'
        RETURNING trial_id
    ), param AS (
        INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json)
        SELECT held.trial_id, given.* FROM held, json_to_recordset(:params)
            AS given (param_name TEXT, param_value DOUBLE PRECISION, distribution_json TEXT)
        ON CONFLICT (trial_id, param_name) DO UPDATE SET
            param_value = excluded.param_value, distribution_json = excluded.distribution_json
    ), attribute AS (
        INSERT INTO trial_user_attributes (trial_id, key, value_json)
        SELECT trial_id, key, value_json FROM held, json_to_recordset(:attributes)
            AS given (key TEXT, value_json TEXT)
        ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
    )
    SELECT trial_id FROM held
    """
).columns(sa.column("trial_id"))


# The lowest loss of the epochs before is read as of the statement's start: they were committed by then, since
# the epochs of an attempt come one after the other.
_REPORT = sa.text(
    """
    WITH held AS (
        UPDATE hpo_slot
        SET lease_until = CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION) + :lease_s,
            lease_s = :lease_s
        WHERE study_id = :study AND slot = :slot AND attempt = :attempt AND worker_id = :worker
            AND state = 'running'
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


def _report(connection: sa.Connection, point: Point, lease_s: float) -> bool:
    return connection.execute(_REPORT, _values(point) | {"lease_s": lease_s}).first() is not None


def _values(point: Point) -> dict[str, Any]:
    claim = point.claim
    return _names(claim) | {
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


_FINISH = sa.text(
    """
    WITH held AS (
        UPDATE hpo_slot SET
            state = 'done', "end" = :end, value = :value, best_epoch = :best_epoch, epochs = :epochs,
            metrics = :metrics, elapsed_s = :elapsed_s, device = :device, checkpoint = :checkpoint,
            lease_until = NULL, ended_at = now.s
        FROM (SELECT CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION) AS s) AS now
        WHERE study_id = :study AND slot = :slot AND attempt = :attempt AND worker_id = :worker
            AND state = 'running'
        RETURNING trial_id, ended_at
    ), attempt AS (
        UPDATE hpo_attempt SET "end" = :end, message = NULL, ended_at = held.ended_at,
            reached = (SELECT COALESCE(max(epoch), 0) FROM hpo_curve WHERE study_id = :study AND slot = :slot)
        FROM held
        WHERE study_id = :study AND slot = :slot AND attempt = :attempt
    ), later AS (
        DELETE FROM hpo_curve USING held
        WHERE :attempt > 1 AND study_id = :study AND slot = :slot AND epoch > :epochs
    ), later_value AS (
        DELETE FROM trial_intermediate_values AS old USING held
        WHERE :attempt > 1 AND old.trial_id = held.trial_id AND step > :epochs
    ), result AS (
        INSERT INTO trial_values (trial_id, objective, value, value_type)
        SELECT trial_id, 0, :value, 'FINITE' FROM held WHERE :has_value
        ON CONFLICT (trial_id, objective) DO UPDATE SET
            value = excluded.value, value_type = excluded.value_type
    ), attribute AS (
        INSERT INTO trial_user_attributes (trial_id, key, value_json)
        SELECT trial_id, key, value_json FROM held, json_to_recordset(:attributes)
            AS given (key TEXT, value_json TEXT)
        ON CONFLICT (trial_id, key) DO UPDATE SET value_json = excluded.value_json
    ), trial AS (
        UPDATE trials SET state = :state, datetime_complete = to_timestamp(held.ended_at) AT TIME ZONE 'UTC'
        FROM held WHERE trials.trial_id = held.trial_id
    )
    SELECT trial_id FROM held
    """
).columns(sa.column("trial_id"))


def _result_values(claim: Claim, outcome: Outcome) -> dict[str, Any]:
    value = finite(outcome.value)
    return _names(claim) | {
        "end": outcome.end,
        "value": value,
        "has_value": value is not None,
        "best_epoch": outcome.best_epoch,
        "epochs": outcome.epochs,
        "metrics": json.dumps(plain(outcome.metrics)),
        "elapsed_s": outcome.elapsed_s,
        "device": outcome.device,
        "checkpoint": outcome.checkpoint,
        "attributes": json.dumps(attribute_rows(ends.result_attributes(outcome))),
        "state": ends.result_state(outcome).name,
    }


def _names(claim: Claim) -> dict[str, Any]:
    """Return the bound values that name a claim."""
    return {
        "study": claim.study_id,
        "slot": claim.slot,
        "attempt": claim.attempt,
        "worker": claim.worker_id,
    }
