"""What a study's page in the dashboard says of the answer: a note, and the ratio curve as a figure.

Both are study attributes in Optuna's own table, in the dashboard's format, so every page load reads them:
the figure is kept small. All of them are written in one transaction: no page shows half of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import numpy as np
import pandas as pd
import sqlalchemy as sa
from optuna_dashboard._custom_plot_data import SYSTEM_ATTR_PLOT_DATA, save_graph_object_json
from optuna_dashboard._note import get_note_from_system_attrs, note_ver_key, save_note_with_version

from hpo.ledger import optuna_rows
from hpo.reading.findings import Findings
from hpo.reading.standing import budget
from hpo.report.answer import answer_lines
from hpo.report.figures.ratio import LOSS_COLOURS, zone_legend
from hpo.report.figures.zones import ZONE_COLOURS
from hpo.report.language import SPOKEN, Words
from hpo.report.naming import constant, label_words, metric_with_unit
from hpo.storage import writing

HEADING = f"## {SPOKEN['en'].say('page.so_far')}"
"""What is above it in a note is a person's and stays; from here on the note is ours."""
FIGURE = "ratio"
METRIC_NAMES = "study:metric_names"
"""Optuna's own attribute, as ``Study.set_metric_names`` writes it."""
_MOST_POINTS = 300


def write_study_page(engine: sa.Engine, findings: Findings) -> bool:
    """Bring the note and the figure of a study up to date; return whether anything had changed."""
    study_id = findings.row.study_id
    with writing(engine) as connection:
        page = _Page(optuna_rows.system_attributes(connection, study_id))
        before = get_note_from_system_attrs(page.attributes, None)["body"]
        body = note(findings, before)
        if body != before:
            version = int(page.attributes.get(note_ver_key(None), 0)) + 1
            save_note_with_version(page, study_id, None, version, body)
        save_graph_object_json(page, study_id, f"{SYSTEM_ATTR_PLOT_DATA}{FIGURE}:", figure(findings))
        page.set_study_system_attr(study_id, METRIC_NAMES, [objective(findings)])
        optuna_rows.write_system_attributes(connection, study_id, page.changed)
    return bool(page.changed)


def objective(findings: Findings) -> str:
    """Return what a trial's value is called in Optuna's pages: ``validation MAE (bpm)``."""
    return f"validation {metric_with_unit(findings.task, SPOKEN['en'])}"


class _Page:
    """Takes what the dashboard's writers would store, so that one transaction can store it."""

    def __init__(self, attributes: Mapping[str, Any]) -> None:
        self.attributes = dict(attributes)
        self.changed: dict[str, Any] = {}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return all attributes, as a storage does."""
        return self.attributes

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Take one attribute, as a storage does."""
        if self.attributes.get(key) != value:
            self.attributes[key] = self.changed[key] = value


def note(findings: Findings, before: str = "") -> str:
    """Return the study's note as Markdown: a person's part of the note ``before``, then the answer."""
    kept = before.split(HEADING)[0].rstrip()
    words, whole = SPOKEN["en"], f"/answer/{quote(findings.row.name, safe='')}"
    lines = [
        HEADING,
        "",
        *(f"- {_plain(line)}" for line in answer_lines(findings)),
        "",
        f"{_counts(findings, words)} [{words.say('page.whole')}]({whole})",
    ]
    return (f"{kept}\n\n" if kept else "") + "\n".join(lines)


def _counts(findings: Findings, words: Words) -> str:
    counts, diverged = findings.counts, int((findings.trials["end"] == "diverged").sum())
    return words.say(
        "page.counts",
        finished=counts.finished,
        budget=budget(counts),
        complete=counts.complete,
        pruned=counts.pruned - diverged,
        diverged=diverged,
        failed=counts.failed,
        running=counts.running,
    )


def _plain(line: str) -> str:
    """Return a line whose signs mean nothing in Markdown."""
    return "".join(f"\\{sign}" if sign in "\\`*_[]<>|#" else sign for sign in line)


def figure(findings: Findings) -> str:
    """Return the ratio curve as a plotly figure (JSON): the trials, the profile and its band, the yardsticks.

    At most 300 trials are shown, the best half and an even choice of the others: about 15 kB.
    """
    words = SPOKEN["en"]
    title = words.say("figure.title", name=findings.row.name, what=words.say("figure.by_ratio"))
    loss = words.say("figure.loss", metric=metric_with_unit(findings.task, words))
    layout = {
        "title": {"text": "<br>".join([title, *label_words(findings.labels, words)])},
        "xaxis": {"type": "log", "title": {"text": words.say("figure.ratio")}},
        "yaxis": {"title": {"text": loss}, "range": _range(findings)},
        "shapes": _shapes(findings),
        "annotations": [_constant(findings, words)],
        "legend": {"orientation": "h", "y": -0.35},
    }
    traces = [*_zone_legend(findings, words), *_profile(findings, words), *_trials(findings, words)]
    content = {"data": traces, "layout": layout}
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _zone_legend(findings: Findings, words: Words) -> list[dict[str, Any]]:
    """Return a legend entry for each kind of zone; the bands themselves are shapes."""
    zones = findings.answer.zones
    if zones is None:
        return []
    return [
        {"x": [None], "y": [None], "mode": "markers", "name": said}
        | {"marker": {"color": ZONE_COLOURS[standing], "symbol": "square", "size": 11}}
        for standing, said in zone_legend(zones, findings, words).items()
    ]


def _profile(findings: Findings, words: Words) -> list[dict[str, Any]]:
    curve = findings.answer.curve
    if curve is None or not len(curve.ratio):
        return []
    x = _numbers(10**curve.ratio)
    band = {"mode": "lines", "line": {"width": 0}, "hoverinfo": "skip"}
    return [
        {"x": x, "y": _numbers(curve.low), "showlegend": False, **band},
        {"x": x, "y": _numbers(curve.high), "fill": "tonexty", "fillcolor": "rgba(128,128,128,.25)", **band}
        | {"showlegend": False},
        {"x": x, "y": _numbers(curve.mean), "mode": "lines", "line": {"color": "#555"}}
        | {"name": words.say("figure.profile")},
    ]


def _trials(findings: Findings, words: Words) -> list[dict[str, Any]]:
    shown = _chosen(findings.trials)
    traces = []
    for colour, loss in zip(LOSS_COLOURS, findings.spec.space.loss, strict=False):
        for state, symbol in (("complete", "circle"), ("pruned", "triangle-down-open")):
            mine = shown[(shown["loss"] == loss) & (shown["state"] == state)]
            if len(mine):
                name = words.say("figure.trace", loss=loss, state=words.name("word", state))
                trace: dict[str, Any] = {"mode": "markers", "name": name}
                trace |= {"x": _numbers(mine["ratio"]), "y": _numbers(mine["value"])}
                trace |= {"text": [words.say("figure.trial", number=number) for number in mine["number"]]}
                traces.append(trace | {"marker": {"color": colour, "symbol": symbol, "size": 7}})
    return traces


def _chosen(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials to show: the best, and every n-th of the others."""
    has_value = trials["ratio"].notna() & trials["value"].notna()
    ended = trials[has_value & trials["state"].isin(["complete", "pruned"])].sort_values("value")
    if len(ended) <= _MOST_POINTS:
        return ended
    half = _MOST_POINTS // 2
    places = np.linspace(half, len(ended) - 1, _MOST_POINTS - half).astype(int)
    return ended.iloc[[*range(half), *places]]


def _range(findings: Findings) -> list[float]:
    """Return a range of losses in which a few runs that fell apart do not flatten the picture."""
    trials = findings.trials
    values = [float(value) for value in trials["value"].dropna() if np.isfinite(value)]
    low = min([*values, findings.trivial])
    high = max(float(np.quantile([*values, findings.trivial], 0.9)), findings.trivial)
    margin = 0.08 * (high - low) or 0.1 * abs(high) or 1.0
    return [low - margin, high + 2 * margin]


def _shapes(findings: Findings) -> list[dict[str, Any]]:
    """Return the constant to beat as a line, and the zones as bands."""
    level = {"y0": findings.trivial, "y1": findings.trivial}
    constant_line: dict[str, Any] = {"type": "line", "xref": "paper", "x0": 0, "x1": 1, **level}
    constant_line["line"] = {"dash": "dash", "width": 1, "color": "#555"}
    zones = findings.answer.zones
    bands = [
        {"type": "rect", "yref": "paper", "y0": 0, "y1": 1, "line": {"width": 0}, "layer": "below"}
        | {"x0": 10**piece.low, "x1": 10**piece.high, "opacity": 0.15}
        | {"fillcolor": ZONE_COLOURS[piece.standing]}
        for piece in (zones.pieces if zones else ())
    ]
    return [constant_line, *bands]


def _constant(findings: Findings, words: Words) -> dict[str, Any]:
    place = {"xref": "paper", "x": 0, "xanchor": "left", "y": findings.trivial, "yanchor": "bottom"}
    return {"text": constant(findings, words), "showarrow": False, **place}


def _numbers(values: Any) -> list[float | None]:
    """Return numbers with five digits, which is more than a screen shows."""
    return [float(f"{value:.5g}") if np.isfinite(value) else None for value in np.asarray(values, float)]
