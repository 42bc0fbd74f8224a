"""Whole studies with all that belongs to them: deleted, given another name, copied into another database.

A study is its rows in Optuna's tables and in ours, and the studies that its confirmations ran. Nothing is
done to one that a living worker runs, except that it may be copied: a trial that runs waits in the copy.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.errors import MismatchError, Said, StorageError, UnknownStudyError, UsageError
from hpo.ledger import claims, optuna_rows
from hpo.ledger.studies import StudyLedger
from hpo.ledger.values import CONFIRMS, StudyRow
from hpo.storage import writing
from hpo.storage.tables import (
    attempts,
    choices,
    curve,
    now_s,
    openings,
    scores,
    slots,
    studies,
    test_looks,
    workers,
)

_theirs, _trials = optuna_rows.studies, optuna_rows.trials
_OURS = (slots, attempts, curve, test_looks, choices, scores)
"""Parents first; each has the study's id."""
_AT_ONCE = 5000
"""Rows in memory at a time."""


@dataclass(frozen=True)
class Contents:
    """What belongs to a study."""

    rows: tuple[StudyRow, ...]
    """Its own first, then those of its confirmations."""
    trials: int
    """Finished ones."""
    looks: int
    """At the test split."""

    @property
    def names(self) -> list[str]:
        """Of the rows."""
        return [row.name for row in self.rows]


def contents(engine: sa.Engine, name: str) -> Contents:
    """Return what belongs to a study; raises :class:`UnknownStudyError`."""
    with engine.connect() as connection:
        rows = _family(engine, name)
        ids = [row.study_id for row in rows]
        counts = claims.count_slots(connection, slots.c.study_id.in_(ids))
        query = sa.select(sa.func.count()).select_from(test_looks).where(test_looks.c.study_id.in_(ids))
        looks = connection.execute(query).scalar_one()
    return Contents(tuple(rows), counts.finished, looks)


def delete_study(engine: sa.Engine, name: str) -> None:
    """Delete a study with all that belongs to it; raises :class:`UsageError` while a worker runs it."""
    rows = _family(engine, name)
    with writing(engine) as connection:
        for row in rows:
            _refuse_at_work(connection, row)
            optuna_rows.delete_study(connection, row.study_id)


def rename_study(engine: sa.Engine, name: str, new: str) -> None:
    """Give a study another name; its confirmations keep theirs, and are found by what they confirmed.

    Raises :class:`MismatchError` when the name is taken, :class:`UsageError` while a worker runs it.
    """
    row = StudyLedger(engine).study(name)
    with writing(engine) as connection:
        _refuse_at_work(connection, row)
        _refuse_taken(connection, new)
        theirs = sa.update(_theirs).where(_theirs.c.study_id == row.study_id)
        connection.execute(theirs.values(study_name=new))
        ours = sa.update(studies).where(studies.c.study_id == row.study_id)
        connection.execute(ours.values(name=new, spec={**row.spec, "name": new}))


def copy_study(source: sa.Engine, target: sa.Engine, name: str, new: str | None = None) -> Contents:
    """Copy a study with all that belongs to it, as it is at one moment, in one transaction there.

    Numbers, attempts, curves, times and looks are the same rows; what runs waits in the copy, interrupted.
    Raises :class:`MismatchError` when the target has a study of one of the names.
    """
    rows = _family(source, name)
    found = contents(source, name)
    with source.connect() as reader, writing(target) as writer:
        if source.dialect.name == "postgresql":
            reader.execution_options(isolation_level="REPEATABLE READ")
        for row in rows:
            there = new if new is not None and row.name == name else row.name
            _refuse_taken(writer, there)
            _copy_rows(reader, writer, row, there)
    return found


def _family(engine: sa.Engine, name: str) -> list[StudyRow]:
    """Return a study's row and those of its confirmations (:meth:`FrozenChoice.study_name` names them)."""
    ledger = StudyLedger(engine)
    rows = {row.name: row for row in ledger.studies()}
    if name not in rows:
        ledger.study(name)
        raise UnknownStudyError(Said("the database has no study {name!r}", name=name))
    ours = f"{name[:60]}{CONFIRMS}"
    return [rows[name]] + [
        row for row in rows.values() if row.kind == "confirm" and row.name.startswith(ours)
    ]


def _refuse_at_work(connection: sa.Connection, row: StudyRow) -> None:
    counts = claims.count_slots(connection, slots.c.study_id == row.study_id)
    at_work = counts.running - counts.silent
    if at_work:
        raise UsageError(
            Said("workers run {at_work} trials of {name!r}", at_work=at_work, name=row.name)
            if at_work > 1
            else Said("workers run 1 trial of {name!r}", name=row.name),
            "a study that nobody runs",
            Said("type: hpo stop --study {name}   (and again in a moment)", name=row.name),
        )


def _refuse_taken(connection: sa.Connection, name: str) -> None:
    if connection.execute(sa.select(_theirs.c.study_id).where(_theirs.c.study_name == name)).first():
        raise MismatchError(
            Said("there is a study {name!r} already", name=name), "a free name", "take another name"
        )


def _copy_rows(reader: sa.Connection, writer: sa.Connection, row: StudyRow, name: str) -> None:
    """Copy one study's rows; raises :class:`StorageError` if not all of them arrived."""
    query = sa.insert(_theirs).values(study_name=name).returning(_theirs.c.study_id)
    study_id = int(writer.execute(query).scalar_one())
    ids = _copy_trials(reader, writer, row.study_id, study_id)
    made = {"study_id": study_id, "name": name, "created_at": _a_moment_later(row.created_at)}
    _copy(reader, writer, studies, row.study_id, made)
    spec = sa.update(studies).where(studies.c.study_id == study_id)
    writer.execute(spec.values(spec={**row.spec, "name": name}))
    for table in (*optuna_rows.OF_STUDY, *_OURS):
        _copy(reader, writer, table, row.study_id, {"study_id": study_id}, ids)
    _copy_workers(reader, writer, row.study_id)
    _copy_openings(reader, writer, row)
    _interrupt(writer, study_id)
    for table in (*_OURS, _trials):
        here, there = _count(reader, table, row.study_id), _count(writer, table, study_id)
        if here != there:
            raise StorageError(
                Said("{there} of {here} rows of {name} arrived", there=there, here=here, name=table.name),
                "all",
                "type it again",
            )


def _a_moment_later(created_at: float) -> float:
    """Return a time of its own for a copy: its checkpoints are told from the first's by it."""
    return created_at + 1e-6 * random.randrange(1, 1_000)


def _copy_trials(reader: sa.Connection, writer: sa.Connection, study_id: int, new_id: int) -> dict[int, int]:
    """Copy Optuna's trials in the order of their ids, and what hangs on them; return old id -> new id."""
    query = sa.select(_trials).where(_trials.c.study_id == study_id).order_by(_trials.c.trial_id)
    insert = sa.insert(_trials).returning(_trials.c.trial_id, sort_by_parameter_order=True)
    ids: dict[int, int] = {}
    for rows in _pages(reader, query):
        fresh = [_without(row, "trial_id") | {"study_id": new_id} for row in rows]
        new = writer.execute(insert, fresh).scalars().all()
        ids |= {int(row["trial_id"]): int(one) for row, one in zip(rows, new, strict=True)}
    for table in optuna_rows.OF_TRIALS:
        joined = sa.select(table).join(_trials, _trials.c.trial_id == table.c.trial_id)
        for rows in _pages(reader, joined.where(_trials.c.study_id == study_id)):
            fresh = [_without(row, *_own_key(table)) | {"trial_id": ids[row["trial_id"]]} for row in rows]
            writer.execute(sa.insert(table), fresh)
    return ids


def _copy(
    reader: sa.Connection,
    writer: sa.Connection,
    table: sa.Table,
    study_id: int,
    changed: Mapping[str, Any],
    ids: Mapping[int, int] | None = None,
) -> None:
    """Copy the rows of a table that are of a study, with ``changed`` values and the trials' new ``ids``."""
    for rows in _pages(reader, sa.select(table).where(table.c.study_id == study_id)):
        fresh = [{**_without(row, *_own_key(table)), **changed} for row in rows]
        if "trial_id" in table.c and ids is not None:
            fresh = [row | {"trial_id": ids.get(row["trial_id"])} for row in fresh]
        writer.execute(sa.insert(table), fresh)


def _copy_workers(reader: sa.Connection, writer: sa.Connection, study_id: int) -> None:
    """Copy the workers that ran the study, as gone, where they are not known yet."""
    ran = sa.select(attempts.c.worker_id).where(attempts.c.study_id == study_id)
    known = set(writer.execute(sa.select(workers.c.worker_id)).scalars())
    for rows in _pages(reader, sa.select(workers).where(workers.c.worker_id.in_(ran))):
        fresh = [{**row, "state": "gone"} for row in rows if row["worker_id"] not in known]
        if fresh:
            writer.execute(sa.insert(workers), fresh)


def _copy_openings(reader: sa.Connection, writer: sa.Connection, row: StudyRow) -> None:
    """Copy the looks at the test split of the spec and data that are not known there, as later ones."""
    these = openings.c.fingerprint == row.fingerprint
    these &= openings.c.data_hash == str(row.data.get("data_hash"))
    there = set(writer.execute(sa.select(openings.c.choice_hash).where(these)).scalars())
    found = reader.execute(sa.select(openings).where(these).order_by(openings.c.number)).mappings().all()
    fresh = [dict(one) for one in found if one["choice_hash"] not in there]
    for number, one in enumerate(fresh, start=len(there) + 1):
        writer.execute(sa.insert(openings).values({**one, "number": number}))


def _interrupt(writer: sa.Connection, study_id: int) -> None:
    """Give back what ran: nobody runs it here."""
    running = sa.select(slots.c.slot, slots.c.attempt, slots.c.trial_id)
    held = (slots.c.study_id == study_id) & (slots.c.state == "running")
    for slot, attempt, trial_id in writer.execute(running.where(held)).all():
        this = (attempts.c.study_id == study_id) & (attempts.c.slot == slot) & (attempts.c.attempt == attempt)
        writer.execute(sa.update(attempts).where(this).values(end="interrupted", ended_at=now_s()))
        mine = _trials.c.trial_id == trial_id
        writer.execute(sa.update(_trials).where(mine).values(state=TrialState.WAITING))
    writer.execute(sa.update(slots).where(held).values(state="free", lease_until=None))


def _pages(connection: sa.Connection, query: sa.Select[Any]) -> Iterator[Sequence[dict[str, Any]]]:
    result = connection.execute(query.execution_options(yield_per=_AT_ONCE))
    for page in result.mappings().partitions(_AT_ONCE):
        yield [dict(row) for row in page]


def _own_key(table: sa.Table) -> list[str]:
    """Return the column that numbers a table's rows and means nothing else, if it has one."""
    keys = [column.name for column in table.primary_key]
    return keys if len(keys) == 1 and keys[0] not in {"study_id", "trial_id"} else []


def _without(row: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in names}


def _count(connection: sa.Connection, table: sa.Table, study_id: int) -> int:
    query = sa.select(sa.func.count()).select_from(table).where(table.c.study_id == study_id)
    return int(connection.execute(query).scalar_one())
