"""A database without studies, made once and copied: six times as fast as making its tables."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from hpo.storage import open_engine, parse_url, sqlite_file


@cache
def _tables() -> bytes:
    """Return an SQLite file with all tables and no study."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "hpo.db"
        open_engine(f"sqlite:///{file}").dispose()
        return file.read_bytes()


def make_ready(url: str) -> None:
    """Make an SQLite file with all tables, private as ours are; leave one that is there, and a server."""
    file = sqlite_file(parse_url(url))
    if file is not None and not file.exists():
        file.touch(0o600)
        file.write_bytes(_tables())
