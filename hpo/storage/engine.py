"""A database opened with options that several processes can live with."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from hpo.errors import Said, StorageError
from hpo.storage.address import real_path, redact
from hpo.storage.files import check_file, is_read_only
from hpo.storage.schema import prepare
from hpo.storage.sqlite import WRITES, keep_to_this_file, sqlite_engine

if TYPE_CHECKING:
    from optuna.storages import BaseStorage
    from sqlalchemy.engine.interfaces import DBAPIConnection
    from sqlalchemy.pool import ConnectionPoolEntry

_EXAMPLES = Said.listed(["sqlite:///hpo.db", "postgresql://user:password@host/database"], " or ")
_BUSY_TIMEOUT_S = 60.0
"""How long a transaction waits for a lock without a word."""
_PING_AFTER_S = 5.0
"""A connection that has lain idle for longer is asked whether it still lives before it is used."""
_USED_AT = "hpo_used_at"


def open_engine(url: str, *, create: bool = True, busy_timeout_s: float = _BUSY_TIMEOUT_S) -> sa.Engine:
    """Return an engine on the database, whose tables are there and up to date.

    Without ``create`` the database must already hold studies of ours. Who waits with :func:`patiently`, which
    speaks and can be interrupted, gives a short ``busy_timeout_s``. Raises :class:`StorageError` when it
    cannot be opened, :class:`MismatchError` when it was made by another version of this program or of Optuna.
    """
    parsed = parse_url(url)
    file = sqlite_file(parsed)
    if file is not None:
        check_file(file, create=create)
    if file is not None:
        engine = sqlite_engine(parsed, file, busy_timeout_s, create=create)
    else:
        engine = _postgresql_engine(parsed, lock_timeout_s=busy_timeout_s)
    try:
        prepare(engine, create=create, may_change=may_write(engine))
        if file is not None:
            keep_to_this_file(engine, file)
    except sa.exc.DBAPIError as error:
        engine.dispose()
        raise _explained(error, parsed) from error
    except BaseException:
        engine.dispose()
        raise
    return engine


def parse_url(url: str) -> URL:
    """Return the parsed URL with the driver that we use; raises :class:`StorageError` for any other kind."""
    try:
        parsed = make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise StorageError(
            Said("{url!r} is no database URL", url=redact(url)),
            Said("a file such as hpo.db, or a URL such as {examples}", examples=_EXAMPLES),
        ) from error
    if url.split("?", 1)[0].count("@") > 1:
        raise StorageError(
            Said("the database URL {url!r} has more than one @", url=redact(url)),
            "%40 for each @ of a user or a password",
        )
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        if parsed.database in {None, "", ":memory:"}:
            raise StorageError("an in-memory database cannot be shared", "a file, such as sqlite:///hpo.db")
        return parsed.set(drivername="sqlite")
    if kind in {"postgresql", "postgres"}:
        return _with_password(parsed.set(drivername="postgresql+psycopg"))
    raise StorageError(
        Said("a {kind} database is not supported", kind=kind),
        Said("a URL such as {examples}", examples=_EXAMPLES),
    )


def _with_password(url: URL) -> URL:
    """Return a server's URL with the password of HPO_STORAGE_PASSWORD_FILE, when it has none itself."""
    file = os.environ.get("HPO_STORAGE_PASSWORD_FILE")
    if not file or url.password is not None or url.username is None:
        return url
    try:
        return url.set(password=Path(file).read_text(encoding="utf-8").rstrip("\r\n"))
    except OSError as error:
        raise StorageError(
            Said(
                "cannot read HPO_STORAGE_PASSWORD_FILE, {file!r} ({strerror})",
                file=file,
                strerror=error.strerror,
            ),
            "a file with the password",
        ) from error


def sqlite_file(url: URL) -> Path | None:
    """Return the file of an SQLite database, where a link leads to; None for PostgreSQL."""
    return real_path(url.database or "") if url.get_backend_name() == "sqlite" else None


def may_write(engine: sa.Engine) -> bool:
    """Return whether the database can be written to from here, as far as a file tells."""
    file = sqlite_file(engine.url)
    return file is None or not is_read_only(file)


@contextmanager
def writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a transaction that may write; SQLite takes its lock at once, so it cannot fail in the middle."""
    with engine.connect() as connection:
        connection.execution_options(**{WRITES: True})
        with connection.begin():
            yield connection


@contextmanager
def reading(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Open a connection for single statements that read; PostgreSQL is spared BEGIN and ROLLBACK."""
    with engine.connect() as connection:
        if engine.dialect.name == "postgresql":
            connection.execution_options(isolation_level="AUTOCOMMIT")
        yield connection


def optuna_storage(url: str) -> BaseStorage:
    """Return Optuna's cached view of the database, for reading; our tables must be there.

    Cached, a poll of the dashboard costs a fiftieth of what it costs on the bare URL.
    """
    from optuna.storages import get_storage  # 0.4 s of CPU

    from hpo.storage.quick_storage import QuickStorage

    parsed = parse_url(url)
    file = sqlite_file(parsed)
    waits = {"connect_args": {"timeout": _BUSY_TIMEOUT_S}, "pool_size": 5}
    kwargs = waits if file is not None else _POSTGRESQL_OPTIONS | {"pool_pre_ping": True}
    text = parsed.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    storage = QuickStorage(text, engine_kwargs=dict(kwargs), skip_table_creation=True)
    if file is not None:
        keep_to_this_file(storage.engine, file)
    return get_storage(storage)


_POSTGRESQL_OPTIONS: dict[str, Any] = {
    "pool_size": 2,  # the loop and the thread that renews leases
    "max_overflow": 3,
    "connect_args": {"connect_timeout": 10, "application_name": "hpo"},
}


def _postgresql_engine(url: URL, *, lock_timeout_s: float) -> sa.Engine:
    """Return an engine whose statements wait for another's lock no longer than SQLite's would."""
    engine = sa.create_engine(url, **_POSTGRESQL_OPTIONS)

    @sa.event.listens_for(engine, "connect")
    def _set_up(connection: Any, _: object) -> None:
        connection.execute(f"SET lock_timeout = {int(1000 * lock_timeout_s)}")
        connection.commit()

    # SQLAlchemy's pool_pre_ping asks at every checkout, a third of the cost of an epoch's report.
    @sa.event.listens_for(engine, "checkout")
    def _ping(connection: DBAPIConnection, record: ConnectionPoolEntry, _: object) -> None:
        if time.monotonic() - record.info.get(_USED_AT, -math.inf) > _PING_AFTER_S:
            try:
                engine.dialect.do_ping(connection)
            except engine.dialect.loaded_dbapi.Error as error:
                raise sa.exc.DisconnectionError from error  # the pool takes another connection

    @sa.event.listens_for(engine, "checkin")
    def _note(_: DBAPIConnection | None, record: ConnectionPoolEntry) -> None:
        record.info[_USED_AT] = time.monotonic()

    return engine


def _explained(error: sa.exc.DBAPIError, url: URL) -> StorageError:
    """Return the error as one line that names the database and never its password."""
    reason = " ".join(redact(str(error.orig)).split())
    shown = redact(url.render_as_string(hide_password=True))
    file = sqlite_file(url)
    if file is None:
        return StorageError(
            Said("cannot use the database {shown}: {reason}", shown=shown, reason=reason),
            "a PostgreSQL that can be reached",
        )
    if "not a database" in reason or "malformed" in reason:
        return StorageError(
            Said("{file!r} is not an SQLite database", file=str(file)), "a database, or a name that is free"
        )
    return StorageError(
        Said("cannot use the database {file!r}: {reason}", file=str(file), reason=reason),
        "a file and a folder that can be written",
    )
