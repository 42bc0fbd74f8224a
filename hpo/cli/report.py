"""Commands that write down what was found: a study's report, the table of all, two studies side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.terminal import (
    Given,
    Json,
    Named,
    Storage,
    database,
    doing,
    print_json,
    print_lines,
    shown,
    the_study,
    url_of,
)
from hpo.errors import UsageError

if TYPE_CHECKING:
    from hpo.report.language import Language


def report(
    given: Given = None,
    study: Named = None,
    every: Annotated[bool, typer.Option("--all", help="One table of all searches, a row each.")] = False,
    storage: Storage = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Folder for the files [reports/NAME].")
    ] = None,
    lang: Annotated[
        str, typer.Option("--lang", metavar="en|zh", help="Language of the page and the Markdown.")
    ] = "en",
    as_json: Json = False,
) -> None:
    """Write a study's page, tables, pictures and answer to a folder, or a table of all studies."""
    from hpo.confirm.confirmed import newest_confirmation
    from hpo.reading.findings import find_out
    from hpo.report.answer import answer_lines
    from hpo.report.html import write_report
    from hpo.report.told import to_json

    if every and (given or study):
        raise UsageError("a study and --all are named", "one of them", "type: hpo report --all")
    url, language = url_of(storage), language_of(lang)
    if every:
        _report_all(url, out or Path("reports"), language, as_json)
        return
    study = the_study(given, study, "report")
    with database(url) as engine, doing(f"{study}: working out the answer"):
        findings, confirmation = find_out(engine, study), newest_confirmation(engine, study)
    folder = out or Path("reports") / study
    with doing(f"{study}: drawing the figures"):
        files = write_report(findings, url, folder, confirmation=confirmation, language=language)
    if as_json:
        print_json(to_json(findings, url) | {"files": [str(file) for file in files]})
        return
    print_lines(answer_lines(findings, language))
    print_lines([f"written: {folder / 'report.html'} and {len(files) - 1} files beside it"])


def language_of(given: str) -> Language:
    """Return the language that an option names; raises :class:`UsageError`."""
    if given == "zh":
        return "zh"
    if given != "en":
        raise UsageError(f"no language {given!r}", "en or zh", "use --lang en or --lang zh")
    return "en"


def _report_all(url: str, out: Path, language: Language, as_json: bool) -> None:
    """Write and print the table of all searches of a database."""
    from hpo.cli.listing import columns
    from hpo.report.summary import cells, heads, summarise, to_json, write_summary

    with database(url) as engine:
        rows = summarise(engine, language)
    files = [str(file) for file in write_summary(rows, out, language)]
    if as_json:
        print_json(to_json(rows) | {"files": files})
        return
    print_lines(columns([heads(language), *(cells(row, language) for row in rows)]))
    print_lines([f"written: {', '.join(files)}"])


def compare(
    first: Annotated[str, typer.Argument(metavar="A", help="A study in the database.")],
    second: Annotated[str, typer.Argument(metavar="B", help="Another one.")],
    storage: Storage = None,
    as_json: Json = False,
) -> None:
    """Put two studies side by side, and say what differs and what may be concluded."""
    from hpo.cli.listing import columns
    from hpo.reading.findings import find_out
    from hpo.report.language import SPOKEN
    from hpo.report.side_by_side import differences, statements, table, to_json

    url = url_of(storage)
    with database(url) as engine, doing("working out both answers"):
        one, other = find_out(engine, first), find_out(engine, second)
    if as_json:
        print_json({"storage": shown(url), **to_json(one, other)})
        return
    print_lines(columns(table(one, other)))
    found = differences(one, other)
    print_lines([SPOKEN["en"].say("compare.differs" if found else "compare.same")])
    print_lines([f"  {line}" for line in found])
    print_lines(statements(one, other))
