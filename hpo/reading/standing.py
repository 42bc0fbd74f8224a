"""Where a study stands, without its answer: light enough for a glance at a large database."""

from __future__ import annotations

import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from hpo.errors import MismatchError, UnknownStudyError
from hpo.ledger import gist
from hpo.ledger.gist import Gist
from hpo.ledger.values import LEASE_S, Counts, StudyRow, tried
from hpo.reading.activity import activities, failed_slots, throughput
from hpo.reading.foreign import foreign_trials
from hpo.storage import plain_file, redact
from hpo.storage.columns import parsed
from hpo.storage.glance import Database, rows

if TYPE_CHECKING:
    from finetune.api import Task

ATTACHED_S = 300.0
"""A worker that was silent for longer, and runs nothing, is not shown: five leases."""


def overview(database: Database, url: str, study: str | None = None) -> list[dict[str, Any]]:
    """Return one JSON object for each study of the database, or for the one that is named.

    Nothing is shown as running whose worker has been silent for a lease. Raises
    :class:`hpo.errors.UnknownStudyError`.
    """
    found = _studies(database)
    if study is not None and all(row.name != study for row, _ in found):
        raise UnknownStudyError.among(study, [row.name for row, _ in found if not row.confirms])
    return [
        {
            **standing(row, _counts(database, row.study_id), url, noted),
            "foreign_trials": foreign_trials(database, row.study_id),
            "best": best_trial(database, row.study_id),
            **pace(database, row.study_id),
            "failures": [asdict(one) for one in failed_slots(database, row.study_id)],
        }
        for row, noted in found
        if study in {None, row.name}
    ]


# A study that was deleted with a tool of Optuna's is gone, whatever is left of it here.
_COLUMNS = [one.name for one in fields(StudyRow)]
_STUDIES = f"""
SELECT {", ".join(f"s.{name}" for name in _COLUMNS)}, a.value_json
FROM hpo_study s
JOIN studies o ON o.study_id = s.study_id AND o.study_name = s.name
LEFT JOIN study_system_attributes a ON a.study_id = s.study_id AND a."key" = :note
ORDER BY s.priority DESC, s.created_at, s.study_id
"""
_COUNTS = """
SELECT state, "end", COUNT(*),
       SUM(CASE WHEN state = 'done' THEN epochs ELSE (
           SELECT COALESCE(MAX(c.epoch), 0) FROM hpo_curve c WHERE c.study_id = t.study_id AND c.slot = t.slot
       ) END),
       SUM(CASE WHEN state = 'running' AND (
           lease_until < {now} OR lease_until > {now} + COALESCE(lease_s, :lease_s)
       ) THEN 1 ELSE 0 END)
FROM hpo_slot t WHERE study_id = :study GROUP BY state, "end"
"""


def _studies(database: Database) -> list[tuple[StudyRow, Gist | None]]:
    """Return all studies as :meth:`hpo.ledger.ledger.Ledger.studies` does, each with the note on its task."""
    found = []
    for row in rows(database, _STUDIES, note=gist.KEY):
        *columns, note = row
        values = dict(zip(_COLUMNS, columns, strict=True))
        study = StudyRow.read(values | {name: parsed(values[name]) for name in ("spec", "data", "versions")})
        found.append((study, gist.noted(parsed(note), study.spec)))
    return found


def _counts(database: Database, study_id: int) -> Counts:
    return Counts.of(rows(database, _COUNTS, study=study_id, lease_s=LEASE_S))


def pace(database: Database, study_id: int) -> dict[str, float | None]:
    """Return the rates of the last hour of work and the seconds to the end at that rate (None: not known)."""
    found = throughput(database, study_id)
    left_s = found.remaining_s
    return {
        "trials_per_hour": found.trials_per_hour,
        "epochs_per_hour": found.epochs_per_hour,
        "remaining_s": None if math.isnan(left_s) else left_s,
    }


def attached_workers(database: Database, study: str | None = None) -> list[dict[str, Any]]:
    """Return one JSON object for each attached worker and trial that it runs, or for those of ``study``."""
    found = activities(database, within_s=ATTACHED_S)
    at_work = [one for one in found if one.state == "here" or one.study is not None]
    return [asdict(one) for one in at_work if study is None or one.study == study]


def is_there(url: str) -> bool:
    """Return whether there can be a database at ``url``: only a SQLite file can be seen to be missing."""
    file = plain_file(url)
    if file is None:
        from hpo.storage import parse_url, sqlite_file

        file = sqlite_file(parse_url(url))
    return file is None or file.exists()


def standing(row: StudyRow, counts: Counts, url: str, noted: Gist | None = None) -> dict[str, Any]:
    """Return what a study is and how far it is, as JSON values; also of one that is not known here."""
    task = noted if noted is not None and row.is_whole else _gist(row)
    return {
        "study": row.name,
        "task": str(row.spec.get("task", "")),
        "known_here": task is not None,
        "storage": redact(url),
        "kind": row.kind,
        "state": row.state,
        "fingerprint": row.fingerprint,
        "synthetic": task is not None and task.synthetic,
        "subjects_known": task is None or task.subjects_known,
        "partial": row.data.get("partial", ""),
        "yardstick": task.yardstick if task else "",
        "unit": task.unit if task else "",
        "budget": budget(counts),
        "finished": counts.finished,
        "complete": counts.complete,
        "pruned": counts.pruned,
        "failed": counts.failed,
        "running": counts.running - counts.silent,
        "silent": counts.silent,
        "epochs": counts.epochs,
    }


def _gist(row: StudyRow) -> Gist | None:
    task = known_task(row)
    return Gist.of(task) if task else None


def known_task(row: StudyRow) -> Task | None:
    """Return the task of a study; None for one that is not known here (:meth:`StudyRow.known_spec`)."""
    from finetune.api import FinetuneError

    try:
        return row.known_spec().what
    except (MismatchError, FinetuneError):
        return None


def budget(counts: Counts) -> int:
    """Return the number of trials that a study was given so far."""
    return counts.finished + counts.failed + counts.running + counts.free


def best_trial(database: Database, study_id: int) -> dict[str, Any] | None:
    """Return the complete trial with the lowest validation loss as JSON values; None when there is none."""
    best = rows(database, _BEST, study=study_id)
    if not best:
        return None
    number, config, value = best[0]
    known = tried(parsed(config))
    if known is None or not isinstance(value, int | float):
        return None  # written by somebody else
    return {"number": number, **known, "ratio": known["lr"] / known["backbone_lr"], "validation_loss": value}


_BEST = """
SELECT slot, config, value FROM hpo_slot
WHERE study_id = :study AND state = 'done' AND "end" IN ('finished', 'patience') AND value IS NOT NULL
ORDER BY value, slot LIMIT 1
"""
