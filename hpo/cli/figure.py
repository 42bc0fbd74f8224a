"""The command that draws one figure of a study for a paper, a talk or a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

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
    the_study,
    url_of,
)
from hpo.errors import Said, UsageError

if TYPE_CHECKING:
    from hpo.report.figures.all import Style

_Kind = Literal["pdf", "svg", "png"]


def figure(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="ratio, zones, rates, curves, seeds or importances.")
    ],
    given: Given = None,
    study: Named = None,
    storage: Storage = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="FILE", help="A .pdf, .svg or .png file [STUDY-NAME.pdf]."),
    ] = None,
    style: Annotated[
        str, typer.Option("--style", metavar="screen|paper", help="paper: a column wide, without a title.")
    ] = "screen",
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Draw one figure of a study into a file. The ratio curve, the zones, rates, curves or seeds."""
    from hpo.confirm.confirmed import newest_confirmation
    from hpo.reading.findings import find_out
    from hpo.report.figures.all import DRAWN, draw_figure, figure_words, render
    from hpo.report.language import SPOKEN

    if given in DRAWN and name not in DRAWN:  # the study first
        name, given = str(given), name
    if name not in DRAWN:
        raise UsageError(
            Said("no figure {name!r}", name=name), ", ".join(DRAWN), "type: hpo figure ratio NAME"
        )
    study = the_study(given, study, f"figure {name}")
    file, language = out or Path(f"{study}-{name}.pdf"), language_of(lang)
    kind, style_of_it = _kind(file), _style(style)
    said = SPOKEN[language].say("doing.figures", study=study)
    with database(url_of(storage)) as engine, doing(said):
        findings, confirmation = find_out(engine, study), newest_confirmation(engine, study)
        drawn = draw_figure(name, findings, confirmation, language, style_of_it)
        _write(file, render(drawn, kind))
    if as_json:
        print_json({"study": study, "figure": name, "file": str(file)})
        return
    print_lines([SPOKEN[language].say("files.written", files=file)])
    if figure_words(language).language != language:
        print_lines([SPOKEN[language].say("figure.english")], is_result=False)


def _style(given: str) -> Style:
    if given == "paper":
        return "paper"
    if given != "screen":
        raise UsageError(Said("no style {given!r}", given=given), "screen or paper", "use --style paper")
    return "screen"


def _kind(file: Path) -> _Kind:
    for kind in get_args(_Kind):
        if file.suffix == f".{kind}":
            found: _Kind = kind
            return found
    raise UsageError(
        Said("--out is {file!r}", file=str(file)), "a .pdf, .svg or .png file", "type: --out figure.pdf"
    )


def _write(file: Path, content: bytes) -> None:
    """Write a file as a whole or not at all."""
    part = file.with_name(f".{file.name}.part")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        part.replace(file)
    except OSError as error:
        what = Said("cannot write {file!r} ({strerror})", file=str(file), strerror=error.strerror)
        raise UsageError(what, "a place that can be written", "use --out FILE") from error
