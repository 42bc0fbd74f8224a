"""What ``hpo check`` says: the findings of a look at data, encoder and recipe, in words."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.api import Checked, CheckFault, DataSummary
from hpo.study import StudySpec

FAULTS: dict[CheckFault, str] = {
    "not_repeatable": "two passes over the same windows in evaluation mode differ: the encoder draws at "
    "random outside of dropout layers, or never leaves training mode",
    "batch_mates_matter": "a window's output hangs on the other windows of its batch, in evaluation mode too",
    "constant_features": "the encoder gives the same features for all windows",
    "no_gradient_head": "no gradient reaches the head",
    "no_gradient_backbone": "no gradient reaches the encoder: is it wrapped in no_grad, or detached?",
    "part_without_gradient": "some trained weights of the encoder get no gradient: they are never used",
    "not_finite": "the loss is not finite: are there weights or windows that are not?",
    "loss_not_lowered": "ten steps on the same windows do not lower the loss at the baseline's rates",
}
FATAL: tuple[CheckFault, ...] = (
    "not_repeatable",
    "batch_mates_matter",
    "constant_features",
    "no_gradient_head",
    "no_gradient_backbone",
    "not_finite",
)
"""What no search can mend; the others are told as notes."""


def checked_lines(spec: StudySpec, data: DataSummary, found: Checked, took_s: float) -> list[str]:
    """Return the findings as lines."""
    count, *shape = found.windows
    task, epochs = spec.what, spec.recipe.epochs
    windows, subjects = (
        ", ".join(f"{size[split]} {split}" for split in ("train", "validation", "test"))
        for size in (data.windows, {split: len(names) for split, names in data.subjects.items()})
    )
    trivial = f"{data.trivial_name}: {data.trivial['validation_loss']:.4g} {task.unit}".rstrip()
    trial = f"at most {epochs * found.epoch_s:.3g} s a trial of {epochs} epochs"
    return [
        f"data: {windows} windows of {' x '.join(map(str, shape))} samples; "
        f"{task.unit_of_independence}s: {subjects}",
        f"trivial predictor: {trivial}",
        f"encoder: {spec.backbone.name}, {found.backbone_parameters} parameters, {found.embedding} features; "
        f"head {found.head_parameters}; trained in {spec.mode}: {found.trained_parameters}",
        f"ten steps on a few windows: training loss {found.loss_before:.4g} to {found.loss_after:.4g}",
        f"cost: about {found.epoch_s:.2g} s an epoch of {count} windows, {trial}; {found.memory_mib:.0f} MiB",
        *(f"note: {note}" for note in data.notes),
        *(f"{_rank(fault)}: {FAULTS[fault]}" for fault in found.faults),
        f"checked in {took_s:.1f} s: {_verdict(found.faults)}",
    ]


def is_ready(faults: Sequence[CheckFault]) -> bool:
    """Return whether a search may begin."""
    return not any(fault in FATAL for fault in faults)


def _rank(fault: CheckFault) -> str:
    return "fault" if fault in FATAL else "note"


def _verdict(faults: Sequence[CheckFault]) -> str:
    return "ready" if is_ready(faults) else "not ready"
