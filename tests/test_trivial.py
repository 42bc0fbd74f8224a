"""The predictor that never looks: its scores are what arithmetic and scikit-learn say of a constant."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score, f1_score, log_loss, r2_score

from finetune.tasks import TASKS, Task
from finetune.trivial import trivial_metrics, trivial_name


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_regression_uses_the_training_median_for_mae_and_the_mean_for_rmse() -> None:
    training, labels = column(10, 12, 20), column(12, 16, 14)

    metrics = trivial_metrics(TASKS["bidmc_rr"], training, labels)
    assert metrics["validation_loss"] == metrics["mae"] == pytest.approx((0 + 4 + 2) / 3)
    assert metrics["rmse"] == pytest.approx(np.sqrt((4 + 4 + 0) / 3))
    assert metrics["r2"] == pytest.approx(r2_score(labels, np.full(3, 14)))
    assert trivial_name(TASKS["bidmc_rr"], training) == "constant 12 breaths/min (training median)"


def test_classes_use_the_training_prior() -> None:
    training, labels = np.array([0] * 5 + [1] * 3 + [2] * 2), np.array([0, 0, 1, 2])
    prior = np.tile([0.5, 0.3, 0.2], (4, 1))

    metrics = trivial_metrics(TASKS["physionet2017"], training, labels)
    assert metrics["validation_loss"] == pytest.approx(log_loss(labels, prior))
    assert metrics["accuracy"] == accuracy_score(labels, np.zeros(4))
    assert metrics["kappa"] == cohen_kappa_score(labels, np.zeros(4))
    assert metrics["balanced_accuracy"] == pytest.approx(1 / 3)
    assert metrics["auroc"] == 0.5


def test_labels_use_the_training_prior_of_each() -> None:
    training = np.array([[1, 0], [1, 1], [1, 0], [0, 0]], np.float32)
    labels = np.array([[1, 0], [0, 1]], np.float32)

    metrics = trivial_metrics(TASKS["ptb-xl"], training, labels)
    by_hand = -np.log([0.75, 0.75, 0.25, 0.25]).mean()  # 1 at 3/4, 0 at 1/4, 0 at 3/4, 1 at 1/4
    assert metrics["validation_loss"] == pytest.approx(by_hand)
    assert metrics["accuracy"] == 0.5


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_a_constant_has_every_metric_of_its_task(task: Task) -> None:
    """So that it can stand in a table beside arms that look at the signal."""
    rng = np.random.default_rng(0)
    shape = {"regression": (30, 1), "multiclass": (30,), "multilabel": (30, task.outputs)}[task.kind]
    labels = rng.integers(0, 2, shape)
    labels = labels if task.kind == "multiclass" else labels.astype(np.float32)

    metrics = trivial_metrics(task, labels[:20], labels[20:])

    assert set(task.metrics) <= set(metrics)


def test_the_average_precision_of_a_constant_is_how_common_the_positives_are() -> None:
    labels = np.array([[1, 0], [0, 1], [0, 1], [0, 1]], np.float32)

    metrics = trivial_metrics(replace(TASKS["ptb-xl"], outputs=2), labels, labels)

    assert metrics["auc_pr"] == pytest.approx((0.25 + 0.75) / 2)
    assert metrics["f1_weighted"] == pytest.approx(f1_score(labels, [[0, 1]] * 4, average="weighted"))


@pytest.mark.parametrize("task", ["physionet2017", "csn"])
def test_a_class_never_seen_in_training_costs_a_finite_amount(task: str) -> None:
    is_multiclass = TASKS[task].kind == "multiclass"
    training = np.zeros(10, np.int64) if is_multiclass else np.zeros((10, 1), np.float32)
    labels = np.array([3]) if is_multiclass else np.ones((1, 1), np.float32)

    assert trivial_metrics(TASKS[task], training, labels)["validation_loss"] == pytest.approx(np.log(20))
