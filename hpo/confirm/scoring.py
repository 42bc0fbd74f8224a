"""A look at the test split: recorded first, then every run of a frozen choice is scored."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np

from finetune.api import InputSpec, RunSpec, TestScores
from hpo.confirm.runs import ArmRun
from hpo.ledger.choice import FrozenChoice
from hpo.ledger.choice_book import Score, Scores
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.worker import Settings
from hpo.worker.progress import Says

Notify = Callable[[str], None]


class TestScorer(Protocol):
    """What can open the test split: :mod:`finetune.test_split`, or another with the same calls.

    Only a confirmation receives one. A worker holds a :class:`hpo.worker.session.Trainer`.
    """

    def score_test(
        self, spec: RunSpec, checkpoint: Path, *, data_dir: Path, cache_dir: Path, device: str
    ) -> TestScores:
        """Score the weights of a finished run."""
        ...

    def score_trivial(
        self, inputs: InputSpec, *, data_dir: Path, cache_dir: Path, fold: int | None
    ) -> TestScores:
        """Score the trivial predictor of the training windows."""
        ...


def score_once(
    ledger: Ledger,
    row: StudyRow,
    choice: FrozenChoice,
    runs: Sequence[ArmRun],
    scorer: TestScorer,
    settings: Settings,
    notify: Notify,
    words: Says,
) -> Scores:
    """Record a look at the test split, then score every run that has weights, and the trivial predictor."""
    what = {"arms": [arm.name for arm in choice.arms], "seeds": list(choice.seeds)}
    looker = f"{socket.gethostname()}-{os.getpid()}"
    look = ledger.record_test_look(row.study_id, choice.choice_hash, looker, what)
    notify(words.say("doing.test", study=row.name, look=look, n=len(runs)))
    data, cache, device = settings.data_dir, settings.cache_dir, settings.device
    found = [
        (
            run.arm,
            run.seed,
            scorer.score_test(run.spec, run.weights, data_dir=data, cache_dir=cache, device=device),
        )
        for run in runs
        if run.weights is not None
    ]
    folds = {run.seed: run.spec.fold for run in runs}
    constants = {
        fold: scorer.score_trivial(runs[0].spec.inputs, data_dir=data, cache_dir=cache, fold=fold)
        for fold in set(folds.values())
    }
    trivial = [place for place, arm in enumerate(choice.arms) if arm.mode is None]
    found += [(arm, seed, constants[fold]) for arm in trivial for seed, fold in folds.items()]
    return _gathered(found)


def _gathered(found: list[tuple[int, int, TestScores]]) -> Scores:
    """Return all scores on their common labels; every run saw the same test windows."""
    first = found[0][2]
    assert all(scored.groups == first.groups for _, _, scored in found)
    return Scores(
        np.asarray(first.labels, dtype=np.float64),
        np.asarray(first.groups, dtype=np.str_),
        tuple(
            Score(arm, seed, scored.metrics, np.asarray(scored.predictions, dtype=np.float32))
            for arm, seed, scored in found
        ),
    )
