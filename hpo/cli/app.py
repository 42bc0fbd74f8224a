"""The command line: words typed by a person become one call; the outcome becomes text and an exit status.

The only module that prints. Exit status: 0 done, 2 the user's fault (one line), 1 ours (a traceback),
3 a GPU that failed, 130 interrupted. Everything heavy is imported inside the command that needs it, so that
help is instant.
"""

from __future__ import annotations

import errno
import os
import shlex
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo import __version__, first_sign
from hpo.cli.alert import alert
from hpo.cli.bench import bench
from hpo.cli.confirm import confirm, import_diary
from hpo.cli.figure import figure
from hpo.cli.keep import copy, delete, rename
from hpo.cli.model import export, predict
from hpo.cli.quick import status_words, words_of
from hpo.cli.report import compare, report
from hpo.cli.run import run
from hpo.cli.service import fleet_app, pause, resume, stop, submit, worker
from hpo.cli.start import check, init
from hpo.cli.terminal import (
    DataDir,
    Given,
    Json,
    Lang,
    Named,
    Storage,
    glance,
    language_of,
    options_again,
    print_json,
    print_lines,
    shown,
    the_study,
    url_of,
)
from hpo.cli.watch import watch
from hpo.errors import Interrupted, Said, UsageError, UserError

if TYPE_CHECKING:
    from hpo.report.language import Words

app = typer.Typer(
    name="hpo",
    help="Bayesian hyperparameter search for fine-tuning pretrained ECG/PPG encoders: which head/backbone "
    "learning-rate ratio is best, how sure that is, and whether it is real.",
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
data_app = typer.Typer(help="The data sets on this machine.")
app.add_typer(data_app, name="data")
app.add_typer(fleet_app, name="fleet")

_WRONG_WORDS: Any = typer.BadParameter.__base__
"""What typer raises for every wrong word (UsageError; typer 0.29 has click inside, without a public name)."""


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hpo {__version__}")
        raise typer.Exit


@app.callback()
def everywhere(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """Do what is asked before any command."""


for command in (run, worker, submit, stop, pause, resume, bench, delete, rename, copy, init, check):
    app.command()(command)


@app.command()
def status(
    given: Given = None,
    study: Named = None,
    storage: Storage = None,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Show how far studies are, and what the workers do."""
    from hpo.cli.listing import failure_lines, has_work, status_lines, worker_lines
    from hpo.reading.standing import attached_workers, overview
    from hpo.report.language import SPOKEN

    url, language = url_of(storage), language_of(lang)
    study = the_study(given, study, "status") if given or study else None
    with glance(url) as there:
        found, workers = overview(there, url, study), attached_workers(there, study)
    if as_json:
        storage_and_studies = {"storage": shown(url), "studies": found}
        print_json((found[0] if study else storage_and_studies) | {"workers": workers})
        return
    words, option = SPOKEN[language], options_again(url)
    print_lines(
        status_lines(found, language)
        if found
        else [words.say("status.none", storage=shown(url), option=option)]
    )
    whole = study is not None
    failures = [line for one in found for line in failure_lines(one, whole=whole, language=language)]
    if failures:
        print_lines(["", *failures])
    if workers:
        print_lines(["", *worker_lines(workers, language)])
    elif waiting := [one["study"] for one in found if has_work(one)]:
        print_lines([words.say("status.nobody", option=option, study=waiting[0])], is_result=False)


for reader in (watch, alert, report, compare, figure):
    app.command()(reader)


@app.command()
def studies(storage: Storage = None, as_json: Json = False) -> None:
    """List the shipped studies and those in the database."""
    from hpo.cli.listing import study_lines
    from hpo.reading.standing import is_there, overview
    from hpo.study import load_spec, shipped_studies

    url = url_of(storage)
    shipped = [
        {"study": spec.name, "task": spec.task, "title": spec.title, "trials": spec.budget.trials}
        for spec in map(load_spec, shipped_studies())
    ]
    stored: list[dict[str, Any]] = []
    if is_there(url):
        with glance(url) as there:
            stored = overview(there, url)
    if as_json:
        print_json({"storage": shown(url), "shipped": shipped, "studies": stored})
    else:
        print_lines(study_lines(shipped, stored))


@app.command()
def dashboard(
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="N", help="0 takes any that is free.")] = 8080,
    storage: Storage = None,
    allow_writes: Annotated[
        bool, typer.Option("--allow-writes", help="Let people write notes and delete studies in the page.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option("--allowed-host", metavar="NAME", help="A name to be asked for; may be repeated."),
    ] = None,
    artifacts: Annotated[
        Path | None, typer.Option("--artifacts", metavar="DIR", help="Folder of Optuna's file artifacts.")
    ] = None,
    behind_tls: Annotated[
        bool, typer.Option("--behind-tls", help="A proxy speaks HTTPS: cookies go over nothing else.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show studies and their answers in a browser. Ctrl-C ends it."""
    from hpo.dashboard import make_access, serve

    access = make_access(host, port, allowed_host or (), allow_writes=allow_writes, behind_tls=behind_tls)
    url = url_of(storage)

    def tell(address: str) -> None:
        if as_json:
            print_json({"address": address, "storage": shown(url)})
        else:
            typer.echo(f"dashboard: {address}")

    serve(url, access, artifacts, tell)


app.command()(confirm)
app.command("import")(import_diary)
app.command()(export)
app.command()(predict)


@data_app.command("status")
def data_status(data: DataDir = Path("data"), as_json: Json = False) -> None:
    """Show which data sets are there, complete, in part or missing."""
    from hpo.cli.datasets import data_sets
    from hpo.cli.listing import data_lines

    found = data_sets(data)
    if as_json:
        print_json({"data": str(data), "sets": [vars(one) for one in found]})
    else:
        print_lines(data_lines(found))


@data_app.command("get")
def data_get(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="A data set, a task or a study, such as bidmc_rr.")
    ],
    data: DataDir = Path("data"),
    base_url: Annotated[
        str | None, typer.Option("--base-url", metavar="URL", help="A mirror, instead of the publisher.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Download a data set from its publisher. With checksums; the same command resumes."""
    from hpo.cli.datasets import fetch
    from hpo.cli.listing import data_lines

    found = fetch(name, data, base_url, lambda text: typer.echo(text, err=True))
    if as_json:
        print_json({"data": str(data), "sets": [vars(one) for one in found]})
    else:
        print_lines(data_lines(found))


@app.command()
def version(as_json: Json = False) -> None:
    """Print the versions that results depend on."""
    import platform
    from importlib import metadata

    found = {"python": platform.python_version(), "hpo": __version__}
    for name in ("torch", "numpy", "numba", "optuna", "SQLAlchemy"):
        there = next(iter(metadata.distributions(name=name)), None)
        found[name] = there.version if there else "not installed"
    if as_json:
        print_json(found)
    else:
        print_lines([f"{name} {number}" for name, number in found.items()])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments) or ["--help"]
    try:
        plain = status_words(words)
        ended = app(words, prog_name="hpo", standalone_mode=False) if plain is None else status(**plain)
    except (Interrupted, KeyboardInterrupt, typer.Abort):
        said = Said("interrupted; to go on, type: hpo {words}", words=shlex.join(words))
        spoken = words_of(words)
        return _complain(spoken.retold(said), 130, spoken)
    except SystemExit:  # typer's only one, with 1, where nobody reads on
        return _unheard()
    except Exception as error:
        return explain(error, words)
    return ended if isinstance(ended, int) else 0


def explain(error: Exception, typed: Sequence[str] = ()) -> int:
    """Say what an error means to a person, in the language of what they typed; return the exit status."""
    from finetune.api import DeviceLostError

    words = words_of(typed)
    if isinstance(error, UserError):
        return _complain(words.fault(error), 2, words)
    if isinstance(error, BrokenPipeError):
        return _unheard()
    if isinstance(error, OSError) and error.errno in _NO_ROOM:
        _drop_output()
        what = Said("cannot write: {reason}", reason=error.strerror)
        return _complain(words.fault(UsageError(what, "room on the disk", "free some first")), 2, words)
    if isinstance(error, DeviceLostError):
        kept = "what was under way has been given back"
        lost = UsageError(str(error), next_step=Said.listed([kept, "type the same command again"], "; "))
        return _complain(words.fault(lost), 3, words)
    if isinstance(error, _WRONG_WORDS):
        path = error.ctx.command_path if error.ctx else "hpo"
        return _complain(
            words.say("typed.help", fault=_wrong_words(error, typed, words), path=path), 2, words
        )
    return _complain("".join(traceback.format_exception(error)), 1, words)


def _wrong_words(error: Any, typed: Sequence[str], words: Words) -> str:
    """Return what typer found wrong with a word, in our words."""
    param = getattr(error, "param", None)
    name = getattr(error, "option_name", None) or (param.get_error_hint() if param else None)
    match type(error).__name__:
        case "NoSuchOption":
            near = ", ".join(sorted(error.possibilities or ()))
            return words.say("typed.near" if near else "typed.unknown", name=name, near=near)
        case "MissingParameter":
            return words.say(f"typed.missing.{error.param.param_type_name}", name=name)
        case "BadParameter" if name:
            return _wrong_value(error, name, words)
        case "BadOptionUsage":
            has_one = any(word.startswith(f"{name}=") for word in typed)
            return words.say("typed.flag" if has_one else "typed.bare", name=name)
    commands = getattr(getattr(error, "cmd", None), "commands", None)
    return _wrong_command(list(commands), error.ctx, typed, words) if commands else words.say("typed.more")


_WANTED = {
    "int_parsing": "int",
    "int_from_float": "int",
    "float_parsing": "float",
    "greater_than_equal": "ge",
}


def _wrong_value(error: Any, name: str, words: Words) -> str:
    """Return what is wrong with the value of an option, by the kind that pydantic gives its fault."""
    faults = error.__cause__.errors() if hasattr(error.__cause__, "errors") else []
    wanted = _WANTED.get(faults[0]["type"]) if faults else None
    if wanted is None:
        return words.say("typed.value", name=name, fault=error.message)
    least = faults[0].get("ctx", {}).get("ge", 0)
    expected = words.say(f"typed.wanted.{wanted}", least=f"{least:g}")
    return words.say("typed.wrong", name=name.strip("'"), value=faults[0]["input"], expected=expected)


def _wrong_command(known: list[str], context: Any, typed: Sequence[str], words: Words) -> str:
    """Return that a command is missing, or that there is none of the name that was typed."""
    given = [word for word in typed if not word.startswith("-")][len(context.command_path.split()) - 1 :]
    if not given:
        return words.say("typed.no_command", known=", ".join(known))
    near = get_close_matches(given[0], known, n=2)
    key = "typed.near_command" if near else "typed.unknown_command"
    return words.say(key, name=given[0], near=words.listed(near, "or"))


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _unheard() -> int:
    """Return the exit status where nobody reads on (``hpo status | head -1``), without a word."""
    _drop_output()
    return 128 + signal.SIGPIPE


def _drop_output() -> None:
    """Let go of what is left in Python's buffer: it would be written at the end, and fail again."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(text: str, status: int, words: Words) -> int:
    first_sign.given()
    said = words.say("error", text=shown(text)) if status in {2, 3} else shown(text)
    typer.echo(said, err=True)
    return status
