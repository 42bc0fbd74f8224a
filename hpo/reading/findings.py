"""Everything that a database holds of one study, with the answer that follows: what run and report show."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd
import sqlalchemy as sa

from finetune.api import Task, find_task
from hpo.analysis import answer
from hpo.analysis.values import Answer
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Counts, StudyRow
from hpo.reading.frames import curves_frame, trials_frame
from hpo.reading.standing import standing
from hpo.study import Space, StudySpec


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
        return find_task(self.spec.task)

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
        """What every output must say of the data: synthetic, partial."""
        partial = self.row.data.get("partial", "")
        synthetic = ["synthetic signals"] if self.task.synthetic else []
        return (*synthetic, *([f"partial: {partial}"] if partial else []))


def find_out(engine: sa.Engine, study: str) -> Findings:
    """Read ``study`` and work out its answer; raises :class:`hpo.errors.UnknownStudyError`."""
    ledger = Ledger(engine)
    row = ledger.study(study)
    spec = StudySpec.model_validate(row.spec)
    trials, curves = trials_frame(engine, row.study_id), curves_frame(engine, row.study_id)
    trivial = float(row.data["trivial"]["validation_loss"])
    found = _listed(answer(trials, curves, spec.space, spec.baseline, trivial), spec.space)
    return Findings(row, spec, ledger.counts(row.study_id), trials, curves, found)


def _listed(found: Answer, space: Space) -> Answer:
    """Return the answer with its choice at rates that the study allows, where it lists or fixes some."""
    choice = found.choice
    if choice is None or (space.lr.values is None and space.backbone_lr.values is None):
        return found
    lr, backbone_lr = space.lr.nearest(choice.lr), space.backbone_lr.nearest(choice.backbone_lr)
    return replace(found, choice=replace(choice, lr=lr, backbone_lr=backbone_lr, ratio=lr / backbone_lr))


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
