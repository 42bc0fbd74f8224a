"""What all commands share: their common options, and how they print."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    import sqlalchemy as sa

Storage = Annotated[
    str | None,
    typer.Option("--storage", envvar="HPO_STORAGE", metavar="URL", help="Database [sqlite:///hpo.db]."),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output, nothing else.")]
DataDir = Annotated[
    Path,
    typer.Option("--data", envvar="HPO_DATA", metavar="DIR", help="Folder with one folder a data set."),
]
CacheDir = Annotated[
    Path | None,
    typer.Option("--cache", envvar="HPO_CACHE", metavar="DIR", help="Folder for prepared windows."),
]


def _allow_code(folder: Path | None) -> Path | None:
    """Let this process, and those that it starts, run code out of one folder."""
    if folder is not None:
        os.environ["HPO_CODE"] = str(folder.expanduser().absolute())
    return folder


Code = Annotated[
    Path | None,
    typer.Option(
        "--code",
        envvar="HPO_CODE",
        metavar="DIR",
        callback=_allow_code,
        help="Folder whose code a study may name; none runs without it.",
    ),
]
Workers = Annotated[
    int | None, typer.Option("--workers", metavar="W", help="Processes [one a core, or one a GPU].")
]
Device = Annotated[
    str, typer.Option("--device", metavar="cpu|cuda|auto", help="Where to train; cuda:N for one GPU.")
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", metavar="N", help="Total of finished trials [the study's own budget]."),
]
AllowPartial = Annotated[
    bool, typer.Option("--allow-partial", help="Accept a data set of which only some records are there.")
]
KnownWithin = Annotated[
    float | None,
    typer.Option(
        "--known-within", metavar="X", help="End early once the best ratio is known to within a factor of X."
    ),
]
WarmStart = Annotated[
    list[str] | None,
    typer.Option(
        "--warm-start",
        metavar="STUDY",
        help="Begin a new study with the leaders of this one in the same database; may be repeated.",
    ),
]


def url_of(storage: str | None) -> str:
    """Return the database's URL: the option's, or the default."""
    from hpo.storage import default_url

    return storage or default_url()


def shown(text: str) -> str:
    """Return ``text`` without any password."""
    from hpo.storage import redact

    return redact(text)


@contextmanager
def database(url: str) -> Iterator[sa.Engine]:
    """Open a database that must be there already."""
    from hpo.storage import open_engine

    engine = open_engine(url, create=False)
    try:
        yield engine
    finally:
        engine.dispose()


def check_file_is_there(url: str) -> None:
    """Raise :class:`hpo.errors.StorageError` for an SQLite file that is not there: a name typed wrongly."""
    from hpo.errors import StorageError
    from hpo.reading.standing import is_there

    if not is_there(url):
        next_step = "type: hpo submit --study NAME, or name another with --storage"
        raise StorageError(f"there is no database {shown(url)}", "one that holds a study", next_step)


def print_json(value: dict[str, Any]) -> None:
    """Print one object and nothing else."""
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_lines(lines: Sequence[str], *, is_result: bool = True) -> None:
    """Print lines as they are: results on standard output, messages on standard error."""
    for line in lines:
        typer.echo(line, err=not is_result)
