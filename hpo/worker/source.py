"""The source of runs over the ledger: slots become runs, reports become curves, ends become results."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from finetune.api import Report, Run, RunResult
from hpo.checkpoints import Checkpoints
from hpo.errors import StorageError
from hpo.ledger.values import Claim, StudyRow
from hpo.search import Suggester
from hpo.search.race import Replicator
from hpo.search.settled import Settler
from hpo.study import StudySpec
from hpo.worker.session import Event, Session
from hpo.worker.trial import Broken, Interrupted, Served, Trial, point_of

GIVE_BACK_PATIENCE_S = 1.5
"""How long a database that is away is waited for to give a trial back; its lease runs out by itself."""


class Recalled(Exception):  # noqa: N818 - an event, not an error
    """The study was stopped: its runs are given back. Passes through the trainer to the worker."""


class Source:
    """Hands out the free slots of one study below a number; implements finetune's ``RunSource``.

    What happens to each trial is :class:`hpo.worker.trial.Trial`'s matter.
    """

    def __init__(
        self,
        session: Session,
        study: StudyRow,
        spec: StudySpec,
        checkpoints: Checkpoints,
        below: int | None,
        ends: dict[str, int],
        goes_first: Callable[[], bool],
    ) -> None:
        """``ends`` counts why runs ended; ``goes_first`` says whether this study's turn goes on."""
        self.study = study
        self.is_recalled = False
        """Set when the study was stopped: the next report raises :class:`Recalled`."""
        self._session = session
        self._ends = ends
        self._goes_first = goes_first
        self._below = below
        self._served = Served(
            session,
            study,
            spec,
            checkpoints,
            Suggester(spec, study.study_id, session.engine),
            Replicator(spec, study.study_id, session.engine, below),
            below,
        )
        self._settler = Settler(spec, study, session.engine)
        self._trials: dict[str, Trial] = {}
        self._lock = threading.Lock()
        self._ready: Run | None = None

    # --- the three calls of the doorway

    def next_run(self) -> Run | None:
        """Return a run of the next free slot; None when none is free, or a more urgent study has one."""
        self._session.stop.check()
        ready, self._ready = self._ready, None
        if ready is None and not self._goes_first():
            return None
        while ready is None:
            trial = self._claim()
            if trial is None:
                return None
            ready = trial.begin()
            if ready is None:
                self._forget(trial)
        return ready

    def report(self, reports: Sequence[Report]) -> list[bool]:
        """Record one epoch of all members and decide which go on: not the lost, and not the pruned."""
        self._session.stop.check()
        if self.is_recalled:
            self.is_recalled = False
            raise Recalled
        members = [(self._trials[report.run_id], report) for report in reports]
        kept = [(trial, report) for trial, report in members if not trial.is_lost]
        points = [point_of(report, trial.claim) for trial, report in kept]
        session = self._session
        held = session.patiently(lambda: session.ledger.report(points, lease_s=session.lease_s))
        for (trial, report), is_held in zip(kept, held, strict=True):
            trial.note_epoch(report, is_held=is_held)
        return [trial.goes_on(report) for trial, report in members]

    def finish(self, result: RunResult) -> None:
        """Record how a run ended and delete its checkpoints; a run whose lease was lost is dropped."""
        with self._session.stop.held():
            is_recorded = self._end(self._trials[result.run_id], result)
        if is_recorded:
            self._settle()

    def _settle(self) -> None:
        """End the search early when its ratio is known as closely as the budget asks."""
        known = self._session.patiently(lambda: self._settler.settle(self._session.ledger))
        if known is not None:
            text = f"the best ratio is known to within {known.factor:g}x after {known.trials} trials; "
            text += f"{known.dropped} are not run"
            self._session.on_event(Event("message", self._session.worker, self.study.name, text=text))

    # --- what the worker does besides

    def has_run(self) -> bool:
        """Claim a run if one is free and keep it for the next :meth:`next_run`."""
        self._ready = self._ready or self.next_run()
        return self._ready is not None

    def claims(self) -> list[Claim]:
        """Return the claims whose leases are to be renewed. Thread-safe."""
        with self._lock:
            return [trial.claim for trial in self._trials.values() if not trial.is_lost]

    def lose(self, claims: Sequence[Claim]) -> None:
        """Mark claims that another worker may have; their runs end at their next report. Thread-safe."""
        lost = {(claim.slot, claim.attempt) for claim in claims}
        with self._lock:
            for trial in self._trials.values():
                trial.is_lost = trial.is_lost or (trial.claim.slot, trial.claim.attempt) in lost

    def fail_all(self, broken: Broken) -> None:
        """Record that the attempts under way failed; their slots are free again, up to the third fault."""
        self._ready = None
        for trial in list(self._trials.values()):
            self._end(trial, broken)

    def fail_one(self, broken: Broken) -> None:
        """Count a fault against the oldest trial under way, and give the others back."""
        for trial in list(self._trials.values())[:1]:
            self._end(trial, broken)
        self.give_back_all()

    def give_back_all(self) -> None:
        """Free the slots under way without counting the attempt; gives up soon when the database is away."""
        self._ready = None
        until = time.monotonic() + GIVE_BACK_PATIENCE_S
        for trial in list(self._trials.values()):
            with suppress(SQLAlchemyError, StorageError):  # away, or lost: the lease runs out by itself
                self._end(trial, Interrupted(until - time.monotonic()))

    # --- steps

    def _claim(self) -> Trial | None:
        session = self._session
        with session.stop.held():
            claim = session.patiently(
                lambda: session.ledger.claim(
                    self.study.study_id,
                    session.worker,
                    lease_s=session.lease_s,
                    below=self._below,
                    made_at=self.study.created_at,
                )
            )
            if claim is None:
                return None
            trial = Trial(self._served, claim)
            with self._lock:
                self._trials[trial.run_id] = trial
        return trial

    def _end(self, trial: Trial, how: RunResult | Broken | Interrupted) -> bool:
        """End a trial, count why, and hold it no more; return whether that was recorded."""
        is_recorded = trial.end(how) != "lost"
        if is_recorded and not isinstance(how, Interrupted):
            why = how.reason if isinstance(how, RunResult) else how.end
            self._ends[why] = self._ends.get(why, 0) + 1
        self._forget(trial)
        return is_recorded

    def _forget(self, trial: Trial) -> None:
        with self._lock:
            del self._trials[trial.run_id]
