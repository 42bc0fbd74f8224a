"""Pictures of a search: both rates, learning curves, the spread between seeds, what mattered."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator, PercentFormatter

from hpo.analysis.values import NoteKind, RateMap
from hpo.confirm.confirmed import Confirmation
from hpo.numbers import about, rate
from hpo.reading.findings import Findings
from hpo.report.confirmed import arm_name
from hpo.report.figures.ratio import CHOICE_COLOUR, COLOURS
from hpo.report.language import Words
from hpo.report.naming import constant, label_words, loss_words, metric_with_unit
from hpo.study.choices import value_words

MOST_CURVES = 300
"""Of more trials the best half and an even choice of the others: a page has to open quickly."""
MOST_GROUPS = 12
_LUCK = frozenset({"seed", "fold"})
"""What is drawn with a trial, not chosen for it."""


def titled(figure: Figure, findings: Findings, what: str, words: Words) -> None:
    """Give a figure its title, with what every output must say of the data."""
    title = words.say("figure.title", name=findings.row.name, what=what)
    figure.suptitle("\n".join([title, *label_words(findings.labels, words)]), fontsize=10)


def rates_figure(findings: Findings, words: Words) -> Figure:
    """Return expected validation loss over lr and backbone_lr, with the trials on it."""
    figure = Figure(figsize=(7, 5.5), dpi=120, layout="constrained")
    axes, space = figure.subplots(), findings.spec.space
    rates = findings.answer.rates
    if rates is not None:
        label = words.say("figure.loss.expected", metric=metric_with_unit(findings.task, words))
        _draw_surface(figure, axes, rates, label)
    axes.set(xscale="log", yscale="log", xlabel="backbone_lr", ylabel="lr")
    axes.set_xlim(space.backbone_lr.low / 1.3, space.backbone_lr.high * 1.3)
    axes.set_ylim(space.lr.low / 1.3, space.lr.high * 1.3)
    _draw_ratios(axes, findings, words)
    if rates is None:
        write_inside(axes, words.say("figure.rates.too_few"))
    _draw_places(axes, findings.trials, words)
    baseline, choice = findings.spec.baseline, findings.answer.choice
    named = words.say("figure.default.place", name=words.name("configuration", baseline.name))
    axes.plot(baseline.backbone_lr, baseline.lr, "k*", markersize=13, label=named)
    if choice is not None:
        chosen = words.say("figure.chosen")
        look: dict[str, Any] = {"color": CHOICE_COLOUR, "markeredgecolor": "white", "markersize": 9}
        axes.plot(choice.backbone_lr, choice.lr, "D", label=chosen, **look)
    figure.legend(fontsize=8, ncols=3, loc="outside lower center")
    titled(figure, findings, words.say("figure.rates.title"), words)
    return figure


def good_range(findings: Findings) -> tuple[float, float]:
    """Return the losses worth showing: runs that fell apart must not flatten a picture."""
    trials = findings.trials
    ended = trials[trials["state"].isin(["complete", "pruned"])]["value"].to_numpy(float)
    shown = np.append(ended[np.isfinite(ended)], findings.trivial)
    low, high = float(shown.min()), float(max(np.quantile(shown, 0.9), findings.trivial))
    return low, high if high > low else low + (0.1 * abs(low) or 1.0)


def _draw_surface(figure: Figure, axes: Axes, rates: RateMap, label: str) -> None:
    surface = axes.pcolormesh(
        10**rates.backbone_lr,
        10**rates.lr,
        rates.loss,
        cmap="viridis",
        vmin=float(rates.loss.min()),
        vmax=float(np.quantile(rates.loss, 0.9)),  # what fell apart must not flatten the rest
        shading="nearest",
        rasterized=True,
    )
    figure.colorbar(surface, ax=axes, label=label, extend="max")


def _draw_ratios(axes: Axes, findings: Findings, words: Words) -> None:
    """Draw the lines of equal ratio, each with its power of ten, under the trials."""
    space = findings.spec.space
    ends = np.array([space.backbone_lr.low, space.backbone_lr.high])
    slowest, fastest = space.lr.low / ends[1], space.lr.high / ends[0]
    label = words.say("figure.equal_ratio")
    for power in range(int(np.ceil(np.log10(slowest))) + 1, int(np.floor(np.log10(fastest)))):
        axes.plot(ends, ends * 10.0**power, color="0.6", linewidth=0.8, linestyle=":", label=label)
        left, label = max(ends[0], space.lr.low / 10.0**power), ""
        at = (left, left * 10.0**power)
        text = axes.annotate(
            f"{10.0**power:g}", at, fontsize=7, color="0.1", ha="left", va="bottom", zorder=1.5
        )
        text.set_path_effects(
            [withStroke(linewidth=2, foreground="white")]
        )  # on a dark surface and a light one


def _draw_places(axes: Axes, trials: pd.DataFrame, words: Words) -> None:
    placed = trials[trials["lr"].notna()]
    diverged = placed["end"] == "diverged"
    kinds = {
        "complete": (placed["state"] == "complete") & ~diverged,
        "pruned": (placed["state"] == "pruned") & ~diverged,
        "diverged": diverged,
    }
    looks = {"complete": ("o", "white", 6), "pruned": ("o", "none", 4), "diverged": ("x", "none", 6)}
    for name, mine in kinds.items():
        marker, face, size = looks[name]
        if mine.any():
            edge = "black" if name != "diverged" else "#CC3311"
            style: dict[str, Any] = {"markerfacecolor": face, "markeredgecolor": edge, "markersize": size}
            rows = placed[mine]
            label = words.name("word", name)
            axes.plot(rows["backbone_lr"], rows["lr"], marker, linestyle="none", label=label, **style)


def curves_figure(findings: Findings, words: Words) -> Figure:
    """Return validation loss by epoch: complete trials, pruned ones with their ends, the best one bold."""
    figure = Figure(figsize=(8, 5), dpi=120, layout="constrained")
    axes = figure.subplots()
    curves, ends, chosen = findings.curves, findings.trials.set_index("number"), _chosen(findings.trials)
    best = findings.answer.best
    wanted = chosen if best is None else [*chosen, best.number]
    by_trial = dict(list(curves[curves["number"].isin(wanted)].groupby("number"))) if len(curves) else {}
    shown = [number for number in chosen if number in by_trial]
    for number in shown:
        state, end = (str(ends.loc[number, name]) for name in ("state", "end"))
        _draw_curve(axes, by_trial[number], "diverged" if end == "diverged" else state, words)
    if best is not None and best.number in by_trial:
        rows = by_trial[best.number]
        label = words.say("figure.best", number=best.number)
        axes.plot(rows["epoch"], rows["validation_loss"], color="black", linewidth=2, label=label)
    low, high = good_range(findings)
    axes.set_ylim(low - 0.08 * (high - low), high + 0.3 * (high - low))
    guess = constant(findings, words)
    axes.axhline(findings.trivial, color="0.35", linestyle="--", linewidth=1, label=guess)
    loss = words.say("figure.loss", metric=metric_with_unit(findings.task, words))
    axes.set(xlabel=words.say("figure.epoch"), ylabel=loss)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not shown:
        write_inside(axes, words.say("figure.no_curve"))
    _legend_once(figure, axes)
    titled(figure, findings, words.count("figure.curves.title", len(shown)), words)
    return figure


def _chosen(trials: pd.DataFrame) -> list[int]:
    ordered = trials.sort_values("value")["number"].tolist()
    if len(ordered) <= MOST_CURVES:
        return ordered
    half = MOST_CURVES // 2
    others = np.linspace(half, len(ordered) - 1, MOST_CURVES - half).astype(int)
    return ordered[:half] + [ordered[place] for place in others]


def _draw_curve(axes: Axes, rows: pd.DataFrame, kind: str, words: Words) -> None:
    colour = {"complete": COLOURS[0], "pruned": COLOURS[4], "diverged": "#CC3311"}.get(kind, "0.6")
    epochs, losses = rows["epoch"].to_numpy(), rows["validation_loss"].to_numpy(float)
    axes.plot(epochs, losses, color=colour, linewidth=0.8, alpha=0.6, label=words.name("word", kind))
    finite = np.flatnonzero(np.isfinite(losses))
    if kind in {"pruned", "diverged"} and len(finite):
        mark = "|" if kind == "pruned" else "x"
        axes.plot(epochs[finite[-1]], losses[finite[-1]], mark, color=colour, markersize=7)


def _legend_once(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    named = dict(zip(labels, handles, strict=True))
    if named:
        figure.legend(named.values(), named.keys(), fontsize=8, ncols=4, loc="outside lower center")


def write_inside(axes: Axes, text: str) -> None:
    """Write in the middle of empty axes why they are empty."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="0.4")


def seeds_figure(findings: Findings, confirmation: Confirmation | None, words: Words) -> Figure:
    """Return the spread between seeds: configurations with several in the search, and each confirmed arm."""
    replicated, loss = _replicated(findings, words), metric_with_unit(findings.task, words)
    panels = [(replicated, words.say("figure.seeds.search", metric=loss))]
    if confirmation is not None:
        panels = panels if replicated else []
        panels.append((_confirmed(confirmation, words), words.say("figure.seeds.test", metric=loss)))
    rows = max(2, *(len(groups) for groups, _ in panels))
    figure = Figure(figsize=(9 if len(panels) > 1 else 8, 1.8 + 0.35 * rows), dpi=120, layout="constrained")
    for axes, (groups, label) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _draw_groups(axes, groups, words)
        axes.set_xlabel(label)
    noise, title = findings.answer.noise, words.say("figure.seeds.title")
    if noise.seed_sd is not None:
        sd, source = about(noise.seed_sd, findings.task.unit), words.say(f"source.{noise.source}")
        title = words.say("figure.seeds.title.sd", sd=sd, source=source)
    titled(figure, findings, title, words)
    return figure


def _replicated(findings: Findings, words: Words) -> dict[str, list[float]]:
    """Return the losses of each configuration with several complete trials, the best mean first."""
    trials = findings.trials
    complete = trials[(trials["state"] == "complete") & np.isfinite(trials["value"].to_numpy(float))]
    names = [name for name in findings.spec.space.choices if name in complete]
    shown = complete.assign(**{name: [value_words(one) for one in complete[name]] for name in names})
    columns = ["lr", "backbone_lr", "loss", *names]
    found = {}
    for (lr, slow, loss, *values), rows in shown[shown.duplicated(columns, keep=False)].groupby(columns):
        chosen = loss_words(loss, dict(zip(names, values, strict=True)), words)
        given = {"lr": rate(lr), "backbone_lr": rate(slow), "loss": chosen, "n": len(rows)}
        found[words.say("figure.seeds.group", **given)] = rows["value"].astype(float).tolist()
    return dict(sorted(found.items(), key=lambda group: np.mean(group[1]))[:MOST_GROUPS])


def _confirmed(confirmation: Confirmation, words: Words) -> dict[str, list[float]]:
    name = confirmation.task.yardstick
    found: dict[int, list[float]] = {}
    for score in confirmation.scores.scores:
        found.setdefault(score.arm, []).append(score.metrics[name])
    return {
        words.say("figure.seeds.arm", name=arm_name(confirmation, place, words), n=len(values)): values
        for place, values in found.items()
    }


def _draw_groups(axes: Axes, groups: Mapping[str, list[float]], words: Words) -> None:
    if not groups:
        write_inside(axes, words.say("figure.seeds.none"))
        axes.set(xticks=[], yticks=[])
        return
    for place, values in enumerate(groups.values()):
        axes.plot(values, [place] * len(values), "o", color=COLOURS[0], markersize=5, alpha=0.6)
        axes.plot(np.mean(values), place, "|", color="black", markersize=16, markeredgewidth=2)
    axes.set_yticks(range(len(groups)), list(groups), fontsize=7)
    axes.set_ylim(len(groups) - 0.5, -0.5)


def importances_figure(
    findings: Findings, optunas: Mapping[str, Mapping[str, float]], words: Words
) -> Figure:
    """Return our shares of the variance beside Optuna's importances, those that could be computed.

    The seed is luck, nothing that can be chosen: it has a share of ours, and no bar of Optuna's. Too few
    trials for an answer are too few for any bar.
    """
    figure = Figure(figsize=(8, 3.6), dpi=120, layout="constrained")
    axes, found = figure.subplots(), dict(findings.answer.noise.shares)
    known = {"ours": found} if found else {}
    if not findings.answer.has(NoteKind.FEW_COMPLETE):
        for key, importances in optunas.items():
            chosen = {name: share for name, share in importances.items() if name not in _LUCK}
            known |= {key: chosen} if chosen else {}
    names = list(dict.fromkeys(name for values in known.values() for name in values))
    height = 0.8 / max(1, len(known))
    bars_of = {name: [key for key, values in known.items() if name in values] for name in names}
    for row, (key, values) in enumerate(known.items()):
        ranks = [keys.index(key) - (len(keys) - 1) / 2 if key in keys else 0.0 for keys in bars_of.values()]
        places = np.arange(len(names)) + np.array(ranks) * height
        lengths = [values.get(name, np.nan) for name in names]
        label = words.say(f"figure.shares.{key}")
        bars = axes.barh(places, lengths, height, color=COLOURS[row], label=label)
        axes.bar_label(
            bars, ["" if np.isnan(one) else f"{one:.0%}" for one in lengths], fontsize=8, padding=2
        )
    axes.set_yticks(range(len(names)), [words.name("share", name) for name in names])
    axes.invert_yaxis()
    axes.set(xlabel=words.say("figure.shares"), xlim=(0, 1.1))
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    if known:
        figure.legend(fontsize=8, ncols=2, loc="outside lower center")
    else:
        write_inside(axes, words.say("figure.shares.few"))
    titled(figure, findings, words.say("figure.shares.title"), words)
    return figure
