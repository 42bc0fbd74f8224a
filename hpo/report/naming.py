"""What things are called: a study with its labels, its yardstick, the constant to beat, words of a spec."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune.api import Task
from hpo.numbers import quantity
from hpo.reading.findings import Findings, Label
from hpo.report.language import Words
from hpo.study.choices import Value, value_words

PUBLISHED = "published default"
"""What studies call their baseline; said once, in the reader's language."""


def label_words(labels: Sequence[Label], words: Words) -> list[str]:
    """Return what every output must say of the data."""
    return [words.say(f"label.{label.kind}", part=label.part) for label in labels]


def full_name(study: str, labels: Sequence[Label], words: Words) -> str:
    """Return a study's name with what every output must say of its data."""
    return " ".join([study, *(f"[{label}]" for label in label_words(labels, words))])


def metric(task: Task, words: Words) -> str:
    """Return the name of the yardstick."""
    return words.say(f"metric.{task.yardstick}")


def metric_with_unit(task: Task, words: Words) -> str:
    """Return the name of the yardstick with its unit, as an axis says it."""
    return f"{metric(task, words)} ({task.unit})" if task.unit else metric(task, words)


def loss_words(loss: str, choices: Mapping[str, Value], words: Words) -> str:
    """Return a loss with what a study chooses beside it: ``mse with layer_decay 0.75``."""
    if not choices:
        return loss
    pairs = [f"{name} {value_name(value, words)}" for name, value in choices.items()]
    return words.say("choices.beside", loss=loss, choices=words.listed(pairs))


def value_name(value: Value, words: Words) -> str:
    """Return what a value of a recipe's key is called; null: as the encoder, or the loop, has it."""
    return words.say("value.null") if value is None else value_words(value)


def constant(findings: Findings, words: Words) -> str:
    """Return the trivial predictor in words: what is always guessed."""
    task, known = findings.task, findings.constant
    if task.kind != "regression":
        guess = words.say("constant.prior")
    elif known is None or findings.folds:
        guess = words.say("constant.median")
    else:
        guess = words.say("constant.value", value=quantity(known, task.unit))
    return words.say("constant.folds", guess=guess) if findings.folds else guess
