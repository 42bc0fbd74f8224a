"""Who works on what, how fast it goes, what went wrong: a glance at a service, in plain SQL."""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpo.ledger.values import WorkerState
from hpo.storage.glance import Database, rows

_ACTIVITIES = """
SELECT w.worker_id, w.host, w.pid, w.device, w.state, {{now}} - w.last_seen, s.name, t.slot,
       CASE WHEN t.slot IS NOT NULL THEN (
           SELECT COALESCE(MAX(c.epoch), 0) FROM hpo_curve c WHERE c.study_id = t.study_id AND c.slot = t.slot
       ) END
FROM hpo_worker w
LEFT JOIN hpo_slot t ON t.worker_id = w.worker_id AND t.state = 'running'
LEFT JOIN hpo_study s ON s.study_id = t.study_id
{only}
ORDER BY w.last_seen DESC, w.worker_id, t.study_id, t.slot
"""
_LATELY = "WHERE t.slot IS NOT NULL OR w.last_seen > {{now}} - :within_s"
# The clock is asked once, not for each row: on SQLite it is a function of ours, which reads the kernel's.
_THROUGHPUT = """
WITH clock AS (SELECT {now} AS now),
mine AS (
    SELECT state, ended_at, epochs, origin <> 'imported' AS is_ours,
           CASE WHEN origin <> 'imported' THEN started_at END AS started_at
    FROM hpo_slot WHERE study_id = :study
),
lately AS (
    SELECT CASE WHEN COUNT(*) FILTER (WHERE state = 'running') > 0 THEN MAX(now)
                ELSE COALESCE(MAX(ended_at) FILTER (WHERE is_ours), MAX(now)) END AS until
    FROM mine, clock
)
SELECT COUNT(*) FILTER (WHERE state = 'done' AND is_ours AND ended_at > until - :window_s),
       COALESCE(SUM(epochs) FILTER (WHERE state = 'done' AND is_ours AND ended_at > until - :window_s), 0),
       MAX(until) - MIN(started_at),
       COUNT(*) FILTER (WHERE state IN ('free', 'running'))
FROM mine, lately
"""
_FAILED = """
SELECT t.slot, t.attempt, a.worker_id, a."end", COALESCE(a.message, '')
FROM hpo_slot t
JOIN hpo_attempt a ON a.study_id = t.study_id AND a.slot = t.slot AND a.attempt = t.attempt
WHERE t.study_id = :study AND t.state = 'failed' ORDER BY t.slot
"""


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


def activities(database: Database, *, within_s: float | None = None) -> list[Activity]:
    """Return one row for each worker and each trial that it runs, the latest sign of life first.

    With ``within_s``, only workers that run something or gave a sign of life in the last so many seconds.
    """
    if within_s is None:
        found = rows(database, _ACTIVITIES.format(only=""))
    else:
        found = rows(database, _ACTIVITIES.format(only=_LATELY.format()), within_s=within_s)
    return [Activity(*row) for row in found]


@dataclass(frozen=True)
class Throughput:
    """How fast a study has been going lately."""

    trials_per_hour: float
    epochs_per_hour: float
    remaining_s: float
    """Until every slot is closed, at that rate; NaN when nothing ended lately."""


def throughput(database: Database, study_id: int, *, window_s: float = 3600.0) -> Throughput:
    """Return the rate at which results came in during the last ``window_s`` seconds.

    Of a study on which nobody works, those before its last result: to lie still makes nothing slower.
    Imported trials are no speed: they took nobody here any time.
    """
    trials, epochs, age_s, left = rows(database, _THROUGHPUT, study=study_id, window_s=window_s)[0]
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


def failed_slots(database: Database, study_id: int) -> list[FailedSlot]:
    """Return the slots of a study that were closed as failed, by number."""
    return [FailedSlot(*row) for row in rows(database, _FAILED, study=study_id)]
