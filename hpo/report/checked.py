"""What ``hpo check`` says: the findings of a look at data, encoder and recipe, in words."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.api import Checked, CheckFault, DataSummary
from hpo.numbers import about, duration, quantity
from hpo.report.language import SPOKEN, Language, Words
from hpo.study import StudySpec

FATAL: tuple[CheckFault, ...] = (
    "not_repeatable",
    "batch_mates_matter",
    "constant_features",
    "no_gradient_head",
    "no_gradient_backbone",
    "not_finite",
    "state_not_kept",
)
"""What no search can mend; the others are told as notes."""


def checked_lines(
    spec: StudySpec, data: DataSummary, found: Checked, took_s: float, language: Language = "en"
) -> list[str]:
    """Return the findings as lines."""
    words, faults = SPOKEN[language], found.faults
    losses, digits = (found.loss_before, found.loss_after), 3
    while digits < 8 and len({f"{loss:.{digits}g}" for loss in losses}) == 1:
        digits += 1
    return [
        _data(spec, data, found, words),
        _trivial(spec, data, words),
        words.say(
            "check.encoder",
            name=spec.backbone.name,
            parameters=found.backbone_parameters,
            features=found.embedding,
            head=found.head_parameters,
            mode=spec.mode,
            trained=found.trained_parameters,
        ),
        words.say(
            "check.steps",
            steps=found.steps,
            before=f"{found.loss_before:.{digits}g}",
            after=f"{found.loss_after:.{digits}g}",
        ),
        _cost(spec, found, words),
        *(words.say("check.note", note=note) for note in data.notes),
        *(
            words.say(
                "check.fatal" if fault in FATAL else "check.note", note=words.say(f"check.fault.{fault}")
            )
            for fault in faults
        ),
        words.say("check.ready" if is_ready(faults) else "check.not_ready", time=f"{took_s:.0f}"),
    ]


def _data(spec: StudySpec, data: DataSummary, found: Checked, words: Words) -> str:
    sizes = {split: len(names) for split, names in data.subjects.items()}
    windows, subjects = (
        words.say("list.comma").join(
            words.say(f"check.split.{split}", n=size[split]) for split in ("train", "validation", "test")
        )
        for size in (data.windows, sizes)
    )
    unit = words.say(f"each.{spec.what.unit_of_independence}")
    shape = " x ".join(map(str, found.windows[1:]))
    return words.say("check.data", windows=windows, shape=shape, unit=unit, subjects=subjects)


def _trivial(spec: StudySpec, data: DataSummary, words: Words) -> str:
    """Say what is always guessed by the trivial predictor, and its loss."""
    task, constant = spec.what, data.trivial_constant
    if task.kind != "regression":
        guess = words.say("constant.prior")
    elif constant:
        guess = words.say("constant.value", value=quantity(constant[0], task.unit))
    else:
        guess = words.say("constant.median")
    value = quantity(data.trivial["validation_loss"], task.unit)
    return words.say("check.trivial", guess=guess, metric=words.say(f"metric.{task.yardstick}"), value=value)


def _cost(spec: StudySpec, found: Checked, words: Words) -> str:
    epochs = spec.recipe.epochs
    return words.say(
        "check.cost",
        epoch=_time(found.epoch_s),
        n=found.windows[0],
        trial=_time(epochs * found.epoch_s),
        epochs=epochs,
        memory=f"{found.memory_mib:.0f}",
    )


def _time(seconds: float) -> str:
    return about(seconds, "s") if seconds < 10 else duration(seconds)


def is_ready(faults: Sequence[CheckFault]) -> bool:
    """Return whether a search may begin."""
    return not any(fault in FATAL for fault in faults)
