"""Commands that write down what was found: a study's report, the table of all, two studies side by side."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.terminal import (
    Given,
    Json,
    Lang,
    Named,
    Storage,
    database,
    doing,
    language_of,
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
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Write a study's page, tables and figures. Or a table of all studies."""
    from hpo.confirm.confirmed import newest_confirmation
    from hpo.reading.findings import find_out
    from hpo.report.answer import answer_lines
    from hpo.report.html import write_report
    from hpo.report.language import SPOKEN
    from hpo.report.told import to_json

    if every and (given or study):
        raise UsageError("a study and --all are named", "one of them", "type: hpo report --all")
    url, language = url_of(storage), language_of(lang)
    if every:
        _report_all(url, out or Path("reports"), language, as_json)
        return
    study = the_study(given, study, "report")
    words = SPOKEN[language]
    with database(url) as engine, doing(words.say("doing.answer", study=study)):
        findings, confirmation = find_out(engine, study), newest_confirmation(engine, study)
    folder = out or Path("reports") / study
    with doing(words.say("doing.figures", study=study)):
        files = write_report(findings, url, folder, confirmation=confirmation, language=language)
    if as_json:
        print_json(to_json(findings, url) | {"files": [str(file) for file in files]})
        return
    print_lines(answer_lines(findings, language), is_prose=True)
    print_lines([words.say("files.beside", file=folder / "report.html", n=len(files) - 1)])


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
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Put two studies side by side. Say what differs and what may be concluded."""
    from hpo.cli.listing import columns
    from hpo.reading.findings import find_out
    from hpo.report.language import SPOKEN
    from hpo.report.side_by_side import differences, statements, table, to_json

    url, language = url_of(storage), language_of(lang)
    words = SPOKEN[language]
    with database(url) as engine, doing(words.say("doing.answers")):
        one, other = find_out(engine, first), find_out(engine, second)
    if as_json:
        print_json({"storage": shown(url), **to_json(one, other)})
        return
    print_lines(columns(table(one, other, language)))
    found = differences(one, other, language)
    print_lines([words.say("compare.differs" if found else "compare.same")])
    print_lines([f"  {line}" for line in found])
    print_lines(statements(one, other, language), is_prose=True)
