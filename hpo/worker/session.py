"""What a worker's process holds while it works: settings, a place in the ledger, a way to tell of itself."""

from __future__ import annotations

import hashlib
import importlib
import os
import platform
import socket
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

from finetune.api import DataSummary, InputSpec, RunSource, RunSpec
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
        slots: int | Literal["auto"],
    ) -> None:
        """Run until the source is empty."""
        ...

    def recommend_slots(self, spec: RunSpec, *, data_dir: Path, cache_dir: Path, device: str) -> int:
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
    slots: int | Literal["auto"] = 1
    """Runs at a time on the device; ``auto``: as many as pay there."""
    lease_s: float = 60.0
    """How long after its last sign of life a worker's trials are taken from it."""
    poll_s: float = 1.0
    """Pause between two looks for work while others run the last trials."""
    checkpoint_dir: Path | None = None
    """None: beside the SQLite file, or in the cache folder. Workers on several machines must share it."""
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

    def tell_waiting(self, text: str) -> None:
        """Tell that the database is away."""
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


def checkpoint_folder(url: str, study: StudyRow, settings: Settings) -> Path:
    """Return where the epoch checkpoints of a study's slots lie.

    The name says which study of that name it is: one that was deleted and made again, or one of another
    database that shares this cache, must not go on from the runs of the other.
    """
    made = f"{study.study_id} {study.created_at!r} {study.fingerprint}"
    name = f"{study.name}-{hashlib.sha256(made.encode()).hexdigest()[:12]}"
    if settings.checkpoint_dir is not None:
        return settings.checkpoint_dir / name
    parsed = sa.make_url(url)
    if parsed.get_backend_name() == "sqlite" and parsed.database:
        return Path(f"{parsed.database}.checkpoints").resolve() / name
    return settings.cache_dir / "checkpoints" / name
