"""Validation and test metrics of a task: plain numpy, once an epoch, in float64.

Averages follow the reference (CM-SSL, which uses torchmetrics): macro one-vs-rest for ``auroc`` and
``auc_pr``, support-weighted for ``f1_weighted``, the mean over all outputs for multi-label ``accuracy``
with a threshold of 0.5 on the probability. One difference: a class that has no positive (or no negative)
window in the split is left out of ``auroc`` and ``auc_pr`` and counted in ``classes_skipped``, where
torchmetrics counts its AUROC as 0; :func:`note_on_areas` says which.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.tasks import Task

Floats = NDArray[np.float64]

NAMED = 5
"""Classes that one note names."""


def evaluate(task: Task, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Return all of ``task.metrics``, the yardstick first; for classes also ``classes_skipped``.

    ``predictions`` (N, outputs) are in label units for regression, logits otherwise; ``labels`` are
    (N, outputs) for regression and multi-label, (N,) class indices for classes. ``auroc`` and ``auc_pr``
    are NaN when no class has both positives and negatives; ``r2`` of constant labels and ``kappa`` of
    constant predictions that agree with constant labels are 0, as for a predictor that knows nothing.
    """
    outputs = np.asarray(predictions, dtype=np.float64)
    if task.kind == "regression":
        found = _regression(outputs, np.asarray(labels, dtype=np.float64).reshape(outputs.shape))
    elif task.kind == "multiclass":
        found = _multiclass(outputs, np.asarray(labels, dtype=np.int64).reshape(-1))
    else:
        found = _multilabel(outputs, np.asarray(labels, dtype=np.float64))
    return found


def evaluate_predictions(task: Task, predictions: NDArray[Any], labels: NDArray[Any]) -> dict[str, float]:
    """Return :func:`evaluate` of predictions in label units or, for classes, probabilities (N, outputs)."""
    outputs = np.asarray(predictions, dtype=np.float64)
    if task.kind != "regression":
        outputs = np.clip(outputs, 1e-12, 1 - 1e-12)
        odds = outputs if task.kind == "multiclass" else outputs / (1 - outputs)
        outputs = np.log(odds)
    return evaluate(task, outputs, labels)


def window_losses(task: Task, predictions: NDArray[Any], labels: NDArray[Any]) -> Floats:
    """Return the yardstick of each window (N,), whose mean is that of the split.

    Predictions as for :func:`evaluate_predictions`; labels (N, outputs), or (N, 1) class indices.
    """
    said, truth = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    if task.kind == "regression":
        return np.asarray(np.abs(said - truth.reshape(said.shape)).mean(axis=1))
    said = np.clip(said, 1e-12, 1 - 1e-12)
    if task.kind == "multiclass":
        of_truth = said[np.arange(len(said)), truth.reshape(-1).astype(np.int64)]
        return np.asarray(-np.log(of_truth))
    return np.asarray(-(truth * np.log(said) + (1 - truth) * np.log1p(-said)).mean(axis=1))


def _regression(predictions: Floats, labels: Floats) -> dict[str, float]:
    error = predictions - labels
    squared = np.square(error).sum(axis=0)
    spread = np.square(labels - labels.mean(axis=0)).sum(axis=0)
    explained = np.where(spread > 0, 1 - squared / np.where(spread > 0, spread, 1), 0.0)
    return {
        "mae": float(np.abs(error).mean()),
        "rmse": float(np.sqrt(np.square(error).mean())),
        "r2": float(explained.mean()),
    }


def _multiclass(logits: Floats, labels: NDArray[np.int64]) -> dict[str, float]:
    log_p = log_softmax(logits)
    chosen = logits.argmax(axis=1)
    one_hot = labels[:, None] == np.arange(logits.shape[1])
    auroc, auc_pr, skipped = _areas(one_hot, np.exp(log_p))
    hits = _Hits.of(one_hot, chosen[:, None] == np.arange(logits.shape[1]))
    is_there = hits.true > 0
    return {
        "cross_entropy": float(-log_p[np.arange(len(labels)), labels].mean()),
        "auroc": auroc,
        "auc_pr": auc_pr,
        "balanced_accuracy": float((hits.both[is_there] / hits.true[is_there]).mean()),
        "accuracy": float((labels == chosen).mean()),
        "kappa": hits.kappa(),
        "f1_weighted": hits.f1_weighted(),
        "f1_macro": float(hits.f1()[is_there | (hits.said > 0)].mean()),
        "classes_skipped": float(skipped),
    }


def _multilabel(logits: Floats, labels: Floats) -> dict[str, float]:
    is_positive, is_chosen = labels > 0.5, logits > 0
    auroc, auc_pr, skipped = _areas(is_positive, logits)  # the areas hang on the order of the scores alone
    hits = _Hits.of(is_positive, is_chosen)
    return {
        "bce": float(binary_cross_entropy(logits, labels).mean()),
        "auroc": auroc,
        "auc_pr": auc_pr,
        "accuracy": float((is_positive == is_chosen).mean()),
        "f1_weighted": hits.f1_weighted(),
        "f1_macro": float(hits.f1().mean()),
        "classes_skipped": float(skipped),
    }


@dataclass(frozen=True)
class _Hits:
    """Windows of each class (classes,): that are of it, that are said to be, and both."""

    true: Floats
    said: Floats
    both: Floats

    @classmethod
    def of(cls, is_positive: NDArray[np.bool_], is_chosen: NDArray[np.bool_]) -> _Hits:
        counts = (
            one.sum(axis=0, dtype=np.float64) for one in (is_positive, is_chosen, is_positive & is_chosen)
        )
        return cls(*counts)

    def f1(self) -> Floats:
        """Return F1 of each class; 0 of one that is neither there nor said."""
        return 2 * self.both / np.maximum(self.true + self.said, 1)

    def f1_weighted(self) -> float:
        """Return the mean of F1 weighted by how many windows are of each class; 0 where no class is there."""
        return float(self.f1() @ self.true / max(self.true.sum(), 1))

    def kappa(self) -> float:
        """Return Cohen's kappa of windows of one class each (Cohen 1960)."""
        windows = self.true.sum()
        by_chance = float(self.true @ self.said) / windows**2
        return 0.0 if by_chance == 1 else float((self.both.sum() / windows - by_chance) / (1 - by_chance))


def _areas(is_positive: NDArray[np.bool_], scores: Floats) -> tuple[float, float, int]:
    """Return macro AUROC, macro average precision and the number of classes left out of both.

    ``is_positive`` and ``scores`` are (N, classes). NaN where a score is NaN.
    """
    usable = _has_both(is_positive)
    if not usable.any() or np.isnan(scores).any():
        return float("nan"), float("nan"), int((~usable).sum())
    found = np.array([_areas_of(is_positive[:, c], scores[:, c]) for c in np.flatnonzero(usable)])
    auroc, precision = found.mean(axis=0)
    return float(auroc), float(precision), int((~usable).sum())


def _areas_of(is_positive: NDArray[np.bool_], scores: Floats) -> tuple[float, float]:
    """Return AUROC (by trapezoids) and average precision (by steps) of one class, (N,) each.

    Each distinct score is a threshold, so that tied windows are taken in together.
    """
    order = np.argsort(-scores, kind="stable")
    last_of_its_score = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    positives = np.append(0, is_positive[order].cumsum()[last_of_its_score])
    taken = np.append(0, last_of_its_score + 1)
    negatives = taken - positives
    area = np.diff(negatives) @ (positives[1:] + positives[:-1]) / 2
    precision = np.diff(positives) @ (positives[1:] / taken[1:])
    return float(area / (positives[-1] * negatives[-1])), float(precision / positives[-1])


def _has_both(is_positive: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return for each class (classes,) whether there are positives and negatives of it."""
    return np.asarray(is_positive.any(axis=0) & ~is_positive.all(axis=0))


def note_on_areas(task: Task, validation: NDArray[Any]) -> tuple[str, ...]:
    """Return one sentence on the classes that the areas leave out on the ``validation`` labels, or none."""
    if task.kind == "regression":
        return ()
    is_class = task.kind == "multiclass"
    is_positive = validation.reshape(-1, 1) == np.arange(task.outputs) if is_class else validation > 0.5
    left_out = [task.classes[i] for i in np.flatnonzero(~_has_both(is_positive))]
    if not left_out:
        return ()
    names = ", ".join(left_out[:NAMED]) + (", ..." if len(left_out) > NAMED else "")
    what = "classes without positives or without negatives in the validation split"
    return (f"{len(left_out)} of {task.outputs} {what}, left out of AUROC and AUC_PR: {names}",)


def log_softmax(logits: Floats) -> Floats:
    """Return log-probabilities (N, classes) of logits of any size, without overflow."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normalised: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return normalised


def binary_cross_entropy(logits: Floats, labels: Floats) -> Floats:
    """Return the binary cross-entropy of each output, finite for logits of any size."""
    cost: Floats = np.maximum(logits, 0) - logits * labels + np.log1p(np.exp(-np.abs(logits)))
    return cost
