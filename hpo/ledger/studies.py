"""Studies, workers and looks at the test split: the part of the ledger that changes rarely."""

from __future__ import annotations

import itertools
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from finetune.api import FinetuneError
from hpo.errors import MismatchError, Said, UnknownStudyError, apart
from hpo.ledger import gist, optuna_rows
from hpo.ledger.claims import count_slots, note_worker
from hpo.ledger.values import Kind, StudyRow, StudyState, TestLook
from hpo.storage import reading, writing
from hpo.storage.tables import choices, now_s, openings, slots, studies, test_looks, workers
from hpo.study import StudySpec

_LOCK_KEY = zlib.crc32(b"hpo study")
_ELSEWHERE = "give the study another name, or take another --storage"
_theirs = optuna_rows.studies
_IS_THERE = (_theirs.c.study_id == studies.c.study_id) & (_theirs.c.study_name == studies.c.name)
"""A study that was deleted with a tool of Optuna's is gone, whatever is left of it here."""
_STUDY = sa.select(*(column for column in studies.columns if column.name != "epochs")).join(
    _theirs, _IS_THERE
)


class StudyLedger:
    """Studies and workers in one database. Every method is one transaction and safe to repeat."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def _write(self) -> Iterator[sa.Connection]:
        with writing(self._engine) as connection:
            yield connection

    @contextmanager
    def _read(self) -> Iterator[sa.Connection]:
        with reading(self._engine) as connection:
            yield connection

    def create_study(
        self,
        spec: StudySpec,
        *,
        kind: Kind = "search",
        data: Mapping[str, Any],
        versions: Mapping[str, str],
        priority: int = 0,
    ) -> StudyRow:
        """Return the study of that spec, made if there is none of its name, or none that got anywhere.

        Raises :class:`MismatchError` when the study of that name was made with another spec, data or versions
        and has finished or running trials, is of another kind, or is a plain Optuna study.
        """
        with self._write() as connection:
            _one_at_a_time(connection)
            _drop_orphans(connection)
            row = _find(connection, spec.name)
            differing = [] if row is None else _differences(row, spec, kind, data, versions)
            if row is not None and differing and not _is_barren(connection, row):
                raise _refusal(connection, row, spec, differing)
            if row is not None and differing:
                optuna_rows.delete_study(connection, row.study_id)
            if row is None or differing:
                _refuse_plain_study(connection, spec.name)
                _insert_study(connection, spec, kind, data, versions, priority)
                row = _find(connection, spec.name)
            assert row is not None
            _note_gist(connection, row)
        return row

    def find(self, name: str) -> StudyRow | None:
        """Return the study of that name; None when there is none."""
        with self._read() as connection:
            return _find(connection, name)

    def study(self, name: str) -> StudyRow:
        """Return the study of that name; raises :class:`UnknownStudyError`."""
        with self._read() as connection:
            row = _find(connection, name)
        if row is None:
            raise UnknownStudyError.among(
                name, [study.name for study in self.studies() if not study.confirms]
            )
        return row

    def studies(self) -> list[StudyRow]:
        """Return all studies, as workers serve them: highest priority first, then oldest."""
        order = (studies.c.priority.desc(), studies.c.created_at, studies.c.study_id)
        with self._read() as connection:
            rows = connection.execute(_STUDY.order_by(*order)).mappings().all()
        return [StudyRow.read(dict(row)) for row in rows]

    def forget_deleted(self) -> None:
        """Drop what is left here of studies that were deleted with a tool of Optuna's."""
        with self._write() as connection:
            _drop_orphans(connection)

    def set_state(self, study_id: int, state: StudyState) -> None:
        """Open, pause or stop a study: only an open one gives out slots."""
        self._set(study_id, state=state)

    def set_priority(self, study_id: int, priority: int) -> None:
        """Set what decides which of several open studies is served first (higher is earlier)."""
        self._set(study_id, priority=priority)

    def set_budget(self, study: StudyRow, spec: StudySpec) -> StudyRow:
        """Give the study the budget and the worth of ``spec``, no part of its fingerprint; return its row."""
        given = spec.model_dump(mode="json", include={"budget", "worth"})
        changed = {**study.spec, **given}
        if changed == study.spec:
            return study
        grown = replace(study, spec=changed)
        with self._write() as connection:
            this = studies.c.study_id == study.study_id
            connection.execute(sa.update(studies).where(this).values(spec=changed))
            _note_gist(connection, grown)
        return grown

    def _set(self, study_id: int, **values: Any) -> None:
        with self._write() as connection:
            connection.execute(sa.update(studies).where(studies.c.study_id == study_id).values(values))

    def register_worker(self, host: str, pid: int, device: str, versions: Mapping[str, str]) -> str:
        """Record a process that will claim slots, and return its id."""
        worker_id = f"{host[:80]}-{pid}-{uuid.uuid4().hex[:8]}"
        with self._write() as connection:
            connection.execute(
                sa.insert(workers).values(
                    worker_id=worker_id,
                    host=host,
                    pid=pid,
                    device=device,
                    versions=dict(versions),
                    started_at=now_s(),
                    last_seen=now_s(),
                    state="here",
                )
            )
        return worker_id

    def worker_gone(self, worker_id: str) -> None:
        """Record that a worker ended in good order."""
        with self._write() as connection:
            note_worker(connection, worker_id, "gone")

    def record_test_look(
        self, study_id: int, choice_hash: str, worker_id: str, what: Mapping[str, Any]
    ) -> int:
        """Record a look at the test split before it is taken; return its number, as :meth:`look_number`."""
        look = {"study_id": study_id, "choice_hash": choice_hash, "worker_id": worker_id}
        with self._write() as connection:
            connection.execute(sa.insert(test_looks).values(**look, what=optuna_rows.plain(what), at=now_s()))
            return _open(connection, study_id, choice_hash)

    def look_number(self, fingerprint: str, data_hash: str, choice_hash: str) -> int:
        """Return the how-manieth look a choice was at the test split of this spec and data, from 1.

        Whatever the studies were called, and whether they are still there: the same choice is always the
        same look. The next number for a choice that has not looked.
        """
        this = (openings.c.fingerprint == fingerprint) & (openings.c.data_hash == data_hash)
        mine = sa.select(openings.c.number).where(this, openings.c.choice_hash == choice_hash)
        with self._read() as connection:
            number = connection.execute(mine).scalar_one_or_none()
            if number is None:
                number = _count_looks(connection, this) + 1
        return int(number)

    def looks_spent(self, fingerprint: str, data_hash: str) -> int:
        """Return how many choices have looked at the test split of this spec and data."""
        this = (openings.c.fingerprint == fingerprint) & (openings.c.data_hash == data_hash)
        with self._read() as connection:
            return _count_looks(connection, this)

    def test_looks(self, study_id: int) -> list[TestLook]:
        """Return every look at the test split, oldest first."""
        query = (
            sa.select(test_looks.c.choice_hash, test_looks.c.at, test_looks.c.worker_id, test_looks.c.what)
            .where(test_looks.c.study_id == study_id)
            .order_by(test_looks.c.look_id)
        )
        with self._read() as connection:
            return [TestLook(*row) for row in connection.execute(query)]


def _open(connection: sa.Connection, study_id: int, choice_hash: str) -> int:
    """Note that a choice opens the test split, unless it has; return the number of its look."""
    _one_at_a_time(connection)
    of_study = sa.select(studies.c.fingerprint, studies.c.data).where(studies.c.study_id == study_id)
    fingerprint, data = connection.execute(of_study).one()
    data_hash = str(data["data_hash"])
    this = (openings.c.fingerprint == fingerprint) & (openings.c.data_hash == data_hash)
    mine = sa.select(openings.c.number).where(this, openings.c.choice_hash == choice_hash)
    known = connection.execute(mine).scalar_one_or_none()
    if known is not None:
        return int(known)
    number = _count_looks(connection, this) + 1
    row = {"fingerprint": fingerprint, "data_hash": data_hash, "choice_hash": choice_hash, "number": number}
    connection.execute(sa.insert(openings).values(**row, at=now_s()))
    return number


def _count_looks(connection: sa.Connection, these: sa.ColumnElement[bool]) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(openings).where(these)).scalar_one()


def _one_at_a_time(connection: sa.Connection) -> None:
    """Let no other transaction make a study until this one ends; on SQLite every writer is alone anyway."""
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_LOCK_KEY)))


def _find(connection: sa.Connection, name: str) -> StudyRow | None:
    row = connection.execute(_STUDY.where(studies.c.name == name)).mappings().one_or_none()
    return None if row is None else StudyRow.read(dict(row))


def _drop_orphans(connection: sa.Connection) -> None:
    """Delete our rows (all tables cascade) of studies that were deleted with a tool of Optuna's.

    PostgreSQL has a later study's id never twice, SQLite may: rows left behind would become the new one's.
    """
    connection.execute(sa.delete(studies).where(~sa.exists().where(_IS_THERE)))


def _refuse_plain_study(connection: sa.Connection, name: str) -> None:
    if connection.execute(sa.select(_theirs.c.study_id).where(_theirs.c.study_name == name)).first():
        raise MismatchError(
            Said("the database holds a study {name!r} that was not made here", name=name),
            "a free name",
            _ELSEWHERE,
        )


def _insert_study(
    connection: sa.Connection,
    spec: StudySpec,
    kind: Kind,
    data: Mapping[str, Any],
    versions: Mapping[str, str],
    priority: int,
) -> None:
    attributes = {"task": spec.task, "title": spec.title, "kind": kind, "fingerprint": spec.fingerprint()}
    study_id = optuna_rows.create_study(connection, spec.name, attributes)
    connection.execute(
        sa.insert(studies).values(
            study_id=study_id,
            name=spec.name,
            kind=kind,
            spec=spec.model_dump(mode="json"),
            epochs=spec.recipe.epochs,
            fingerprint=spec.fingerprint(),
            data=optuna_rows.plain(data),
            versions=dict(versions),
            priority=priority,
            state="open",
            created_at=now_s(),
        )
    )


def _note_gist(connection: sa.Connection, row: StudyRow) -> None:
    """Note for a glance what this version knows of the study, unless that is noted already."""
    there = optuna_rows.system_attribute(connection, row.study_id, gist.KEY)
    if gist.noted(there, row.spec) is not None:
        return
    with suppress(MismatchError, FinetuneError):  # a study not known here has none
        note = gist.note_of(row.known_spec().what, row.spec)
        optuna_rows.write_system_attributes(connection, row.study_id, {gist.KEY: note})


def _is_barren(connection: sa.Connection, row: StudyRow) -> bool:
    """Return whether a study came to nothing: none of its trials has finished or runs, none was confirmed."""
    if row.kind != "search":
        return False
    looked = sa.select(choices.c.study_id).where(choices.c.study_id == row.study_id)
    if connection.execute(looked.limit(1)).first() is not None:
        return False
    counts = count_slots(connection, slots.c.study_id == row.study_id)
    return not counts.finished and counts.running == counts.silent


def _differences(
    row: StudyRow, spec: StudySpec, kind: Kind, data: Mapping[str, Any], versions: Mapping[str, str]
) -> list[str]:
    """Return all that differs between what was asked for and the study in the database."""
    differing: list[str] = [] if row.kind == kind else [apart("kind", kind, row.kind)]
    if row.fingerprint != spec.fingerprint():
        differing += _spec_differences(row, spec)
    mine = {"data": data.get("data_hash"), **versions}
    theirs = {"data": row.data.get("data_hash"), **row.versions}
    return [
        *differing,
        *(
            apart(key, _short(mine.get(key)), _short(theirs.get(key)))
            for key in mine | theirs
            if mine.get(key) != theirs.get(key)
        ),
    ]


def _refusal(
    connection: sa.Connection, row: StudyRow, spec: StudySpec, differing: Sequence[str]
) -> MismatchError:
    """Return the error, with the command that begins a study like it at the leaders of this one."""
    expected = "the same spec, data and versions"
    what = Said(
        "study {name!r} in the database is another one ({differing})",
        name=row.name,
        differing=Said.listed(differing, "; "),
    )
    if row.kind != "search":
        return MismatchError(what, expected, _ELSEWHERE)
    anew = f"--as {free_name(connection, row.name)} --warm-start {row.name}"
    if row.fingerprint == spec.fingerprint():
        return MismatchError(
            what, expected, Said("type: hpo run --study {name} {anew}", name=row.name, anew=anew)
        )
    return MismatchError(
        what, expected, Said("type the same command with {anew}, or take another --storage", anew=anew)
    )


def free_name(connection: sa.Connection, name: str) -> str:
    """Return the first of name-2, name-3, ... that no study has."""
    taken = set(connection.execute(sa.select(_theirs.c.study_name)).scalars())
    return next(f"{name}-{n}" for n in itertools.count(2) if f"{name}-{n}" not in taken)


def _spec_differences(row: StudyRow, spec: StudySpec) -> list[str]:
    try:
        return [str(one) for one in spec.differences(StudySpec.model_validate(row.spec))]
    except ValidationError:  # written by a version of the code with other keys
        return [apart("fingerprint", spec.fingerprint()[:12], row.fingerprint[:12])]


def _short(value: object) -> str:
    return Said("nothing") if value is None else str(value)[:40]
