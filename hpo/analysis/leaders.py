"""The configurations that did best, by expected validation loss: what is replicated and confirmed."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd

from hpo.analysis.box import Box, SearchSpace, choices_in
from hpo.analysis.evidence import MIN_MODEL, classify, gather, in_space, points, surrogates_of
from hpo.study.choices import Choices
from hpo.study.setting import Setting

MAX_MODEL = 300
"""Of more complete trials, so many with the lowest losses are modelled: the time grows with their cube."""


def leaders(
    trials: pd.DataFrame,
    curves: pd.DataFrame,
    space: SearchSpace,
    top: int,
    *,
    beside: Iterable[Setting] = (),
) -> list[Setting]:
    """Return up to ``top`` tried configurations with the best expected validation loss, best first.

    Tables as :mod:`hpo.reading.frames` gives them. Configurations close to an earlier one, or to one of
    ``beside``, are left out. Deterministic.
    """
    trials = in_space(trials, space)
    complete = trials[classify(trials) == "complete"].sort_values("value", kind="stable").head(MAX_MODEL)
    if complete.empty:
        return []
    expected = complete["value"].to_numpy(float)
    if len(complete) >= MIN_MODEL and expected.min() < expected.max():
        box = Box.of(space)
        kept = trials["number"].isin(complete["number"]) if len(complete) == MAX_MODEL else slice(None)
        evidence = gather(trials[kept], curves, box)
        (surrogate,) = surrogates_of(evidence, box)
        expected = surrogate.expected(points(complete, box))
    ranked = complete.assign(expected=expected).sort_values(["expected", "number"], kind="stable")
    taken: list[Setting] = list(beside)
    chosen: list[Setting] = []
    for row in ranked.to_dict("records"):
        choices = Choices({name: row[name] for name in choices_in(space)})
        setting = Setting(float(row["lr"]), float(row["backbone_lr"]), str(row["loss"]), choices)
        if len(chosen) < top and not any(setting.is_close_to(other) for other in taken):
            chosen.append(setting)
            taken.append(setting)
    return chosen
