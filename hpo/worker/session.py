"""What a worker's process holds while it works: settings, a place in the ledger, a way to tell of itself."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, Protocol, TypeVar, cast

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from finetune.api import DataSummary, InputSpec, RunSource, RunSpec, SlotAdvice, Slots
from hpo.checkpoints import Checkpoints, Depot, DepotAwayError, is_depot, parse_depot, plain_folder
from hpo.errors import StorageError
from hpo.ledger.ledger import Ledger
from hpo.ledger.on_postgresql import ledger_on
from hpo.ledger.values import StudyRow
from hpo.storage import open_engine, patiently
from hpo.worker.stop import Stop
from hpo.worker.watch import Watch

T = TypeVar("T")

WORKER_BUSY_TIMEOUT_S = 1.0
"""So long a lock is waited for at a time, in which no signal is heeded; beyond that, as for any database
that is away."""


class Trainer(Protocol):
    """What a worker needs of :mod:`finetune.api`, or of another trainer with the same calls.

    Nothing of the test split: that is a :class:`hpo.confirm.scoring.TestScorer`, which a worker never holds.
    """

    def train(
        self,
        source: RunSource,
        *,
        data_dir: Path,
        cache_dir: Path,
        device: str,
        slots: Slots,
    ) -> None:
        """Run until the source is empty."""
        ...

    def recommend_slots(
        self, spec: RunSpec, *, runs: int, data_dir: Path, cache_dir: Path, device: str
    ) -> SlotAdvice:
        """Say what ``slots="auto"`` takes."""
        ...

    def describe_data(self, inputs: InputSpec, *, data_dir: Path, cache_dir: Path) -> DataSummary:
        """Say what a search must know of the data."""
        ...

    def check_model(self, spec: RunSpec) -> None:
        """Raise what makes a run of that encoder and those weights impossible."""
        ...


TRAINER_CALLS = ("train", "recommend_slots", "describe_data", "check_model")
"""The calls of :class:`Trainer`: all that is taken from a trainer's module, whatever else it can do."""


@dataclass(frozen=True)
class Settings:
    """Where and how this process works; nothing of it can change a trial's numbers."""

    data_dir: Path
    cache_dir: Path
    device: str = "auto"
    slots: Slots = 1
    lease_s: float = 60.0
    """How long after its last sign of life a worker's trials are taken from it."""
    poll_s: float = 1.0
    """Pause between two looks for work while others run the last trials."""
    checkpoints: str | None = None
    """A folder, or the address of an object store (``s3://bucket/folder``), that all workers share. None:
    beside the SQLite file, or in the cache folder."""
    timeout_s: float | None = None
    patience_s: float = 600.0
    """How long a database error may last before it ends the worker."""
    doorway: str = "finetune.api"
    """Dotted name of the module whose ``train`` and ``describe_data`` are called."""

    def open_trainer(self) -> Trainer:
        """Import the trainer's module and return its calls, without the module."""
        module = importlib.import_module(self.doorway)
        calls = {name: getattr(module, name) for name in TRAINER_CALLS if hasattr(module, name)}
        return cast(Trainer, SimpleNamespace(**calls))


EventKind = Literal[
    "attached",
    "started",
    "epoch",
    "complete",
    "pruned",
    "failed",
    "retried",
    "given_back",
    "waiting",
    "idle",
    "message",
]


@dataclass(frozen=True)
class Event:
    """Something that a person who watches a search wants to know."""

    kind: EventKind
    """``pruned`` includes diverged runs; ``failed`` closes a slot, ``retried`` frees it for another attempt;
    ``waiting`` for the database, ``idle`` for work; ``attached`` tells a worker's id once."""
    worker: str = ""
    study: str = ""
    slot: int | None = None
    attempt: int = 0
    epoch: int = 0
    epochs: int = 0
    """Of the recipe."""
    value: float | None = None
    """Best validation loss so far; None while there is none."""
    text: str = ""


@dataclass(frozen=True)
class Session:
    """What a worker's process holds while it works."""

    engine: sa.Engine
    ledger: Ledger
    worker: str
    """Its id in the ledger."""
    device: str
    lease_s: float
    stop: Stop
    on_event: Callable[[Event], None]
    watch: Watch
    patience_s: float = 600.0
    """How long a database error may last before it ends the worker."""

    def patiently(self, call: Callable[[], T]) -> T:
        """Make an idempotent database call, waiting out errors that pass; a request to stop ends the wait."""
        with self.stop.held():
            return patiently(call, patience_s=self.patience_s, notify=self.tell_waiting, wait=self.stop.pause)

    def reach(self, call: Callable[[], T]) -> T:
        """Make a call that may go to the object store of the checkpoints, waiting while that is away."""
        return reach(call, self.patience_s, self.tell_waiting, self.stop.pause)

    def tell_waiting(self, text: str) -> None:
        """Tell that the database, or the store of the checkpoints, is away."""
        self.on_event(Event("waiting", self.worker, text=text))


@contextmanager
def open_ledger(url: str) -> Iterator[Ledger]:
    """Open the ledger of a database, and close its connections at the end.

    A lock is waited for as a worker does, a second at a time: call with :func:`hpo.storage.patiently`.
    """
    engine = open_engine(url, busy_timeout_s=WORKER_BUSY_TIMEOUT_S)
    try:
        yield Ledger(engine)
    finally:
        engine.dispose()


@contextmanager
def open_session(
    url: str, settings: Settings, on_event: Callable[[Event], None], stop: Stop
) -> Iterator[Session]:
    """Register this process as a worker, and take it out of the books at the end."""

    def tell(text: str) -> None:
        on_event(Event("waiting", text=text))

    with stop.held():
        wait = partial(patiently, patience_s=settings.patience_s, notify=tell, wait=stop.pause)
        engine = wait(partial(open_engine, url, busy_timeout_s=WORKER_BUSY_TIMEOUT_S))
        ledger = ledger_on(engine)
        place = (socket.gethostname(), os.getpid(), settings.device, versions(settings.doorway))
        worker = wait(partial(ledger.register_worker, *place))
    session = Session(
        engine,
        ledger,
        worker,
        settings.device,
        settings.lease_s,
        stop,
        on_event,
        Watch(settings.lease_s),
        settings.patience_s,
    )
    try:
        yield session
    finally:
        # A note for people: no reason to fail, or to wait, at the end.
        with stop.silenced(), suppress(SQLAlchemyError, StorageError):
            stop.last_words(1.0, partial(ledger.worker_gone, worker))
        engine.dispose()


def versions(doorway: str = "finetune.api") -> dict[str, str]:
    """Return the versions that a study's numbers depend on; all its workers must have the same."""
    engine = getattr(importlib.import_module(doorway), "ENGINE_VERSION", "1")
    return {
        "hpo": _version("hpo"),
        "torch": _version("torch"),
        "numpy": _version("numpy"),
        "numba": _version("numba"),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "engine": str(engine),
    }


def _version(package: str) -> str:
    """Return the installed version without its build (+cpu, +cu128), which is a matter of device."""
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return "not installed"


def reach(
    call: Callable[[], T],
    patience_s: float,
    notify: Callable[[str], None],
    wait: Callable[[float], object] = time.sleep,
) -> T:
    """Make a call that may go to an object store; while that is away, tell it and call again.

    Raises :class:`StorageError` after ``patience_s`` seconds.
    """
    return patiently(
        call,
        patience_s=patience_s,
        notify=notify,
        wait=wait,
        passing=lambda error: isinstance(error, DepotAwayError),
        subject="the store of the checkpoints",
    )


def depot_of(settings: Settings) -> Depot | None:
    """Return the object store of the checkpoints; None where they lie in a folder."""
    address = settings.checkpoints
    return parse_depot(address) if address is not None and is_depot(address) else None


def checkpoints_of(url: str, study: StudyRow, settings: Settings) -> Checkpoints:
    """Return where the epoch checkpoints of a study's slots lie.

    The name says which study of that name it is: one that was deleted and made again, or one of another
    database that shares this cache, must not go on from the runs of the other.
    """
    made = f"{study.study_id} {study.created_at!r} {study.fingerprint}"
    name = f"{study.name}-{hashlib.sha256(made.encode()).hexdigest()[:12]}"
    cached, depot = settings.cache_dir / "checkpoints" / name, depot_of(settings)
    if depot is not None:
        return Checkpoints(cached, depot / name)
    if settings.checkpoints is not None:
        return Checkpoints(plain_folder(settings.checkpoints) / name)
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return Checkpoints(Path(f"{Path(parsed.database).resolve()}.checkpoints") / name)
    return Checkpoints(cached)
