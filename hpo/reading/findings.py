"""Everything that a database holds of one study, with the answer that follows: what run and report show."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import pandas as pd
import sqlalchemy as sa

from finetune.api import Task
from hpo.analysis import answer
from hpo.analysis.values import Answer, Choice
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Counts, StudyRow
from hpo.reading.foreign import foreign_trials
from hpo.reading.frames import curves_frame, trials_frame
from hpo.study import Space, StudySpec


@dataclass(frozen=True)
class Label:
    """Something that every output must say of the data."""

    kind: Literal["synthetic", "partial", "subjects_unknown"]
    part: str = ""
    """Of partial data: ``n of N records``."""

    def __str__(self) -> str:
        """Return it as JSON has it."""
        return {
            "synthetic": "synthetic signals",
            "partial": f"partial: {self.part}",
            "subjects_unknown": "subjects not known",
        }[self.kind]


def labels_of(task: Task, row: StudyRow) -> tuple[Label, ...]:
    """Return what every output must say of a study's data: simulated, a part of it, people not known."""
    partial = str(row.data.get("partial", ""))
    return (
        *([Label("synthetic")] if task.synthetic else []),
        *([Label("partial", partial)] if partial else []),
        *([] if task.knows_subjects else [Label("subjects_unknown")]),
    )


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
    foreign: int = 0
    """Trials that another tool put into the study: they count for nothing."""

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
    def constant(self) -> float | None:
        """What the trivial predictor of a regression always says; None where the database does not tell."""
        known = self.row.data.get("trivial_constant") or []
        return float(known[0]) if len(known) == 1 else None

    @property
    def folds(self) -> int:
        """How many folds validate, each with a trivial predictor of its own; 0 on the reference split."""
        return self.spec.validation.k if self.spec.validation.kind == "grouped_folds" else 0

    @property
    def labels(self) -> tuple[Label, ...]:
        """What every output must say of the data."""
        return labels_of(self.task, self.row)


def find_out(engine: sa.Engine, study: str) -> Findings:
    """Read ``study`` and work out its answer.

    Raises :class:`hpo.errors.UnknownStudyError`; :class:`hpo.errors.MismatchError` for one not known here.
    """
    ledger = Ledger(engine)
    row = ledger.study(study)
    spec = row.known_spec()
    trials, curves = trials_frame(engine, row.study_id), curves_frame(engine, row.study_id)
    trivial = float(row.data["trivial"]["validation_loss"])
    found = answer(trials, curves, spec.space, spec.baseline, trivial, spec.worth)
    counts, foreign = ledger.counts(row.study_id), foreign_trials(engine, row.study_id)
    return Findings(row, spec, counts, trials, curves, _listed(found, spec.space), foreign)


def _listed(found: Answer, space: Space) -> Answer:
    """Return the answer with its places at rates that the study allows, where it lists or fixes some."""
    if space.lr.values is None and space.backbone_lr.values is None:
        return found
    choice, other = (_allowed(place, space) for place in (found.choice, found.worth_trying))
    return replace(found, choice=choice, worth_trying=other)


def _allowed(place: Choice | None, space: Space) -> Choice | None:
    if place is None:
        return None
    lr, backbone_lr = space.lr.nearest(place.lr), space.backbone_lr.nearest(place.backbone_lr)
    return replace(place, lr=lr, backbone_lr=backbone_lr, ratio=lr / backbone_lr)
