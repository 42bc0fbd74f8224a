"""The picture of a study: validation loss of every trial against its ratio, with the fitted profile."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo.analysis.values import Answer
from hpo.reading.findings import Findings
from hpo.report.wording import YARDSTICKS

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's palette, told apart with any colour vision (jfly.uni-koeln.de/color, 2008)."""


def ratio_figure(findings: Findings) -> Figure:
    """Return the picture; a study without a trial gives axes that say so."""
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    trials = _placed(findings.trials)
    _draw_trials(axes, trials, findings.spec.space.loss)
    _draw_profile(axes, findings.answer)
    _draw_baseline(axes, findings)
    axes.axhline(findings.trivial, color="0.35", linestyle="--", linewidth=1)
    axes.annotate(
        f"trivial predictor: {findings.trivial_name}",
        (0.01, findings.trivial),
        ha="left",
        va="bottom",
        xycoords=("axes fraction", "data"),
        fontsize=8,
        color="0.35",
        bbox={"facecolor": "white", "alpha": 0.7, "linewidth": 0, "pad": 1},
    )
    axes.set_xscale("log")
    axes.set_xlim(_ratio_range(findings))
    _set_losses(axes, trials, findings)
    unit = f" ({findings.task.unit})" if findings.task.unit else ""
    axes.set_xlabel("ratio lr / backbone_lr")
    axes.set_ylabel(f"validation {YARDSTICKS[findings.task.yardstick]}{unit}")
    axes.set_title("\n".join([f"{findings.row.name}: {len(trials)} trials", *findings.labels]), fontsize=10)
    if axes.get_legend_handles_labels()[0]:
        figure.legend(fontsize=8, ncols=2, loc="outside lower center")  # three of our labels are too wide
    return figure


def _placed(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials that have a ratio and ended."""
    if not len(trials):
        return trials
    return trials[trials["ratio"].notna() & trials["state"].isin(["complete", "pruned"])]


def _draw_trials(axes: Axes, trials: pd.DataFrame, losses: tuple[str, ...]) -> None:
    if not len(trials):
        axes.text(0.5, 0.5, "no finished trial", transform=axes.transAxes, ha="center", color="0.4")
        return
    finished = trials[trials["value"].notna()]
    for colour, loss in zip(COLOURS, losses, strict=False):
        mine = finished[finished["loss"] == loss]
        complete, pruned = mine[mine["state"] == "complete"], mine[mine["state"] == "pruned"]
        if len(mine):
            axes.plot(complete["ratio"], complete["value"], "o", color=colour, markersize=5, label=loss)
        axes.plot(pruned["ratio"], pruned["value"], "1", color=colour, markersize=7, alpha=0.7)
    if (finished["state"] == "pruned").any():
        axes.plot([], [], "1", color="0.4", markersize=7, label="pruned (best so far)")
    diverged = trials[trials["end"] == "diverged"]
    if len(diverged):
        top, place = np.full(len(diverged), 0.98), axes.get_xaxis_transform()
        axes.plot(diverged["ratio"], top, "x", color="0.2", transform=place, label="diverged")


def _draw_profile(axes: Axes, found: Answer) -> None:
    curve = found.curve
    if curve is None:
        return
    ratio = 10**curve.ratio
    axes.fill_between(ratio, curve.low, curve.high, color="0.5", alpha=0.25, linewidth=0)
    axes.plot(ratio, curve.mean, color="0.2", linewidth=1.5, label="expected, best lr and loss (95 % band)")
    if curve.identified:
        axes.axvspan(
            10 ** curve.interval[0], 10 ** curve.interval[1], color="#F0E442", alpha=0.25, linewidth=0
        )


def _draw_baseline(axes: Axes, findings: Findings) -> None:
    baseline, given = findings.answer.baseline, findings.spec.baseline
    if baseline is not None:
        name = f"baseline: {given.name} (expected)"
        axes.plot([given.lr / given.backbone_lr], [baseline.value], "k*", markersize=12, label=name)


def _ratio_range(findings: Findings) -> tuple[float, float]:
    space = findings.spec.space
    return space.lr.low / space.backbone_lr.high, space.lr.high / space.backbone_lr.low


def _set_losses(axes: Axes, trials: pd.DataFrame, findings: Findings) -> None:
    """Show the good region: a few runs that fell apart must not flatten the picture."""
    values = trials["value"].dropna().to_numpy(float) if len(trials) else np.array([])
    shown = np.append(values[np.isfinite(values)], findings.trivial)
    low, high = float(shown.min()), float(max(np.quantile(shown, 0.9), findings.trivial))
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    axes.set_ylim(low - margin, high + 2 * margin)
    above = int((values > high + 2 * margin).sum())
    if above:
        axes.annotate(
            f"{above} trials above", (0.99, 0.99), xycoords="axes fraction", ha="right", va="top", fontsize=8
        )
