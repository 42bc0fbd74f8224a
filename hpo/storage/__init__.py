"""One SQL database: which one, opened with options that several processes can live with.

SQLite (WAL) serves the processes of one machine, PostgreSQL those of several. Optuna's tables and ours live
in the same database; :mod:`hpo.storage.schema` makes both and brings ours up to date.

What needs SQLAlchemy, a third of a second of CPU, is loaded at its first use: a glance at a file does
without.
"""

from typing import TYPE_CHECKING, Any

from hpo.storage.address import default_url, plain_file, redact, url_of_word

if TYPE_CHECKING:
    from hpo.storage.engine import (
        may_write,
        open_engine,
        optuna_storage,
        parse_url,
        reading,
        sqlite_file,
        writing,
    )
    from hpo.storage.patience import passes, patiently

__all__ = [
    "default_url",
    "may_write",
    "open_engine",
    "optuna_storage",
    "parse_url",
    "passes",
    "patiently",
    "plain_file",
    "reading",
    "redact",
    "sqlite_file",
    "url_of_word",
    "writing",
]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'hpo.storage' has no attribute {name!r}")
    from hpo.storage import engine, patience

    return getattr(patience if name in {"passes", "patiently"} else engine, name)
