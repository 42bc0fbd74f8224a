"""Where a study stands, without its answer: light enough for a glance at a large database."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from finetune.api import FinetuneError, Task
from hpo.errors import MismatchError
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import COMPLETE, Counts, StudyRow
from hpo.reading.activity import activities, failed_slots, throughput
from hpo.reading.foreign import foreign_trials
from hpo.storage import parse_url, redact, sqlite_file
from hpo.storage.tables import slots
from hpo.study import Configuration, stored_spec

ATTACHED_S = 300.0
"""A worker that was silent for longer, and runs nothing, is not shown: five leases."""


def overview(engine: sa.Engine, url: str, study: str | None = None) -> list[dict[str, Any]]:
    """Return one JSON object for each study of the database, or for the one that is named.

    Nothing is shown as running whose worker has been silent for a lease. Raises
    :class:`hpo.errors.UnknownStudyError`.
    """
    ledger = Ledger(engine)
    rows = ledger.studies() if study is None else [ledger.study(study)]
    return [
        {
            **standing(row, ledger.counts(row.study_id), url),
            "foreign_trials": foreign_trials(engine, row.study_id),
            "best": best_trial(engine, row.study_id),
            **pace(engine, row.study_id),
            "failures": [asdict(one) for one in failed_slots(engine, row.study_id)],
        }
        for row in rows
    ]


def pace(engine: sa.Engine, study_id: int) -> dict[str, float | None]:
    """Return the rates of the last hour and the seconds to the end at that rate (None: not known)."""
    found = throughput(engine, study_id)
    left_s = found.remaining_s
    return {
        "trials_per_hour": found.trials_per_hour,
        "epochs_per_hour": found.epochs_per_hour,
        "remaining_s": None if math.isnan(left_s) else left_s,
    }


def attached_workers(engine: sa.Engine, study: str | None = None) -> list[dict[str, Any]]:
    """Return one JSON object for each attached worker and trial that it runs, or for those of ``study``."""
    found = activities(engine, within_s=ATTACHED_S)
    at_work = [one for one in found if one.state == "here" or one.study is not None]
    return [asdict(one) for one in at_work if study is None or one.study == study]


def is_there(url: str) -> bool:
    """Return whether there can be a database at ``url``: only a SQLite file can be seen to be missing."""
    file = sqlite_file(parse_url(url))
    return file is None or file.exists()


def standing(row: StudyRow, counts: Counts, url: str) -> dict[str, Any]:
    """Return what a study is and how far it is, as JSON values; also of one that is not known here."""
    task = known_task(row)
    return {
        "study": row.name,
        "task": str(row.spec.get("task", "")),
        "known_here": task is not None,
        "storage": redact(url),
        "kind": row.kind,
        "state": row.state,
        "fingerprint": row.fingerprint,
        "synthetic": task is not None and task.synthetic,
        "subjects_known": task is None or task.knows_subjects,
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


def known_task(row: StudyRow) -> Task | None:
    """Return the task of a study; None when this version does not know its task, encoder, losses or keys."""
    try:
        return stored_spec(row.name, row.spec).what
    except (MismatchError, FinetuneError):
        return None


def budget(counts: Counts) -> int:
    """Return the number of trials that a study was given so far."""
    return counts.finished + counts.failed + counts.running + counts.free


def best_trial(engine: sa.Engine, study_id: int) -> dict[str, Any] | None:
    """Return the complete trial with the lowest validation loss as JSON values; None when there is none."""
    is_complete = (slots.c.study_id == study_id) & (slots.c.state == "done") & slots.c.end.in_(COMPLETE)
    query = sa.select(slots.c.slot, slots.c.config, slots.c.value).where(is_complete)
    with engine.connect() as connection:
        best = connection.execute(query.order_by(slots.c.value, slots.c.slot).limit(1)).one_or_none()
    if best is None:
        return None
    configuration = Configuration.stored(best.config)
    ratio = {"ratio": configuration.ratio}
    return {"number": best.slot, **configuration.to_json(), **ratio, "validation_loss": best.value}
