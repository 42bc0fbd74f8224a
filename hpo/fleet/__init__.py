"""Workers on this machine: W processes, one thread each on the CPU or one GPU each, and an orderly end.

A single worker is a process of its own too: so the parent stays light, answers a signal at once, and what it
reports does not depend on how many workers there are.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

from sqlalchemy.exc import SQLAlchemyError

from finetune.api import NoDeviceError, gpu_count
from hpo.errors import Interrupted, Said, StorageError, UsageError
from hpo.fleet.child import DEVICE_LOST, INTERRUPTED, Child, Job
from hpo.fleet.machine import BY_BUS, VISIBLE, cores, visible_gpus
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.storage import patiently
from hpo.worker import Event, Settings, WorkSummary
from hpo.worker.session import open_ledger
from hpo.worker.stop import Stop, Stopped
from hpo.worker.trial import tell_ended

T = TypeVar("T")
GRACE_S = 4.0
"""From asking the workers to end until they are killed; Ctrl-C is promised to end within 5 s."""
LAST_S = 0.5
"""What is left of the 5 s to free the trials of those that were killed; their leases run out by
themselves."""
BARREN_DEATHS = 10
"""So many workers in a row that died without any progress end the search: something is broken."""
_HOW = {INTERRUPTED: "was asked to end", DEVICE_LOST: "lost its GPU"}
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


def run_local(
    url: str,
    study: str,
    *,
    total: int,
    workers: int | None = None,
    settings: Settings,
    on_event: Callable[[Event], None] = lambda event: None,
    fingerprint: str | None = None,
) -> WorkSummary:
    """Work on the first ``total`` slots of ``study`` with ``workers`` processes until all are closed.

    ``workers`` None means one a GPU or, without any, one a core. With a ``fingerprint`` a study of another
    one is refused: another command may begin a study anew that nobody works on yet. A worker that dies is
    replaced, and its trial goes on at once. Raises :class:`Interrupted` on a signal (within 5 s, everything
    given back), what a worker raised that is the user's to mend, and :class:`RuntimeError` with its last
    words for a fault of ours.
    """
    if workers is not None and workers < 1:
        raise UsageError(Said("workers is {workers}", workers=workers), "at least 1")
    stop = Stop()
    with stop.listening(for_good=True), open_ledger(url) as ledger:
        row = _patiently(partial(ledger.study, study), stop, on_event)
        counts = _patiently(partial(ledger.counts, row.study_id, total), stop, on_event)
        job = Job(url, study, total, replace(settings, timeout_s=None), fingerprint)
        fleet = _Fleet(job, row, ledger, stop, on_event)
        places = min(workers or fleet.places, counts.free + counts.running)
        return fleet.run(places, settings.timeout_s)


def _patiently(call: Callable[[], T], stop: Stop, on_event: Callable[[Event], None]) -> T:
    """Wait out what passes before any worker is there; a signal ends the wait."""
    try:
        return patiently(call, notify=lambda text: on_event(Event("waiting", text=text)), wait=stop.pause)
    except Stopped:
        raise Interrupted("interrupted before anything was under way") from None


class _Fleet:
    """Starts, watches and ends the workers, in one thread."""

    def __init__(
        self, job: Job, study: StudyRow, ledger: Ledger, stop: Stop, on_event: Callable[[Event], None]
    ) -> None:
        self._job = job
        self._study = study
        self._ledger = ledger
        self._stop = stop
        self._on_event = on_event
        self._gpus = gpus(job.settings.device)
        self.places = places(job.settings.device)
        """Workers that this machine has room for."""
        self._children: dict[int, Child] = {}
        self._barren = 0
        self._ends: dict[str, int] = {}

    def run(self, workers: int, timeout_s: float | None) -> WorkSummary:
        """Start the workers and watch them until all have ended."""
        deadline = time.monotonic() + (timeout_s if timeout_s is not None else float("inf"))
        try:
            for place in range(workers):
                self._start(place)
            while self._children and self._stop.reason is None:
                self._listen(0.2)
                self._look_after()
                if time.monotonic() >= deadline:
                    self._stop.reason = "timeout"
        finally:
            self._end_all()
        if self._stop.reason == "interrupted":
            raise Interrupted(f"{self._job.study}: interrupted; what was under way has been given back")
        return WorkSummary("timeout" if self._stop.reason else "no_work", self._ends)

    def _start(self, place: int, *, is_gpu_lost: bool = False) -> None:
        """Start a worker; one that follows a GPU's failure does not take to the CPU."""
        job = self._job
        if is_gpu_lost and self._gpus:
            job = replace(job, settings=replace(job.settings, device="cuda"))
        path = os.pathsep.join(entry for entry in sys.path if entry)
        environment = {**BY_BUS, **os.environ, **_ONE_THREAD, "PYTHONPATH": path}
        if self._gpus:
            environment[VISIBLE] = self._gpus[place % len(self._gpus)]
        self._children[place] = Child(job, environment)

    def _listen(self, timeout_s: float) -> None:
        """Wait until a worker says something, for at most ``timeout_s``, and pass the events on."""
        fds = [fd for child in self._children.values() for fd in child.fds]
        select.select(fds, [], [], timeout_s)
        for child in self._children.values():
            for event in child.read():
                if event.kind in {"epoch", "complete", "pruned"}:
                    self._barren = 0
                self._on_event(event)

    def _look_after(self) -> None:
        """Replace workers that died; raise what they raised. One whose GPU is not to be had is missed only
        while there are others."""
        for place, child in self._bury():
            if isinstance(child.fault, NoDeviceError) and self._children:
                text = f"a worker less, {len(self._children)} go on: {child.fault}"
                self._on_event(Event("message", child.worker, text=text))
                continue
            if child.fault is not None:
                raise child.fault
            if child.exit_status == 1:
                raise RuntimeError(f"a worker failed:\n{child.output}")
            if child.exit_status != 0:
                self._mourn(child)
                self._start(place, is_gpu_lost=child.exit_status == DEVICE_LOST)

    def _bury(self) -> list[tuple[int, Child]]:
        """Take the dead off the list, with all they said."""
        dead = [(place, child) for place, child in self._children.items() if child.exit_status is not None]
        for place, child in dead:
            for event in child.read():
                self._on_event(event)
            child.close()
            del self._children[place]
            for end, count in child.ends.items():
                self._ends[end] = self._ends.get(end, 0) + count
        return dead

    def _mourn(self, child: Child) -> None:
        """Tell of a death, and free the trials of the dead at once instead of when the lease runs out."""
        status = child.exit_status or 0
        how = _HOW.get(status) or f"died ({_cause(status)})"
        self._barren += 1
        if self._barren >= BARREN_DEATHS:
            raise RuntimeError(f"{self._barren} workers in a row {how} without progress:\n{child.output}")
        self._on_event(Event("message", child.worker, text=f"a worker {how}; another takes its place"))
        self._reap(child)

    def _reap_all(self, children: Sequence[Child]) -> None:
        for child in children:
            self._reap(child)

    def _reap(self, child: Child) -> None:
        try:
            dead = self._ledger.worker_died(child.worker)
            tell_ended(self._ledger, dead, "killed: its worker died", self._tell_ours)
        except (
            SQLAlchemyError,
            StorageError,
        ) as error:  # away: the workers wait for it, and reap when the lease has run out
            text = f"the trials of a dead worker are freed later ({type(error).__name__})"
            self._on_event(Event("waiting", child.worker, text=text))

    def _tell_ours(self, event: Event) -> None:
        if event.study == self._job.study:
            self._on_event(event)

    def _end_all(self) -> None:
        """Ask every worker once to end; kill what is left after the grace time, and free its trials."""
        for child in self._children.values():
            child.ask_to_end()
        deadline = time.monotonic() + GRACE_S
        while self._children and time.monotonic() < deadline:
            self._listen(0.1)
            self._bury()
        killed = list(self._children.values())
        for child in killed:
            child.kill()
        self._bury()
        self._stop.last_words(LAST_S, lambda: self._reap_all(killed))


def gpus(device: str) -> list[str]:
    """Return the GPUs to share among the workers, as CUDA_VISIBLE_DEVICES names them.

    None for the CPU, and for a device with a number, which a worker finds by that number.
    """
    return visible_gpus() if device in {"auto", "cuda"} else []


def places(device: str) -> int:
    """Return how many workers this machine has room for: one a GPU or, without any, one a core."""
    return 1 if ":" in device else len(gpus(device)) or cores()


def check_device(device: str) -> None:
    """Raise :class:`UsageError` when a GPU that was asked for is not there: once, before any worker starts.

    Where nvidia-smi is not there to ask, torch is.
    """
    if not device.startswith("cuda"):
        return
    count = len(visible_gpus()) or gpu_count()
    number = int(device.partition(":")[2] or 0)
    if number >= count:
        there = (
            Said("cuda:0 to cuda:{count}", count=count - 1)
            if count > 1
            else "cuda:0"
            if count
            else "a GPU that CUDA finds"
        )
        next_step = Said("type: --device {value}", value="auto" if count else "cpu")
        raise UsageError(Said("the device {device} is not there", device=device), there, next_step)


def _cause(status: int) -> str:
    return f"killed by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
