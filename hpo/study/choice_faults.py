"""What is wrong with the choices of a study, seen beside the rest of its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from pydantic import ValidationError

from finetune.api import Task
from hpo.errors import Said
from hpo.study.choices import MOST_COMBINATIONS, Value, combinations, value_words
from hpo.study.recipe import Recipe, Searched, default_of
from hpo.study.yaml_lines import Path as KeyPath

OF_LAYERS = ("layer_decay", "unfreeze_epochs")
"""Keys that need an encoder whose layers are known."""
_Faults = Iterator[tuple[KeyPath, str]]


def choice_faults(
    searched: Searched | None,
    losses: Sequence[str],
    recipe: Recipe | None,
    task: Task | None,
    *,
    has_layers: bool,
) -> _Faults:
    """Give what does not fit together, as (key, text); parts that are None are faulty by themselves."""
    for path, key, value in _all_values(searched, recipe):
        if key in OF_LAYERS and value != default_of(key) and not has_layers:
            yield (
                path,
                Said(
                    "{key} {value} of an encoder without groups; expected backbone.groups",
                    key=key,
                    value=value_words(value),
                ),
            )
        if key == "label_smoothing" and value and task is not None and task.kind == "regression":
            yield path, Said("label_smoothing {value} of a regression; expected 0", value=value_words(value))
    if searched is None:
        return
    if recipe is not None:
        yield from _against_the_recipe(searched, recipe)
    count = combinations(losses, searched.choices)
    if count > MOST_COMBINATIONS and searched.choices:
        last = list(searched.choices)[-1]
        yield (
            ("space", last),
            Said(
                "{count} combinations of losses and choices; expected at most {most}",
                count=count,
                most=MOST_COMBINATIONS,
            ),
        )


def _all_values(searched: Searched | None, recipe: Recipe | None) -> Iterator[tuple[KeyPath, str, Value]]:
    """Give every value of a recipe's keys, fixed or searched, with its place in the file."""
    choices = {} if searched is None else searched.choices
    for key, values in choices.items():
        for place, value in enumerate(values):
            yield ("space", key, place), key, value
    for key in (*OF_LAYERS, "label_smoothing") if recipe is not None else ():
        if key not in choices:
            yield ("recipe", key), key, getattr(recipe, key)


def _against_the_recipe(searched: Searched, recipe: Recipe) -> _Faults:
    for key, values in searched.choices.items():
        if getattr(recipe, key) != default_of(key):
            yield ("space", key), Said("{key} is in recipe too; expected it in one of them", key=key)
        for place, value in enumerate(values):
            try:
                Recipe.model_validate({**recipe.model_dump(), key: value})
            except ValidationError as error:
                yield ("space", key, place), str(error.errors()[0]["msg"])


def named_faults(
    path: KeyPath, named: Mapping[str, Value], choices: Mapping[str, Sequence[Value]]
) -> _Faults:
    """Give what a named configuration says of choices that the space has not, or does not say."""
    for key, value in named.items():
        if key not in choices:
            yield (
                (*path, key),
                Said("{key} is not searched; expected it in recipe, or a list of values in space", key=key),
            )
        elif value not in choices[key]:
            yield (*path, key), _outside(key, value, choices[key])
    for key, values in choices.items():
        if key not in named:
            said = Said(
                "{key} is missing, and a recipe's own {value} is not in space.{key}",
                key=key,
                value=value_words(default_of(key)),
            )
            yield (
                path,
                Said(
                    "{said}; expected one of {values}", said=said, values=", ".join(map(value_words, values))
                ),
            )


def _outside(key: str, value: Value, values: Sequence[Value]) -> str:
    listed = ", ".join(map(value_words, values))
    return Said(
        "{key} {value} is not in space.{key}; expected one of {listed}",
        key=key,
        value=value_words(value),
        listed=listed,
    )
