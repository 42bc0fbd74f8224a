"""What is as good, what costs more and what is open: a strip for the ratio and for each rate."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from hpo.analysis.values import Choice
from hpo.analysis.zones import Standing, Zones
from hpo.numbers import about
from hpo.reading.findings import Findings
from hpo.report.language import Words
from hpo.report.naming import label_words
from hpo.study import NamedConfiguration

ZONE_COLOURS = {Standing.AS_GOOD: "#009E73", Standing.WORSE: "#D55E00", Standing.OPEN: "#BBBBBB"}
"""Of Okabe and Ito's palette, and grey for what is not known."""
_HATCHES = {Standing.AS_GOOD: "", Standing.WORSE: "//", Standing.OPEN: ""}
"""A hatch, so that a print without colours tells them apart."""
_MARK: Mapping[str, Any] = {"color": "black", "markeredgecolor": "white", "markeredgewidth": 0.7}
_SIZES = {"^": 8, "*": 11}
LIKELY_STRENGTH = 0.4
"""Of the colour of what is likely only."""


def zones_figure(findings: Findings, words: Words) -> Figure:
    """Return the strips; of a study with too few trials, axes that say so."""
    figure = Figure(figsize=(8, 4.4), dpi=120, layout="constrained")
    title = words.say("figure.title", name=findings.row.name, what=words.say("figure.zones.title"))
    figure.suptitle("\n".join([title, *label_words(findings.labels, words)]), fontsize=10)
    zones, matters = findings.answer.zones, findings.answer.matters
    if zones is None:
        axes = figure.subplots()
        axes.set_axis_off()
        text = words.say("figure.zones.few")
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4")
        return figure
    rows = {"ratio": zones} | {name: matters[name].zones for name in ("backbone_lr", "lr") if name in matters}
    choice, default = findings.answer.choice, findings.spec.baseline
    marks: dict[str, tuple[Choice | NamedConfiguration, str]] = {}
    if choice is not None:
        marks["^"] = (choice, words.say("figure.chosen"))
    named = words.say("figure.default.place", name=words.name("configuration", default.name))
    marks["*"] = (default, named)
    for axes, (name, found) in zip(
        figure.subplots(len(rows), 1, squeeze=False)[:, 0], rows.items(), strict=True
    ):
        _draw_strip(axes, words.say("figure.ratio") if name == "ratio" else name, found)
        for mark, (place, _) in marks.items():
            at = place.lr / place.backbone_lr if name == "ratio" else getattr(place, name)
            axes.plot(
                [at], [-0.2 if mark == "^" else 0.2], mark, markersize=_SIZES[mark], clip_on=False, **_MARK
            )
    worth = about(zones.worth, findings.task.unit)
    handles: list[Artist] = [
        Patch(facecolor=ZONE_COLOURS[one], hatch=_HATCHES[one], edgecolor="white") for one in Standing
    ]
    meanings = [words.say(f"figure.zone.{one.value}", worth=worth) for one in Standing]
    leanings = {piece.standing for found in rows.values() for piece in found.leaning}
    for one in (one for one in Standing if one in leanings):
        handles.append(Patch(facecolor=ZONE_COLOURS[one], alpha=LIKELY_STRENGTH))
        meanings.append(words.say(f"figure.likely.{one.value}"))
    handles += [Line2D([], [], linestyle="", marker=mark, markersize=_SIZES[mark], **_MARK) for mark in marks]
    meanings += [said for _, said in marks.values()]
    # Three columns of words are wider than a column of a paper.
    figure.legend(handles, meanings, fontsize=8, ncols=2, loc="outside lower center")
    return figure


def _draw_strip(axes: Axes, name: str, zones: Zones) -> None:
    for piece in zones.pieces:
        low, high = 10**piece.low, 10**piece.high
        colour, hatch = ZONE_COLOURS[piece.standing], _HATCHES[piece.standing]
        axes.barh([0], [high - low], 1.0, [low], color=colour, hatch=hatch, edgecolor="white", linewidth=0)
    for piece in zones.leaning:
        low, high = 10**piece.low, 10**piece.high
        axes.barh([0], [high - low], 1.0, [low], color="white")
        axes.barh([0], [high - low], 1.0, [low], color=ZONE_COLOURS[piece.standing], alpha=LIKELY_STRENGTH)
    axes.set(xscale="log", ylim=(-0.5, 0.5), xlim=(10 ** zones.pieces[0].low, 10 ** zones.pieces[-1].high))
    axes.set_yticks([])
    axes.set_xlabel(name)
