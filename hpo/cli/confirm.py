"""Commands around the answer: confirm it on fresh seeds and the test split; bring the runs of a diary."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.terminal import (
    CacheDir,
    Code,
    DataDir,
    Deterministic,
    Device,
    Given,
    GivenOrFile,
    Json,
    Lang,
    Named,
    Storage,
    Workers,
    database,
    doing,
    language_of,
    print_json,
    print_lines,
    print_said,
    shown,
    the_study,
    url_of,
)
from hpo.errors import Said


def confirm(
    given: Given = None,
    study: Named = None,
    top: Annotated[
        int, typer.Option("--top", metavar="K", help="Configurations of the search, its answer first.")
    ] = 3,
    seeds: Annotated[int, typer.Option("--seeds", metavar="N", help="Fresh seeds, the same for all.")] = 10,
    first_seed: Annotated[
        int, typer.Option("--first-seed", metavar="S", help="The first of them; tuning seeds are refused.")
    ] = 1_000_000,
    storage: Storage = None,
    workers: Workers = None,
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    code: Code = None,
    device: Device = "auto",
    deterministic: Deterministic = False,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Run the choice and its rivals on fresh seeds, then test once. The choice is frozen first."""
    from rich.console import Console

    from hpo.confirm import confirm
    from hpo.confirm.arms import Request
    from hpo.confirm.confirmed import confirmation_of
    from hpo.report.confirmed import confirmation_lines
    from hpo.report.language import SPOKEN
    from hpo.search_here import check_at_least_one, make_settings

    for option, value in (("--top", top), ("--seeds", seeds), ("--workers", workers)):
        check_at_least_one(option, value)
    study, language = the_study(given, study, "confirm"), language_of(lang)
    url, settings = url_of(storage), make_settings(data, cache, device, None)
    with database(url) as engine:
        request = Request(top, seeds, first_seed)
        console = Console(stderr=True)
        stored = confirm(
            engine,
            url,
            study,
            request,
            workers=workers,
            settings=settings,
            console=console,
            words=SPOKEN[language],
        )
        found = confirmation_of(engine, stored)
    if as_json:
        print_json({"storage": shown(url), **found.to_json()})
    else:
        print_lines(confirmation_lines(found, language), is_prose=True)


def import_diary(
    csv: Annotated[
        Path, typer.Option("--csv", metavar="FILE", help="One run a line, under a line of names.")
    ],
    given: GivenOrFile = None,
    study: Named = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="The seed of all rows that name none.")
    ] = None,
    separator: Annotated[
        str, typer.Option("--separator", metavar="SIGN", help="Between fields: ';' or tab, for example.")
    ] = ",",
    storage: Storage = None,
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Take hand-made runs into a study. With a validation metric as trials, else to be tried."""
    from collections import Counter

    from hpo.diary import find_or_open, habits, import_diary
    from hpo.report.language import SPOKEN
    from hpo.search_here import make_settings

    words = SPOKEN[language_of(lang)]
    url, written = url_of(storage), habits(separator, seed)
    asked, settings = the_study(given, study, "import"), make_settings(data, cache, "cpu", None)
    with doing(words.say("doing.reading", study=asked)):
        name = find_or_open(url, asked, settings)
    with database(url) as engine:
        taken = import_diary(engine, name, csv, written)
    deeds, diary = taken.deeds, taken.diary
    counts = Counter(deed.did for deed in deeds)
    totals = {"imported": counts["imported"], "to_try": counts["to try"], "already": counts["already there"]}
    rows, passed_over = [asdict(deed) for deed in deeds], list(diary.passed_over)
    if as_json:
        print_json({"study": name, "storage": shown(url), **totals, "rows": rows, "passed_over": passed_over})
        return
    lines = [deed.said for deed in deeds]
    if diary.figures:
        what = "{named}: taken as test figures; a validation figure is called validation_{first}"
        lines.append(Said(what, named=", ".join(diary.figures), first=diary.figures[0]))
    if passed_over:
        lines.append(Said("passed over, for they mean nothing here: {names}", names=", ".join(passed_over)))
    lines.append(
        Said("{study}: {imported} imported, {to_try} to try, {already} already there", study=name, **totals)
    )
    if totals["imported"]:
        lines.append(Said("imported trials count in the study's total and are marked wherever they show"))
    print_said(lines, lang)
