"""The search box in log10 rates, and a lattice on it.

Notation: I points along log10 lr and J along log10 ratio, with one step, so that log10 backbone_lr lies on
the same lattice. Points of the lattice outside the box are infeasible.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hpo.study.choices import Choices, Value

Floats = NDArray[np.float64]

STEP_DECADES = 0.1
HAIR_DECADES = 0.01
"""A fixed rate is a range that ends this far from it: a width of its own would divide by zero."""


class Bounds(Protocol):
    """A range of learning rates, both ends included."""

    @property
    def low(self) -> float: ...  # noqa: D102
    @property
    def high(self) -> float: ...  # noqa: D102


class SearchSpace(Protocol):
    """What of a spec's space the analysis reads; perhaps ``choices``, values by their names."""

    @property
    def lr(self) -> Bounds: ...  # noqa: D102
    @property
    def backbone_lr(self) -> Bounds: ...  # noqa: D102
    @property
    def loss(self) -> Sequence[str]: ...  # noqa: D102


def choices_in(space: SearchSpace) -> Mapping[str, Sequence[Value]]:
    """Return the values of each choice of a space, by its name; nothing where it knows no choices."""
    found: Mapping[str, Sequence[Value]] = getattr(space, "choices", {})
    return found


@dataclass(frozen=True)
class Box:
    """The ranges of the search, in log10, the losses and the choices.

    A *combination* is a loss with a value of each choice: C of them, one for each loss where there are no
    choices.
    """

    lr: tuple[float, float]
    backbone_lr: tuple[float, float]
    losses: tuple[str, ...]
    choices: tuple[tuple[str, tuple[Value, ...]], ...] = ()

    @classmethod
    def of(cls, space: SearchSpace) -> Box:
        """Return the box of a spec's space."""
        choices = tuple((name, tuple(values)) for name, values in choices_in(space).items())
        return cls(_ends(space.lr), _ends(space.backbone_lr), tuple(space.loss), choices)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many losses there are, and values of each choice."""
        return (len(self.losses), *(len(values) for _, values in self.choices))

    @cached_property
    def combinations(self) -> Floats:
        """(C, 1 + K) the indices of loss and values of each combination, the last changing fastest."""
        return np.indices(self.sizes).reshape(len(self.sizes), -1).T.astype(np.float64)

    def levels(self, loss: str, choices: Mapping[str, Value]) -> list[int]:
        """Return the indices (1 + K) of a loss and of choices; those that the box lacks raise ValueError."""
        return [
            self.losses.index(loss),
            *(values.index(choices.get(name)) for name, values in self.choices),
        ]

    def named(self, levels: Sequence[float] | Floats) -> tuple[str, Choices]:
        """Return the loss and the choices with the indices (1 + K)."""
        pairs = zip(self.choices, levels[1:], strict=True)
        return self.losses[int(levels[0])], Choices(
            {name: values[int(place)] for (name, values), place in pairs}
        )

    @property
    def ratio(self) -> tuple[float, float]:
        """Smallest and largest log10 ratio in the box."""
        return self.lr[0] - self.backbone_lr[1], self.lr[1] - self.backbone_lr[0]

    @property
    def narrower_decades(self) -> float:
        """Width of the narrower of the two searched ranges."""
        return min(self.lr[1] - self.lr[0], self.backbone_lr[1] - self.backbone_lr[0])


def _ends(bounds: Bounds) -> tuple[float, float]:
    low, high = np.log10([bounds.low, bounds.high])
    hair = HAIR_DECADES if low == high else 0.0
    return float(low) - hair, float(high) + hair


@dataclass(frozen=True)
class Lattice:
    """The box as a lattice: log10 lr (I,), log10 ratio (J,), which points are feasible (I, J)."""

    box: Box
    lr: Floats
    ratio: Floats
    feasible: NDArray[np.bool_]

    @classmethod
    def of(cls, box: Box, step: float = STEP_DECADES) -> Lattice:
        """Return the lattice whose step is the one nearest to ``step`` that divides the lr range."""
        size = max(2, round((box.lr[1] - box.lr[0]) / step)) + 1
        lr = np.linspace(*box.lr, size, dtype=np.float64)
        step = float(lr[1] - lr[0])
        count = round((box.ratio[1] - box.ratio[0]) / step) + 1
        ratio = box.ratio[0] + step * np.arange(count, dtype=np.float64)
        backbone_lr = lr[:, None] - ratio[None, :]
        inside = (backbone_lr >= box.backbone_lr[0] - 0.5 * step) & (backbone_lr <= box.backbone_lr[1] + 1e-9)
        return cls(box, lr, ratio, np.asarray(inside))

    @property
    def step(self) -> float:
        """Decades between neighbours."""
        return float(self.lr[1] - self.lr[0])

    @property
    def backbone_lr(self) -> Floats:
        """log10 backbone_lr (K,), falling."""
        width = self.box.backbone_lr[1] - self.box.backbone_lr[0]
        count = int(np.floor(width / self.step + 1e-6)) + 1
        return np.asarray(self.lr[0] - self.ratio[0] - self.step * np.arange(count, dtype=np.float64))

    def on_box(self, landscapes: Floats) -> Floats:
        """Return landscapes (..., I, J) over lr and ratio as (..., I, K) over lr and backbone_lr.

        A backbone_lr is a diagonal of the lattice.
        """
        rows = np.arange(len(self.lr))[:, None]
        return np.asarray(landscapes[..., rows, rows + np.arange(len(self.backbone_lr))[None, :]])

    def points(self, combination: int) -> Floats:
        """Return the surrogate's points (I * J, 3 + K) of one combination, ratio fastest."""
        lr, ratio = np.meshgrid(self.lr, self.ratio, indexing="ij")
        levels = [np.full(lr.size, level) for level in self.box.combinations[combination]]
        return np.stack([lr.ravel(), ratio.ravel(), *levels], axis=1)

    def place(self, combination: int, lr: float, ratio: float) -> Floats:
        """Return a point (3 + K) of one combination."""
        return np.array([lr, ratio, *self.box.combinations[combination]], dtype=np.float64)
