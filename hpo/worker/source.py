"""The source of runs over the ledger: slots become runs, reports become curves, ends become results."""

from __future__ import annotations

import math
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, assert_never

from finetune.api import Report, Run, RunResult
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Claim, Outcome, Point, StudyRow
from hpo.search import Suggester, is_above_median
from hpo.search.replicator import Replicator
from hpo.search.settled import Settler
from hpo.storage import patiently
from hpo.study import StudySpec
from hpo.worker.session import Event, EventKind, Session

GIVE_BACK_PATIENCE_S = 3.0
"""How long an ending process waits for its database; its leases run out by themselves."""


@dataclass
class _Held:
    """A claimed slot and what is known of its run."""

    claim: Claim
    losses: dict[int, float] = field(default_factory=dict)
    """Finite validation losses by epoch, earlier attempts' included."""
    is_lost: bool = False
    """Another worker may have it: nothing more is recorded."""

    def note(self, losses: Sequence[float], *, first: int = 1) -> None:
        """Take the validation losses of the epochs from ``first`` on into account."""
        fresh = enumerate(losses, start=first)
        self.losses |= {epoch: loss for epoch, loss in fresh if math.isfinite(loss)}

    @property
    def best(self) -> float | None:
        """Lowest validation loss so far; None while none was finite."""
        return min(self.losses.values(), default=None)

    def lowest_by(self, epoch: int) -> list[float]:
        """Return the lowest loss up to each epoch that had a finite one, ``epoch`` the last."""
        return list(accumulate((self.losses[at] for at in sorted(self.losses) if at <= epoch), min))


class Recalled(Exception):  # noqa: N818 - an event, not an error
    """The study was stopped: its runs are given back. Passes through the trainer to the worker."""


class Source:
    """Hands out the free slots of one study below a number; implements finetune's ``RunSource``.

    Only trials that a search chose are pruned: the baseline, known configurations and replicates are
    what everything else is compared with, and are therefore always complete.
    """

    def __init__(
        self,
        session: Session,
        study: StudyRow,
        spec: StudySpec,
        checkpoints: Path,
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
        self._spec = spec
        self._checkpoints = checkpoints
        self._below = below
        self._suggester = Suggester(spec, study.study_id, session.engine)
        self._replicator = Replicator(spec, study.study_id, session.engine, below)
        self._settler = Settler(spec, study, session.engine)
        self._held: dict[str, _Held] = {}
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
            held = self._claim()
            if held is None:
                return None
            ready = self._begin(held)
        return ready

    def report(self, reports: Sequence[Report]) -> list[bool]:
        """Record one epoch of all members and decide which go on: not the lost, and not the pruned."""
        self._session.stop.check()
        if self.is_recalled:
            self.is_recalled = False
            raise Recalled
        members = [(report, self._held[report.run_id]) for report in reports]
        kept = [(report, held) for report, held in members if not held.is_lost]
        points = [_point(report, held.claim) for report, held in kept]
        session = self._session
        alive = session.patiently(lambda: session.ledger.report(points, lease_s=session.lease_s))
        for (report, held), is_mine in zip(kept, alive, strict=True):
            held.is_lost = not is_mine
            held.note([report.validation_loss], first=report.epoch)
            self._tell("epoch", held, epoch=report.epoch)
        return [self._goes_on(report, held) for report, held in members]

    def finish(self, result: RunResult) -> None:
        """Record how a run ended and delete its checkpoints; a run whose lease was lost is dropped."""
        held = self._held[result.run_id]
        with self._session.stop.held():
            is_mine = not held.is_lost and self._is_recorded(result, held.claim)
            if is_mine:
                self._clear(self._folder(held.claim))
                is_cut = result.reason in {"pruned", "diverged"}
                text = "diverged" if result.reason == "diverged" else ""
                self._count(result.reason)
                self._tell("pruned" if is_cut else "complete", held, text=text, epoch=result.epochs)
            self._forget(result.run_id)
        if is_mine:
            self._settle()

    def _settle(self) -> None:
        """End the search early when its ratio is known as closely as the budget asks."""
        known = self._session.patiently(lambda: self._settler.settle(self._session.ledger))
        if known is not None:
            self._session.on_event(Event("message", self._session.worker, self.study.name, text=known))

    def _clear(self, folder: Path) -> None:
        """Delete the checkpoints of a finished run; of a confirmation the best weights are still needed."""
        if self.study.kind != "confirm":
            shutil.rmtree(folder, ignore_errors=True)
            return
        for file in folder.glob("last.pt*"):
            file.unlink(missing_ok=True)

    def _is_recorded(self, result: RunResult, claim: Claim) -> bool:
        outcome = _outcome(result, keeps_weights=self.study.kind == "confirm")
        return self._session.patiently(lambda: self._session.ledger.finish(claim, outcome))

    # --- what the worker does besides

    def has_run(self) -> bool:
        """Claim a run if one is free and keep it for the next :meth:`next_run`."""
        self._ready = self._ready or self.next_run()
        return self._ready is not None

    def claims(self) -> list[Claim]:
        """Return the claims whose leases are to be renewed. Thread-safe."""
        with self._lock:
            return [held.claim for held in self._held.values() if not held.is_lost]

    def lose(self, claims: Sequence[Claim]) -> None:
        """Mark claims that another worker may have; their runs end at their next report. Thread-safe."""
        lost = {_run_id(claim) for claim in claims}
        with self._lock:
            for run_id in lost & self._held.keys():
                self._held[run_id].is_lost = True

    def fail_all(self, end: Literal["out_of_memory", "error"], message: str) -> None:
        """Record that the attempts under way failed; their slots are free again, up to the third fault."""
        self._ready = None
        last_line = message.strip().rpartition("\n")[2][:500]
        for run_id, held in list(self._held.items()):
            fail = partial(self._session.ledger.fail, held.claim, end, message)
            if not held.is_lost and self._session.patiently(fail):
                self._count(end)
                became = self._session.patiently(partial(after_fault, self._session.ledger, held.claim))
                self._tell(became, held, text=f"{end}: {last_line}")
            self._forget(run_id)

    def give_back_all(self) -> None:
        """Free the slots under way without counting the attempt; gives up soon when the database is away."""
        self._ready = None
        for run_id, held in list(self._held.items()):
            give_back = partial(self._session.ledger.give_back, held.claim)
            if not held.is_lost and patiently(give_back, patience_s=GIVE_BACK_PATIENCE_S):
                self._tell("given_back", held)
            self._forget(run_id)

    # --- steps

    def _claim(self) -> _Held | None:
        session = self._session
        with session.stop.held():
            claim = session.patiently(
                lambda: session.ledger.claim(
                    self.study.study_id, session.worker, lease_s=session.lease_s, below=self._below
                )
            )
            if claim is None:
                return None
            held = _Held(claim)
            with self._lock:
                self._held[_run_id(claim)] = held
        return held

    def _begin(self, held: _Held) -> Run | None:
        """Settle the configuration of a claimed slot and write its trial; None when the lease was lost."""
        session, ledger, claim = self._session, self._session.ledger, held.claim
        attributes = {"versions": dict(self.study.versions)}
        begun = session.patiently(lambda: self._replicator.begin(ledger, claim, attributes))
        if begun is claim:
            begun = self._begin_search(claim, attributes)
        if begun is None or begun.configuration is None:
            self._forget(_run_id(claim))
            return None
        held.claim = begun
        if claim.attempt > 1:
            held.note(session.patiently(lambda: ledger.curve(claim)))
        self._tell("started", held)
        return Run(_run_id(begun), self._spec.run_spec(begun.configuration), self._folder(begun))

    def _begin_search(self, claim: Claim, attributes: Mapping[str, Any]) -> Claim | None:
        """Begin a claimed slot with the configuration that it has, or with the sampler's next."""
        session, spec = self._session, self._spec
        configuration = claim.configuration or session.patiently(lambda: self._suggester.suggest(claim.slot))
        fold = spec.run_spec(configuration).fold
        return session.patiently(
            lambda: session.ledger.begin(claim, configuration, spec.space, attributes, fold=fold)
        )

    def _goes_on(self, report: Report, held: _Held) -> bool:
        if held.is_lost:
            return False
        is_sought = held.claim.origin in {"search", "transferred"}
        if not is_sought or not report.is_finite or report.epoch >= self._spec.recipe.epochs:
            return True
        pruner = self._spec.pruner
        if report.epoch <= pruner.warmup_epochs:
            return True
        match pruner.kind:
            case "none":
                return True
            case "median":
                session = self._session
                peers = session.patiently(lambda: session.ledger.peers_at(held.claim, report.epoch))
                return not is_above_median(pruner, report.epoch, held.best, peers)
            case "improvement":
                return not self._is_hopeless(report.epoch, held)
            case other:
                assert_never(other)

    def _is_hopeless(self, epoch: int, held: _Held) -> bool:
        """Return whether a run will hardly end better than the best configuration is expected to.

        Never while there are too few complete curves to tell.
        """
        curve, configuration = held.lowest_by(epoch), held.claim.configuration
        prospects = self._session.patiently(lambda: self._suggester.prospects(held.claim.fold))
        if prospects is None or configuration is None or not curve:
            return False
        return prospects.is_hopeless(configuration, curve)

    def _folder(self, claim: Claim) -> Path:
        return self._checkpoints / str(claim.slot)

    def _forget(self, run_id: str) -> None:
        with self._lock:
            del self._held[run_id]

    def _count(self, end: str) -> None:
        self._ends[end] = self._ends.get(end, 0) + 1

    def _tell(self, kind: EventKind, held: _Held, *, epoch: int = 0, text: str = "") -> None:
        claim = held.claim
        self._session.on_event(
            Event(
                kind,
                self._session.worker,
                self.study.name,
                claim.slot,
                claim.attempt,
                epoch,
                self._spec.recipe.epochs,
                held.best,
                text,
            )
        )


def _run_id(claim: Claim) -> str:
    return f"{claim.slot}.{claim.attempt}"


def _point(report: Report, claim: Claim) -> Point:
    return Point(
        claim, report.epoch, report.train_loss, report.validation_loss, report.metrics, report.elapsed_s
    )


def _outcome(result: RunResult, *, keeps_weights: bool) -> Outcome:
    """Return what the ledger keeps of a result; a diverged run has no value."""
    is_value = result.reason != "diverged" and math.isfinite(result.best_validation_loss)
    return Outcome(
        end=result.reason,
        value=result.best_validation_loss if is_value else None,
        best_epoch=result.best_epoch,
        epochs=result.epochs,
        metrics=result.best_metrics,
        elapsed_s=result.elapsed_s,
        device=result.device,
        checkpoint=str(result.checkpoint) if keeps_weights and result.checkpoint is not None else None,
    )


def after_fault(ledger: Ledger, claim: Claim) -> Literal["failed", "retried"]:
    """Return what became of the slot of an attempt that ended in a fault."""
    return "failed" if ledger.is_failed(claim) else "retried"


def tell_reaped(ledger: Ledger, on_event: Callable[[Event], None]) -> None:
    """End the attempts whose leases ran out, of any study, and tell of them."""
    dead = ledger.reap()
    names = {study.study_id: study.name for study in ledger.studies()} if dead else {}
    for claim in dead:
        name, kind = names[claim.study_id], after_fault(ledger, claim)
        on_event(Event(kind, "", name, claim.slot, claim.attempt, text="killed: its worker died"))
