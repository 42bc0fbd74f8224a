"""Pictures of a confirmation: what the chosen configuration and the default say of the test windows.

Predictions are averaged over the seeds of an arm. Shapes: N windows, O outputs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from sklearn.metrics import auc, confusion_matrix, precision_recall_curve, roc_curve

from hpo.confirm.confirmed import ArmResult, Confirmation
from hpo.report.confirmed import arm_name
from hpo.report.figures.ratio import COLOURS
from hpo.report.language import Words
from hpo.report.naming import label_words, metric_with_unit

Floats = NDArray[np.float64]
MOST_CLASSES = 10
"""Of more classes those with the most windows."""
MOST_NAMED = 40
"""Up to so many subjects are named on their axis."""


def confirmed_figures(found: Confirmation, words: Words) -> dict[str, Figure]:
    """Return the pictures of a confirmation by name; those of an arm whose runs all diverged are left out."""
    arms = [place for place in _shown(found) if found.arms[place].metrics]
    if not arms:
        return {}
    mean = {place: _mean_predictions(found, place) for place in arms}
    if found.task.kind == "regression":
        own = {
            "predicted": predicted_figure(found, mean, words),
            "bland_altman": bland_altman_figure(found, mean, words),
        }
    else:
        own = {
            "roc": roc_figure(found, mean[arms[0]], words),
            "confusion": confusion_figure(found, mean[arms[0]], words),
        }
    return own | {"subjects": subjects_figure(found, arms, words)}


def _shown(found: Confirmation) -> list[int]:
    """Return the places of the answer's own choice and the published default."""
    return [0, next(place for place, one in enumerate(found.arms) if one.arm.role == "baseline")]


def _mean_predictions(found: Confirmation, place: int) -> Floats:
    """Return the predictions (N, O) of an arm, averaged over its seeds."""
    runs = [score.predictions for score in found.scores.scores if score.arm == place]
    return np.asarray(np.mean(runs, axis=0, dtype=np.float64))


def _titled(figure: Figure, found: Confirmation, what: str, words: Words) -> None:
    text = words.count("figure.test.title", found.arms[0].seeds, name=found.study, what=what)
    figure.suptitle("\n".join([text, *label_words(found.labels, words)]), fontsize=10)


def _one_axes_each(count: int, width: float = 4.6) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(width * count, 4.6), dpi=120, layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def _clouds(axes: Axes, x: Floats, y: Floats, groups: NDArray[np.str_]) -> None:
    """Draw the windows, a colour a subject (they repeat)."""
    for place, name in enumerate(np.unique(groups)):
        mine = groups == name
        colour = COLOURS[place % len(COLOURS)]
        axes.plot(x[mine], y[mine], ".", markersize=4, alpha=0.5, color=colour, rasterized=True)


def predicted_figure(found: Confirmation, mean: dict[int, Floats], words: Words) -> Figure:
    """Return predicted against true labels, the chosen configuration beside the default."""
    figure, panels = _one_axes_each(len(mean))
    truth = found.scores.labels.mean(axis=1)
    for axes, (place, predictions) in zip(panels, mean.items(), strict=True):
        said = predictions.mean(axis=1)
        ends = [min(truth.min(), said.min()), max(truth.max(), said.max())]
        axes.plot(ends, ends, color="0.5", linewidth=1)
        _clouds(axes, truth, said, found.scores.groups)
        true = words.say("figure.true", unit=found.task.unit)
        told = words.say("figure.predicted", unit=found.task.unit)
        axes.set(xlabel=true, ylabel=told, aspect="equal")
        axes.set_title(arm_name(found, place, words), fontsize=9)
    _titled(figure, found, words.say("figure.predicted.title"), words)
    return figure


def bland_altman_figure(found: Confirmation, mean: dict[int, Floats], words: Words) -> Figure:
    """Return the differences against the means (Bland and Altman 1986), with bias and limits of agreement.

    The limits are those of windows: windows of one subject are not independent, so they carry no interval.
    """
    figure, panels = _one_axes_each(len(mean))
    truth = found.scores.labels.mean(axis=1)
    for axes, (place, predictions) in zip(panels, mean.items(), strict=True):
        said = predictions.mean(axis=1)
        gap = said - truth
        bias, spread = float(gap.mean()), 1.96 * float(gap.std(ddof=1))
        _clouds(axes, (said + truth) / 2, gap, found.scores.groups)
        for level, style in ((bias, "-"), (bias - spread, "--"), (bias + spread, "--")):
            axes.axhline(level, color="0.3", linewidth=1, linestyle=style)
            axes.annotate(
                f"{level:+.3g}",
                (0.99, level),
                xycoords=("axes fraction", "data"),
                ha="right",
                va="bottom",
                fontsize=8,
            )
        across, up = (words.say(f"figure.altman.{what}", unit=found.task.unit) for what in ("mean", "gap"))
        axes.set(xlabel=across, ylabel=up)
        axes.set_title(arm_name(found, place, words), fontsize=9)
    _titled(figure, found, words.say("figure.altman.title"), words)
    return figure


def _by_class(found: Confirmation) -> tuple[NDArray[np.bool_], list[str], list[int]]:
    """Return which window has which class (N, O), the names, and the classes that a curve can be drawn of."""
    labels, outputs = found.scores.labels, found.task.outputs
    is_one = labels[:, :1] == np.arange(outputs) if found.task.kind == "multiclass" else labels > 0.5
    names = list(found.task.classes) or [str(place) for place in range(outputs)]
    counts = is_one.sum(axis=0)
    drawable = [int(c) for c in np.argsort(-counts, kind="stable") if 0 < counts[c] < len(labels)]
    return is_one, names, sorted(drawable[:MOST_CLASSES])


def roc_figure(found: Confirmation, predictions: Floats, words: Words) -> Figure:
    """Return ROC and precision-recall curves of each class against the rest, of the chosen configuration."""
    figure, (roc, recall) = _one_axes_each(2)
    is_one, names, drawable = _by_class(found)
    for row, place in enumerate(drawable):
        truth, said, colour = is_one[:, place], predictions[:, place], COLOURS[row % len(COLOURS)]
        style: dict[str, Any] = {
            "color": colour,
            "linewidth": 1.3,
            "linestyle": "-" if row < len(COLOURS) else "--",
        }
        wrong, right, _ = roc_curve(truth, said)
        precision, found_share, _ = precision_recall_curve(truth, said)
        area = words.say("figure.class.area", name=names[place], area=f"{auc(wrong, right):.3f}")
        roc.plot(wrong, right, label=area, **style)
        label = words.say("figure.class.share", name=names[place], share=f"{truth.mean():.3f}")
        recall.plot(found_share, precision, label=label, **style)
    roc.plot([0, 1], [0, 1], color="0.6", linewidth=0.8)
    roc.set(xlabel=words.say("figure.roc.x"), ylabel=words.say("figure.roc.y"), title=words.say("figure.roc"))
    title = words.say("figure.recall.title")
    recall.set(xlabel=words.say("figure.recall"), ylabel=words.say("figure.precision"), title=title)
    for axes in (roc, recall):
        if drawable:
            axes.legend(fontsize=7)
    _titled(figure, found, words.say("figure.roc.title", arm=arm_name(found, 0, words)), words)
    return figure


def confusion_figure(found: Confirmation, predictions: Floats, words: Words) -> Figure:
    """Return the confusion matrix of the chosen configuration; of many labels at once, each at one half."""
    is_one, names, drawable = _by_class(found)
    if found.task.kind == "multiclass":
        classes = np.arange(len(names))
        counts = confusion_matrix(is_one.argmax(axis=1), predictions.argmax(axis=1), labels=classes)
        rows, columns, label, side = names, names, "predicted", "true"
    else:
        said, truth = predictions[:, drawable] > 0.5, is_one[:, drawable]
        cells = (truth & said, truth & ~said, ~truth & said, ~truth & ~said)
        counts = np.stack([cell.sum(axis=0) for cell in cells], axis=1)
        rows, label, side = [names[place] for place in drawable], "half", "label"
        columns = [words.say(f"figure.confusion.{cell}") for cell in ("tp", "fn", "fp", "tn")]
    size = (2.5 + 0.9 * len(columns), 2.0 + 0.5 * len(rows))
    figure = Figure(figsize=size, dpi=120, layout="constrained")
    _draw_counts(figure.subplots(), counts, rows, columns)
    across, up = (words.say(f"figure.confusion.{what}") for what in (label, side))
    figure.axes[0].set(xlabel=across, ylabel=up)
    _titled(figure, found, words.say("figure.confusion.title", arm=arm_name(found, 0, words)), words)
    return figure


def _draw_counts(axes: Axes, counts: NDArray[np.int64], rows: list[str], columns: list[str]) -> None:
    """Draw a table of counts, shaded by their share of the row."""
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    axes.set_xticks(range(len(columns)), columns)
    axes.set_yticks(range(len(rows)), rows)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if share[row, column] > 0.5 else "black"
        text = f"{count}\n{share[row, column]:.0%}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=colour)


def subjects_figure(found: Confirmation, arms: list[int], words: Words) -> Figure:
    """Return the error of each subject (or record), hardest last, for the choice and the default."""
    figure = Figure(figsize=(8, 4.2), dpi=120, layout="constrained")
    axes = figure.subplots()
    order = _by_error(found.arms[arms[0]])
    for row, place in enumerate(arms):
        result, marker = found.arms[place], "os"[row % 2]
        face = COLOURS[0] if row == 0 else "none"
        errors = [result.per_unit[name] for name in order]
        style: dict[str, Any] = {"linestyle": "none", "markerfacecolor": face, "color": COLOURS[row]}
        label = arm_name(found, place, words)
        axes.plot(range(len(order)), errors, marker, label=label, markersize=5, **style)
    kind = found.task.unit_of_independence
    if len(order) <= MOST_NAMED:
        axes.set_xticks(range(len(order)), order, rotation=90 if len(order) > 10 else 0, fontsize=8)
    across = words.say("figure.subjects.x", units=words.count(f"unit.{kind}", len(order)))
    axes.set(xlabel=across, ylabel=metric_with_unit(found.task, words))
    axes.legend(fontsize=8)
    _titled(figure, found, words.say("figure.subjects.title", unit=words.say(f"each.{kind}")), words)
    return figure


def _by_error(result: ArmResult) -> list[str]:
    return sorted(result.per_unit, key=lambda name: result.per_unit[name])
