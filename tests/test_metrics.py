"""Metrics against values by hand and scikit-learn, and at the edges where libraries warn or fail."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from finetune.metrics import evaluate, evaluate_predictions, note_on_areas, window_losses
from finetune.tasks import TASKS, Task, find_task

REGRESSION, CLASSES, LABELS = find_task("bidmc_hr"), find_task("physionet2017"), find_task("ptb-xl")


def random_case(kind: str, rows: int = 200, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and labels of a model that is better than chance."""
    rng = np.random.default_rng(seed)
    if kind == "regression":
        labels = rng.normal(80, 12, (rows, 1)).astype(np.float32)
        return labels + rng.normal(0, 4, (rows, 1)).astype(np.float32), labels
    if kind == "multiclass":
        classes = rng.integers(0, 4, rows)
        return (rng.normal(0, 1, (rows, 4)) + np.eye(4)[classes]).astype(np.float32), classes
    labels = (rng.random((rows, 5)) < 0.3).astype(np.float32)
    return (rng.normal(0, 1, (rows, 5)) + 2 * labels - 1).astype(np.float32), labels


@pytest.mark.parametrize("task", TASKS.values(), ids=lambda task: task.name)
def test_every_metric_of_the_task_is_there_and_finite_the_yardstick_first(task: object) -> None:
    task = find_task(task.name)  # type: ignore[attr-defined]  # parametrised as object for the id
    outputs, labels = random_case(task.kind)

    found = evaluate(task, outputs, labels)

    names = tuple(name for name in found if name != "classes_skipped")
    assert names == task.metrics
    assert names[0] == task.yardstick
    assert all(math.isfinite(value) and type(value) is float for value in found.values())


def test_regression_by_hand() -> None:
    found = evaluate(REGRESSION, np.array([[60.0], [80.0], [100.0]]), np.array([[61.0], [80.0], [98.0]]))

    assert found["mae"] == pytest.approx(1.0)
    assert found["rmse"] == pytest.approx(math.sqrt(5 / 3))
    assert found["r2"] == pytest.approx(sk.r2_score([61, 80, 98], [60, 80, 100]))


def test_what_a_model_says_scores_as_the_logits_behind_it() -> None:
    """Predictions are probabilities for classes, and values in label units for regression, as they are."""
    cases = {
        name: random_case(kind)
        for name, kind in (("c", "multiclass"), ("l", "multilabel"), ("r", "regression"))
    }
    logits = cases["c"][0].astype(np.float64)
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    odds = 1 / (1 + np.exp(-cases["l"][0].astype(np.float64)))

    assert evaluate_predictions(CLASSES, shares, cases["c"][1]) == pytest.approx(
        evaluate(CLASSES, *cases["c"])
    )
    assert evaluate_predictions(LABELS, odds, cases["l"][1]) == pytest.approx(evaluate(LABELS, *cases["l"]))
    assert evaluate_predictions(REGRESSION, *cases["r"]) == evaluate(REGRESSION, *cases["r"])


@pytest.mark.parametrize("task", [REGRESSION, CLASSES, LABELS], ids=["regression", "classes", "labels"])
def test_the_windows_losses_have_the_yardstick_as_their_mean(task: Task) -> None:
    outputs, labels = random_case(task.kind)
    said = outputs.astype(np.float64)
    if task.kind == "multiclass":
        said = np.exp(said) / np.exp(said).sum(axis=1, keepdims=True)
    elif task.kind == "multilabel":
        said = 1 / (1 + np.exp(-said))

    losses = window_losses(task, said, labels.reshape(len(labels), -1))

    assert losses.shape == (200,)
    assert losses.mean() == pytest.approx(evaluate_predictions(task, said, labels)[task.yardstick])


def test_a_class_that_is_neither_there_nor_said_counts_as_nothing() -> None:
    logits, labels = random_case("multilabel")
    labels[:, 1], logits[:, 1] = 0, -5.0
    others = [0, 2, 3, 4]

    found = evaluate(LABELS, logits, labels)

    each = sk.f1_score(labels[:, others], logits[:, others] > 0, average=None)
    assert found["f1_macro"] == pytest.approx(each.sum() / 5)
    assert found["f1_weighted"] == pytest.approx(np.average(each, weights=labels[:, others].sum(axis=0)))


def test_r2_of_constant_labels_is_zero() -> None:
    assert evaluate(REGRESSION, np.array([[1.0], [2.0]]), np.array([[5.0], [5.0]]))["r2"] == 0.0


def test_classes_agree_with_scikit_learn() -> None:
    logits, labels = random_case("multiclass")
    p = np.exp(logits.astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)

    found = evaluate(CLASSES, logits, labels)

    chosen = p.argmax(axis=1)
    expected = {
        "cross_entropy": sk.log_loss(labels, p),
        "auroc": sk.roc_auc_score(labels, p, multi_class="ovr", average="macro"),
        "auc_pr": sk.average_precision_score(np.eye(4)[labels], p, average="macro"),
        "balanced_accuracy": sk.balanced_accuracy_score(labels, chosen),
        "accuracy": sk.accuracy_score(labels, chosen),
        "kappa": sk.cohen_kappa_score(labels, chosen),
        "f1_weighted": sk.f1_score(labels, chosen, average="weighted"),
        "f1_macro": sk.f1_score(labels, chosen, average="macro"),
        "classes_skipped": 0.0,
    }
    assert found == pytest.approx(expected)


def test_multilabel_agrees_with_scikit_learn() -> None:
    logits, labels = random_case("multilabel")
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))

    found = evaluate(LABELS, logits, labels)

    expected = {
        "bce": np.mean([sk.log_loss(labels[:, c], p[:, c]) for c in range(5)]),
        "auroc": sk.roc_auc_score(labels, p, average="macro"),
        "auc_pr": sk.average_precision_score(labels, p, average="macro"),
        "accuracy": np.mean((p > 0.5) == (labels > 0.5)),
        "f1_weighted": sk.f1_score(labels, p > 0.5, average="weighted"),
        "f1_macro": sk.f1_score(labels, p > 0.5, average="macro"),
        "classes_skipped": 0.0,
    }
    assert found == pytest.approx(expected)


def test_a_class_without_positives_is_left_out_of_the_areas_and_counted() -> None:
    logits, labels = random_case("multilabel")
    labels[:, 1] = 0
    labels[:, 3] = 1
    kept = [0, 2, 4]

    found = evaluate(LABELS, logits, labels)

    assert found["classes_skipped"] == 2
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(labels[:, kept], logits[:, kept]))
    assert found["auc_pr"] == pytest.approx(sk.average_precision_score(labels[:, kept], logits[:, kept]))
    assert all(math.isfinite(value) for value in found.values())


def test_the_classes_that_are_left_out_are_named() -> None:
    _, labels = random_case("multilabel")
    labels[:, 1], labels[:, 3] = 0, 1

    (note,) = note_on_areas(LABELS, labels)
    (also,) = note_on_areas(CLASSES, np.array([0, 2, 2]))

    assert note.startswith("2 of 5 classes without positives or without negatives")
    assert note.endswith("AUROC and AUC_PR: HYP, NORM")
    assert also.endswith(": A, ~")
    assert note_on_areas(LABELS, random_case("multilabel")[1]) == ()
    assert note_on_areas(LABELS, 0.9 * random_case("multilabel")[1]) == ()
    assert note_on_areas(REGRESSION, labels) == ()


def test_a_class_that_never_occurs_costs_no_balanced_accuracy() -> None:
    labels = np.array([0, 0, 1, 1])
    logits = np.eye(4)[[0, 0, 1, 2]] * 3

    found = evaluate(CLASSES, logits, labels)

    assert found["balanced_accuracy"] == pytest.approx(0.75)
    assert found["classes_skipped"] == 2


def test_one_class_only_gives_no_areas_and_no_kappa() -> None:
    found = evaluate(CLASSES, np.eye(4)[[2, 2, 2]] * 3, np.array([2, 2, 2]))

    assert math.isnan(found["auroc"])
    assert math.isnan(found["auc_pr"])
    assert found["kappa"] == 0.0
    assert found["accuracy"] == found["balanced_accuracy"] == 1.0
    assert found["classes_skipped"] == 4


@pytest.mark.parametrize("size", [1e3, 1e6])
def test_the_yardsticks_are_finite_for_logits_of_any_size(size: float) -> None:
    wrong_class = evaluate(CLASSES, size * np.eye(4)[[1, 2]], np.array([0, 0]))
    wrong_label = evaluate(LABELS, np.full((2, 5), -size), np.ones((2, 5)))

    assert wrong_class["cross_entropy"] == pytest.approx(size)
    assert wrong_label["bce"] == pytest.approx(size)


@given(shift=st.floats(-50, 50), seed=st.integers(0, 100))
@settings(max_examples=20, deadline=None)
def test_a_shift_of_all_logits_changes_no_metric_of_classes(shift: float, seed: int) -> None:
    logits, labels = random_case("multiclass", rows=60, seed=seed)

    shifted = evaluate(CLASSES, logits.astype(np.float64) + shift, labels)

    assert shifted == pytest.approx(evaluate(CLASSES, logits.astype(np.float64), labels))


def test_labels_may_come_as_a_column() -> None:
    logits, labels = random_case("multiclass")

    assert evaluate(CLASSES, logits, labels.reshape(-1, 1)) == evaluate(CLASSES, logits, labels)


@pytest.mark.parametrize("name", ["bidmc_hr", "physionet2017", "ptb-xl"])
def test_no_metric_needs_scikit_learn_or_torch(name: str) -> None:
    code = (
        "import sys, numpy as np\n"
        "from finetune.metrics import evaluate\n"
        "from finetune.tasks import find_task\n"
        f"task = find_task({name!r})\n"
        "labels = np.zeros(3) if task.kind == 'multiclass' else np.ones((3, task.outputs))\n"
        "evaluate(task, np.zeros((3, task.outputs)), labels)\n"
        "sys.exit('sklearn' in sys.modules or 'torch' in sys.modules)"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@given(seed=st.integers(0, 10_000), rows=st.integers(4, 60), decimals=st.integers(0, 2))
@settings(max_examples=15, deadline=None)
def test_areas_and_f1_agree_with_scikit_learn_where_scores_tie(seed: int, rows: int, decimals: int) -> None:
    rng = np.random.default_rng(seed)
    scores, is_positive = rng.normal(size=(rows, 5)).round(decimals), rng.random((rows, 5)) < 0.4
    is_positive[:2] = [[True], [False]]

    found = evaluate(LABELS, scores, is_positive.astype(np.float32))

    chosen = scores > 0
    assert found["auroc"] == pytest.approx(sk.roc_auc_score(is_positive, scores), abs=1e-12)
    assert found["auc_pr"] == pytest.approx(sk.average_precision_score(is_positive, scores), abs=1e-12)
    for average in ("weighted", "macro"):
        expected = sk.f1_score(is_positive, chosen, average=average, zero_division=0)
        assert found[f"f1_{average}"] == pytest.approx(expected, abs=1e-12)


@given(seed=st.integers(0, 10_000), rows=st.integers(2, 40), classes=st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_agreement_of_classes_is_that_of_scikit_learn_whatever_classes_are_there(
    seed: int, rows: int, classes: int
) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(rows, 4)), rng.integers(0, classes, rows)

    found = evaluate(CLASSES, logits, labels)

    chosen = logits.argmax(axis=1)
    kappa = sk.cohen_kappa_score(labels, chosen) if len({*labels, *chosen}) > 1 else 0.0
    assert found["kappa"] == pytest.approx(kappa, abs=1e-12)
    for average in ("weighted", "macro"):
        expected = sk.f1_score(labels, chosen, average=average, zero_division=0)
        assert found[f"f1_{average}"] == pytest.approx(expected, abs=1e-12)
    expected = sk.recall_score(labels, chosen, labels=np.unique(labels), average="macro")
    assert found["balanced_accuracy"] == pytest.approx(expected, abs=1e-12)


def test_areas_of_scores_that_are_no_numbers_are_none() -> None:
    logits, labels = random_case("multilabel")
    logits[3, 1] = np.nan

    assert math.isnan(evaluate(LABELS, logits, labels)["auroc"])
