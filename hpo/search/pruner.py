"""A pruner that stops a run when its configuration is hardly better than the best one.

    study = optuna.create_study(sampler=RatioSampler(seed=0), pruner=ImprovementPruner())

The complete trials' curves teach what a run still gains after each epoch, given its learning rates and how
steep its curve is; see docs/search.md.
"""

from __future__ import annotations

import math

import numpy as np
from optuna.pruners import BasePruner
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.analysis.evidence import Seen
from hpo.search.prospects import CHANCE, MIN_CURVES, Prospects
from hpo.search.sampler import best_so_far


class ImprovementPruner(BasePruner):
    """Stops a trial if the chance that its configuration is better than the best one is below ``chance``.

    A trial's value must be the best of its intermediate values, reported at every step. Nothing is stopped in
    the first ``n_warmup_steps`` reports, nor before ``n_startup_trials`` trials are complete: fewer than 6
    curves teach too little, and are taken for 6.
    """

    def __init__(
        self,
        *,
        lr: str = "lr",
        backbone_lr: str = "backbone_lr",
        n_startup_trials: int = MIN_CURVES,
        n_warmup_steps: int = 1,
        chance: float = CHANCE,
    ) -> None:
        """``lr`` and ``backbone_lr`` are the names of the rates in the study; it may lack them."""
        self._names = (lr, backbone_lr)
        self._startup = n_startup_trials
        self._warmup = n_warmup_steps
        self._chance = chance
        self._known: tuple[str, int, Prospects | None] = ("", -1, None)

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether the trial should stop now."""
        sign = -1.0 if study.direction == StudyDirection.MAXIMIZE else 1.0
        curve = best_so_far(trial, sign)
        if len(curve) <= self._warmup:
            return False
        ended = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))
        prospects = self._prospects(study.study_name, ended, sign)
        if prospects is None:
            return False
        if np.isnan(curve[-1]):
            return True
        return prospects.chance(self._point(trial)[:2], curve) < self._chance

    def _prospects(self, name: str, ended: list[FrozenTrial], sign: float) -> Prospects | None:
        """Return what the ended trials teach, learned again only when there is another one."""
        if self._known[:2] != (name, len(ended)):
            told = [(past, best_so_far(past, sign)) for past in ended if past.intermediate_values]
            kept = [(past, curve) for past, curve in told if np.isfinite(curve[-1])]
            seen = Seen(
                np.array([self._point(past) for past, _ in kept]).reshape(-1, 3),
                np.array([past.state.name.lower() for past, _ in kept], dtype=str),
                np.array([curve[-1] for _, curve in kept]),
                [curve for _, curve in kept],
            )
            self._known = (name, len(ended), Prospects.of(seen, self._startup))
        return self._known[2]

    def _point(self, trial: FrozenTrial) -> tuple[float, float, float]:
        """Return log10 lr and log10 ratio, and 0 for the loss: what is not known is the same for all."""
        lr, slow = (math.log10(trial.params.get(name, 1.0)) for name in self._names)
        return lr, lr - slow, 0.0
