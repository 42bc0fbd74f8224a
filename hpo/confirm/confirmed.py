"""What a confirmation showed: every arm on the test split, each beside the published default."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa

from finetune.api import Task
from hpo.confirm.paired import MIN_SEEDS, Comparison, Floats, adjust, compare, verdict
from hpo.confirm.unit_intervals import Estimate, Split, estimates
from hpo.errors import UsageError
from hpo.ledger.choice import Arm
from hpo.ledger.choice_book import ChoiceBook, Score, Scores, StoredChoice
from hpo.ledger.ledger import Ledger
from hpo.ledger.optuna_rows import plain
from hpo.study import PublishedResult, stored_spec


@dataclass(frozen=True)
class Against:
    """An arm beside the baseline, on the yardstick: negative differences are better."""

    difference: float
    low: float
    high: float
    p: float
    """Sign-flip test over seeds, two-sided, Holm over the arms."""
    p_unadjusted: float
    detectable: float | None
    """Smallest true difference that these seeds would find four times in five."""
    verdict: str


@dataclass(frozen=True)
class ArmResult:
    """One arm on the test split."""

    arm: Arm
    seeds: int
    subjects: int
    metrics: Mapping[str, Estimate]
    against_baseline: Against | None
    """None for the baseline and the trivial predictor, and for an arm whose runs all diverged."""
    per_unit: Mapping[str, float] = field(repr=False, default_factory=dict)
    """Mean loss of each subject (or record) over the seeds."""


@dataclass(frozen=True)
class Confirmation:
    """One frozen choice, run and scored."""

    study: str
    task: Task
    choice_hash: str
    frozen_at: float
    scored_at: float
    seeds: tuple[int, ...]
    test_looks: int
    """At the test split of this study, by all its confirmations."""
    arms: tuple[ArmResult, ...]
    published: tuple[PublishedResult, ...]
    labels: tuple[str, ...]
    """What every output must say of the data: synthetic, partial."""
    scores: Scores = field(repr=False)
    """Predictions and labels, for pictures."""

    @property
    def verdict(self) -> str:
        """What the answer's own choice is, beside the published default."""
        first = self.arms[0].against_baseline
        return "nothing: its runs diverged" if first is None else first.verdict

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
            "labels": list(self.labels),
            "seeds": list(self.seeds),
            "test_looks": self.test_looks,
            "verdict": self.verdict,
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
        "seeds": found.seeds,
        "subjects": found.subjects,
        "metrics": {name: asdict(estimate) for name, estimate in found.metrics.items()},
        "against_baseline": None if found.against_baseline is None else asdict(found.against_baseline),
        "per_unit": dict(found.per_unit),
    }


def newest_confirmation(engine: sa.Engine, study: str) -> Confirmation | None:
    """Return a study's last confirmation that was scored; None when there is none."""
    row = Ledger(engine).study(study)
    scored = [one for one in ChoiceBook(engine).all(row.study_id) if one.scored_at is not None]
    return confirmation_of(engine, max(scored, key=lambda one: one.scored_at or 0.0)) if scored else None


def confirmation_of(engine: sa.Engine, stored: StoredChoice) -> Confirmation:
    """Return what a scored choice showed; opens no test split, only what is stored of it."""
    choice, ledger = stored.choice, Ledger(engine)
    if stored.scored_at is None:
        raise UsageError(
            f"{choice.study}: not confirmed yet", "", f"type: hpo confirm --study {choice.study}"
        )
    row = ledger.study(choice.study)
    spec = stored_spec(row.name, row.spec)
    task = spec.what
    found = ChoiceBook(engine).scores(row.study_id, choice.choice_hash)
    partial = row.data.get("partial", "")
    labels = [*(["synthetic signals"] * task.synthetic), *([f"partial: {partial}"] * bool(partial))]
    labels += ["subjects not known"] * (not task.knows_subjects)
    return Confirmation(
        choice.study,
        task,
        choice.choice_hash,
        stored.frozen_at,
        stored.scored_at,
        choice.seeds,
        len(ledger.test_looks(row.study_id)),
        tuple(judge(task, choice.arms, found)),
        spec.published,
        tuple(labels),
        found,
    )


def judge(task: Task, arms: Sequence[Arm], found: Scores) -> list[ArmResult]:
    """Return every arm's metrics, and its difference to the baseline with a verdict. Pure."""
    split = Split.of(task, found.labels, found.groups)
    by_arm = [[score for score in found.scores if score.arm == place] for place in range(len(arms))]
    losses = [_losses(split, scores) for scores in by_arm]
    roles = [arm.role for arm in arms]
    baseline, trivial = roles.index("baseline"), roles.index("trivial")
    rivals = [p for p, role in enumerate(roles) if role not in {"baseline", "trivial"} and by_arm[p]]
    against = {p: _paired(split, losses[p], losses[baseline]) for p in rivals}
    compared = {p: one for p, one in against.items() if one is not None}
    first = compared[0].p if 0 in compared else 1.0  # a choice whose runs all diverged is not real
    others = [one.p for place, one in compared.items() if place]
    adjusted = dict(zip(sorted({0, *compared}), adjust([first, *others]), strict=True))
    results = []
    for place, (arm, scores) in enumerate(zip(arms, by_arm, strict=True)):
        beside = None
        if place in compared:
            constant = _paired(split, losses[place], losses[trivial])
            beside = _against(task, compared[place], adjusted[place], constant)
        results.append(_result(split, arm, scores, losses[place], beside, found))
    return results


def _losses(split: Split, scores: Sequence[Score]) -> dict[int, Floats]:
    """Return seed -> loss summed over each unit's windows (U,)."""
    return {score.seed: split.losses([score.predictions])[0] for score in scores}


def _paired(split: Split, mine: Mapping[int, Floats], other: Mapping[int, Floats]) -> Comparison | None:
    """Return the comparison over the seeds that both have; None without any."""
    seeds = sorted(mine.keys() & other.keys())
    if not seeds:
        return None
    return compare(np.stack([mine[s] for s in seeds]), np.stack([other[s] for s in seeds]), split.windows)


def _against(task: Task, found: Comparison, p: float, constant: Comparison | None) -> Against:
    said = verdict(found, p)
    if constant is not None and constant.difference >= 0:
        words = "no better than a constant"
    elif said == "cannot be told apart":
        words = f"cannot be told apart with {found.seeds} seeds and {found.units} {_units(task)}"
        if found.seeds < MIN_SEEDS:
            words += f" (at least {MIN_SEEDS} seeds are needed to say more)"
    else:
        words = f"{said} than the published default"
    return Against(found.difference, found.low, found.high, p, found.p, found.detectable, words)


def _units(task: Task) -> str:
    return f"{task.unit_of_independence}s"


def _result(
    split: Split,
    arm: Arm,
    scores: Sequence[Score],
    losses: Mapping[int, Floats],
    beside: Against | None,
    found: Scores,
) -> ArmResult:
    if not scores:
        return ArmResult(arm, 0, len(split.windows), {}, None)
    metrics = estimates(split, [one.predictions for one in scores], [dict(one.metrics) for one in scores])
    per_unit = np.mean(list(losses.values()), axis=0) / split.windows
    names = np.unique(found.groups).tolist()
    seeds = 0 if arm.mode is None else len(scores)
    spread = {str(name): float(loss) for name, loss in zip(names, per_unit, strict=True)}
    return ArmResult(arm, seeds, len(split.windows), metrics, beside, spread)
