"""Intervals of an arm's metrics over units: 95 %, whichever way they are worked out."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.api import evaluate_predictions, find_task
from hpo.confirm.paired import interval, unit_weights
from hpo.confirm.unit_intervals import Split, estimates

UNITS, EACH = 15, 4


def test_the_middle_95_percent_of_resampled_units_are_the_interval() -> None:
    rng = np.random.default_rng(0)
    windows = rng.integers(10, 30, UNITS).astype(float)
    loss = rng.gamma(2.0, size=(3, UNITS)) * windows

    low, high = interval(loss, windows)

    sums = loss.mean(axis=0)
    draws = np.concatenate([(weights @ sums) / (weights @ windows) for weights in unit_weights(UNITS)])
    assert np.mean(draws < low) == pytest.approx(0.025, abs=0.0005)
    assert np.mean(draws > high) == pytest.approx(0.025, abs=0.0005)


def test_rmse_and_r2_have_the_middle_95_percent_too() -> None:
    rng = np.random.default_rng(1)
    task = find_task("synthetic_rr")
    labels = rng.uniform(10, 20, (UNITS * EACH, 1))
    split = Split.of(task, labels, np.repeat([f"u{unit:02d}" for unit in range(UNITS)], EACH))
    said = (labels + rng.standard_normal(labels.shape)).astype(np.float32)

    found = estimates(split, [said], [evaluate_predictions(task, said.astype(float), labels)])

    squares = split.sums(np.square(said[:, 0] - labels[:, 0]))
    draws = np.concatenate(
        [np.sqrt((w @ squares) / (w @ split.windows)) for w in unit_weights(len(split.windows))]
    )
    assert np.mean(draws < found["rmse"].low) == pytest.approx(0.025, abs=0.0005)
    assert np.mean(draws > found["rmse"].high) == pytest.approx(0.025, abs=0.0005)


def test_other_metrics_reach_1_96_standard_errors_of_a_jackknife_to_each_side() -> None:
    rng = np.random.default_rng(2)
    task = find_task("physionet2017")
    labels = rng.integers(0, task.outputs, (UNITS * EACH, 1)).astype(float)
    names = np.repeat([f"u{unit:02d}" for unit in range(UNITS)], EACH)
    said = (
        rng.dirichlet(np.ones(task.outputs), len(labels))
        + 0.5 * np.eye(task.outputs)[labels[:, 0].astype(int)]
    )
    said = (said / said.sum(axis=1, keepdims=True)).astype(np.float32)
    whole = evaluate_predictions(task, said.astype(float), labels)
    name = next(one for one in task.metrics if one != task.yardstick)

    found = estimates(Split.of(task, labels, names), [said], [whole])[name]

    without = [  # fewer units than blocks: each is left out alone
        evaluate_predictions(task, said[names != unit].astype(float), labels[names != unit])[name]
        for unit in np.unique(names)
    ]
    error = np.sqrt((UNITS - 1) / UNITS * np.sum(np.square(np.array(without) - np.mean(without))))
    assert (found.high - whole[name]) / error == pytest.approx(1.96)
    assert (whole[name] - found.low) / error == pytest.approx(1.96)
