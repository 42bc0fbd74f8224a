"""What a predictor that never looks at the signal scores: the measure of whether anything was learnt."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from finetune.metrics import evaluate_predictions
from finetune.tasks import Task

Labels = NDArray[np.float32] | NDArray[np.int64]


def trivial_metrics(task: Task, training: Labels, labels: Labels) -> dict[str, float]:
    """Return all metrics of the task, on ``labels``, of the best constant known from the ``training`` labels.

    Regression: the training median for ``mae``, the training mean for ``rmse`` and ``r2``. Classes and
    multi-label: the training prior (clipped to [1 / 2N, 1 - 1 / 2N], so that a class never seen in
    training costs a finite amount), whose ``auroc`` is 0.5 by definition. Key ``validation_loss``
    repeats the task's yardstick.
    """
    metrics = {"regression": _constant, "multiclass": _class_prior, "multilabel": _label_prior}[task.kind](
        training, labels
    )
    if task.kind != "regression":
        constant = trivial_predictions(task, training, len(labels))
        metrics = evaluate_predictions(task, constant, labels) | metrics
    return {"validation_loss": metrics[task.yardstick], **metrics}


def trivial_constant(task: Task, training: Labels) -> tuple[float, ...]:
    """Return what the predictor of a regression always says, one value an output; empty for classes."""
    if task.kind != "regression":
        return ()
    return tuple(float(f"{median:.4g}") for median in np.median(training, axis=0))


def trivial_name(task: Task, training: Labels) -> str:
    """Return the predictor in words, such as ``constant 18 breaths/min (training median)``."""
    if task.kind == "regression":
        medians = ", ".join(f"{median:.4g}" for median in np.median(training, axis=0))
        return f"constant {medians} {task.unit} (training median)"
    return "class prior of the training windows"


def trivial_predictions(task: Task, training: Labels, count: int) -> NDArray[np.float32]:
    """Return the constant itself for ``count`` windows, (count, outputs).

    Regression: the training median; classes and multi-label: the clipped training prior.
    """
    if task.kind == "regression":
        constant = np.median(training.astype(np.float64), axis=0)
    elif task.kind == "multiclass":
        constant = _clip(np.bincount(training, minlength=task.outputs) / len(training), len(training))
    else:
        constant = _clip(training.mean(axis=0, dtype=np.float64), len(training))
    return np.tile(constant.astype(np.float32), (count, 1))


def _constant(training: Labels, labels: Labels) -> dict[str, float]:
    known, unknown = training.astype(np.float64), labels.astype(np.float64)
    from_median = unknown - np.median(known, axis=0)
    from_mean = unknown - known.mean(axis=0)
    spread = np.square(unknown - unknown.mean(axis=0)).sum()
    r2 = 1 - np.square(from_mean).sum() / spread if spread > 0 else 0.0
    return {
        "mae": float(np.abs(from_median).mean()),
        "rmse": float(np.sqrt(np.square(from_mean).mean())),
        "r2": float(r2),
    }


def _class_prior(training: Labels, labels: Labels) -> dict[str, float]:
    classes = int(max(training.max(), labels.max())) + 1
    prior = _clip(np.bincount(training, minlength=classes) / len(training), len(training))
    return {
        "cross_entropy": float(-np.log(prior[labels]).mean()),
        "auroc": 0.5,
        "balanced_accuracy": 1 / len(np.unique(labels)),
        "accuracy": float(np.mean(labels == prior.argmax())),
        "kappa": 0.0,
    }


def _label_prior(training: Labels, labels: Labels) -> dict[str, float]:
    prior = _clip(training.mean(axis=0, dtype=np.float64), len(training))
    cost = labels * np.log(prior) + (1 - labels) * np.log(1 - prior)
    return {
        "bce": float(-cost.mean()),
        "auroc": 0.5,
        "accuracy": float(np.mean((labels > 0.5) == (prior > 0.5))),
    }


def _clip(prior: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    return np.clip(prior, 0.5 / count, 1 - 0.5 / count)
