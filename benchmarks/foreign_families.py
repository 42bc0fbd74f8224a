"""Families of landscapes that the model of hpo.analysis was not made for, each with its true answer.

Expected validation loss over (log10 lr, log10 backbone_lr, loss), the seed's noise there, and how fast a run
learns, in the units of benchmarks/simulated_studies.py: the best expected loss is about 1, the worst plateau
lies RANGE above it. TUNED are the families that choices of the model were made on, OWN the five of
simulated_studies; all others are only judged on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import simulated_studies as simulated
from numpy.typing import NDArray
from simulated_studies import EPOCHS, LOSSES, RANGE, SPACE

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Level = Callable[[Floats, Floats, Ints], Floats]
"""(log10 lr, log10 backbone_lr, index of the loss) -> something of their shape."""

STEP = 0.02
"""Decades between the points of the grid on which the truth is worked out."""
LR = np.arange(np.log10(SPACE.lr.low), np.log10(SPACE.lr.high) + STEP / 2, STEP)
SLOW = np.arange(np.log10(SPACE.backbone_lr.low), np.log10(SPACE.backbone_lr.high) + STEP / 2, STEP)


def normal(rng: np.random.Generator) -> float:
    """Draw a seed's luck: mean 0, variance 1."""
    return float(rng.standard_normal())


def lognormal(rng: np.random.Generator) -> float:
    """Mostly a little good luck, sometimes much bad: skewness 6."""
    mean, sd = np.exp(0.5), np.sqrt((np.e - 1) * np.e)
    return float((np.exp(rng.standard_normal()) - mean) / sd)


def heavy(rng: np.random.Generator) -> float:
    """Student's t with 2.5 degrees of freedom."""
    return float(rng.standard_t(2.5) / np.sqrt(5.0))


def failing(rng: np.random.Generator) -> float:
    """One seed in ten ends five deviations of the others worse."""
    fails, spread = 5.0 * (rng.random() < 0.1), np.sqrt(1 + 25 * 0.1 * 0.9)
    return float((rng.standard_normal() + fails - 0.5) / spread)


def _even(lr: Floats, slow: Floats, loss: Ints) -> Floats:
    return np.ones(np.broadcast(lr, slow, loss).shape)


def _never(lr: Floats, slow: Floats, loss: Ints) -> Floats:
    return np.zeros(np.broadcast(lr, slow, loss).shape)


def _pace(lr: Floats, slow: Floats, loss: Ints) -> Floats:
    """Epochs in which most is learned: fewer with a larger lr."""
    return np.asarray(3.0 * 10 ** (-0.3 * (lr + 3.5)))


@dataclass(frozen=True)
class Truth:
    """One landscape and all that is true of it."""

    expected: Level
    noise: float
    """Standard deviation of a seed at the best place."""
    spread: Level = _even
    """The seed's deviation elsewhere, as a multiple."""
    luck: Callable[[np.random.Generator], float] = normal
    diverges: Level = _never
    pace: Level = _pace
    grows: bool = True
    """Whether the noise is up to twice as large where the loss is bad."""

    def curve(self, lr: float, slow: float, loss: int, rng: np.random.Generator) -> Floats:
        """Return the validation losses (EPOCHS,) of one run at log10 rates; NaN where it diverged."""
        at = np.array(lr), np.array(slow), np.array(loss)
        if rng.random() < self.diverges(*at):
            return np.append(1.5 + rng.random(int(rng.integers(0, 3))), np.nan)
        expected = float(self.expected(*at))
        badness = np.clip((expected - 1) / RANGE, 0.0, 1.0) if self.grows else 0.0
        final = expected + self.noise * (1 + badness) * float(self.spread(*at)) * self.luck(rng)
        pace = float(self.pace(*at)) * np.exp(0.2 * rng.standard_normal())
        wiggle = 0.3 * self.noise * np.abs(rng.standard_normal(EPOCHS))
        curve = 0.5 * np.exp(-np.arange(1, EPOCHS + 1) / pace + 0.1 * rng.standard_normal()) + wiggle
        return np.asarray(final + curve - curve.min())

    @cached_property
    def values(self) -> Floats:
        """(lr, backbone_lr, losses) expected loss on the grid; inf where half of the runs diverge."""
        lr, slow, loss = np.meshgrid(LR, SLOW, np.arange(len(LOSSES)), indexing="ij")
        return np.where(self.diverges(lr, slow, loss) > 0.5, np.inf, self.expected(lr, slow, loss))

    @property
    def lowest(self) -> float:
        """The best expected loss."""
        return float(self.values.min())

    def excess(self, axis: str) -> tuple[Floats, Floats]:
        """Return log10 lr, backbone_lr or ratio, rising, and how much the best there loses."""
        return excess_of(LR, SLOW, self.values, axis)


def excess_of(lr: Floats, slow: Floats, values: Floats, axis: str) -> tuple[Floats, Floats]:
    """Return an axis and the profile of values (lr, backbone_lr, losses) above the lowest."""
    best = values.min(axis=2) - values.min()
    if axis == "lr":
        return lr, best.min(axis=1)
    if axis == "backbone_lr":
        return slow, best.min(axis=0)
    offsets = range(len(slow) - 1, -len(lr), -1)
    low = np.array([best.diagonal(offset).min() for offset in offsets])
    return lr[0] - slow[-1] + STEP * np.arange(len(low)), low


def bowl(*parts: Floats) -> Floats:
    """Return 0 in the middle and 1 far from it, by distances in widths."""
    return np.asarray(-np.expm1(-sum(part * part for part in parts)))


Maker = Callable[[np.random.Generator, float], Truth]
FAMILIES: dict[str, Maker] = {}
TUNED = {"ridge_lr", "ridge_backbone", "own_optima", "own_levels", "valley", "two_basins", "skewed",
         "noise_backbone"}  # fmt: skip
OWN = set(simulated.LANDSCAPES)
"""Choices were made on them too, long ago."""
MATTERS: Mapping[str, str] = {"ridge_lr": "lr", "ridge_backbone": "backbone_lr", "ridge_ratio": "ratio"}
"""Families in which one thing matters, and nothing else."""


def family(maker: Maker) -> Maker:
    """Add a family under its maker's name."""
    FAMILIES[maker.__name__] = maker
    return maker


def inside(rng: np.random.Generator, edge: float = 0.5) -> tuple[float, float]:
    """Return log10 lr and backbone_lr of a place at least so many decades inside the box."""
    lr, slow = rng.uniform(LR[0] + edge, LR[-1] - edge), rng.uniform(SLOW[0] + edge, SLOW[-1] - edge)
    return float(lr), float(slow)


def far_apart(rng: np.random.Generator, decades: float = 1.8) -> tuple[tuple[float, float], ...]:
    """Return two places inside that lie so far from each other."""
    while True:
        one, other = inside(rng, 0.3), inside(rng, 0.3)
        if np.hypot(one[0] - other[0], one[1] - other[1]) > decades:
            return one, other


def offsets_of(rng: np.random.Generator, *sizes: float) -> Floats:
    """Return what each loss adds, in random order."""
    return np.asarray(rng.permutation(sizes or (0.0, 0.02, 0.05)))


def plain(rng: np.random.Generator, narrow: float = 0.5, wide: float = 0.9) -> Level:
    """Return a round bowl somewhere inside, losses a little apart."""
    (lr, slow), off = inside(rng), offsets_of(rng)
    a, b = rng.uniform(narrow, wide, 2)
    return lambda x, y, k: 1 + off[k] + RANGE * bowl((x - lr) / a, (y - slow) / b)


def _ridge(rng: np.random.Generator, noise: float, across: Callable[[Floats, Floats], Floats]) -> Truth:
    lr, slow = inside(rng)
    middle, width, off = across(np.array(lr), np.array(slow)), rng.uniform(0.5, 0.9), offsets_of(rng)
    return Truth(lambda x, y, k: 1 + off[k] + RANGE * bowl((across(x, y) - middle) / width), noise)


@family
def ridge_lr(rng: np.random.Generator, noise: float) -> Truth:
    """Only lr matters."""
    return _ridge(rng, noise, lambda x, y: x + 0 * y)


@family
def ridge_backbone(rng: np.random.Generator, noise: float) -> Truth:
    """Only backbone_lr matters."""
    return _ridge(rng, noise, lambda x, y: y + 0 * x)


@family
def ridge_ratio(rng: np.random.Generator, noise: float) -> Truth:
    """Only the ratio matters."""
    return _ridge(rng, noise, lambda x, y: x - y)


@family
def ridge_product(rng: np.random.Generator, noise: float) -> Truth:
    """Only lr times backbone_lr matters."""
    return _ridge(rng, noise, lambda x, y: x + y)


@family
def valley(rng: np.random.Generator, noise: float) -> Truth:
    """The best lr depends on backbone_lr, and not along a line."""
    (lr, slow), off = inside(rng, 0.8), offsets_of(rng)
    bend, width = rng.choice([-1, 1]) * rng.uniform(0.25, 0.45), rng.uniform(0.4, 0.6)
    return Truth(
        lambda x, y, k: (
            1 + off[k] + RANGE * bowl((x - lr - bend * (y - slow) ** 2) / width, (y - slow) / 2.5)
        ),
        noise,
    )


def _two(rng: np.random.Generator, noise: float, widths: tuple[float, float], second: float) -> Truth:
    places, off = far_apart(rng), offsets_of(rng)
    depths = 1.0, second

    def expected(x: Floats, y: Floats, k: Ints) -> Floats:
        dips = [
            depth * (1 - bowl((x - lr) / width, (y - slow) / width))
            for (lr, slow), width, depth in zip(places, widths, depths, strict=True)
        ]
        return np.asarray(1 + off[k] + RANGE * (1 - np.maximum(*dips)))

    return Truth(expected, noise)


@family
def two_basins(rng: np.random.Generator, noise: float) -> Truth:
    """Two basins far apart, one a fifth less deep."""
    return _two(rng, noise, (0.5, 0.5), 0.8)


@family
def narrow_deep(rng: np.random.Generator, noise: float) -> Truth:
    """The deepest place is a narrow basin, far from a wide one."""
    return _two(rng, noise, (0.25, 1.0), 0.7)


@family
def twins(rng: np.random.Generator, noise: float) -> Truth:
    """Two basins far apart, equally deep: two places are best."""
    return _two(rng, noise, (0.6, 0.6), 1.0)


@family
def cliff(rng: np.random.Generator, noise: float) -> Truth:
    """The larger backbone_lr the better, up to a wall."""
    (lr, wall), off = inside(rng, 0.7), offsets_of(rng)

    def expected(x: Floats, y: Floats, k: Ints) -> Floats:
        slope = 0.8 * np.clip((wall - y) / 2, 0, 1)
        return np.asarray(
            1 + off[k] + RANGE * np.where(y > wall, 1.0, np.maximum(slope, bowl((x - lr) / 1.2)))
        )

    return Truth(expected, noise)


@family
def notch(rng: np.random.Generator, noise: float) -> Truth:
    """A wide basin with a narrow strip of bad ratios through it."""
    (lr, slow), off = inside(rng), offsets_of(rng)
    at = lr - slow + rng.choice([-1, 1]) * rng.uniform(0.3, 0.7)
    return Truth(
        lambda x, y, k: (
            1
            + off[k]
            + RANGE
            * np.maximum(bowl((x - lr) / 1.2, (y - slow) / 1.2), 0.6 * (1 - bowl((x - y - at) / 0.12)))
        ),
        noise,
    )


@family
def skewed(rng: np.random.Generator, noise: float) -> Truth:
    """Seeds with a long tail of bad luck."""
    return Truth(plain(rng), noise, luck=lognormal)


@family
def heavy_tailed(rng: np.random.Generator, noise: float) -> Truth:
    """Seeds with long tails on both sides."""
    return Truth(plain(rng), noise, luck=heavy)


@family
def failures(rng: np.random.Generator, noise: float) -> Truth:
    """One seed in ten fails, everywhere, and ends much worse."""
    return Truth(plain(rng), noise, luck=failing)


@family
def noise_backbone(rng: np.random.Generator, noise: float) -> Truth:
    """The noise grows with backbone_lr as on PTB-XL: by a quarter of a decade a decade."""
    return noisier(rng, noise, lambda lr, slow: lambda x, y, k: 10 ** (0.25 * (y - slow)))


@family
def noise_lr(rng: np.random.Generator, noise: float) -> Truth:
    """The noise grows with lr."""
    return noisier(rng, noise, lambda lr, slow: lambda x, y, k: 10 ** (0.35 * (x - lr)))


def noisier(rng: np.random.Generator, noise: float, spread_of: Callable[[float, float], Level]) -> Truth:
    """Return a bowl whose noise is spread as ``spread_of`` its best lr and backbone_lr (log10) says."""
    lr, slow = inside(rng)
    off = offsets_of(rng)
    a, b = rng.uniform(0.5, 0.9, 2)
    return Truth(
        lambda x, y, k: 1 + off[k] + RANGE * bowl((x - lr) / a, (y - slow) / b),
        noise,
        spread=spread_of(lr, slow),
        grows=False,
    )


@family
def unequal_noise(rng: np.random.Generator, noise: float) -> Truth:
    """All means are equal; the noise is not."""
    slope = rng.choice([-1, 1]) * rng.uniform(0.2, 0.4)
    return Truth(lambda x, y, k: 1 + 0 * (x + y + k), noise, spread=lambda x, y, k: 10 ** (slope * (y + 4.5)))


@family
def nothing(rng: np.random.Generator, noise: float) -> Truth:
    """Nothing matters at all."""
    return Truth(lambda x, y, k: 1 + 0 * (x + y + k), noise)


@family
def own_optima(rng: np.random.Generator, noise: float) -> Truth:
    """Each loss has its own best ratio, 1.4 decades apart."""
    lr, off = float(rng.uniform(-4.2, -2.8)), offsets_of(rng, 0.0, 0.01, 0.02)
    ratios = lr - rng.permutation([-5.9, -4.5, -3.1])
    a, b = rng.uniform(0.6, 1.0), rng.uniform(0.5, 0.8)
    return Truth(lambda x, y, k: 1 + off[k] + RANGE * bowl((x - lr) / a, (x - y - ratios[k]) / b), noise)


@family
def own_levels(rng: np.random.Generator, noise: float) -> Truth:
    """Losses lie far apart in level, everywhere."""
    (lr, slow), off = inside(rng), offsets_of(rng, 0.0, 0.1, 0.2)
    a, b = rng.uniform(0.5, 1.2, 2)
    return Truth(lambda x, y, k: 1 + off[k] + RANGE * bowl((x - lr) / a, (y - slow) / b), noise)


@family
def own_widths(rng: np.random.Generator, noise: float) -> Truth:
    """A loss that forgives every rate beside one that is better only where its rates are right."""
    (lr, slow), off = inside(rng), np.array([0.0, 0.03, 0.05])
    order = rng.permutation(3)
    a, b = np.array([0.35, 1.5, 0.8])[order], np.array([0.35, 0.8, 1.5])[order]
    return Truth(lambda x, y, k: 1 + off[order][k] + RANGE * bowl((x - lr) / a[k], (y - slow) / b[k]), noise)


@family
def one_loss(rng: np.random.Generator, noise: float) -> Truth:
    """Only one loss learns anything."""
    (lr, slow), works = inside(rng), int(rng.integers(3))
    a, b = rng.uniform(0.5, 0.9, 2)
    return Truth(
        lambda x, y, k: 1 + RANGE * np.where(k == works, bowl((x - lr) / a, (y - slow) / b), 1.0), noise
    )


@family
def outside(rng: np.random.Generator, noise: float) -> Truth:
    """The optimum lies beyond an end of the box."""
    (lr, slow), beyond = inside(rng), rng.uniform(0.3, 1.2)
    if rng.random() < 0.5:
        slow = float(SLOW[-1] + beyond if rng.random() < 0.5 else SLOW[0] - beyond)
    else:
        lr = float(LR[-1] + beyond if rng.random() < 0.5 else LR[0] - beyond)
    off = offsets_of(rng)
    a, b = rng.uniform(0.8, 1.2, 2)
    return Truth(lambda x, y, k: 1 + off[k] + RANGE * bowl((x - lr) / a, (y - slow) / b), noise)


@family
def plateau(rng: np.random.Generator, noise: float) -> Truth:
    """All ratios within a range are equally good; beyond it a steep wall."""
    (lr, slow), off, half = inside(rng, 0.8), offsets_of(rng), rng.uniform(0.5, 1.0)
    return Truth(
        lambda x, y, k: (
            1 + off[k] + RANGE * bowl(np.maximum(np.abs(x - y - (lr - slow)) - half, 0) / 0.3, (x - lr) / 1.5)
        ),
        noise,
    )


@family
def terraces(rng: np.random.Generator, noise: float) -> Truth:
    """A bowl of four steps."""
    (lr, slow), off = inside(rng), offsets_of(rng)
    a, b = rng.uniform(0.8, 1.2, 2)
    return Truth(
        lambda x, y, k: 1 + off[k] + RANGE * np.floor(4 * bowl((x - lr) / a, (y - slow) / b)) / 4, noise
    )


@family
def corner(rng: np.random.Generator, noise: float) -> Truth:
    """The worse of two rates alone decides: a square bowl."""
    (lr, slow), off = inside(rng), offsets_of(rng)
    a, b = rng.uniform(0.5, 0.9, 2)
    return Truth(
        lambda x, y, k: 1 + off[k] + RANGE * bowl(np.maximum(np.abs(x - lr) / a, np.abs(y - slow) / b)),
        noise,
    )


@family
def lopsided(rng: np.random.Generator, noise: float) -> Truth:
    """Gentle below the best backbone_lr, steep above it."""
    (lr, slow), off = inside(rng), offsets_of(rng)
    a = rng.uniform(0.6, 1.0)
    return Truth(
        lambda x, y, k: 1 + off[k] + RANGE * bowl((x - lr) / a, (y - slow) / np.where(y > slow, 0.25, 1.5)),
        noise,
    )


@family
def slow_starters(rng: np.random.Generator, noise: float) -> Truth:
    """What is best in the end learns slowest."""
    (lr, slow), off = inside(rng), offsets_of(rng)
    a, b = rng.uniform(0.5, 0.9, 2)

    def badness(x: Floats, y: Floats) -> Floats:
        return bowl((x - lr) / a, (y - slow) / b)

    return Truth(
        lambda x, y, k: 1 + off[k] + RANGE * badness(x, y),
        noise,
        pace=lambda x, y, k: 1.5 + 4.5 * (1 - badness(x, y)),
    )


def _own(name: str) -> Maker:
    def make(rng: np.random.Generator, noise: float) -> Truth:
        one = simulated.LANDSCAPES[name](rng, noise)
        return Truth(
            lambda x, y, k: one.expected(x, x - y, k), noise, diverges=lambda x, y, k: one.diverges(x)
        )

    return make


FAMILIES |= {name: _own(name) for name in simulated.LANDSCAPES}
