"""The picture of a study: validation loss of every trial against its ratio, the profile, and the zones."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo.analysis.zones import Standing, Zones
from hpo.numbers import about
from hpo.reading.findings import Findings
from hpo.report.figures.zones import LIKELY_STRENGTH, ZONE_COLOURS
from hpo.report.language import Words
from hpo.report.naming import constant, label_words, metric_with_unit

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart with any colour vision (jfly.uni-koeln.de/color, 2008)."""

CHOICE_COLOUR = "#E69F00"
"""Of it, for the choice: on zones and surface alike."""

LOSS_COLOURS = ("#0072B2", "#000000", "#CC79A7", "#56B4E9")
"""Of it, for training losses: none of the zones'."""


def ratio_figure(findings: Findings, words: Words) -> Figure:
    """Return the picture; a study without a trial gives axes that say so."""
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    trials = _placed(findings.trials)
    _draw_zones(axes, findings, words)
    _draw_trials(axes, trials, findings.spec.space.loss, words)
    _draw_profile(axes, findings, words)
    _draw_baseline(axes, findings, words)
    _draw_choice(axes, findings, words)
    _draw_constant(axes, findings, words)
    axes.set_xscale("log")
    axes.set_xlim(_ratio_range(findings))
    _set_losses(axes, trials, findings, words)
    axes.set_xlabel(words.say("figure.ratio"))
    axes.set_ylabel(words.say("figure.loss", metric=metric_with_unit(findings.task, words)))
    title = words.count("figure.ratio.title", len(trials))
    title = words.say("figure.title", name=findings.row.name, what=title)
    axes.set_title("\n".join([title, *label_words(findings.labels, words)]), fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(fontsize=8, ncols=2, loc="outside lower center")  # three of our labels are too wide
    return figure


def _placed(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that have a ratio and ended."""
    if not len(trials):
        return trials
    return trials[trials["ratio"].notna() & trials["state"].isin(["complete", "pruned"])]


def _draw_zones(axes: Axes, findings: Findings, words: Words) -> None:
    """Draw what is as good, what costs more and what is open as bands, strong at the foot of the axes,
    and paler what of it is likely."""
    zones = findings.answer.zones
    if zones is None:
        return
    for piece in zones.pieces:
        colour, ends = ZONE_COLOURS[piece.standing], (10**piece.low, 10**piece.high)
        axes.axvspan(*ends, color=colour, alpha=0.13, linewidth=0, zorder=0)
        axes.axvspan(*ends, ymax=0.025, color=colour, linewidth=0, zorder=0.5)
    for standing, said in zone_legend(zones, findings, words).items():
        axes.plot([], [], "s", color=ZONE_COLOURS[standing], markersize=9, label=said)
    for piece in zones.leaning:
        colour, ends = ZONE_COLOURS[piece.standing], (10**piece.low, 10**piece.high)
        axes.axvspan(*ends, color=colour, alpha=0.06, linewidth=0, zorder=0)
        axes.axvspan(*ends, ymax=0.025, color="white", linewidth=0, zorder=0.6)
        axes.axvspan(*ends, ymax=0.025, color=colour, alpha=LIKELY_STRENGTH, linewidth=0, zorder=0.7)
    for standing in dict.fromkeys(piece.standing for piece in zones.leaning):
        said = words.say(f"figure.likely.{standing.value}")
        axes.plot([], [], "s", color=ZONE_COLOURS[standing], alpha=LIKELY_STRENGTH, markersize=9, label=said)


def zone_legend(zones: Zones, findings: Findings, words: Words) -> dict[Standing, str]:
    """Return what each kind of zone that is there means."""
    worth = about(zones.worth, findings.task.unit)
    return {
        standing: words.say(f"figure.zone.{standing.value}", worth=worth)
        for standing in Standing
        if zones.decades(standing) > 0
    }


def _draw_trials(axes: Axes, trials: pd.DataFrame, losses: tuple[str, ...], words: Words) -> None:
    if not len(trials):
        text = words.say("figure.no_trial")
        axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color="0.4")
        return
    finished = trials[trials["value"].notna()]
    for colour, loss in zip(LOSS_COLOURS, losses, strict=False):
        mine = finished[finished["loss"] == loss]
        complete, pruned = mine[mine["state"] == "complete"], mine[mine["state"] == "pruned"]
        if len(mine):
            label = words.say("figure.trained", loss=loss)
            axes.plot(complete["ratio"], complete["value"], "o", color=colour, markersize=5, label=label)
        axes.plot(pruned["ratio"], pruned["value"], "1", color=colour, markersize=7, alpha=0.7)
    if (finished["state"] == "pruned").any():
        axes.plot([], [], "1", color="0.4", markersize=7, label=words.say("figure.pruned"))
    diverged = trials[trials["end"] == "diverged"]
    if len(diverged):
        top, place = np.full(len(diverged), 0.98), axes.get_xaxis_transform()
        label = words.say("word.diverged")
        axes.plot(diverged["ratio"], top, "x", color="0.2", transform=place, label=label)


def _draw_profile(axes: Axes, findings: Findings, words: Words) -> None:
    curve = findings.answer.curve
    if curve is None or not len(curve.ratio):
        return
    ratio = 10**curve.ratio
    axes.fill_between(ratio, curve.low, curve.high, color="0.5", alpha=0.25, linewidth=0)
    axes.plot(ratio, curve.mean, color="0.2", linewidth=1.5, label=words.say("figure.profile"))
    if curve.identified and curve.best is not None:
        best, lowest = 10**curve.best, float(np.interp(curve.best, curve.ratio, curve.mean))
        reach = [[best - 10 ** curve.interval[0]], [10 ** curve.interval[1] - best]]
        label = words.say("figure.interval")
        axes.errorbar([best], [lowest], xerr=reach, fmt="|", color="0.1", capsize=4, label=label)


def _draw_baseline(axes: Axes, findings: Findings, words: Words) -> None:
    baseline, given = findings.answer.baseline, findings.spec.baseline
    if baseline is not None:
        name = words.say("figure.default", name=words.name("configuration", given.name))
        axes.plot([given.lr / given.backbone_lr], [baseline.value], "k*", markersize=12, label=name)


def _draw_choice(axes: Axes, findings: Findings, words: Words) -> None:
    choice = findings.answer.choice
    if choice is not None and choice.expected_validation_loss is not None:
        place, label = (
            ([choice.ratio], [choice.expected_validation_loss]),
            words.say("figure.chosen.expected"),
        )
        axes.plot(*place, "D", color=CHOICE_COLOUR, markeredgecolor="white", markersize=8, label=label)


def _draw_constant(axes: Axes, findings: Findings, words: Words) -> None:
    axes.axhline(findings.trivial, color="0.35", linestyle="--", linewidth=1)
    axes.annotate(
        constant(findings, words),
        (0.01, findings.trivial),
        ha="left",
        va="bottom",
        xycoords=("axes fraction", "data"),
        fontsize=8,
        color="0.35",
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
        zorder=1.5,  # under the trials: it hides none
    )


def _ratio_range(findings: Findings) -> tuple[float, float]:
    space = findings.spec.space
    return space.lr.low / space.backbone_lr.high, space.lr.high / space.backbone_lr.low


def _set_losses(axes: Axes, trials: pd.DataFrame, findings: Findings, words: Words) -> None:
    """Show the good region: a few runs that fell apart must not flatten the picture."""
    values = trials["value"].dropna().to_numpy(float) if len(trials) else np.array([])
    shown = np.append(values[np.isfinite(values)], findings.trivial)
    low, high = float(shown.min()), float(max(np.quantile(shown, 0.9), findings.trivial))
    default = findings.answer.baseline
    if default is not None and high < default.value < high + (high - low):
        high = default.value
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + 2 * margin)
    above = int((values > high + 2 * margin).sum())
    if above:
        text = words.count("figure.above", above)
        axes.annotate(text, (0.99, 0.94), xycoords="axes fraction", ha="right", va="top", fontsize=8)
