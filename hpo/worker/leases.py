"""The thread that shows that a worker is alive: an epoch can be longer than a lease."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import SQLAlchemyError

from hpo.errors import LostDatabaseError, StorageError
from hpo.worker.roster import Roster
from hpo.worker.session import Event, Session
from hpo.worker.trial import tell_reaped


@contextmanager
def renewing(session: Session, roster: Roster) -> Iterator[None]:
    """Renew all leases of this process every third of their length, and reap those of the dead.

    Errors of the database are told and tried again: the thread ends with the block, not before. Only a file
    that is gone, or is another, ends the worker.
    """
    done = threading.Event()
    thread = threading.Thread(target=_renew, args=(session, roster, done), name="leases", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=1.0)


def _renew(session: Session, roster: Roster, done: threading.Event) -> None:
    pause_s = session.lease_s / 3
    while not done.wait(pause_s):
        try:
            claims = roster.claims()
            alive = session.ledger.renew(session.worker, claims, lease_s=session.lease_s)
            roster.lose([claim for claim, is_mine in zip(claims, alive, strict=True) if not is_mine])
            roster.recall_stopped()
            tell_reaped(session)
            pause_s = session.lease_s / 3
        except LostDatabaseError as error:
            session.stop.fail(error)
            return
        except (SQLAlchemyError, StorageError) as error:
            pause_s = min(1.0, session.lease_s / 3)  # sooner: the lease runs out while the database is away
            text = f"leases not renewed ({type(error).__name__})"
            session.on_event(Event("waiting", session.worker, text=text))
