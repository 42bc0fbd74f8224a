"""One trial in this process, from a claimed slot to its end: :class:`Trial`, read from top to bottom.

    begin          -> a run for the trainer                  the slot is running
                    | nothing                                the claim was lost meanwhile
    after an epoch -> the run goes on
                    | it does not                            it is pruned, or the claim was lost
    end(how)       -> finished, patience, pruned, diverged   a result: the slot is done
                    | retried, failed                        a fault: another attempt, or no more
                    | given_back                             interrupted: free again, at no cost
                    | lost                                   another worker may have it: nothing is written

The trainer behind the doorway runs one trial or many, and calls in between: so the way of a trial is three
calls of its source, and not one function that waits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, assert_never

from finetune.api import EndReason, Report, Run, RunResult
from hpo.checkpoints import Checkpoints
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Claim, NotBegun, Outcome, Point, StudyRow
from hpo.search import Suggester
from hpo.search.pruning import UnderWay, goes_on
from hpo.search.race import Replicator
from hpo.storage import patiently
from hpo.study import StudySpec
from hpo.worker.session import Event, EventKind, Session


@dataclass(frozen=True)
class Served:
    """A study as this process serves it: what all its trials share."""

    session: Session
    study: StudyRow
    spec: StudySpec
    checkpoints: Checkpoints
    suggester: Suggester
    replicator: Replicator
    below: int | None
    """The first slot that this process leaves alone; None: it takes all."""

    def others(self) -> int:
        """Return how many slots are free for anybody."""
        count = partial(self.session.ledger.counts, self.study.study_id, self.below)
        return self.session.patiently(count).free


@dataclass(frozen=True)
class Broken:
    """The trainer raised something that another attempt may mend."""

    end: Literal["out_of_memory", "error"]
    message: str
    """The traceback."""


@dataclass(frozen=True)
class Interrupted:
    """The process ends, or the study was stopped."""

    patience_s: float
    """How long the database may keep us waiting; if it is away longer, the lease runs out by itself."""


Ending = EndReason | Literal["retried", "failed", "given_back", "lost"]


@dataclass
class Trial:
    """A claimed slot, its run, and what has been seen of it."""

    served: Served
    claim: Claim
    losses: dict[int, float] = field(default_factory=dict)
    """Finite validation losses by epoch, earlier attempts' included."""
    is_lost: bool = False
    """Another worker may have it: nothing more is recorded."""

    @property
    def run_id(self) -> str:
        """The name of its run at the trainer."""
        return f"{self.claim.slot}.{self.claim.attempt}"

    @property
    def best(self) -> float | None:
        """Lowest validation loss so far; None while none was finite."""
        return min(self.losses.values(), default=None)

    # --- begin

    def begin(self) -> Run | None:
        """Settle what the slot tries, write it, and return its run; None when the claim was lost."""
        session, study = self.served.session, self.served.study
        attributes = {"versions": dict(study.versions)}
        begun = session.patiently(
            lambda: self.served.replicator.begin(session.ledger, self.claim, attributes)
        )
        if begun is NotBegun.NOTHING_TO_REPEAT:
            begun = self._begin_search(attributes)
        if isinstance(begun, NotBegun):
            return None
        self.claim = begun
        is_first = begun.attempt == 1  # then whatever lies there is of another run
        session.reach(lambda: self._checkpoints.prepare(begun.slot, is_first=is_first))
        if not is_first:
            self._note(session.patiently(lambda: session.ledger.curve(begun)))
        self._tell("started", epoch=max(self.losses, default=0))
        assert begun.configuration is not None
        folder = self._checkpoints.of(begun.slot)
        spec = self.served.spec.run_spec(begun.configuration)
        return Run(self.run_id, spec, folder, self._keep, self.served.others)

    def _keep(self, file: Path) -> None:
        """Take a checkpoint that the run has written; of a lost run it might be older than another's."""
        if not self.is_lost:
            self.served.session.reach(lambda: self._checkpoints.keep(self.claim.slot, file))

    def _begin_search(self, attributes: Mapping[str, Any]) -> Claim | NotBegun:
        """Begin with the configuration that the slot has, or with the sampler's next."""
        session, spec, suggester = self.served.session, self.served.spec, self.served.suggester
        configuration = self.claim.configuration or session.patiently(
            lambda: suggester.suggest(self.claim.slot)
        )
        fold = spec.run_spec(configuration).fold
        begun = session.patiently(
            lambda: session.ledger.begin(self.claim, configuration, spec.space, attributes, fold=fold)
        )
        return NotBegun.LOST if begun is None else begun

    # --- after each epoch

    def note_epoch(self, report: Report, *, is_held: bool) -> None:
        """Take in an epoch that was recorded, or that was not because the claim was lost."""
        self.is_lost = self.is_lost or not is_held
        self._note([report.validation_loss], first=report.epoch)
        if is_held:
            self._tell("epoch", epoch=report.epoch)

    def goes_on(self, report: Report) -> bool:
        """Return whether the run is worth another epoch, and still ours."""
        configuration = self.claim.configuration
        if self.is_lost or configuration is None:
            return False
        served, session = self.served, self.served.session
        run = UnderWay(
            self.claim.origin,
            configuration,
            report.epoch,
            served.spec.recipe.epochs,
            report.is_finite,
            self._lowest_by(report.epoch),
        )
        return goes_on(
            served.spec.pruner,
            run,
            peers=lambda: session.patiently(lambda: session.ledger.peers_at(self.claim, report.epoch)),
            prospects=lambda: session.patiently(lambda: served.suggester.prospects(self.claim.fold)),
        )

    # --- end

    def end(self, how: RunResult | Broken | Interrupted) -> Ending:
        """Write how it ended, tell of it, and return what became of it."""
        if self.is_lost:
            return "lost"
        match how:
            case RunResult():
                return self._record(how)
            case Broken():
                return self._fail(how)
            case Interrupted():
                return self._give_back(how)
            case other:
                assert_never(other)

    def _record(self, result: RunResult) -> Ending:
        """A result: the slot is done, and its checkpoints go."""
        session, keeps_weights = self.served.session, self.served.study.kind == "confirm"
        slot, file = self.claim.slot, result.checkpoint
        weights = self._checkpoints.address(slot, file) if keeps_weights and file is not None else None
        outcome = _outcome(result, weights)
        if not session.patiently(lambda: session.ledger.finish(self.claim, outcome)):
            return "lost"
        session.reach(lambda: self._checkpoints.clear(slot, keeps_weights=keeps_weights))
        is_cut = result.reason in {"pruned", "diverged"}
        text = "diverged" if result.reason == "diverged" else ""
        self._tell("pruned" if is_cut else "complete", text=text, epoch=result.epochs)
        return result.reason

    def _fail(self, broken: Broken) -> Ending:
        """A fault: the slot is free again, or after the last one that it may have failed for good."""
        session = self.served.session
        if not session.patiently(lambda: session.ledger.fail(self.claim, broken.end, broken.message)):
            return "lost"
        became = session.patiently(partial(after_fault, session.ledger, self.claim))
        last_line = broken.message.strip().rpartition("\n")[2][:500]
        self._tell(became, text=f"{broken.end}: {last_line}")
        return became

    def _give_back(self, interrupted: Interrupted) -> Ending:
        """Interrupted: the slot is free again, and nothing is counted against it."""
        ledger = self.served.session.ledger
        if not patiently(lambda: ledger.give_back(self.claim), patience_s=interrupted.patience_s):
            return "lost"
        self._tell("given_back")
        return "given_back"

    # --- small things

    def _note(self, losses: Sequence[float], *, first: int = 1) -> None:
        """Take the validation losses of the epochs from ``first`` on into account."""
        fresh = enumerate(losses, start=first)
        self.losses |= {epoch: loss for epoch, loss in fresh if math.isfinite(loss)}

    def _lowest_by(self, epoch: int) -> tuple[float, ...]:
        """Return the lowest loss up to each epoch that had a finite one, ``epoch`` the last."""
        return tuple(accumulate((self.losses[at] for at in sorted(self.losses) if at <= epoch), min))

    @property
    def _checkpoints(self) -> Checkpoints:
        return self.served.checkpoints

    def _tell(self, kind: EventKind, *, epoch: int = 0, text: str = "") -> None:
        session, claim = self.served.session, self.claim
        session.on_event(
            Event(
                kind,
                session.worker,
                self.served.study.name,
                claim.slot,
                claim.attempt,
                epoch,
                self.served.spec.recipe.epochs,
                self.best,
                text,
            )
        )


def point_of(report: Report, claim: Claim) -> Point:
    """Return an epoch as the ledger takes it."""
    return Point(
        claim, report.epoch, report.train_loss, report.validation_loss, report.metrics, report.elapsed_s
    )


def _outcome(result: RunResult, weights: str | None) -> Outcome:
    """Return what the ledger keeps of a result and where its weights are; a diverged run has no value."""
    is_value = result.reason != "diverged" and math.isfinite(result.best_validation_loss)
    return Outcome(
        end=result.reason,
        value=result.best_validation_loss if is_value else None,
        best_epoch=result.best_epoch,
        epochs=result.epochs,
        metrics=result.best_metrics,
        elapsed_s=result.elapsed_s,
        device=result.device,
        checkpoint=weights,
    )


def after_fault(ledger: Ledger, claim: Claim) -> Literal["failed", "retried"]:
    """Return what became of the slot of an attempt that ended in a fault."""
    return "failed" if ledger.is_failed(claim) else "retried"


def tell_reaped(session: Session) -> None:
    """End the attempts of workers that are dead for all we know, of any study, and tell of them."""
    dead = session.ledger.reap(session.watch.dead)
    tell_ended(session.ledger, dead, "its worker gave no sign of life", session.on_event)


def tell_ended(ledger: Ledger, dead: Sequence[Claim], why: str, on_event: Callable[[Event], None]) -> None:
    """Tell of attempts that others ended, and what became of their slots."""
    names = {study.study_id: study.name for study in ledger.studies()} if dead else {}
    for claim in dead:
        kind = after_fault(ledger, claim)
        on_event(Event(kind, "", names.get(claim.study_id, ""), claim.slot, claim.attempt, text=why))
