"""What shows that a worker is alive: an epoch can be longer than a lease."""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import partial

from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import LostDatabaseError, StorageError
from hpo.worker.alive import repeating
from hpo.worker.roster import Roster
from hpo.worker.session import Event, Session
from hpo.worker.trial import tell_reaped


def renewing(session: Session, roster: Roster) -> AbstractContextManager[None]:
    """Renew all leases of this process every third of their length, and reap those of the dead.

    Errors of the database are told and tried again: the thread ends with the block, not before. Only a file
    that is gone, or is another, ends the worker.
    """
    return repeating(partial(_renew, session, roster), session.lease_s / 3, "leases")


def _renew(session: Session, roster: Roster) -> float | None:
    """Return the seconds until the leases are to be renewed again; None where the database is lost."""
    try:
        claims = roster.claims()
        alive = session.ledger.renew(session.worker, claims, lease_s=session.lease_s)
        roster.lose([claim for claim, is_mine in zip(claims, alive, strict=True) if not is_mine])
        roster.recall_stopped()
        tell_reaped(session)
        return session.lease_s / 3
    except LostDatabaseError as error:
        session.stop.fail(error)
        return None
    except (SQLAlchemyError, StorageError) as error:
        text = f"leases not renewed ({type(error).__name__})"
        session.on_event(Event("waiting", session.worker, text=text))
        return min(1.0, session.lease_s / 3)  # sooner: the lease runs out while the database is away
