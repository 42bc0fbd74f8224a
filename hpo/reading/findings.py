"""Everything that a database holds of one study, with the answer that follows: what run and report show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import sqlalchemy as sa

from finetune.api import Task
from hpo.analysis import answer
from hpo.analysis.values import Answer
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Counts, StudyRow
from hpo.reading.frames import curves_frame, trials_frame
from hpo.reading.standing import standing
from hpo.study import StudySpec


@dataclass(frozen=True)
class Findings:
    """One study: its description, its trials and what they say."""

    row: StudyRow
    spec: StudySpec
    counts: Counts
    trials: pd.DataFrame
    """As :func:`hpo.reading.frames.trials_frame` gives it."""
    curves: pd.DataFrame
    answer: Answer

    @property
    def task(self) -> Task:
        """The task of the study."""
        return self.spec.what

    @property
    def trivial(self) -> float:
        """Validation loss of the trivial predictor."""
        return float(self.row.data["trivial"]["validation_loss"])

    @property
    def trivial_name(self) -> str:
        """The trivial predictor in words."""
        return str(self.row.data["trivial_name"])

    @property
    def imported(self) -> int:
        """How many trials were brought from elsewhere, not measured here."""
        return int((self.trials["origin"] == "imported").sum())

    @property
    def labels(self) -> tuple[str, ...]:
        """What every output must say of the data: synthetic, partial, subjects not known."""
        partial = self.row.data.get("partial", "")
        synthetic = ["synthetic signals"] if self.task.synthetic else []
        unknown = [] if self.task.knows_subjects else ["subjects not known"]
        return (*synthetic, *([f"partial: {partial}"] if partial else []), *unknown)


def find_out(engine: sa.Engine, study: str) -> Findings:
    """Read ``study`` and work out its answer; raises :class:`hpo.errors.UnknownStudyError`."""
    ledger = Ledger(engine)
    row = ledger.study(study)
    spec = StudySpec.model_validate(row.spec)
    trials, curves = trials_frame(engine, row.study_id), curves_frame(engine, row.study_id)
    trivial = float(row.data["trivial"]["validation_loss"])
    found = answer(trials, curves, spec.space, spec.baseline, trivial)
    return Findings(row, spec, ledger.counts(row.study_id), trials, curves, found)


def to_json(findings: Findings, url: str) -> dict[str, Any]:
    """Return the study as one JSON object; see docs/cli.md for its keys."""
    return {
        **standing(findings.row, findings.counts, url),
        "imported": findings.imported,
        "trivial_name": findings.trivial_name,
        "published": [published.model_dump() for published in findings.spec.published],
        **_finite(findings.answer.to_json()),
    }


def _finite(value: Any) -> Any:
    """Return ``value`` with None for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
