"""Training losses by name: what a run minimises, on z-scored labels or logits.

Every loss is a function of (predictions (B, outputs), targets) that returns one value a row, (B,), and
:func:`make_loss` gives its mean over the batch. The yardstick that ranks the trials is another thing:
see :mod:`finetune.metrics`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812  # torch's own convention

from finetune.errors import SettingError, UnknownNameError
from finetune.tasks import MULTICLASS_LOSSES, REGRESSION_LOSSES

Loss = Callable[[Tensor, Tensor], Tensor]

LABEL_SMOOTHING = 0.1
"""Szegedy et al. 2016, "Rethinking the Inception architecture", section 7."""
FOCAL_GAMMA = 2.0
"""Lin et al. 2017, "Focal loss for dense object detection", section 5.1."""
LARGEST_POSITIVE_WEIGHT = 100.0
"""Bound of a class's weight in ``bce_balanced``; chosen by us: a class with one positive in thousands of
windows would otherwise own the gradient."""


def make_loss(
    name: str,
    train_labels: Tensor,
    reduction: Literal["mean", "none"] = "mean",
    smoothing: float = 0.0,
    classes: int = 0,
) -> Loss:
    """Return the loss ``name`` on (predictions (B, outputs), targets): a scalar, or (B,) unreduced.

    Targets are (B, outputs) float for regression (z-scored) and multi-label (0 or 1), (B,) int64 for
    classes. ``train_labels`` are all training targets, in the same form and on the device of the batches:
    the balanced losses take their weights from them. With ``smoothing`` s every loss is 1 - s of itself and
    s of its mean over all ``classes`` (of each label: over both values); for cross-entropy that is label
    smoothing. Raises :class:`UnknownNameError`, and :class:`SettingError` for smoothed numbers.
    """
    if name not in _MAKERS:
        raise UnknownNameError.of("loss", name, _MAKERS)
    per_row = _MAKERS[name](train_labels)
    if smoothing:
        per_row = _smoothed(per_row, name, smoothing, classes)
    if reduction == "none":
        return per_row
    return lambda predictions, targets: per_row(predictions, targets).mean()


def _smoothed(per_row: Loss, name: str, smoothing: float, classes: int) -> Loss:
    """Spread a share of the target over all classes, or over both values of each label."""
    if name in REGRESSION_LOSSES:
        raise SettingError(f"label_smoothing {smoothing} with loss {name}", "0 for regression")

    def smoothed(predictions: Tensor, targets: Tensor) -> Tensor:
        if name in MULTICLASS_LOSSES:
            others = [per_row(predictions, torch.full_like(targets, one)) for one in range(classes)]
        else:
            others = [per_row(predictions, torch.full_like(targets, one)) for one in (0.0, 1.0)]
        return (1 - smoothing) * per_row(predictions, targets) + smoothing * torch.stack(others).mean(dim=0)

    return smoothed


def _plain(loss: Callable[..., Tensor]) -> Callable[[Tensor], Loss]:
    """Make an elementwise loss that needs nothing of the training labels."""

    def per_row(predictions: Tensor, targets: Tensor) -> Tensor:
        return loss(predictions, targets, reduction="none").mean(dim=1)

    return lambda train_labels: per_row


def _cross_entropy(train_labels: Tensor) -> Loss:
    return partial(F.cross_entropy, reduction="none")


def _cross_entropy_smooth(train_labels: Tensor) -> Loss:
    return partial(F.cross_entropy, reduction="none", label_smoothing=LABEL_SMOOTHING)


def _cross_entropy_balanced(train_labels: Tensor) -> Loss:
    """Weigh each class by its inverse frequency (King and Zeng 2001); the mean weight of a window is 1.

    The weight of class c is N / (C n_c), with C the classes that occur; the mean over a batch divides by
    its size, not by the sum of its weights, so that a row's gradient does not hang on its neighbours.
    """
    counts = torch.bincount(train_labels)
    weights = len(train_labels) / ((counts > 0).sum() * counts.clamp(min=1))

    def per_row(predictions: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(predictions, targets, reduction="none") * weights[targets]

    return per_row


def _focal(train_labels: Tensor) -> Loss:
    """Focal loss (Lin et al. 2017, equation 4): cross-entropy times (1 - p) ** gamma, no class weights."""

    def per_row(predictions: Tensor, targets: Tensor) -> Tensor:
        entropy = F.cross_entropy(predictions, targets, reduction="none")  # -log p
        return (1 - (-entropy).exp()) ** FOCAL_GAMMA * entropy

    return per_row


def _bce_balanced(train_labels: Tensor) -> Loss:
    """Weigh a class's positives by negatives / positives in training, within 1 / 100 to 100.

    A class without positives in training keeps weight 1. As ``pos_weight`` of
    torch.nn.BCEWithLogitsLoss documents.
    """
    positive = train_labels.sum(dim=0)
    ratio = (len(train_labels) - positive) / positive.clamp(min=1)
    bounded = ratio.clamp(1 / LARGEST_POSITIVE_WEIGHT, LARGEST_POSITIVE_WEIGHT)
    return _plain(
        partial(
            F.binary_cross_entropy_with_logits,
            pos_weight=torch.where(positive > 0, bounded, torch.ones_like(bounded)),
        )
    )(train_labels)


def _bce_focal(train_labels: Tensor) -> Loss:
    """Focal loss on each output (Lin et al. 2017, equation 4), without the alpha weight."""

    def per_row(predictions: Tensor, targets: Tensor) -> Tensor:
        entropy = F.binary_cross_entropy_with_logits(predictions, targets, reduction="none")
        return ((1 - (-entropy).exp()) ** FOCAL_GAMMA * entropy).mean(dim=1)

    return per_row


_MAKERS: dict[str, Callable[[Tensor], Loss]] = {
    "mse": _plain(F.mse_loss),
    "l1": _plain(F.l1_loss),
    # beta = 1 standard deviation of the labels: torch's default (Girshick 2015, Fast R-CNN, equation 3).
    "smooth_l1": _plain(F.smooth_l1_loss),
    # delta = 0.5 standard deviations; chosen by us: at 1, torch's default, Huber is smooth_l1 itself.
    "huber": _plain(partial(F.huber_loss, delta=0.5)),
    "cross_entropy": _cross_entropy,
    "cross_entropy_smooth": _cross_entropy_smooth,
    "cross_entropy_balanced": _cross_entropy_balanced,
    "focal": _focal,
    "bce": _plain(F.binary_cross_entropy_with_logits),
    "bce_balanced": _bce_balanced,
    "bce_focal": _bce_focal,
}
