"""Optuna's PED-ANOVA and fANOVA of a study's trials, to stand beside our own shares of the variance."""

from __future__ import annotations

import logging

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import BaseImportanceEvaluator, FanovaImportanceEvaluator, PedAnovaImportanceEvaluator

from hpo.analysis.evidence import in_space
from hpo.study import Space

_log = logging.getLogger("optuna.storages._in_memory")
MIN_TRIALS = 20
"""Complete trials below which PED-ANOVA's best tenth is one trial or two, and fANOVA's forest knows nothing
(chosen by us)."""


MOST_TRIALS = 300
"""Complete trials in fANOVA's forest, spread evenly over the study: its time grows with their square (300
take 5 CPU seconds, 1,000 take 29, 2,000 take 126)."""


def ped_anova(trials: pd.DataFrame, space: Space) -> dict[str, float]:
    """Return what sets the best tenth apart: shares of lr, backbone_lr, loss, choices and seed.

    {} where there is nothing to tell. Of complete trials, the seed as one more parameter (Watanabe et al.
    2023, arXiv 2304.10255). ``trials`` as :func:`hpo.reading.frames.trials_frame` gives them.
    """
    return _importances(PedAnovaImportanceEvaluator(), _complete(trials, space), space)


def fanova(trials: pd.DataFrame, space: Space) -> dict[str, float]:
    """Return the shares of a random forest's main effects: fANOVA (Hutter et al. 2014, ICML); as above.

    Of more than ``MOST_TRIALS`` complete trials, so many.
    """
    complete = _complete(trials, space)
    if len(complete) > MOST_TRIALS:
        complete = complete.iloc[np.linspace(0, len(complete) - 1, MOST_TRIALS).round().astype(int)]
    return _importances(FanovaImportanceEvaluator(seed=0), complete, space)


def _complete(trials: pd.DataFrame, space: Space) -> pd.DataFrame:
    """Return the complete trials with a finite loss that lie in the space."""
    complete = trials[(trials["state"] == "complete") & np.isfinite(trials["value"].to_numpy(float))]
    inside: pd.DataFrame = complete[_is_inside(complete, space)]
    return inside


def _importances(
    evaluator: BaseImportanceEvaluator, complete: pd.DataFrame, space: Space
) -> dict[str, float]:
    if len(complete) < MIN_TRIALS or complete["value"].nunique() < 2:
        return {}
    found = evaluator.evaluate(_as_optuna(complete, space))
    total = sum(found.values())
    return {name: float(value / total) for name, value in found.items()} if total > 0 else {}


def _is_inside(trials: pd.DataFrame, space: Space) -> pd.Series:
    """Return which trials lie in the space: imported ones may not."""
    return (
        trials["lr"].between(space.lr.low, space.lr.high)
        & trials["backbone_lr"].between(space.backbone_lr.low, space.backbone_lr.high)
        & trials.index.isin(in_space(trials, space).index)
        & trials["seed"].between(space.seed.low, space.seed.high)
    )


def _is_wanted(record: logging.LogRecord) -> bool:
    return "importance" not in record.getMessage()


def _as_optuna(trials: pd.DataFrame, space: Space) -> optuna.Study:
    """Return the trials as a study in memory, without Optuna's line in the log."""
    _log.addFilter(_is_wanted)
    storage = optuna.storages.InMemoryStorage()
    study_id = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], "importance")
    study = optuna.Study(storage.get_study_name_from_id(study_id), storage)
    distributions: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(space.lr.low, space.lr.high, log=True),
        "backbone_lr": FloatDistribution(space.backbone_lr.low, space.backbone_lr.high, log=True),
        "loss": CategoricalDistribution(space.loss),
        "seed": IntDistribution(space.seed.low, space.seed.high),
    }
    distributions |= {name: CategoricalDistribution(values) for name, values in space.choices.items()}
    for row in trials.to_dict("records"):
        params = {name: row[name] for name in distributions} | {"seed": int(row["seed"])}
        study.add_trial(
            optuna.trial.create_trial(params=params, distributions=distributions, value=float(row["value"]))
        )
    return study
