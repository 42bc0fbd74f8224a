"""What a confirmation showed: every arm on the test split, each beside the published default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import sqlalchemy as sa

from finetune.api import Task
from hpo.confirm.judging import Against, Losses, judge_arms, with_failed, worst_seed
from hpo.confirm.unit_intervals import Estimate, Split, estimates
from hpo.confirm.verdicts import Finding, Look
from hpo.errors import Said, UsageError
from hpo.ledger.choice import Arm
from hpo.ledger.choice_book import ChoiceBook, Score, Scores, StoredChoice
from hpo.ledger.ledger import Ledger
from hpo.ledger.optuna_rows import plain
from hpo.reading.findings import Label, labels_of
from hpo.study import PublishedResult


@dataclass(frozen=True)
class ArmResult:
    """One arm on the test split."""

    arm: Arm
    seeds: int
    """Of the runs that trained; 0 for the trivial predictor."""
    subjects: int
    metrics: Mapping[str, Estimate]
    """A failed seed counts as the worst of those that trained; empty where all failed."""
    against_baseline: Against | None
    """None for the baseline, the trivial predictor, and where all runs of the arm or the baseline failed."""
    per_unit: Mapping[str, float] = field(repr=False, default_factory=dict)
    """Mean loss of each subject (or record) over the seeds."""
    failed: int = 0
    """Seeds whose run diverged, or ended without weights."""


@dataclass(frozen=True)
class Confirmation:
    """One frozen choice, run and scored."""

    study: str
    task: Task
    choice_hash: str
    frozen_at: float
    scored_at: float
    seeds: tuple[int, ...]
    look: Look
    """Which look at this test split it was, of all studies of the same fingerprint and data."""
    test_looks: int
    """How many such looks there have been by now."""
    arms: tuple[ArmResult, ...]
    published: tuple[PublishedResult, ...]
    labels: tuple[Label, ...]
    """What every output must say of the data: synthetic, partial."""
    scores: Scores = field(repr=False)
    """Predictions and labels, for pictures."""

    @property
    def finding(self) -> Finding:
        """What the answer's own choice is, beside the published default."""
        first = self.arms[0].against_baseline
        return Finding.ALL_FAILED if first is None else first.finding

    def to_json(self) -> dict[str, Any]:
        """Return plain values; see docs/confirmation.md."""
        parts = {
            "study": self.study,
            "task": self.task.name,
            "choice_hash": self.choice_hash,
            "frozen_at": self.frozen_at,
            "scored_at": self.scored_at,
            "yardstick": self.task.yardstick,
            "unit": self.task.unit,
            "labels": [str(label) for label in self.labels],
            "seeds": list(self.seeds),
            "test_looks": self.test_looks,
            "look": self.look.number,
            "alpha": self.look.alpha,
            "verdict": self.finding.value,
            "arms": [_arm_json(arm) for arm in self.arms],
            "published": [published.model_dump() for published in self.published],
        }
        found: dict[str, Any] = plain(parts)
        return found


def _arm_json(found: ArmResult) -> dict[str, Any]:
    arm = found.arm
    return {
        "name": arm.name,
        "role": arm.role,
        "mode": arm.mode,
        "lr": arm.lr,
        "backbone_lr": arm.backbone_lr,
        "ratio": arm.ratio,
        "loss": arm.loss,
        "choices": dict(arm.choices),
        "weights": arm.weights,
        "seeds": found.seeds,
        "subjects": found.subjects,
        "metrics": {name: asdict(estimate) for name, estimate in found.metrics.items()},
        "failed": found.failed,
        "against_baseline": None if found.against_baseline is None else _against_json(found.against_baseline),
        "per_unit": dict(found.per_unit),
    }


def _against_json(found: Against) -> dict[str, Any]:
    failures = found.failures
    own = {name: value for name, value in asdict(found).items() if name not in {"finding", "failures"}}
    return own | {
        "verdict": found.finding.value,
        "seeds": failures.seeds,
        "failed": failures.arm,
        "baseline_failed": failures.baseline,
        "failure_rate_not_excluded": failures.not_excluded,
    }


def newest_confirmation(engine: sa.Engine, study: str) -> Confirmation | None:
    """Return a study's last confirmation that was scored; None when there is none."""
    stored = newest_scored(engine, study)
    return confirmation_of(engine, stored) if stored else None


def newest_scored(engine: sa.Engine, study: str) -> StoredChoice | None:
    """Return a study's choice that was scored last; None when none was."""
    row = Ledger(engine).study(study)
    scored = [one for one in ChoiceBook(engine).all(row.study_id) if one.scored_at is not None]
    return max(scored, key=lambda one: one.scored_at or 0.0, default=None)


def confirmation_of(engine: sa.Engine, stored: StoredChoice) -> Confirmation:
    """Return what a scored choice showed; opens no test split, only what is stored of it."""
    choice, ledger = stored.choice, Ledger(engine)
    if stored.scored_at is None:
        raise UsageError(
            Said("{study}: not confirmed yet", study=choice.study),
            "",
            Said("type: hpo confirm --study {study}", study=choice.study),
        )
    row = ledger.study(choice.study)
    spec = row.known_spec()
    task = spec.what
    found = ChoiceBook(engine).scores(row.study_id, choice.choice_hash)
    look = Look(ledger.look_number(choice.fingerprint, choice.data_hash, choice.choice_hash))
    return Confirmation(
        choice.study,
        task,
        choice.choice_hash,
        stored.frozen_at,
        stored.scored_at,
        choice.seeds,
        look,
        ledger.looks_spent(choice.fingerprint, choice.data_hash),
        tuple(judge(task, choice.arms, found, choice.seeds, look)),
        spec.published,
        labels_of(task, row),
        found,
    )


def judge(
    task: Task, arms: Sequence[Arm], found: Scores, seeds: Sequence[int], look: Look
) -> list[ArmResult]:
    """Return every arm's metrics, and its difference to the baseline with a finding. Pure."""
    split = Split.of(task, found.labels, found.groups)
    by_arm = [
        {score.seed: score for score in found.scores if score.arm == place} for place in range(len(arms))
    ]
    losses = [
        {seed: split.losses([score.predictions])[0] for seed, score in scores.items()} for scores in by_arm
    ]
    roles = [arm.role for arm in arms]
    baseline, trivial = (losses[roles.index(role)] for role in ("baseline", "trivial"))
    rivals = [place for place, role in enumerate(roles) if role not in {"baseline", "trivial"}]
    judged = judge_arms(
        [losses[place] for place in rivals],
        baseline,
        trivial,
        seeds=seeds,
        windows=split.windows,
        look=look,
    )
    beside = dict(zip(rivals, judged, strict=True))
    return [
        _result(split, arm, by_arm[place], losses[place], seeds, beside.get(place))
        for place, arm in enumerate(arms)
    ]


def _result(
    split: Split,
    arm: Arm,
    scores: Mapping[int, Score],
    losses: Losses,
    seeds: Sequence[int],
    beside: Against | None,
) -> ArmResult:
    """Return an arm's metrics over all its seeds, a failed one counted as the worst of those that trained."""
    subjects, failed = len(split.windows), len(seeds) - len(scores)
    if not scores:
        return ArmResult(arm, 0, subjects, {}, None, failed=failed)
    worst = scores[worst_seed(losses)]
    counted = [scores.get(seed, worst) for seed in seeds]
    metrics = estimates(split, [one.predictions for one in counted], [dict(one.metrics) for one in counted])
    per_unit = with_failed(losses, seeds).mean(axis=0) / split.windows
    spread = {name: float(loss) for name, loss in zip(split.names, per_unit, strict=True)}
    return ArmResult(arm, 0 if arm.mode is None else len(scores), subjects, metrics, beside, spread, failed)
