"""The ledger of one database: all that is done to slots, leases, attempts and curves, a transaction each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa

from hpo.ledger import claims, curves, ends, optuna_rows
from hpo.ledger.peers import peers_of
from hpo.ledger.studies import StudyLedger
from hpo.ledger.values import COMPLETE, Claim, Counts, Fault, Lease, NotBegun, Outcome, Peers, Point
from hpo.storage.tables import NO_FOLD, curve, slots
from hpo.study import Configuration, Space

__all__ = ["Ledger"]


class Ledger(StudyLedger):
    """The ledger of one database. Every method is one transaction and safe to repeat.

    What is written for a :class:`Claim` counts only while its attempt is the one that runs; a late
    worker gets False (or None) and drops its run.
    """

    def add_slots(self, study_id: int, total: int, fixed: Sequence[claims.Named] = ()) -> None:
        """See that slots 0 to ``total`` - 1 are there; ``fixed`` (origin, configuration) are the first.

        Slots that are there already stay as they are.
        """
        with self._write() as connection:
            claims.lock_study(connection, study_id)
            first = claims.next_slot(connection, study_id)
            named = range(first, min(len(fixed), total))
            claims.insert_slots(connection, study_id, {slot: fixed[slot] for slot in named})
            claims.insert_searched(connection, study_id, range(max(first, len(fixed)), total))

    def drop_free_slots(self, study_id: int) -> int:
        """Take the slots that nobody has begun out of the budget; return how many there were."""
        unbegun = (slots.c.state == "free") & slots.c.trial_id.is_(None)
        with self._write() as connection:
            claims.lock_study(connection, study_id)
            gone = connection.execute(sa.delete(slots).where(slots.c.study_id == study_id, unbegun))
            return gone.rowcount

    def append_slots(self, study_id: int, fixed: Sequence[claims.Named]) -> list[int]:
        """See that there is a slot for each (origin, configuration); return their numbers, in order.

        New ones go behind the last slot. A second call, also by another worker, finds those of the first.
        """
        with self._write() as connection:
            claims.lock_study(connection, study_id)
            known = claims.fixed_slots(connection, study_id)
            fresh = [named for named in dict.fromkeys(fixed) if named not in known]
            new = dict(enumerate(fresh, claims.next_slot(connection, study_id)))
            claims.insert_slots(connection, study_id, new)
        known |= {named: slot for slot, named in new.items()}
        return [known[named] for named in fixed]

    def claim(
        self,
        study_id: int,
        worker_id: str,
        *,
        lease_s: float,
        below: int | None = None,
        made_at: float | None = None,
    ) -> Claim | None:
        """Take the lowest free slot (below ``below``) for ``lease_s`` seconds.

        None when no slot is free, the study is not open, or it was not ``made_at`` that time: SQLite gives
        the number of a deleted study to a new one.
        """
        with self._write() as connection:
            # Claims of a study come one after the other, so that Optuna's trial ids grow with their commits.
            study = claims.lock_study(connection, study_id)
            is_this = study is not None and made_at in {None, study.created_at}
            if study is None or not is_this or study.state != "open":
                return None
            taken = claims.take_slot(connection, study_id, worker_id, lease_s, below)
            if taken is None:
                return None
            claims.open_attempt(connection, study_id, worker_id, taken)
            trial_id = claims.run_trial(connection, study_id, taken)
        return claims.claim_of(taken, study_id, worker_id, trial_id, study.epochs)

    def begin(
        self,
        claim: Claim,
        configuration: Configuration,
        space: Space,
        attributes: Mapping[str, Any],
        *,
        fold: int | None = None,
    ) -> Claim | None:
        """Record what the claimed trial tries: its params, ratio and user ``attributes``, for Optuna too.

        Returns the claim with its configuration and fold, or None when it was lost.
        """
        told = trial_attributes(claim, configuration, attributes, fold)
        with self._write() as connection:
            is_held = _write_begun(connection, claim, configuration, space, told, fold)
        return replace(claim, configuration=configuration, fold=fold) if is_held else None

    def begin_replicate(
        self,
        claim: Claim,
        pick: Callable[[sa.Connection], Configuration | None],
        space: Space,
        attributes: Mapping[str, Any],
        fold_of: Callable[[Configuration], int | None],
    ) -> Claim | NotBegun:
        """Begin the claimed trial as a replicate of what ``pick`` finds, while nobody else begins one.

        Returns the claim, of origin ``replicate``, or why there is none.
        """
        with self._write() as connection:
            claims.lock_study(connection, claim.study_id)
            chosen = pick(connection)
            if chosen is None:
                return NotBegun.NOTHING_TO_REPEAT
            if not claims.update_held(connection, claim, {"origin": "replicate"}):
                return NotBegun.LOST
            mine = replace(claim, origin="replicate")
            fold = fold_of(chosen)
            told = trial_attributes(mine, chosen, attributes, fold)
            _write_begun(connection, mine, chosen, space, told, fold)
        return replace(mine, configuration=chosen, fold=fold)

    def report(self, points: Sequence[Point], *, lease_s: float) -> list[bool]:
        """Store one epoch of each claimed trial and renew its lease, all in one transaction.

        Returns, in the same order, which claims are still held; the points of the others are dropped.
        """
        with self._write() as connection:
            held = [claims.renew_lease(connection, point.claim, lease_s) for point in points]
            kept = [point for point, is_held in zip(points, held, strict=True) if is_held]
            if kept:
                curves.write_points(connection, kept)
        return held

    def curve(self, claim: Claim) -> list[float]:
        """Return the validation losses of a claimed trial, by epoch; NaN where one was not finite."""
        mine = (curve.c.study_id == claim.study_id) & (curve.c.slot == claim.slot)
        query = sa.select(curve.c.validation_loss).where(mine).order_by(curve.c.epoch)
        with self._read() as connection:
            losses = connection.execute(query).scalars().all()
        return [math.nan if loss is None else loss for loss in losses]

    def peers_at(self, claim: Claim, epoch: int) -> Peers:
        """Return the other trials (of the claim's fold) at ``epoch``: all that pruning needs, one query."""
        with self._read() as connection:
            return peers_of(connection, claim, epoch)

    def renew(self, worker_id: str, held: Iterable[Claim], *, lease_s: float) -> list[bool]:
        """Renew the leases and note that the worker is alive; return which claims are still held."""
        with self._write() as connection:
            claims.note_worker(connection, worker_id, "here")
            return [claims.renew_lease(connection, claim, lease_s) for claim in held]

    def finish(self, claim: Claim, outcome: Outcome) -> bool:
        """Close the slot with a result; False, and nothing written, when the claim was lost.

        Raises ValueError for a complete trial without a finite value.
        """
        if outcome.end in COMPLETE and optuna_rows.finite(outcome.value) is None:
            raise ValueError(f"a trial that {outcome.end} needs a finite value, not {outcome.value}")
        return self._write_result(claim, outcome)

    def _write_result(self, claim: Claim, outcome: Outcome) -> bool:
        with self._write() as connection:
            if not ends.write_result(connection, claim, outcome):
                return ends.has_ended(connection, claim, outcome.end)
            at = ends.close_attempt(connection, claim, outcome.end)
            if claim.attempt > 1:
                curves.drop_later_epochs(connection, claim, outcome.epochs)
            ends.end_trial(connection, claim, outcome, at)
        return True

    def give_back(self, claim: Claim) -> bool:
        """Free the slot of a run that was interrupted, not at fault; False when the claim was lost."""
        with self._write() as connection:
            if not claims.update_held(connection, claim, {"state": "free", "lease_until": None}):
                return ends.has_ended(connection, claim, "interrupted")
            ends.close_attempt(connection, claim, "interrupted")
            optuna_rows.let_wait(connection, claim.trial_id)
        return True

    def fail(self, claim: Claim, end: Fault, message: str) -> bool:
        """Free the slot after a fault, or close it as failed after the third; False when it was lost."""
        with self._write() as connection:
            if not claims.update_held(connection, claim, ends.after_fault(end)):
                return ends.has_ended(connection, claim, end)
            ends.record_fault(connection, claim, end, message)
        return True

    def reap(self, is_dead: Callable[[list[Lease]], list[Lease]] = list) -> list[Claim]:
        """End attempts whose leases ran out, in all studies, and return what they held.

        ``is_dead`` is given all that seem to have, and returns those whose holders are dead: a lease alone
        does not tell (:class:`hpo.worker.watch.Watch`). It is asked only when this transaction could write,
        so that the holders could have renewed. Any number may reap at once: each attempt is ended by one.
        """
        with self._read() as connection:
            if not claims.seems_expired(connection):
                return []
        with self._write() as connection:
            return ends.free_expired(connection, is_dead(claims.expired_leases(connection)))

    def worker_died(self, worker_id: str) -> list[Claim]:
        """End the attempts of a worker that was seen dead, and return what it held."""
        with self._write() as connection:
            claims.note_worker(connection, worker_id, "died")
            return ends.free_dead_workers(connection, worker_id)

    def is_failed(self, claim: Claim) -> bool:
        """Return whether the claimed slot was closed after its third fault."""
        with self._read() as connection:
            return claims.slot_state(connection, claim) == "failed"

    def counts(self, study_id: int, below: int | None = None) -> Counts:
        """Return how many slots (below ``below``) are in which state, and the epochs done in them."""
        chosen = slots.c.study_id == study_id
        if below is not None:
            chosen &= slots.c.slot < below
        with self._read() as connection:
            return claims.count_slots(connection, chosen)


def _write_begun(
    connection: sa.Connection,
    claim: Claim,
    configuration: Configuration,
    space: Space,
    told: Mapping[str, Any],
    fold: int | None,
) -> bool:
    """Write what a claimed trial tries, to our tables and Optuna's; False when the claim was lost."""
    values = {"config": configuration.to_json(), "fold": NO_FOLD if fold is None else fold}
    if not claims.update_held(connection, claim, values):
        return False
    optuna_rows.write_params(connection, claim.trial_id, configuration, space)
    optuna_rows.write_attributes(connection, claim.trial_id, told)
    return True


def trial_attributes(
    claim: Claim, configuration: Configuration, attributes: Mapping[str, Any], fold: int | None
) -> dict[str, Any]:
    """Return the user attributes of a trial that begins."""
    ours = {"ratio": configuration.ratio, "origin": claim.origin, "worker": claim.worker_id}
    ours |= {"attempt": claim.attempt} | ({} if fold is None else {"fold": fold})
    return ours | dict(attributes)
