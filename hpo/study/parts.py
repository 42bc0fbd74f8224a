"""The parts of a study's description, each with its own checks, and how they must agree. Free of torch."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from finetune.api import (
    BACKBONES,
    LOSSES,
    TASKS,
    BackboneSpec,
    Factory,
    FinetuneError,
    Normalisation,
    Task,
    check_backbone,
    find_task,
)
from hpo.errors import Said
from hpo.study.choice_faults import choice_faults, named_faults
from hpo.study.choices import NONE, Choices, Value
from hpo.study.own_signals import OwnSignals
from hpo.study.part import HUGE, MANY, TINY, Part, file_fault
from hpo.study.recipe import NAMES, SEARCHABLE, Recipe, Searched, as_a_recipe_has_it
from hpo.study.yaml_lines import Path as KeyPath
from hpo.study.yaml_lines import dotted, nearest

HAIR = 1.02
"""A fixed rate is searched as a range that ends this factor away from it, and then taken as it is."""
TWELVE_LEADS = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")
LAST_TUNING_SEED = 9999
"""Confirmation seeds start at 1,000,000, so the two never meet (Eimer et al. 2023, arXiv 2306.01324)."""


class Range(Part):
    """A log-uniform range of learning rates, both ends included, or a few listed ones.

    A file may say a number or a list instead: one fixed rate, or those to choose from.
    """

    low: float
    high: float = Field(le=HUGE)
    source: str = ""
    """Where the bounds come from; a text, not part of the fingerprint."""
    values: tuple[float, ...] | None = None
    """The only rates to be tried, ascending; None: any from ``low`` to ``high``."""

    @model_validator(mode="before")
    @classmethod
    def _from_rates(cls, given: Any) -> Any:
        listed = [given] if isinstance(given, int | float) and not isinstance(given, bool) else given
        if isinstance(listed, list) and listed:
            if not all(isinstance(rate, int | float) and not isinstance(rate, bool) for rate in listed):
                raise file_fault(Said("{rates}; expected numbers alone", rates=listed))
            rates = sorted({float(rate) for rate in listed})
            return {"low": rates[0], "high": rates[-1], "values": rates}
        if not isinstance(given, dict | Range):
            expected = "a rate, a list of rates, or {low: ..., high: ...}"
            raise file_fault(Said("it is {given!r}; expected {expected}", given=given, expected=expected))
        return given

    @model_validator(mode="after")
    def _is_a_log_range(self) -> Self:
        if self.low <= 0:
            raise file_fault(
                Said("low is {low}; expected a number above 0 (the range is logarithmic)", low=self.low)
            )
        if self.values is not None:
            return self._with_ends_of_its_values()
        if self.low < TINY:
            raise file_fault(Said("low is {low}; expected at least {tiny}", low=self.low, tiny=TINY))
        if self.low >= self.high:
            raise file_fault(
                Said("low {low} is not below high {high}; expected low < high", low=self.low, high=self.high)
            )
        return self

    def _with_ends_of_its_values(self) -> Self:
        rates = self.values or ()
        if list(rates) != sorted(set(rates)) or (self.low, self.high) != (rates[0], rates[-1]):
            raise file_fault(
                Said(
                    "values {rates} from {low} to {high}; expected ascending ones whose ends these are",
                    rates=list(rates),
                    low=self.low,
                    high=self.high,
                )
            )
        return self

    def contains(self, value: float) -> bool:
        """Return whether ``value`` lies in the range, its ends included."""
        return self.low <= value <= self.high

    def nearest(self, value: float) -> float:
        """Return the rate of the range that is nearest to ``value`` on a logarithmic scale."""
        if self.values is not None:
            return min(self.values, key=lambda rate: abs(math.log(rate / value)))
        return min(max(value, self.low), self.high)

    @property
    def searched(self) -> tuple[float, float]:
        """The ends between which samplers and the model move: of a fixed rate a hair on either side of it."""
        if self.low < self.high:
            return self.low, self.high
        return self.low / HAIR, self.high * HAIR


class SeedRange(Part):
    """Tuning seeds, both ends included."""

    low: int = Field(default=0, ge=0, le=LAST_TUNING_SEED)
    high: int = Field(default=LAST_TUNING_SEED, ge=0, le=LAST_TUNING_SEED)
    count: int | None = Field(default=None, ge=2, le=MANY)
    """How many of them the trials of a search take turns with; None: each trial has its own."""

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.low > self.high:
            raise file_fault(
                Said("low {low} is above high {high}; expected low <= high", low=self.low, high=self.high)
            )
        seeds = self.high - self.low + 1
        if self.count is not None and self.count > seeds:
            raise file_fault(
                Said(
                    "count {count} with {seeds} seeds from low to high; expected at most as many",
                    count=self.count,
                    seeds=seeds,
                )
            )
        return self


class _Rates(Part):
    """What every study searches."""

    lr: Range
    backbone_lr: Range
    loss: tuple[str, ...] = Field(min_length=1)
    seed: SeedRange = SeedRange()


class Space(Searched, _Rates):
    """What is searched. The seed is sampled and stored but never chosen: it is noise."""


class NamedConfiguration(Part):
    """A configuration that somebody used before; it runs with a seed of the study's own."""

    name: str
    lr: float = Field(ge=TINY, le=HUGE)
    backbone_lr: float = Field(ge=TINY, le=HUGE)
    loss: str
    source: str = ""
    choices: Annotated[Mapping[str, Value], AfterValidator(Choices)] = NONE
    """Of the keys that the space searches; a file says them beside the rates. What it leaves out is as a
    recipe has it."""

    @model_validator(mode="before")
    @classmethod
    def _with_its_choices(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        beside = {key: given[key] for key in NAMES if key in given}
        own = given.get("choices", {})
        if not isinstance(own, Mapping) or not (beside or own):
            return given
        told = dict(as_a_recipe_has_it(str(key), value) for key, value in {**own, **beside}.items())
        ordered = {key: told[key] for key in SEARCHABLE if key in told}
        return {key: value for key, value in given.items() if key not in beside} | {"choices": ordered}

    @model_serializer(mode="wrap")
    def _as_before_without_choices(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        told: dict[str, Any] = handler(self)
        return told if self.choices else {key: value for key, value in told.items() if key != "choices"}


def _all_leads(value: Any) -> Any:
    """Take one name as a list, and ``all`` as the twelve."""
    return TWELVE_LEADS if value == "all" else (value,) if isinstance(value, str) else value


class Inputs(Part):
    """Which windows a trial sees."""

    normalisation: Normalisation = "window"
    samples: int = Field(default=1250, gt=0, le=MANY)
    train_subjects: int | None = Field(default=None, gt=0, le=MANY)
    every: int = Field(default=1, gt=0, le=MANY)
    """Every n-th training and validation window of each subject; the test split is always whole."""
    leads: Annotated[tuple[str, ...], BeforeValidator(_all_leads)] = ()
    """Of a set with several (PTB-XL, CSN), by name, or ``all``; empty: lead II, the reference protocol."""
    allow_partial: bool = False
    """Not part of the fingerprint: the hash of the data says which records were there."""


class Validation(Part):
    """What a trial is validated on: the reference split, or grouped folds of all non-test subjects."""

    kind: Literal["reference", "grouped_folds"] = "reference"
    k: int = Field(default=5, ge=2, le=MANY)


class EncoderInput(Part):
    """What an encoder of a user's own takes; None: the prepared windows as they are."""

    channels: int | None = Field(default=None, ge=1, le=MANY)
    rate_hz: float | None = Field(default=None, gt=0, le=HUGE)
    seconds: float | None = Field(default=None, gt=0, le=HUGE)
    prepare: str | None = None


class Backbone(Part):
    """Which encoder; ``weights`` is ``builtin``, ``none`` or a path. With ``factory`` one of a user's own."""

    name: str
    weights: str = "builtin"
    factory: str | None = None
    """``file.py:function`` in the folder of ``--code``, or ``huggingface:AutoModel``."""
    options: dict[str, Any] = Field(default_factory=dict)
    input: EncoderInput = EncoderInput()
    groups: str | None = None
    code: str = ""
    """sha256 of the code, filled in when a study is made."""
    weights_hash: str = ""
    """sha256 of the file of weights, as above; of one of our encoders no part of the fingerprint."""

    @model_validator(mode="before")
    @classmethod
    def _is_named(cls, given: Any) -> Any:
        """Name an encoder of a user's own after its factory, without weights unless it has some."""
        if not isinstance(given, dict) or not isinstance(given.get("factory"), str):
            return given
        file, _, function = given["factory"].partition(":")
        name = f"{PurePath(file).stem}.{function}"
        return {"name": name, "weights": "none", **given}

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        own = [key for key in ("options", "groups", "code") if getattr(self, key)]
        own += ["input"] if self.input != EncoderInput() else []
        if self.factory is None and own:
            raise file_fault(Said("{key} without a factory; expected factory: file.py:function", key=own[0]))
        return self

    def spec(self) -> BackboneSpec:
        """Return the same as finetune takes it."""
        if self.factory is None:
            return BackboneSpec(self.name, self.weights, sha256=self.weights_hash)
        options = json.dumps(self.options, sort_keys=True)
        told = Factory(
            entry=self.factory,
            code_hash=self.code,
            weights_hash=self.weights_hash,
            options=options,
            groups=self.groups,
            **self.input.model_dump(),
        )
        return BackboneSpec(self.name, self.weights, told)

    def what_counts(self, counts: dict[str, Any]) -> None:
        """Take out of a dump what cannot change a number, or was not there before own encoders were."""
        if self.factory is None:
            for key in ("factory", "options", "input", "groups", "code", "weights_hash"):
                del counts[key]
        elif self.weights_hash:
            del counts["weights"]  # the content is in the hash, wherever the file lies


class Sampler(Part):
    """How configurations are suggested; the first ``startup_trials`` are random, or fill the space evenly."""

    kind: Literal["ratio", "gp", "tpe", "random"] = "ratio"
    startup_trials: int = Field(default=10, ge=0, le=MANY)
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Another number, another search of the same study: other suggestions, with other tuning seeds."""


class Pruner(Part):
    """Which runs are stopped early, on the task's own validation loss."""

    kind: Literal["none", "median", "improvement"] = "improvement"
    warmup_epochs: int = Field(default=3, ge=0, le=MANY)
    startup_trials: int = Field(default=5, ge=0, le=MANY)


class Replicate(Part):
    """The last part of the budget goes to fresh tuning seeds for the ``top`` configurations."""

    top: int = Field(gt=0, le=MANY)
    seeds: int = Field(gt=0, le=MANY)


class Budget(Part):
    """Finished trials of the whole study, unless the command line says otherwise."""

    trials: int = Field(default=100, gt=0, le=MANY)
    known_within: float | None = Field(default=None, gt=1)
    """End earlier, once the 95 % interval of the best ratio lies within this factor of it."""


class PublishedResult(Part):
    """A number from the literature or the diary, to stand beside ours."""

    name: str
    metrics: dict[str, float]
    source: str
    comparable: str = ""
    """In words: what of it cannot be compared."""


def disagreements(
    task: object,
    backbone: Backbone | None,
    losses: Sequence[str],
    space: Space | None,
    configurations: Mapping[KeyPath, NamedConfiguration],
    data: object = None,
    recipe: Recipe | None = None,
) -> list[tuple[KeyPath, str]]:
    """Return what does not fit together, as (key, text); parts that are None are faulty by themselves.

    ``data``: a user's own signals, or (faulty by itself) something else that is not None.
    """
    wrong, what = _task_faults(task, data)
    if backbone is not None:
        wrong += _backbone_faults(backbone, what)
    wrong += choice_faults(space, losses, recipe, what, has_layers=_has_layers(backbone))
    for place, loss in enumerate(losses):
        wrong += _loss_faults(("space", "loss", place), loss, what)
        if loss in losses[:place]:
            said = Said("{value} twice; expected it once", value=loss)
            wrong.append((("space", "loss", place), said))
    for path, configuration in configurations.items():
        wrong += _loss_faults((*path, "loss"), configuration.loss, what)
        if space is not None:
            wrong += _outside(path, configuration, space)
            wrong += named_faults(path, configuration.choices, space.choices)
    return wrong


def _has_layers(backbone: Backbone | None) -> bool:
    """Return whether layers of the encoder can have rates of their own, as far as is known."""
    return backbone is None or backbone.factory is None or backbone.groups is not None


def _task_faults(task: object, data: object) -> tuple[list[tuple[KeyPath, str]], Task | None]:
    """Return what is wrong with task and data together, and the task that they name (None: not known)."""
    own = data.signals() if isinstance(data, OwnSignals) else None
    if data is None and task in (None, ""):
        return [(("task",), "missing key 'task'; expected task: (one of ours) or data: (your signals)")], None
    if data is not None and task not in (None, "", own.name if own else task):
        return [(("task",), "both task and data are given; expected one of them")], None
    if own is not None:
        return [], find_task(own.name, own)
    if data is not None:
        return [], None
    return _unknown(("task",), "task", task, list(TASKS)), TASKS.get(task) if isinstance(task, str) else None


def _unknown(path: KeyPath, kind: str, name: object, names: Sequence[str]) -> list[tuple[KeyPath, str]]:
    if not isinstance(name, str) or name in names:
        return []
    return [
        (
            path,
            Said(
                "unknown {kind} {name!r}; expected one of {names}{nearest}",
                kind=Said(kind),
                name=name,
                names=", ".join(names),
                nearest=nearest(name, names),
            ),
        )
    ]


def _backbone_faults(backbone: Backbone, task: Task | None) -> list[tuple[KeyPath, str]]:
    if task is None:
        return _unknown(("backbone", "name"), "backbone", backbone.name, list(BACKBONES))
    try:
        check_backbone(backbone.spec(), task)
    except FinetuneError as error:
        key = "weights" if "weights" in error.what else "name"
        return [(("backbone", key), error.line)]
    return []


def _loss_faults(path: KeyPath, loss: str, task: Task | None) -> list[tuple[KeyPath, str]]:
    fitting = LOSSES if task is None else task.losses
    if task is not None and loss in LOSSES and loss not in fitting:
        return [
            (
                path,
                Said(
                    "loss {loss!r} does not fit task {name!r}; expected one of {fitting}",
                    loss=loss,
                    name=task.name,
                    fitting=", ".join(fitting),
                ),
            )
        ]
    return _unknown(path, "loss", loss, fitting)


def _outside(path: KeyPath, configuration: NamedConfiguration, space: Space) -> list[tuple[KeyPath, str]]:
    wrong: list[tuple[KeyPath, str]] = []
    for name, bounds in (("lr", space.lr), ("backbone_lr", space.backbone_lr)):
        value = getattr(configuration, name)
        if not bounds.contains(value):
            key = (*path, name)
            allowed = (
                Said("{low} to {high}", low=bounds.low, high=bounds.high)
                if bounds.low < bounds.high
                else str(bounds.low)
            )
            wrong.append(
                (
                    key,
                    Said(
                        "{key} {value} is outside the space; expected {allowed}",
                        key=dotted(key),
                        value=value,
                        allowed=allowed,
                    ),
                )
            )
    if configuration.loss in LOSSES and configuration.loss not in space.loss:
        wrong.append(
            (
                (*path, "loss"),
                Said(
                    "loss {loss!r} is not in space.loss; expected one of {losses}",
                    loss=configuration.loss,
                    losses=", ".join(space.loss),
                ),
            )
        )
    return wrong
