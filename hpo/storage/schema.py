"""The tables of a database: Optuna's made by Optuna, ours by migrations, by one process at a time."""

from __future__ import annotations

import fcntl
import os
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from hpo.errors import MismatchError, Said, StorageError
from hpo.storage.revisions import OPTUNA_REVISION, REVISION, VERSION_TABLE

_LOCK_KEY = zlib.crc32(b"hpo schema")
_ASK_AGAIN_S = 0.1


def prepare(engine: sa.Engine, *, create: bool, may_change: bool = True) -> None:
    """See that Optuna's tables and ours are there and up to date; cheap when they are.

    Without ``create``, raises :class:`StorageError` when ours are missing. Raises :class:`MismatchError`
    when either were made by a newer version. Studies of others in the database are left alone.
    """
    if _is_ready(engine):
        return
    if not create and _revision(engine, VERSION_TABLE) is None:
        raise StorageError(
            "the database holds no study of this program", "one that a search has used", "type: hpo run"
        )
    if not may_change:
        raise StorageError(
            "the database was made by an older version, and can only be read here, not brought up to date",
            "a file and a folder that can be written",
            "copy it to such a folder, and name the copy",
        )
    with _alone(engine):
        if not _is_ready(engine):
            _refuse_foreign(engine)
            _make_optuna_tables(engine)
            _migrate(engine)


def _refuse_foreign(engine: sa.Engine) -> None:
    """Raise :class:`StorageError` for tables of another program: any in a file, elsewhere one in our way."""
    from optuna.storages._rdb.models import BaseModel

    seen = sa.inspect(engine)
    tables = set(seen.get_table_names())
    if VERSION_TABLE in tables:
        return
    optunas = {*BaseModel.metadata.tables, "alembic_version"}
    theirs = tables - optunas if engine.dialect.name == "sqlite" and "version_info" not in tables else set()
    for name in tables & set(BaseModel.metadata.tables):
        there = {column["name"] for column in seen.get_columns(name)}
        theirs |= (
            set() if there >= set(BaseModel.metadata.tables[name].primary_key.columns.keys()) else {name}
        )
    if theirs:
        raise StorageError(
            Said(
                "the database has tables of another program ({theirs})", theirs=", ".join(sorted(theirs)[:3])
            ),
            "a new database, or one of this program or of Optuna",
            "take another --storage",
        )


def _is_ready(engine: sa.Engine) -> bool:
    ours, theirs = _revision(engine, VERSION_TABLE), _revision(engine, "alembic_version")
    _refuse_newer(ours, theirs)
    return ours == REVISION and theirs == OPTUNA_REVISION


def _revision(engine: sa.Engine, table: str) -> str | None:
    """Return the schema version noted in ``table``; None when there is none."""
    if not sa.inspect(engine).has_table(table):
        return None
    with engine.connect() as connection:
        found = connection.execute(sa.select(sa.column("version_num")).select_from(sa.table(table))).scalar()
    return None if found is None else str(found)


def _refuse_newer(ours: str | None, theirs: str | None) -> None:
    if ours is not None and ours > REVISION:
        raise MismatchError(
            Said("the database has schema {ours} of a newer version of this program", ours=ours),
            Said("schema {revision} or older", revision=REVISION),
            "update this program, or take another --storage",
        )
    if (
        theirs is not None
        and theirs != OPTUNA_REVISION
        and _as_numbers(theirs) > _as_numbers(OPTUNA_REVISION)
    ):
        raise MismatchError(
            Said("the database has Optuna's schema {theirs} of a newer Optuna", theirs=theirs),
            Said("Optuna's schema {optuna_revision}", optuna_revision=OPTUNA_REVISION),
            "take another --storage",
        )


def _as_numbers(revision: str) -> list[int]:
    return [int(part) for part in revision.lstrip("v").split(".") if part.isdigit()]


@contextmanager
def _alone(engine: sa.Engine) -> Iterator[None]:
    """Let one process at a time through: an advisory lock on PostgreSQL, one on the folder for SQLite."""
    if engine.dialect.name == "postgresql":
        with engine.connect() as connection:
            # Asked for again and again: a server's own time-outs would end a wait inside it. And the lock is
            # the session's, which must not lie idle in a transaction meanwhile.
            while not connection.execute(sa.select(sa.func.pg_try_advisory_lock(_LOCK_KEY))).scalar_one():
                connection.commit()
                time.sleep(_ASK_AGAIN_S)
            connection.commit()
            try:
                yield
            finally:
                connection.execute(sa.select(sa.func.pg_advisory_unlock(_LOCK_KEY)))
        return
    # Not the file itself: closing a second handle on it would drop SQLite's own locks in this process.
    folder = os.open(Path(engine.url.database or "").absolute().parent, os.O_RDONLY)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        _use_write_ahead_log(engine)
        yield
    finally:
        os.close(folder)


def _use_write_ahead_log(engine: sa.Engine) -> None:
    """Switch the file to WAL, which it stays in: readers and the writer no longer wait for each other."""
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def _make_optuna_tables(engine: sa.Engine) -> None:
    """Make Optuna's tables as Optuna does, or raise when they are of an older Optuna."""
    from optuna.storages import RDBStorage

    # Optuna fills {SCHEMA_VERSION} into its URLs.
    url = engine.url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}")
    try:
        storage = RDBStorage(url, engine_kwargs={"poolclass": sa.NullPool})
    except RuntimeError as error:
        raise MismatchError(
            "the database was made by another version of Optuna",
            Said("Optuna's schema {optuna_revision}", optuna_revision=OPTUNA_REVISION),
            "type: optuna storage upgrade --storage URL",
        ) from error
    storage.engine.dispose()


def _migrate(engine: sa.Engine) -> None:
    """Bring our tables up to date, all in one transaction."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
