"""What somebody is to be told of a study: written before it is sent, and again when it was.

A row is one event of one study for one target; its key is made of what happened, so that any number of
processes that see it happen write one row. One process at a time may send it, for as long as its lease is.
A process that dies between the sending and the note of it leaves a row that is sent again when the lease is
over, under the same id: at least once on the wire, once for a receiver that drops an id it knows.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from hpo.storage import reading, writing
from hpo.storage.tables import alert_progress, alert_targets, alerts, curve, now_s, slots, studies

OLDEST_S = 86400.0
"""What happened longer ago is no news: it is not sent any more."""


class AlertKind(Enum):
    """What happened."""

    ENDED = "ended"
    """Every trial of the budget has ended."""
    FAILED = "failed"
    """A trial was closed after its third fault."""
    STUCK = "stuck"
    """No epoch and no trial has ended for long, though there is work left."""


@dataclass(frozen=True)
class Happening:
    """Something that happened to a study."""

    study_id: int
    event: str
    """Names it within the study: the same for all who see it."""
    kind: AlertKind
    at: float
    """By the database's clock."""
    slot: int | None = None


@dataclass(frozen=True)
class Due:
    """The right to tell one target of one happening, until the lease ends."""

    happening: Happening
    target: str
    attempt: int
    """From 1."""
    study_made_at: float
    """With its id it names a study for good."""

    @property
    def alert_id(self) -> str:
        """The same in every attempt."""
        what = f"{self.study_made_at!r} {self.happening.study_id} {self.happening.event} {self.target}"
        return hashlib.sha256(what.encode()).hexdigest()[:32]


class Outbox:
    """The alerts of one database. Every method is one transaction and safe to repeat."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def register(self, target: str, *, ago_s: float = 0.0) -> float:
        """Return since when ``target`` is told of what happens: since ``ago_s`` before its first call."""
        query = sa.select(alert_targets.c.since).where(alert_targets.c.target == target)
        with reading(self._engine) as connection:
            since = connection.execute(query).scalar_one_or_none()
        if since is None:
            with writing(self._engine) as connection:
                row = {"target": target, "since": now_s() - ago_s}
                connection.execute(_insert_new(connection, alert_targets).values(row))
                since = connection.execute(query).scalar_one()
        return float(since)

    def happenings(self, study_id: int, since: float, *, stuck_s: float) -> list[Happening]:
        """Return what happened to a study after ``since`` and within a day."""
        with reading(self._engine) as connection:
            now = float(connection.execute(sa.select(now_s())).scalar_one())
            found = [*_failures(connection, study_id), *_end(connection, study_id)]
        found += self._stuck(study_id, now, stuck_s)
        return [one for one in found if one.at >= max(since, now - OLDEST_S)]

    def _stuck(self, study_id: int, now: float, stuck_s: float) -> list[Happening]:
        """Return that a study does not get on, though it has work; note when it was seen to."""
        with reading(self._engine) as connection:
            marker = _marker(connection, study_id)
            kept = sa.select(alert_progress.c.marker, alert_progress.c.since).where(
                alert_progress.c.study_id == study_id
            )
            known = connection.execute(kept).one_or_none()
        if known is None or known.marker != marker:
            with writing(self._engine) as connection:
                row = {"study_id": study_id, "marker": marker, "since": now_s()}
                if connection.execute(
                    sa.select(studies.c.name).where(studies.c.study_id == study_id)
                ).first():
                    connection.execute(sa.delete(alert_progress).where(alert_progress.c.study_id == study_id))
                    connection.execute(_insert_new(connection, alert_progress).values(row))
            return []
        if now - known.since < stuck_s:
            return []
        with reading(self._engine) as connection:
            if not _waits_for_somebody(connection, study_id):
                return []
        at = float(known.since) + stuck_s
        return [Happening(study_id, f"stuck:{marker}", AlertKind.STUCK, at)]

    def add(self, happenings: Collection[Happening], target: str) -> None:
        """Write down what ``target`` is to be told, unless it is written already."""
        rows = [
            {
                "study_id": one.study_id,
                "event": one.event,
                "target": target,
                "kind": one.kind.value,
                "slot": one.slot,
                "happened_at": one.at,
                "attempts": 0,
            }
            for one in happenings
        ]
        known = self._written(target, {one.study_id for one in happenings})
        fresh = [row for row in rows if (row["study_id"], row["event"]) not in known]
        if not fresh:
            return
        with writing(self._engine) as connection:
            connection.execute(_insert_new(connection, alerts), fresh)

    def _written(self, target: str, study_ids: Collection[int]) -> set[tuple[object, object]]:
        """Return study and event of all that is written down for ``target``."""
        mine = (alerts.c.target == target) & alerts.c.study_id.in_(study_ids)
        with reading(self._engine) as connection:
            rows = connection.execute(sa.select(alerts.c.study_id, alerts.c.event).where(mine))
            return {(row.study_id, row.event) for row in rows}

    def take(self, target: str, study_ids: Sequence[int], *, lease_s: float) -> Due | None:
        """Return one alert that nobody has sent or is sending; None when there is none."""
        is_due = _unsent(target, study_ids) & (
            alerts.c.lease_until.is_(None) | (alerts.c.lease_until < now_s())
        )
        query = sa.select(alerts, studies.c.created_at.label("made_at")).join(
            studies, studies.c.study_id == alerts.c.study_id
        )
        with writing(self._engine) as connection:
            for row in connection.execute(query.where(is_due).order_by(alerts.c.happened_at)).all():
                mine = _key(row.study_id, row.event, target) & (alerts.c.attempts == row.attempts)
                statement = sa.update(alerts).where(mine, is_due)
                leased = statement.values(attempts=row.attempts + 1, lease_until=now_s() + lease_s)
                if connection.execute(leased).rowcount == 1:
                    kind = AlertKind(row.kind)
                    happening = Happening(row.study_id, row.event, kind, row.happened_at, row.slot)
                    return Due(happening, target, row.attempts + 1, row.made_at)
        return None

    def sent(self, due: Due) -> None:
        """Note that an alert has arrived."""
        self._note(due, {"sent_at": now_s(), "lease_until": None, "message": None})

    def not_sent(self, due: Due, why: str, *, again_s: float) -> None:
        """Note that an alert did not arrive, and when to try again."""
        self._note(due, {"lease_until": now_s() + again_s, "message": why[:2000]})

    def _note(self, due: Due, values: dict[str, object]) -> None:
        what = due.happening
        mine = _key(what.study_id, what.event, due.target) & (alerts.c.attempts == due.attempt)
        with writing(self._engine) as connection:
            connection.execute(sa.update(alerts).where(mine).values(values))

    def unsent(self, target: str, study_ids: Sequence[int]) -> int:
        """Return how many alerts of these studies are still to be sent."""
        query = sa.select(sa.func.count()).select_from(alerts).where(_unsent(target, study_ids))
        with reading(self._engine) as connection:
            return int(connection.execute(query).scalar_one())


def _unsent(target: str, study_ids: Sequence[int]) -> sa.ColumnElement[bool]:
    is_news = alerts.c.happened_at > now_s() - OLDEST_S
    mine = (alerts.c.target == target) & alerts.c.study_id.in_(study_ids)
    return mine & alerts.c.sent_at.is_(None) & is_news


def _key(study_id: int, event: str, target: str) -> sa.ColumnElement[bool]:
    return (alerts.c.study_id == study_id) & (alerts.c.event == event) & (alerts.c.target == target)


def _insert_new(connection: sa.Connection, table: sa.Table) -> postgresql.Insert | sqlite.Insert:
    """Return the INSERT that leaves a row of the same key as it is."""
    insert = postgresql.insert if connection.dialect.name == "postgresql" else sqlite.insert
    return insert(table).on_conflict_do_nothing()


def _failures(connection: sa.Connection, study_id: int) -> list[Happening]:
    query = sa.select(slots.c.slot, slots.c.ended_at).where(
        slots.c.study_id == study_id, slots.c.state == "failed", slots.c.ended_at.is_not(None)
    )
    return [
        Happening(study_id, f"failed:{row.slot}", AlertKind.FAILED, row.ended_at, row.slot)
        for row in connection.execute(query.order_by(slots.c.slot))
    ]


def _end(connection: sa.Connection, study_id: int) -> list[Happening]:
    """Return that every slot of a study is closed; a larger budget is another end."""
    query = sa.select(
        sa.func.count(),
        sa.func.count().filter(slots.c.state.in_(("free", "running"))),
        sa.func.max(slots.c.ended_at),
    ).where(slots.c.study_id == study_id)
    total, left, at = connection.execute(query).one()
    is_over = total and not left and at is not None
    return [Happening(study_id, f"ended:{total}", AlertKind.ENDED, at)] if is_over else []


def _marker(connection: sa.Connection, study_id: int) -> str:
    """Return what grows with every epoch and every end of a trial."""
    points = (
        sa.select(sa.func.count())
        .select_from(
            curve.join(slots, (slots.c.study_id == curve.c.study_id) & (slots.c.slot == curve.c.slot))
        )
        .where(slots.c.study_id == study_id, slots.c.state == "running")
        .scalar_subquery()
    )
    query = sa.select(
        sa.func.count(),
        sa.func.count().filter(slots.c.state.in_(("done", "failed"))),
        sa.func.coalesce(sa.func.sum(slots.c.attempt), 0),
        points,
    ).where(slots.c.study_id == study_id)
    return "-".join(str(int(number)) for number in connection.execute(query).one())


def _waits_for_somebody(connection: sa.Connection, study_id: int) -> bool:
    """Return whether an open study has work that nobody gets on with: none is busy with a study before it."""
    query = sa.select(
        sa.func.count().filter(slots.c.study_id == study_id, slots.c.state == "free"),
        sa.func.count().filter(slots.c.study_id == study_id, slots.c.state == "running"),
        sa.func.count().filter(slots.c.state == "running", slots.c.lease_until > now_s()),
    )
    free, running, running_anywhere = connection.execute(query).one()
    is_open = sa.select(studies.c.study_id).where(studies.c.study_id == study_id, studies.c.state == "open")
    if connection.execute(is_open).first() is None:
        return False
    return bool(running or (free and not running_anywhere))
