"""One study as a plain value, as every format is given it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hpo.reading.findings import Findings
from hpo.report.told import to_json
from hpo.study.recipe import SEARCHABLE

if TYPE_CHECKING:
    import pandas as pd

PARAMETERS = ("lr", "backbone_lr", "ratio", "loss", "seed", "fold")


@dataclass(frozen=True)
class Epoch:
    """One epoch of a trial."""

    epoch: int
    values: Mapping[str, float]
    """train_loss and validation_loss, those that are finite."""


@dataclass(frozen=True)
class TrialRecord:
    """One trial that a worker has begun."""

    number: int
    state: str
    """complete, pruned, failed or running."""
    origin: str
    parameters: Mapping[str, float | int | str]
    results: Mapping[str, float]
    """value (best validation loss), best_epoch, epochs, elapsed_s and the metrics of the best epoch."""
    curve: Sequence[Epoch]
    attempt: int = 1
    """With another, the curve may have been taken up at an earlier epoch."""


@dataclass(frozen=True)
class StudyRecord:
    """A study with its trials and its answer."""

    name: str
    task: str
    fingerprint: str
    spec: Mapping[str, Any]
    answer: Mapping[str, Any]
    """The object of ``hpo report --json``."""
    trials: Sequence[TrialRecord]
    choices: tuple[str, ...] = ()
    """Names of parameters that it searches beside rates and loss."""


def record_of(findings: Findings, url: str) -> StudyRecord:
    """Return a study as records have it; trials that nobody has begun are left out."""
    trials = trial_records(findings.trials, findings.curves)
    choices = tuple(findings.spec.space.choices)
    row = findings.row
    return StudyRecord(
        row.name, findings.spec.task, row.fingerprint, row.spec, to_json(findings, url), trials, choices
    )


def trial_records(trials: pd.DataFrame, curves: pd.DataFrame) -> list[TrialRecord]:
    """Return the trials of two tables (:mod:`hpo.reading.frames`) that somebody has begun."""
    by_number = {
        int(str(number)): [_epoch(row) for row in rows.to_dict("records")]
        for number, rows in curves.groupby("number")
    }
    begun = trials[trials["state"] != "waiting"]
    return [_trial(row, by_number.get(int(row["number"]), [])) for row in begun.to_dict("records")]


def _epoch(row: Mapping[Any, Any]) -> Epoch:
    return Epoch(int(row["epoch"]), _known(row, ("train_loss", "validation_loss")))


def _trial(row: Mapping[Any, Any], curve: Sequence[Epoch]) -> TrialRecord:
    names = (
        "value",
        "best_epoch",
        "epochs",
        "elapsed_s",
        *(str(name) for name in row if "metric_" in str(name)),
    )
    parameters = {name: row[name] for name in (*PARAMETERS, *SEARCHABLE) if _is_there(row.get(name))}
    plain = {
        name: value if isinstance(value, str | float) else int(value) for name, value in parameters.items()
    }
    return TrialRecord(
        int(row["number"]),
        row["state"],
        row["origin"],
        plain,
        _known(row, names),
        curve,
        int(row["attempts"]),
    )


def _known(row: Mapping[Any, Any], names: Sequence[str]) -> dict[str, float]:
    """Return the finite numbers among ``names``."""
    found = {name: float(row[name]) for name in names if _is_there(row[name])}
    return {name: value for name, value in found.items() if math.isfinite(value)}


def _is_there(value: Any) -> bool:
    """Return whether a cell of a table holds anything (pandas has three ways to say no)."""
    return value is not None and str(value) not in {"nan", "<NA>", "None"}
