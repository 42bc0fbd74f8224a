"""How a run is trained: what a study fixes, and which of it it may search as a choice. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_serializer,
    model_validator,
)

from finetune.api import Precision, Schedule
from hpo.errors import Said
from hpo.study.choices import MOST_VALUES, Value, value_words
from hpo.study.part import HUGE, MANY, Part, file_fault
from hpo.study.yaml_lines import expected_by, nearest

SEARCHABLE = (
    "batch_size",
    "patience",
    "weight_decay",
    "dropout",
    "max_grad_norm",
    "precision",
    "schedule",
    "warmup_epochs",
    "head_epochs",
    "unfreeze_epochs",
    "layer_decay",
    "label_smoothing",
)
"""Keys of a recipe that a space may list."""
NAMES = (*SEARCHABLE, "lp_epochs")
"""As a file may call them."""
RECIPE_KEYS_OF_LATER = (
    "schedule",
    "warmup_epochs",
    "head_epochs",
    "unfreeze_epochs",
    "layer_decay",
    "label_smoothing",
    "accumulate",
    "checkpoint_activations",
)


class Recipe(Part):
    """What stays fixed in every trial, unless the space searches it; see :class:`finetune.spec.Recipe`."""

    epochs: int = Field(default=20, gt=0, le=MANY)
    batch_size: int = Field(default=64, gt=0, le=MANY)
    patience: int = Field(default=5, gt=0, le=MANY)
    weight_decay: float = Field(default=1e-4, ge=0, le=HUGE)
    dropout: float | None = Field(default=None, ge=0, lt=1)
    max_grad_norm: float | None = Field(default=None, gt=0, le=1e30)
    precision: Precision = "fp32"
    schedule: Schedule = "constant"
    warmup_epochs: float = Field(default=0, ge=0, le=MANY)
    head_epochs: int = Field(
        default=0, ge=0, le=MANY, validation_alias=AliasChoices("head_epochs", "lp_epochs")
    )
    """Also ``lp_epochs``, as papers on linear probing before fine-tuning say."""
    unfreeze_epochs: int = Field(default=0, ge=0, le=MANY)
    layer_decay: float = Field(default=1, gt=0, le=1)
    label_smoothing: float = Field(default=0, ge=0, lt=1)
    accumulate: int = Field(default=1, gt=0, le=MANY)
    checkpoint_activations: bool = False

    @model_validator(mode="after")
    def _leaves_epochs(self) -> Self:
        for key in ("warmup_epochs", "head_epochs", "unfreeze_epochs"):
            if getattr(self, key) and getattr(self, key) >= self.epochs:
                raise file_fault(
                    Said(
                        "{key} {value} of {epochs} epochs; expected fewer than the epochs",
                        key=key,
                        value=getattr(self, key),
                        epochs=self.epochs,
                    )
                )
        return self

    def what_counts(self, counts: dict[str, Any]) -> None:
        """Take out of a dump what was not there before and has its default: fingerprints stay."""
        for key in RECIPE_KEYS_OF_LATER:
            if getattr(self, key) == type(self).model_fields[key].default:
                del counts[key]


def _as_the_recipe_takes_it(value: Any, info: ValidationInfo) -> Any:
    """Return a listed value as a recipe holds it; a fault where a recipe would refuse it."""
    assert info.field_name is not None
    return as_a_recipe_has_it(info.field_name, value)[1]


def as_a_recipe_has_it(key: str, value: Any) -> tuple[str, Value]:
    """Return a key by its own name and its value as a recipe holds it; a fault where a recipe refuses it."""
    name = _own_name(key)
    if name not in SEARCHABLE:
        expected = Said(
            "one of {names}{nearest}", names=", ".join(SEARCHABLE), nearest=nearest(key, SEARCHABLE)
        )
        raise file_fault(Said("unknown key {key!r}; expected {expected}", key=key, expected=expected))
    try:
        found: Value = getattr(Recipe.model_validate({"epochs": MANY, name: value}), name)
    except ValidationError as error:
        said = Said(
            "{key} is {value!r}; expected {expected}, as in recipe",
            key=key,
            value=value,
            expected=expected_by(error),
        )
        raise file_fault(said) from error
    return name, found


_Options = tuple[Annotated[Any, BeforeValidator(_as_the_recipe_takes_it)], ...] | None


class Searched(Part):
    """Keys of a recipe that a study searches: 2 to 6 values each, None where the recipe fixes it.

    Not the epochs: they are what a trial costs, and every curve is read against them.
    """

    batch_size: _Options = None
    patience: _Options = None
    weight_decay: _Options = None
    dropout: _Options = None
    max_grad_norm: _Options = None
    precision: _Options = None
    schedule: _Options = None
    warmup_epochs: _Options = None
    head_epochs: _Options = Field(default=None, validation_alias=AliasChoices("head_epochs", "lp_epochs"))
    unfreeze_epochs: _Options = None
    layer_decay: _Options = None
    label_smoothing: _Options = None

    @field_validator(*SEARCHABLE, mode="before")
    @classmethod
    def _is_a_short_list(cls, given: Any) -> Any:
        if given is None:
            return None
        if not isinstance(given, list | tuple):
            raise file_fault(Said("it is {given!r}; expected a list of values", given=given))
        if not 2 <= len(given) <= MOST_VALUES:
            raise file_fault(Said("{count} values; expected 2 to {most}", count=len(given), most=MOST_VALUES))
        return given

    @field_validator(*SEARCHABLE, mode="after")
    @classmethod
    def _has_each_once(cls, listed: tuple[Value, ...] | None) -> tuple[Value, ...] | None:
        for place, value in enumerate(listed or ()):
            if value in (listed or ())[:place]:
                raise file_fault(Said("{value} twice; expected it once", value=value_words(value)))
        return listed

    @property
    def choices(self) -> dict[str, tuple[Value, ...]]:
        """The values of each searched key, by its name."""
        listed = {key: getattr(self, key) for key in SEARCHABLE}
        return {key: values for key, values in listed.items() if values is not None}

    @model_serializer(mode="wrap")
    def _as_before_without_choices(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out what is not searched: studies without choices are stored, and hashed, as they were."""
        told: dict[str, Any] = handler(self)
        return {key: value for key, value in told.items() if key not in SEARCHABLE or value is not None}


def default_of(key: str) -> Value:
    """Return what a recipe has of a key that nobody sets."""
    found: Value = Recipe.model_fields[key].default
    return found


def settle_choices(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return a study as its file has it, with all that follows from its choices said.

    What the space lists a single value of is in the recipe, and a named configuration has a recipe's own
    value of what it does not name. What is faulty stays as it is.
    """
    space, recipe = given.get("space"), given.get("recipe") or {}
    if not isinstance(space, dict) or not isinstance(recipe, dict):
        return dict(given)
    alone = {key: _single(space[key]) for key in NAMES if key in space}
    fixed = {key: one for key, one in alone.items() if key not in recipe and _is_taken(key, one)}
    listed = {_own_name(key): space[key] for key in NAMES if key in space and key not in fixed}
    defaults = {key: default_of(key) for key, values in listed.items() if _holds(values, default_of(key))}
    settled = dict(given)
    if fixed:
        settled["space"] = {key: value for key, value in space.items() if key not in fixed}
        settled["recipe"] = {**recipe, **fixed}
    if defaults:
        settled["baseline"] = _with_defaults(given.get("baseline"), defaults)
        known = given.get("known")
        if isinstance(known, list | tuple):
            settled["known"] = [_with_defaults(one, defaults) for one in known]
    return settled


def _own_name(key: str) -> str:
    return "head_epochs" if key == "lp_epochs" else key


def _single(value: Any) -> Any:
    """Return the only value of a list, or a value that is none; ``...`` for several."""
    if isinstance(value, list | tuple):
        return value[0] if len(value) == 1 else ...
    return ... if isinstance(value, dict) or value is None else value


def _is_taken(key: str, value: Any) -> bool:
    try:
        Recipe.model_validate({"epochs": MANY, key: value})
    except ValidationError:
        return False
    return True


def _holds(values: Any, default: Value) -> bool:
    return isinstance(values, list | tuple) and default in values


def _with_defaults(named: Any, defaults: Mapping[str, Value]) -> Any:
    """Return a named configuration of a file with the recipe's own values of what it does not name."""
    if not isinstance(named, dict) or not isinstance(named.get("choices", {}), Mapping):
        return named
    said = {_own_name(str(key)) for key in (*named, *named.get("choices", {}))}
    missing = {key: value for key, value in defaults.items() if key not in said}
    return {**named, "choices": {**named.get("choices", {}), **missing}} if missing else named
