"""Optuna's PED-ANOVA and fANOVA of a study's trials, to stand beside our own shares of the variance."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
import pandas as pd
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sklearn.ensemble import RandomForestRegressor
from sklearn.tree._tree import Tree

from hpo.analysis.box import Floats
from hpo.analysis.evidence import in_space
from hpo.study import Space

MIN_TRIALS = 20
"""Complete trials below which PED-ANOVA's best tenth is one trial or two, and fANOVA's forest knows nothing
(chosen by us)."""
MOST_TRIALS = 300
"""Complete trials in fANOVA's forest, spread evenly over the study: its time grows with their square."""
TREES, DEEPEST = 64, 64
"""Of the forest, as Optuna has them."""


def ped_anova(trials: pd.DataFrame, space: Space) -> dict[str, float]:
    """Return what sets the best tenth apart: shares of lr, backbone_lr, loss, choices and seed.

    {} where there is nothing to tell. Of complete trials, the seed as one more parameter (Watanabe et al.
    2023, arXiv 2304.10255). ``trials`` as :func:`hpo.reading.frames.trials_frame` gives them.
    """
    complete = _complete(trials, space)
    if complete.empty:
        return {}
    return _shares(PedAnovaImportanceEvaluator().evaluate(_Told(complete, _distributions(space))))


def fanova(trials: pd.DataFrame, space: Space) -> dict[str, float]:
    """Return the shares of a random forest's main effects: fANOVA (Hutter et al. 2014, ICML); as above.

    Of more than ``MOST_TRIALS`` complete trials, so many. The numbers are those of Optuna's evaluator, which
    walks each tree once for every cell of every axis; here all cells meet all leaves at once.
    """
    complete = _complete(trials, space)
    if len(complete) > MOST_TRIALS:
        complete = complete.iloc[np.linspace(0, len(complete) - 1, MOST_TRIALS).round().astype(int)]
    axes = dict(sorted(_distributions(space).items()))
    several = {name: axis for name, axis in axes.items() if not axis.single()}
    if complete.empty or not several:
        return {}
    columns = [_columns(complete[name], axis) for name, axis in several.items()]
    x, ends = (np.concatenate(parts, axis=1) for parts in zip(*columns, strict=True))
    forest = RandomForestRegressor(TREES, max_depth=DEEPEST, random_state=0)
    forest.fit(x, complete["value"].to_numpy(float))
    groups = np.split(np.arange(x.shape[1]), np.cumsum([one.shape[1] for one, _ in columns])[:-1])
    found = [_main_effects(tree.tree_, ends, groups) for tree in forest.estimators_]
    means = np.mean([one for one in found if one is not None], axis=0)
    return _shares(dict.fromkeys(axes, 0.0) | dict(zip(several, means.tolist(), strict=True)))


def _complete(trials: pd.DataFrame, space: Space) -> pd.DataFrame:
    """Return the complete trials with a finite loss that lie in the space; none where they tell nothing."""
    complete = trials[(trials["state"] == "complete") & np.isfinite(trials["value"].to_numpy(float))]
    inside: pd.DataFrame = complete[_is_inside(complete, space)]
    return inside if len(inside) >= MIN_TRIALS and inside["value"].nunique() > 1 else inside.head(0)


def _shares(found: dict[str, float]) -> dict[str, float]:
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


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return what Optuna calls the axes of a space."""
    found: dict[str, BaseDistribution] = {
        "lr": FloatDistribution(space.lr.low, space.lr.high, log=True),
        "backbone_lr": FloatDistribution(space.backbone_lr.low, space.backbone_lr.high, log=True),
        "loss": CategoricalDistribution(space.loss),
        "seed": IntDistribution(space.seed.low, space.seed.high),
    }
    return found | {name: CategoricalDistribution(values) for name, values in space.choices.items()}


class _Told(optuna.Study):
    """Complete trials as a study that is only read: Optuna's own storages copy each of them many times."""

    def __init__(self, trials: pd.DataFrame, distributions: dict[str, BaseDistribution]) -> None:
        columns = [trials[name].tolist() for name in distributions]
        rows = zip(trials["value"].astype(float).tolist(), *columns, strict=True)
        self._all = [
            FrozenTrial(
                number,
                TrialState.COMPLETE,
                value,
                None,
                None,
                dict(zip(distributions, params, strict=True)),
                distributions,
                {},
                {},
                {},
                number,
            )
            for number, (value, *params) in enumerate(rows)
        ]

    @property
    def directions(self) -> list[StudyDirection]:
        """Of the loss."""
        return [StudyDirection.MINIMIZE]

    def get_trials(self, deepcopy: bool = True, states: object = None) -> list[FrozenTrial]:
        """Return all: each is complete."""
        return self._all


def _columns(tried: pd.Series, axis: BaseDistribution) -> tuple[Floats, Floats]:
    """Return an axis as columns (n, c) of the forest, one a value if it has names, and their ends (2, c)."""
    if isinstance(axis, CategoricalDistribution):
        x = np.array([[one == value for value in axis.choices] for one in tried], dtype=np.float64)
        return x, np.outer([0.0, 1.0], np.ones(x.shape[1]))
    assert isinstance(axis, FloatDistribution | IntDistribution)
    return tried.to_numpy(np.float64)[:, None], np.array([[axis.low], [axis.high]], dtype=np.float64)


def _main_effects(tree: Tree, ends: Floats, groups: Sequence[NDArray[np.int64]]) -> Floats | None:
    """Return which share of a tree's variance each group of columns explains by itself; None without any."""
    low, high, values = _leaves(tree, ends)
    sizes = high - low
    whole = _variance(values, sizes.prod(axis=1))
    if whole <= 0:
        return None
    found = []
    for own in groups:
        covers, width = np.ones((1, len(values))), np.ones(1)
        for column in own:
            edges = np.unique([low[:, column], high[:, column]])
            middle = (edges[1:] + edges[:-1])[:, None] / 2
            inside = (low[:, column] < middle) & (middle < high[:, column])
            covers = (covers[:, None] * inside).reshape(-1, len(values))
            width = np.outer(width, np.diff(edges)).ravel()
        others = np.delete(sizes, own, axis=1).prod(axis=1)
        weights = covers @ others
        found.append(_variance(covers @ (others * values) / weights, weights * width))
    return np.array(found) / whole


def _leaves(tree: Tree, ends: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the box of each leaf, (m, D) low and high ends, and its value (m,)."""
    low, high = (np.tile(end, (tree.node_count, 1)) for end in ends)
    for node in range(tree.node_count):  # parents come before their children
        left, right, column = tree.children_left[node], tree.children_right[node], tree.feature[node]
        if left < 0:
            continue
        low[[left, right]], high[[left, right]] = low[node], high[node]
        high[left, column] = low[right, column] = tree.threshold[node]
    is_leaf = tree.children_left < 0
    return low[is_leaf], high[is_leaf], tree.value[is_leaf, 0, 0]


def _variance(values: Floats, weights: Floats) -> float:
    middle = np.average(values, weights=weights)
    return float(np.average((values - middle) ** 2, weights=weights))
