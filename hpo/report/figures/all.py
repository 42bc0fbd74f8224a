"""All pictures of a report by name, and each as the bytes of a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cache
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager

from hpo.analysis.importance import fanova, ped_anova
from hpo.confirm.confirmed import Confirmation
from hpo.reading.findings import Findings
from hpo.report.figures.confirmed import confirmed_figures
from hpo.report.figures.ratio import ratio_figure
from hpo.report.figures.search import curves_figure, importances_figure, rates_figure, seeds_figure
from hpo.report.figures.zones import zones_figure
from hpo.report.language import SPOKEN, Language, Words
from hpo.report.naming import label_words

Kind = Literal["png", "svg", "pdf"]
Style = Literal["screen", "paper"]

_CHINESE_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Noto Sans CJK JP",  # what matplotlib calls Noto's collection: it reads the first font of one
    "PingFang SC",
    "Microsoft YaHei",
    "SimHei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
)
_PAPER: Mapping[str, Any] = {"font.size": 8, "axes.linewidth": 0.6}


@cache
def chinese_font() -> str | None:
    """Return the name of an installed font that has Chinese characters; None when there is none."""
    installed = {font.name for font in fontManager.ttflist}
    return next((name for name in _CHINESE_FONTS if name in installed), None)


def figure_words(language: Language) -> Words:
    """Return the words for figures: English ones where no font can draw the language."""
    return SPOKEN["zh" if language == "zh" and chinese_font() else "en"]


def figures(
    findings: Findings, confirmation: Confirmation | None = None, language: Language = "en"
) -> dict[str, Figure]:
    """Return the pictures of a study by name, in the order of the report; none needs any trial.

    The last ones show the test split, and are there only with a confirmation that was scored.
    """
    drawn = {name: draw_figure(name, findings, confirmation, language) for name in DRAWN}
    if confirmation is None:
        return drawn
    with _drawn_as("screen"):
        return drawn | confirmed_figures(confirmation, figure_words(language))


def draw_figure(
    name: str,
    findings: Findings,
    confirmation: Confirmation | None = None,
    language: Language = "en",
    style: Style = "screen",
) -> Figure:
    """Return one picture of a search by its name, a key of ``DRAWN``; ``paper``: a column wide, no title."""
    with _drawn_as(style):
        figure = DRAWN[name](findings, confirmation, figure_words(language))
        if style == "paper":
            _as_in_a_paper(figure, ", ".join(label_words(findings.labels, figure_words(language))))
    return figure


def _as_in_a_paper(figure: Figure, labels: str) -> None:
    """Make a figure a column wide, with its labels as the only title."""
    width, height = figure.get_size_inches()
    figure.set_size_inches(5.5, max(5.5 * height / width, 2.6))
    figure.set_dpi(300)
    for text in (text for legend in figure.legends for text in legend.get_texts()):
        text.set_fontsize(6)  # what is said of zones is as wide as a column
    for axes in figure.axes:
        axes.set_title("")
    figure.suptitle(labels, fontsize=8)


def _importances(findings: Findings, words: Words) -> Figure:
    space = findings.spec.space
    optunas = {"ped_anova": ped_anova(findings.trials, space), "fanova": fanova(findings.trials, space)}
    return importances_figure(findings, optunas, words)


DRAWN: Mapping[str, Callable[[Findings, Confirmation | None, Words], Figure]] = {
    "ratio": lambda findings, _, words: ratio_figure(findings, words),
    "zones": lambda findings, _, words: zones_figure(findings, words),
    "rates": lambda findings, _, words: rates_figure(findings, words),
    "curves": lambda findings, _, words: curves_figure(findings, words),
    "seeds": seeds_figure,
    "importances": lambda findings, _, words: _importances(findings, words),
}
"""The pictures of a search, in the order of the report."""


def render(figure: Figure, kind: Kind) -> bytes:
    """Return a picture as the bytes of a PNG, SVG or PDF file: the same figure, the same bytes."""
    buffer = io.BytesIO()
    stamps: dict[Kind, dict[str, str | None]] = {
        "png": {"Software": "hpo"},
        "svg": {"Creator": "hpo", "Date": None},
        "pdf": {"Creator": "hpo", "CreationDate": None},
    }
    with _drawn_as("screen"):
        figure.savefig(buffer, format=kind, dpi=figure.get_dpi(), metadata=stamps[kind])
    return buffer.getvalue()


def _drawn_as(style: Style) -> AbstractContextManager[None]:
    """Return matplotlib's settings for as long as something is drawn."""
    chinese = chinese_font()
    fonts = {"font.family": ["DejaVu Sans", *([chinese] if chinese else [])]}
    settings: Any = {"svg.hashsalt": "hpo", **fonts, **(_PAPER if style == "paper" else {})}
    return matplotlib.rc_context(settings)
