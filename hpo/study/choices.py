"""Keys of a recipe that a study may search, and the values that one trial has of them. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Value = float | int | str | None
"""Of a recipe's key; None is the key's own "as it is" (the encoder's dropout, no bound on gradients)."""
MOST_VALUES = 6
"""Of one choice: more are a range, and a hundred trials tell no more apart."""
MOST_COMBINATIONS = 64
"""Of losses and choices together: of more, a search of any budget here meets most never (chosen by us)."""


class Choices(dict[str, Value]):
    """What a trial has of each searched key, by its name. Never written to: it may be a key, or in a set."""

    def __hash__(self) -> int:  # type: ignore[override]  # a dict has none
        """Return a hash of the pairs, whatever their order."""
        return hash(frozenset(self.items()))


NONE = Choices()
"""Of a study that searches rates and losses alone."""


def value_words(value: Value) -> str:
    """Return a value as it is written in a study file."""
    if value is None:
        return "null"
    return f"{value:g}" if isinstance(value, float) else str(value)


def choice_words(choices: Mapping[str, Value]) -> list[str]:
    """Return what was chosen, in pairs: ``layer_decay 0.75``."""
    return [f"{name} {value_words(value)}" for name, value in choices.items()]


def combinations(losses: Sequence[str], choices: Mapping[str, Sequence[Any]]) -> int:
    """Return how many combinations of losses and choices there are."""
    count = len(losses)
    for values in choices.values():
        count *= len(values)
    return count
