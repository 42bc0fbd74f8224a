"""An SQLite file that several processes can live with: WAL, a shared clock, and the same file to the end.

A file that is deleted, or replaced by another, stays open in the processes that have it: all they write goes
nowhere. So who opened a file here looks at every transaction whether its name still leads to it, and stops
when it does not; a new connection never makes a file anew.
"""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy.engine import URL
from sqlalchemy.engine.interfaces import Dialect

from hpo.errors import LostDatabaseError, Said
from hpo.storage import clock
from hpo.storage.columns import parsed
from hpo.storage.files import is_read_only, refuse_read_only, way_in

WRITES = "hpo_writes"
"""Execution option of a connection whose transactions write."""
_TRY_S = 0.25
"""SQLite waits for a lock deaf to signals: so it is asked to wait no longer at a time."""


def sqlite_engine(url: URL, file: Path, busy_timeout_s: float, *, create: bool) -> sa.Engine:
    """Return an engine on ``file``; without ``create`` a connection does not make it.

    :func:`keep_to_this_file` follows once the tables are there.
    """
    if create:
        _make_for_its_owner(file)
    # A thread holds at most one connection; a connection held open costs no more than a file. Of a file that
    # may only be read each looks anew: one that was told that nobody writes would not see who does later.
    pool: dict[str, Any] = {"poolclass": sa.NullPool} if is_read_only(file) else {"pool_size": 5}
    engine = sa.create_engine(
        url, connect_args={"timeout": busy_timeout_s}, json_deserializer=parsed, **pool
    )  # what is no JSON is nothing: it breaks the row that holds it, not all that are read with it
    if not create:
        _never_make(engine, file)

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: sqlite3.Connection, _: object) -> None:
        # sqlite3's own transaction control opens none for a SELECT: SQLAlchemy's documented way out is to
        # switch it off and to emit BEGIN ourselves (dialects/sqlite, "Transactions with SQLite").
        connection.isolation_level = None
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.create_function("hpo_now", 0, clock.now)

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: sa.Connection) -> None:
        # A transaction that starts as a reader and then writes fails at once when another has written
        # meanwhile, whatever the busy timeout: writers say so at the start.
        if connection.get_execution_options().get(WRITES, False):
            refuse_read_only(file)
            _begin_to_write(connection, busy_timeout_s)
        else:
            connection.exec_driver_sql("BEGIN")

    return engine


def _make_for_its_owner(file: Path) -> None:
    """Make the file, if it is not there, for its owner alone to read; SQLite gives its log the same mode."""
    with suppress(OSError):  # it is there, or cannot be made, which the connection tells
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))


def _begin_to_write(connection: sa.Connection, busy_timeout_s: float) -> None:
    """Take the file's only place for a writer, waiting for it in short steps between which signals come."""
    raw: Any = connection.connection.driver_connection
    until = time.monotonic() + busy_timeout_s
    _wait_for_locks(raw, min(_TRY_S, busy_timeout_s))
    try:
        while time.monotonic() < until:
            try:
                raw.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
                    break
            else:
                return
        connection.exec_driver_sql("BEGIN IMMEDIATE")  # for the last time: the error is SQLAlchemy's
    finally:
        _wait_for_locks(raw, busy_timeout_s)


def _wait_for_locks(raw: sqlite3.Connection, seconds: float) -> None:
    raw.execute(f"PRAGMA busy_timeout = {int(1000 * seconds)}")


def keep_to_this_file(engine: sa.Engine, file: Path) -> None:
    """From here on, raise :class:`LostDatabaseError` once the name leads to another file, or to none."""
    is_this = _identity(file)

    def check() -> None:
        try:
            found = _identity(file)
        except FileNotFoundError:
            raise _lost(file, Said("is gone")) from None
        if found != is_this:
            raise _lost(file, Said("was replaced by another file"))

    _never_make(engine, file)
    sa.event.listen(engine, "begin", lambda _: check(), insert=True)
    sa.event.listen(engine, "do_connect", lambda *_: check(), insert=True)


def _never_make(engine: sa.Engine, file: Path) -> None:
    """Let connections open the file only if it is there."""

    @sa.event.listens_for(engine, "do_connect")
    def _open(_: Dialect, record: object, arguments: list[Any], options: dict[str, Any]) -> None:
        arguments[0] = f"file:{quote(str(file))}?{way_in(file)}"
        options["uri"] = True


def _identity(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_dev, found.st_ino


def _lost(file: Path, what: str) -> LostDatabaseError:
    return LostDatabaseError(
        Said("the database {file!r} {what} while it was in use", file=str(file), what=what),
        "the file that was opened",
        "put it back, or type the command again for a new search",
    )
