"""A study as CSV tables and JSON files in a folder: for a spreadsheet, R, or any other program."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from hpo.records.study import PARAMETERS, StudyRecord


def write_tables(study: StudyRecord, out: Path) -> list[Path]:
    """Write trials.csv, curves.csv, answer.json and study.json into a folder; returns the files."""
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    results = sorted({name for trial in study.trials for name in trial.results})
    texts = {
        "trials.csv": _csv(("number", "state", "origin", *_names(study), *results), _trials(study, results)),
        "curves.csv": _csv(("number", "epoch", "train_loss", "validation_loss"), _curves(study)),
        "answer.json": json.dumps(study.answer, indent=2, allow_nan=False) + "\n",
        "study.json": json.dumps(study.spec, indent=2, allow_nan=False) + "\n",
    }
    for name, text in texts.items():
        with open(out / name, "w", encoding="utf-8", opener=_for_its_owner) as file:
            file.write(text)
    return [out / name for name in texts]


def _for_its_owner(file: str, flags: int) -> int:
    return os.open(file, flags, 0o600)


def _names(study: StudyRecord) -> tuple[str, ...]:
    return (*PARAMETERS, *study.choices)


def _csv(header: Sequence[str], rows: Iterator[Sequence[object]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _trials(study: StudyRecord, results: Sequence[str]) -> Iterator[Sequence[object]]:
    for trial in study.trials:
        known = (
            *(trial.parameters.get(name, "") for name in _names(study)),
            *(trial.results.get(r, "") for r in results),
        )
        yield (trial.number, trial.state, trial.origin, *known)


def _curves(study: StudyRecord) -> Iterator[Sequence[object]]:
    for trial in study.trials:
        for epoch in trial.curve:
            losses = (epoch.values.get(name, "") for name in ("train_loss", "validation_loss"))
            yield (trial.number, epoch.epoch, *losses)
