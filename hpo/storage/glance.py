"""A look at a database that costs next to nothing: one SELECT as text, through the driver alone where it can.

SQLAlchemy is a third of a second of CPU to load, more than a glance at 20,000 trials needs. So a person's
glance at a file goes to sqlite3; any other database, and one whose tables are not exactly today's, is opened
as ever. The queries are the same text for both.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import quote

from hpo.errors import Said, StorageError
from hpo.storage import clock
from hpo.storage.address import plain_file
from hpo.storage.files import check_file, way_in
from hpo.storage.revisions import OPTUNA_REVISION, REVISION, VERSION_TABLE

if TYPE_CHECKING:
    import sqlalchemy as sa

_BUSY_TIMEOUT_S = 60.0
_NOW = {
    "sqlite": "hpo_now()",
    "postgresql": "CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)",
}
"""Seconds since 1970 by the database's clock, as :class:`hpo.storage.tables.now_s` has it."""


class Glance:
    """An SQLite file that is only looked at, without SQLAlchemy."""

    def __init__(self, file: Path) -> None:
        self._file = file
        where = f"file:{quote(str(file))}?{way_in(file)}"
        self._connection = sqlite3.connect(where, uri=True, timeout=_BUSY_TIMEOUT_S, isolation_level=None)
        self._connection.create_function("hpo_now", 0, clock.now)

    def rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        """Return the rows of a SELECT; raises :class:`StorageError` for what SQLite cannot do."""
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error as error:
            what = Said("cannot read the database {file!r}: {error}", file=str(self._file), error=error)
            raise StorageError(what, "one that can be read", "type the same command again") from error

    def is_of_today(self) -> bool:
        """Return whether the tables, Optuna's and ours, are those that this version makes."""
        wanted = ((VERSION_TABLE, REVISION), ("alembic_version", OPTUNA_REVISION))
        try:
            return all(
                self._connection.execute(f"SELECT version_num FROM {table}").fetchall() == [(revision,)]
                for table, revision in wanted
            )
        except sqlite3.Error:
            return False

    def close(self) -> None:
        """Give the file back."""
        self._connection.close()


Database: TypeAlias = "Glance | sa.Engine"


@contextmanager
def glance_at(url: str) -> Iterator[Database]:
    """Open a database that must be there, for looking only; raises as :func:`hpo.storage.open_engine`."""
    file = plain_file(url)
    if file is not None:
        check_file(file, create=False)
        light = _open(file)
        if light is not None:
            with closing(light):
                yield light
            return
    from hpo.storage.engine import open_engine

    engine = open_engine(url, create=False)
    try:
        yield engine
    finally:
        engine.dispose()


def _open(file: Path) -> Glance | None:
    """Return a file of today's tables; None for any other, which is opened as ever."""
    try:
        found = Glance(file)
    except sqlite3.Error:
        return None
    if found.is_of_today():
        return found
    found.close()
    return None


def rows(database: Database, query: str, **values: object) -> Sequence[Sequence[Any]]:
    """Return the rows of a SELECT, with ``:names`` for ``values`` and ``{now}`` for the database's clock."""
    if isinstance(database, Glance):
        return database.rows(query.format(now=_NOW["sqlite"]), **values)
    import sqlalchemy as sa

    from hpo.storage.engine import reading

    text = sa.text(query.format(now=_NOW[database.dialect.name]))
    with reading(database) as connection:
        return connection.execute(text, values).all()
