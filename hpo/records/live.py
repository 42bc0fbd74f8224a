"""A study written where people keep their records while it runs: each trial as far as it is.

A thread reads the database every few seconds and hands on what is new. Nothing here can end a search: what
fails is said once, and that record ends.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import HpoError, Said, UsageError
from hpo.ledger.ledger import Ledger
from hpo.reading.findings import Findings
from hpo.reading.standing import is_there
from hpo.records.mlflow_store import MlflowStore
from hpo.records.study import StudyRecord, TrialRecord, record_of, trial_records
from hpo.records.tensorboard_events import TensorboardEvents
from hpo.records.wandb_offline import WandbOffline
from hpo.storage import open_engine, reading
from hpo.storage.tables import curve, slots

LOOK_S = 5.0
"""Between two looks."""
_Reached = tuple[bool, int, int]
"""Whether a trial is running, its attempt, and while it runs its epochs."""


class Record(Protocol):
    """One study in one format."""

    def trial(self, trial: TrialRecord) -> None:
        """Write what is new of a trial."""
        ...


OPENED: Mapping[str, Callable[[str, str, Path], Record]] = {
    "mlflow": lambda name, _, out: MlflowStore(name, out, os.environ.get("MLFLOW_TRACKING_URI")),
    "tensorboard": lambda name, _, out: TensorboardEvents(name, out),
    "wandb": WandbOffline,
}
"""Name of a format -> what opens a study in a folder; MLflow's variable may name a server."""


def open_record(to: str, name: str, fingerprint: str, out: Path) -> Record:
    """Open a record; raises :class:`UsageError` for a format that is not known or not installed."""
    if to not in OPENED:
        raise UsageError(
            Said("no record {to!r} while a search runs", to=to), ", ".join(OPENED), "use --log-to tensorboard"
        )
    try:
        return OPENED[to](name, fingerprint, out)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != to:
            raise
        raise UsageError(
            Said("--log-to {to} needs the package {to}", to=to),
            "it installed",
            Said("type: pip install 'hpo[{to}]'", to=to),
        ) from error
    except OSError as error:
        reason = error.strerror or error
        raise UsageError(
            Said("cannot write to {out!r} ({reason})", out=str(out), reason=reason),
            "a folder",
            "use --log-dir",
        ) from error


@contextmanager
def recording(
    url: str,
    name: str,
    records: Mapping[str, Record],
    say: Callable[[str], None],
    *,
    look_s: float = LOOK_S,
) -> Iterator[Callable[[Findings], None]]:
    """Write a study into ``records`` while the block runs; call what is given with what came of it.

    After an exception nothing more is written: the next command writes the rest.
    """
    follower, done = _Follower(url, name, dict(records), say), threading.Event()

    def follow() -> None:
        while not done.wait(look_s):
            follower.look()

    thread = threading.Thread(target=follow, name="records", daemon=True)
    if records:
        thread.start()

    def finish(findings: Findings) -> None:
        done.set()
        if records:
            thread.join()
            follower.look()
            follower.finish(record_of(findings, url))

    try:
        yield finish
    finally:
        done.set()


class _Follower:
    """Hands what is new in the database to the records that still work."""

    def __init__(self, url: str, name: str, records: dict[str, Record], say: Callable[[str], None]) -> None:
        self._url, self._name, self._records, self._say = url, name, records, say
        self._written: dict[int, _Reached] = {}

    def look(self) -> None:
        """Write the trials that got on since the last look."""
        try:
            news = self._news() if is_there(self._url) else []
        except (SQLAlchemyError, HpoError):
            return  # no study yet, or the database is away: the search itself says so
        for trial in news:
            self._each(lambda record, trial=trial: record.trial(trial))  # type: ignore[misc]

    def finish(self, study: StudyRecord) -> None:
        """Write the study with its answer, and close what has to be."""

        def end(record: Record) -> None:
            if isinstance(record, MlflowStore | TensorboardEvents):
                record.study(study)
            if isinstance(record, TensorboardEvents):
                record.close()

        self._each(end)

    def _each(self, write: Callable[[Record], None]) -> None:
        for to, record in list(self._records.items()):
            try:
                write(record)
            except Exception as error:  # of somebody's library, disk or server: the search goes on
                del self._records[to]
                self._say(f"records of {to} end here ({type(error).__name__}: {error})")

    def _news(self) -> Sequence[TrialRecord]:
        from hpo.reading.frames import curves_frame, trials_frame  # with pandas

        engine = open_engine(self._url, create=False)
        try:
            study_id = Ledger(engine).study(self._name).study_id
            now = _reached(engine, study_id)
            numbers = [number for number, reached in now.items() if self._written.get(number) != reached]
            if not numbers:
                return []
            trials = trials_frame(engine, study_id)
            mine = trials[trials["number"].isin(numbers)]
            found = trial_records(mine, curves_frame(engine, study_id, numbers))
        finally:
            engine.dispose()
        return [trial for trial in found if self._is_new(trial)]

    def _is_new(self, trial: TrialRecord) -> bool:
        """Return whether a trial got further since it was written: it may have done so while it was read."""
        is_running = trial.state == "running"
        reached = (is_running, trial.attempt, len(trial.curve) if is_running else 0)
        is_new = self._written.get(trial.number) != reached
        self._written[trial.number] = reached
        return is_new


def _reached(engine: sa.Engine, study_id: int) -> dict[int, _Reached]:
    """Return how far each trial is that somebody has begun."""
    points = (
        sa.select(sa.func.count())
        .where(curve.c.study_id == slots.c.study_id, curve.c.slot == slots.c.slot)
        .scalar_subquery()
    )
    epochs = sa.case((slots.c.state == "running", points), else_=0)
    query = sa.select(slots.c.slot, slots.c.state, slots.c.attempt, epochs)
    begun = query.where(slots.c.study_id == study_id, slots.c.state != "free", slots.c.config.is_not(None))
    with reading(engine) as connection:
        rows = connection.execute(begun).all()
    return {slot: (state == "running", attempt, reached) for slot, state, attempt, reached in rows}
