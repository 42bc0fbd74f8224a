"""A claim on PostgreSQL, in one statement that is its own transaction.

Claims of one study come one after the other. Statement by statement, the lock on its row would be held over
seven messages between client and server, each as long as a busy machine takes to wake the other side; here it
is held for the statement and its commit alone.
"""

from __future__ import annotations

import sqlalchemy as sa

from hpo.ledger.claims import claim_of
from hpo.ledger.values import Claim
from hpo.storage.tables import slots

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
