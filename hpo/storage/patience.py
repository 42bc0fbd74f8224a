"""Waiting out the errors that pass: a lock, a full disk, a server that restarts, a network."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from typing import TypeVar

import sqlalchemy as sa

from hpo.errors import Said, StorageError

Result = TypeVar("Result")

_SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,  # what a full disk looks like to the write-ahead log
    sqlite3.SQLITE_CANTOPEN,  # the same, when the log cannot be made
    sqlite3.SQLITE_PROTOCOL,  # a race for the log's locks
}
_POSTGRESQL_PASSING = (
    "08",  # connection exceptions
    "53",  # insufficient resources: disk full, out of memory, too many connections
    "57014",  # cancelled: statement_timeout, or a person
    "57P",  # shut down by the administrator, crashed, starting up, idle for too long
    "40",  # rolled back: serialization failure, deadlock
    "55P03",  # lock not available: lock_timeout
    "25P03",  # idle in a transaction for too long
    "25P04",  # transaction_timeout
    "25006",  # read only: a standby that is about to be the primary
    "58030",  # I/O error
)
_LASTING = ("authentication failed", "does not exist", "pg_hba.conf", "no password supplied")
"""What libpq says (it has no code for it) when connecting again will not help."""
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.1, 5.0


_ORPHANS = 3
"""So often in a row a row may hang on one that is gone; more often it is a fault of ours."""


def is_orphan(error: BaseException) -> bool:
    """Return whether a row was to hang on one that is gone: a tool of Optuna's deleted the study meanwhile.

    The same operation then finds that there is no such study, slot or claim any more.
    """
    if not isinstance(error, sa.exc.IntegrityError):
        return False
    if isinstance(error.orig, sqlite3.Error):
        return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY
    return getattr(error.orig, "sqlstate", None) == "23503"


def passes(error: BaseException) -> bool:
    """Return whether the same operation may succeed later without anybody's doing."""
    if isinstance(error, StorageError) and error.__cause__ is not None:
        return passes(error.__cause__)
    if isinstance(error, sa.exc.TimeoutError):  # no connection of the pool came free
        return True
    if not isinstance(error, sa.exc.DBAPIError):
        return False
    if error.connection_invalidated:
        return True
    if isinstance(error.orig, sqlite3.Error):
        code: int | None = getattr(error.orig, "sqlite_errorcode", None)
        return code is not None and code & 0xFF in _SQLITE_PASSING
    state: str | None = getattr(error.orig, "sqlstate", None)
    if state is not None:
        return state.startswith(_POSTGRESQL_PASSING)
    is_connection = isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
    return is_connection and not any(text in str(error.orig) for text in _LASTING)


def patiently(
    call: Callable[[], Result],
    *,
    patience_s: float = 600.0,
    notify: Callable[[str], None] | None = None,
    wait: Callable[[float], object] = time.sleep,
    passing: Callable[[BaseException], bool] = passes,
    subject: str = "the database",
) -> Result:
    """Return what ``call`` (one transaction, safe to repeat) returns, calling again while an error passes.

    ``passing`` says which errors do; they are of the ``subject`` that the messages name.
    ``notify`` is told at the first failure, at every tenth second of waiting and when it is over; it may
    raise to end the waiting, and so may ``wait``. Other errors pass up at once. Raises
    :class:`StorageError` after ``patience_s`` seconds.
    """
    started = time.monotonic()
    told_at: float | None = None
    pause_s = _FIRST_WAIT_S
    orphans = 0
    while True:
        try:
            result = call()
        except Exception as error:
            waited_s = time.monotonic() - started
            orphans += is_orphan(error)
            if not passing(error) and not (is_orphan(error) and orphans <= _ORPHANS):
                if _is_refusal(error):
                    raise _refused(error) from error
                raise
            if waited_s + pause_s > patience_s:
                raise _out_of_patience(error, waited_s, subject) from error
            if notify is not None and (told_at is None or waited_s - told_at >= 10.0):
                told_at = waited_s
                notify(f"{subject} cannot be used now ({_reason(error)}); waiting, {waited_s:.0f} s so far")
        else:
            if notify is not None and told_at is not None:
                notify(f"{subject} is back after {time.monotonic() - started:.0f} s")
            return result
        # Jitter, so that workers that lost the server together do not come back together.
        wait(random.uniform(0.5, 1.0) * pause_s)
        pause_s = min(2 * pause_s, _LONGEST_WAIT_S)


def _is_refusal(error: BaseException) -> bool:
    """Return whether a server let nobody in: no such database, a wrong password."""
    if not isinstance(error, sa.exc.OperationalError) or isinstance(error.orig, sqlite3.Error):
        return False
    return any(text in str(error.orig) for text in _LASTING)


def _refused(error: BaseException) -> StorageError:
    expected = "a PostgreSQL that has the database and lets us in"
    return StorageError(
        Said("the database cannot be used: {reason}", reason=_reason(error)), expected, "look at --storage"
    )


def _out_of_patience(error: Exception, waited_s: float, subject: str) -> StorageError:
    return StorageError(
        Said(
            "{subject} could not be used for {waited_s:.0f} s ({reason})",
            subject=Said(subject),
            waited_s=waited_s,
            reason=_reason(error),
        ),
        "one that can be reached and written",
        "type the same command again when it is back: nothing is lost",
    )


def _reason(error: BaseException) -> str:
    """Return the first line of what the database said; a driver's message holds no URL."""
    if isinstance(error, StorageError) and error.__cause__ is not None:
        return _reason(error.__cause__)
    original = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    return str(original).strip().split("\n", 1)[0]
