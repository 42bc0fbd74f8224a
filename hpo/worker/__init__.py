"""The loop of one process on one device: claim, suggest, hand runs to finetune, record, until the end.

The end is the budget (every slot is closed), the clock (``timeout_s``) or a signal; in the last two cases
what was under way is given back, so that nothing is left RUNNING and the next command goes on from the last
epoch. Nothing here knows whether the trainer behind the doorway trains one run or a population.
The test split is sealed meanwhile: nothing that a search does in this process can read it.
"""

from __future__ import annotations

import logging
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Literal

from finetune.api import DeviceLostError, FinetuneError, sealed_test_split
from hpo.errors import HpoError
from hpo.worker.leases import renewing
from hpo.worker.opening import check_fits, check_is_same, open_study, settled
from hpo.worker.roster import Roster
from hpo.worker.session import (
    Event,
    Session,
    Settings,
    checkpoints_of,
    depot_of,
    open_session,
    reach,
    versions,
)
from hpo.worker.source import Recalled, Source
from hpo.worker.stop import Stop, Stopped
from hpo.worker.trial import Broken, tell_reaped

__all__ = [
    "Event",
    "Settings",
    "WorkSummary",
    "check_fits",
    "check_is_same",
    "checkpoints_of",
    "depot_of",
    "open_study",
    "reach",
    "settled",
    "versions",
    "work",
]


LEAVE_S = 2.0
"""How long an ending process tries to give back what it holds; its leases run out by themselves."""


@dataclass(frozen=True)
class WorkSummary:
    """What one process did."""

    ended: Literal["no_work", "timeout", "interrupted"]
    ends: Mapping[str, int] = field(default_factory=dict)
    """Why the runs of this process ended -> how many."""


def work(
    url: str,
    studies: Sequence[str] = (),
    *,
    below: int | None = None,
    forever: bool = False,
    settings: Settings,
    on_event: Callable[[Event], None] = lambda event: None,
    stop: Stop | None = None,
    fingerprint: str | None = None,
) -> WorkSummary:
    """Work on ``studies`` (none named: all open ones) until none has a slot (``< below``) left for anybody.

    The most urgent study comes first, then the oldest; between two runs a more urgent one takes over. While
    other workers run the last slots this one waits, because they may die; with ``forever`` it waits for new
    work too. With a ``fingerprint`` a study of another one is refused. SIGINT, SIGTERM and the timeout give
    back what is under way.

    Raises :class:`FinetuneError` and :class:`HpoError` (another attempt could not mend them) after giving
    back: at once for a study that was named; otherwise that study is served no more, the others go on, and
    the first such error is raised in the end. Other exceptions of the trainer end that attempt only.
    """
    stop = stop or Stop()
    ends: Mapping[str, int] = {}
    with sealed_test_split(), stop.listening(), _clock(settings.timeout_s, stop), _heard(on_event):
        try:
            with stop.raising(), open_session(url, settings, on_event, stop) as session:
                depot = depot_of(settings)
                if depot is not None:
                    session.reach(depot.probe)
                roster = Roster(session, url, settings, studies, below, fingerprint)
                on_event(Event("attached", session.worker))
                ends = roster.ends
                _serve(session, roster, settings, forever=forever)
        except Stopped:
            if stop.fault is not None:
                raise stop.fault from None
            assert stop.reason is not None
            assert stop.reason != "fault"
            return WorkSummary(stop.reason, ends)
    for error in roster.refused.values():
        raise error
    return WorkSummary("no_work", ends)


class _Teller(logging.Handler):
    """Passes on what the trainer logs."""

    def __init__(self, on_event: Callable[[Event], None]) -> None:
        super().__init__(logging.WARNING)
        self._on_event = on_event

    def emit(self, record: logging.LogRecord) -> None:
        """Tell it as an event."""
        self._on_event(Event("message", text=record.getMessage()))


@contextmanager
def _heard(on_event: Callable[[Event], None]) -> Iterator[None]:
    """Tell the trainer's warnings: a worker's own output is shown to nobody unless it dies."""
    log, teller = logging.getLogger("finetune"), _Teller(on_event)
    log.addHandler(teller)
    try:
        yield
    finally:
        log.removeHandler(teller)


@contextmanager
def _clock(timeout_s: float | None, stop: Stop) -> Iterator[None]:
    """Ask for the end after ``timeout_s`` seconds."""
    if timeout_s is None:
        yield
        return
    timer = threading.Timer(timeout_s, stop.request, ["timeout"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _serve(session: Session, roster: Roster, settings: Settings, *, forever: bool) -> None:
    """Take runs from one study after the other until there is no work."""
    train = partial(
        settings.open_trainer().train,
        data_dir=settings.data_dir,
        cache_dir=settings.cache_dir,
        device=settings.device,
        slots=settings.slots,
    )
    told = ""
    with renewing(session, roster), _giving_back(session, roster):
        while True:
            source = roster.next_source()
            if source is not None:
                _train(train, source, roster)
                told = ""
                continue
            told = _tell_idle(session, roster.why_idle(), told)
            if not forever and roster.is_over():
                return
            session.stop.pause(settings.poll_s)
            session.patiently(lambda: tell_reaped(session))


def _tell_idle(session: Session, why: str, told: str) -> str:
    """Tell why there is no run, unless that was told last; return it."""
    if why != told:
        session.on_event(Event("idle", session.worker, text=why))
    return why


def _train(train: Callable[[Source], None], source: Source, roster: Roster) -> None:
    """Train until the source is empty; an exception that another attempt may mend is recorded."""
    try:
        train(source)
    except Recalled:
        source.give_back_all()
    except FinetuneError as error:
        source.give_back_all()
        roster.refuse(source, error)
    except HpoError:
        raise
    except DeviceLostError:
        source.fail_one(Broken("error", traceback.format_exc()))
        raise
    except Exception as error:  # whatever it is: the run that it ended must not end the search
        if _is_memory(error):  # of one run alone: several would have been halved
            source.fail_one(Broken("out_of_memory", traceback.format_exc()))
        else:
            source.fail_all(Broken("error", traceback.format_exc()))


def _is_memory(error: Exception) -> bool:
    """Tell want of memory from other faults (torch: OutOfMemoryError on CUDA, RuntimeError on the CPU)."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "can't allocate memory" in text


@contextmanager
def _giving_back(session: Session, roster: Roster) -> Iterator[None]:
    """Give back whatever is still held when the block ends, however it ends, and within a few seconds."""
    try:
        yield
    finally:
        with session.stop.silenced():
            session.stop.last_words(LEAVE_S, roster.give_back_all)
