"""What all commands share: their common options, and how they print."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO
from urllib.parse import unquote

import typer

from hpo import first_sign

if TYPE_CHECKING:
    import sqlalchemy as sa

    from hpo.report.language import Language
    from hpo.storage.glance import Database


def shipped(incomplete: str) -> list[str]:
    """Complete a word to the names of the shipped studies, for the shell."""
    from hpo.study import shipped_studies

    return [name for name in shipped_studies() if name.startswith(incomplete)]


Given = Annotated[
    str | None,
    typer.Argument(metavar="STUDY", help="A study in the database.", show_default=False),
]
GivenOrFile = Annotated[
    str | None,
    typer.Argument(
        metavar="STUDY",
        help="A shipped study, a YAML file, or a study in the database.",
        show_default=False,
        autocompletion=shipped,
    ),
]
SomeOrFiles = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="STUDY...",
        help="Shipped studies, YAML files, studies in the database; all, all-ppg or all-ecg.",
        show_default=False,
        autocompletion=shipped,
    ),
]
Named = Annotated[str | None, typer.Option("--study", metavar="NAME", help="The same as STUDY.")]
Storage = Annotated[
    str | None,
    typer.Option(
        "--storage", envvar="HPO_STORAGE", metavar="FILE|URL", help="Database: a file, or a URL [hpo.db]."
    ),
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


def language_of(given: str) -> Language:
    """Return the language that an option names; raises :class:`UsageError`."""
    from hpo.errors import Said, UsageError

    if given == "zh":
        return "zh"
    if given != "en":
        raise UsageError(Said("no language {given!r}", given=given), "en or zh", "use --lang en or --lang zh")
    return "en"


Lang = Annotated[
    str, typer.Option("--lang", envvar="HPO_LANG", metavar="en|zh", help="Language of what is said.")
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


def _ask_for_same_bits(is_asked: bool) -> bool:
    """Tell this process, and those that it starts, to compute each run to the same bits again."""
    if is_asked:
        os.environ["HPO_DETERMINISTIC"] = "1"
    return is_asked


Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic",
        envvar="HPO_DETERMINISTIC",
        callback=_ask_for_same_bits,
        help="The same bits of a run again, on a GPU too; slower there.",
    ),
]
Trials = Annotated[
    int | None,
    typer.Option("--trials", metavar="N", help="Total of finished trials [the study's own budget]."),
]
Timeout = Annotated[
    str | None, typer.Option("--timeout", metavar="TIME", help="End after 90s, 30m, 2h or 1d.")
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


def the_study(given: str | None, named: str | None, command: str) -> str:
    """Return the one study that a person named, as a word or with ``--study``; raises :class:`UsageError`."""
    from hpo.errors import Said, UsageError

    names = some_studies([given] if given else (), [named] if named else (), command)
    if len(names) > 1:
        raise UsageError(
            Said("two studies are named, {first!r} and {second!r}", first=names[0], second=names[1]), "one"
        )
    return names[0]


def some_studies(given: Sequence[str] | None, named: Sequence[str] | None, command: str) -> list[str]:
    """Return all studies that a person named, each once; raises :class:`UsageError` when there is none."""
    from hpo.errors import Said, UsageError

    names = list(dict.fromkeys([*(given or ()), *(named or ())]))
    if not names:
        raise UsageError(
            "no study is named",
            next_step=Said("type: hpo {command} NAME; hpo studies lists them", command=command),
        )
    return names


def url_of(storage: str | None) -> str:
    """Return the database's URL: of the option (a URL or an SQLite file), or the default."""
    from hpo.storage import default_url, url_of_word

    return url_of_word(storage) if storage else default_url()


def options_again(
    url: str,
    data: Path | None = None,
    cache: Path | None = None,
    device: str = "auto",
    code: Path | None = None,
) -> str:
    """Return the options, each after a blank, that a next command needs to work where this one did.

    A password is never shown: whoever typed one has to type it again.
    """
    option = "" if url == url_of(None) else f" --storage {shlex.quote(_typed(url))}"
    for name, value, usual in (
        ("data", data, os.environ.get("HPO_DATA", "data")),
        ("cache", cache, os.environ.get("HPO_CACHE", "")),
        ("code", code, ""),  # --code sets HPO_CODE for this process: what that holds says nothing
    ):
        if value is not None and str(value) != usual:
            option += f" --{name} {shlex.quote(str(value))}"
    return option + ("" if device == "auto" else f" --device {device}")


def _typed(url: str) -> str:
    """Return what a person types for a database: a file's path where that means the same."""
    from hpo.storage import url_of_word

    path = unquote(url.removeprefix("sqlite:///"))
    return path if url.startswith("sqlite:///") and url_of_word(path) == url else shown(url)


def print_where_hpo_is(language: Language) -> None:
    """Say by which path ``hpo`` was started, if the printed commands would not find it by its name."""
    from hpo.report.language import SPOKEN

    if shutil.which("hpo") is None:
        started = Path(sys.argv[0])
        path = shlex.quote(sys.argv[0]) if started.name == "hpo" else f"{shlex.quote(sys.executable)} -m hpo"
        print_lines([SPOKEN[language].say("run.path", path=path)], is_result=False)


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


def glance(url: str) -> AbstractContextManager[Database]:
    """Open a database that must be there already, to look at it only: costs next to nothing."""
    from hpo.storage.glance import glance_at

    return glance_at(url)


def check_file_is_there(url: str) -> None:
    """Raise :class:`hpo.errors.StorageError` for an SQLite file that is not there: a name typed wrongly."""
    from hpo.errors import Said, StorageError
    from hpo.reading.standing import is_there

    if not is_there(url):
        next_step = "type: hpo submit --study NAME, or name another with --storage"
        raise StorageError(
            Said("there is no database {url}", url=shown(url)), "one that holds a study", next_step
        )


def check_file_may_change(url: str) -> None:
    """Raise :class:`hpo.errors.StorageError` for an SQLite file that may only be read here."""
    from hpo.storage import plain_file
    from hpo.storage.files import refuse_read_only

    file = plain_file(url)
    if file is not None:
        refuse_read_only(file)


def print_said(lines: Sequence[str], lang: str) -> None:
    """Print results that are told as :class:`hpo.errors.Said`, in a language."""
    from hpo.report.language import SPOKEN

    words = SPOKEN[language_of(lang)]
    print_lines([words.retold(line) for line in lines])


def doing(text: str) -> AbstractContextManager[None]:
    """Say on standard error what is done inside, if a person would wait for it without a sign of life."""
    from hpo.worker.progress import said_if_slow

    return said_if_slow(text, lambda line: print_lines([line], is_result=False))


def print_json(value: dict[str, Any]) -> None:
    """Print one object and nothing else."""
    first_sign.given()
    typer.echo(json.dumps(value, indent=2, allow_nan=False))


def print_lines(lines: Sequence[str], *, is_result: bool = True, is_prose: bool = False) -> None:
    """Print lines as they are: results on standard output, messages on standard error.

    Prose is broken between words where a person's terminal is narrower.
    """
    first_sign.given()
    columns = _columns_of(sys.stdout if is_result else sys.stderr) if is_prose else None
    for line in lines:
        for part in fitted(line, columns):
            typer.echo(part, err=not is_result)


def _columns_of(stream: TextIO) -> int | None:
    """Return how wide a person's terminal is; None where lines go somewhere else."""
    return shutil.get_terminal_size().columns if stream.isatty() else None


def fitted(line: str, columns: int | None) -> list[str]:
    """Return a line of prose in lines of so many columns, broken between words."""
    if columns is None or len(line) <= columns:
        return [line]
    return textwrap.wrap(
        line, columns, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False
    )
