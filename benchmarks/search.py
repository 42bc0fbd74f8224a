"""Replayed searches: how many epochs until the right configuration and the right ratio are known?

    python benchmarks/search.py --world ptb-xl bidmc_hr bidmc_rr --repeats 30
    python benchmarks/search.py --world bidmc_hr:10 --method ours ours_turns_5 ours_turns_10
    python benchmarks/search.py --world sharp interacting --method ours tpe_median

A search asks for configurations; its runs come from an emulator of recorded curves
(benchmarks/record_grid.py; class Grid), or are simulated (the landscapes of benchmarks/simulated_studies.py).
Both know the expected loss of what is chosen. A peer's choice is what its user gets: its best complete trial
(SMAC3: its incumbent); ours is that of ``hpo.analysis.answer``. "+answer" is the peer's trials with ours.
Results, one line a repetition and checkpoint, go to --out as CSV; ``--summary`` prints the tables of such a
file, ``--cost 1000`` the CPU time of a suggestion after so many trials. What came of it: docs/search.md.

SMAC3 and Syne Tune are no dependencies: install them where this runs to have their methods.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import count, product
from pathlib import Path
from typing import Any, Protocol

import judged_zones
import numpy as np
import optuna
import pandas as pd
import simulated_studies as simulated
from foreign_families import STEP
from judged_zones import NEAR_DECADES, judged
from numpy.typing import NDArray
from record_grid import file_of, plan_of
from search_peers import BySmac, BySyneTune

from hpo.allocator import keep_freed_memory
from hpo.analysis import answer
from hpo.analysis.leaders import leaders
from hpo.analysis.values import Answer
from hpo.search import PastTrial, suggest
from hpo.search.prospects import learned_from
from hpo.search.pruner import ImprovementPruner
from hpo.search.race import is_behind
from hpo.search.sampler import GROWTH, Memory, RatioSampler
from hpo.search.warm import LEADERS
from hpo.study import Configuration, Sampler, load_spec
from hpo.study.setting import Setting

Floats = NDArray[np.float64]
RECORDED = ("bidmc_hr", "bidmc_rr", "ptb-xl")
NEAR = 0.5
JUDGED = ("off", "identified", *judged_zones.JUDGED)
"""What `Recorded.judge` says of an answer."""
WARM_FROM = {"bidmc_hr": "bidmc_rr", "bidmc_rr": "bidmc_hr"}
"""The other task whose search of WARM_EPOCHS ours_warm begins with."""
WARM_EPOCHS = 240
REPLICATES = 0.25
"""Share of the epochs that ours_replicated spends on a race of its leaders."""
CHECKPOINTS = (60, 80, 100, 120, 140, 160, 200, 240, 280, 320, 400, 480)
"""Epochs after which the choice is looked at, for runs of 8; in proportion for others."""


class World(Protocol):
    """Where runs come from and what is true."""

    space: Any
    epochs: int
    trivial: float
    seeds: tuple[int, ...]

    def curve(self, lr: float, backbone_lr: float, loss: str, seed: int | None = None) -> Floats:
        """Run a configuration once, with one of its seeds or a random one; NaN where it diverged."""
        ...

    def truth(self, lr: float, backbone_lr: float, loss: str) -> tuple[float, float]:
        """Return the expected loss of a choice, and its log10 ratio's distance from the best."""
        ...


class Simulated:
    """A landscape with a known answer."""

    seeds = (0, 1, 2)
    space = simulated.SPACE
    epochs = simulated.EPOCHS
    trivial = 1 + simulated.RANGE

    def __init__(self, name: str, repeat: int, noise: str = "middle") -> None:
        rng = np.random.default_rng([sorted(simulated.LANDSCAPES).index(name), repeat])
        self._noise = simulated.NOISES[noise]
        self._landscape = simulated.LANDSCAPES[name](rng, self._noise)
        self._best, self._lowest = self._landscape.best_ratio()
        self._rng = rng

    def curve(self, lr: float, backbone_lr: float, loss: str, seed: int | None = None) -> Floats:
        """Run a configuration once; seeds are nothing that runs share."""
        rates = np.log10(lr), np.log10(lr / backbone_lr)
        place = simulated.LOSSES.index(loss)
        return simulated._curve(self._landscape, self._noise, *map(float, rates), place, self._rng)

    def truth(self, lr: float, backbone_lr: float, loss: str) -> tuple[float, float]:
        """Return the regret in seed standard deviations, and the error of log10 ratio."""
        ratio = np.log10(lr / backbone_lr)
        place = np.array(simulated.LOSSES.index(loss))
        expected = float(self._landscape.expected(np.log10(lr), ratio, place))
        return (expected - self._lowest) / self._noise, abs(float(ratio) - self._best)


@dataclass(frozen=True, eq=False)
class Grid:
    """An emulator of one task from its recorded runs: what a run anywhere in the grid's box might have given.

    A few seeds a point cannot stand for themselves: a search that repeats a configuration would meet the
    same numbers again, and what is best of 90 means of three is luck. So a curve's mean is that of the
    seeds, smoothed over neighbouring rates (1/4, 1/2, 1/4) and interpolated between the points of the grid;
    and a run adds the residual of a recorded one, drawn from the same loss within a step of the nearest
    points; of one seed, if it is asked for one that was recorded there. Then the expected loss of every
    configuration is known.
    """

    task: str
    lr: Floats
    """(I,) log10, rising, evenly spaced; so is ``backbone_lr`` (K,)."""
    backbone_lr: Floats
    losses: tuple[str, ...]
    mean: Floats
    """(I, K, losses, epochs), smoothed."""
    residuals: Floats
    """(I, K, losses, seeds, epochs), of the variance of single runs; NaN where a seed was not recorded."""
    trivial: float

    @classmethod
    def load(cls, file: Path, task: str, seeds: int | None = None) -> Grid:
        """Read one task with so many of its seeds, by default those that every configuration was run with.

        None of these may have diverged.
        """
        with np.load(file) as stored:
            place = list(stored["task"]).index(task)
            everywhere = int((stored["ended"][place] != "").all(axis=(0, 1, 2)).sum())
            curves = stored["validation_loss"][place][:, :, :, : seeds or everywhere].astype(np.float64)
            provenance = json.loads(str(stored["provenance"]))["studies"][task]
            rates = np.log10(stored["lr"]), np.log10(stored["backbone_lr"])
            losses = tuple(str(loss) for loss in stored["loss"])
        assert everywhere > 1
        assert np.isfinite(curves[:, :, :, :everywhere]).all()
        mean, count = np.nanmean(curves, axis=3), np.isfinite(curves).sum(axis=3)
        residuals = (curves - mean[:, :, :, None]) * np.sqrt(count / (count - 1))[:, :, :, None]
        trivial = provenance["trivial"]["validation_loss"]
        return cls(task, *rates, losses, _smoothed(_smoothed(mean, 0), 1), residuals, trivial)

    def corners(self, lr: float, backbone_lr: float) -> list[tuple[int, int, float]]:
        """Return the points of the grid around log10 rates, each with its weight."""
        (row, down), (column, right) = (
            _between(axis, at) for axis, at in ((self.lr, lr), (self.backbone_lr, backbone_lr))
        )
        return [
            (row + i, column + k, (down if i else 1 - down) * (right if k else 1 - right))
            for i in (0, 1)
            for k in (0, 1)
        ]

    def pool(self, row: int, column: int, loss: int, seed: int | slice = slice(None)) -> Floats:
        """Return (n, epochs): the residuals within a step of a point of the grid, of one seed or of all."""
        near = self.residuals[max(row - 1, 0) : row + 2, max(column - 1, 0) : column + 2, loss, seed]
        found = near.reshape(-1, near.shape[-1])
        found = found[np.isfinite(found).all(axis=1)]
        return found if len(found) else self.pool(row, column, loss)  # a seed that was recorded nowhere near

    def mean_at(self, corners: Sequence[tuple[int, int, float]], loss: int) -> Floats:
        """Return the mean curve (epochs,)."""
        return np.asarray(sum(weight * self.mean[row, column, loss] for row, column, weight in corners))

    def expected(self, lr: float, backbone_lr: float, loss: int) -> float:
        """Return the expected lowest loss of a run at log10 rates."""
        corners = self.corners(lr, backbone_lr)
        mean = self.mean_at(corners, loss)
        lowest = ((mean + self.pool(row, column, loss)).min(axis=1).mean() for row, column, _ in corners)
        return float(sum(weight * low for (_, _, weight), low in zip(corners, lowest, strict=True)))

    def best(self) -> tuple[float, float, float, int]:
        """Return the lowest expected loss and its log10 rates and loss, on a lattice of 0.1 decades."""
        rates = (np.arange(round((axis[-1] - axis[0]) * 10) + 1) / 10 + axis[0] for axis in
                 (self.lr, self.backbone_lr))  # fmt: skip
        places = product(*rates, range(len(self.losses)))
        return min((self.expected(lr, slow, loss), lr, slow, loss) for lr, slow, loss in places)

    def seed_sd(self, lr: float, backbone_lr: float, loss: int) -> float:
        """Return the standard deviation of runs at log10 rates."""
        corners = self.corners(lr, backbone_lr)
        row, column, _ = max(corners, key=lambda corner: corner[2])
        lowest = (self.mean_at(corners, loss) + self.pool(row, column, loss)).min(axis=1)
        return float(lowest.std(ddof=1))


def _smoothed(values: Floats, axis: int) -> Floats:
    edges = np.concatenate([values.take([0], axis), values, values.take([-1], axis)], axis=axis)
    size = values.shape[axis]
    before, here, after = (edges.take(range(shift, shift + size), axis) for shift in (0, 1, 2))
    return np.asarray(0.25 * before + 0.5 * here + 0.25 * after)


def _between(axis: Floats, at: float) -> tuple[int, float]:
    """Return the index below ``at`` on an even axis, and how far ``at`` lies towards the next (0 to 1)."""
    steps = float(np.clip((at - axis[0]) / (axis[1] - axis[0]), 0, len(axis) - 1))
    low = min(int(steps), len(axis) - 2)
    return low, steps - low


@cache
def best_ratio_of(grid: Grid) -> float:
    """Return the log10 ratio of an emulator's best configuration, worked out once."""
    _, lr, backbone_lr, _ = grid.best()
    return lr - backbone_lr


@cache
def ratio_excess_of(grid: Grid) -> tuple[Floats, Floats]:
    """Return log10 ratios (n,) STEP apart, and what each costs at its best lr and loss, beside the best."""
    low, high = grid.lr[0] - grid.backbone_lr[-1], grid.lr[-1] - grid.backbone_lr[0]
    ratio = np.arange(round((high - low) / STEP) + 1) * STEP + low
    lowest = np.full(len(ratio), np.inf)
    for lr in np.linspace(*grid.lr[[0, -1]], round(float(np.ptp(grid.lr)) / (2 * STEP)) + 1):
        for place in np.flatnonzero(
            (lr - ratio >= grid.backbone_lr[0]) & (lr - ratio <= grid.backbone_lr[-1])
        ):
            here = min(grid.expected(lr, lr - ratio[place], loss) for loss in range(len(grid.losses)))
            lowest[place] = min(lowest[place], here)
    known = np.isfinite(lowest)
    return ratio[known], lowest[known] - lowest.min()


class Recorded:
    """Runs of the emulator of one task; each repetition draws others."""

    def __init__(self, grid: Grid, repeat: int) -> None:
        self._grid = grid
        self.seeds = tuple(range(grid.residuals.shape[3]))
        self.task = grid.task
        self._rng = np.random.default_rng([7, repeat])
        self.epochs = grid.mean.shape[-1]
        self.trivial = grid.trivial
        ends = [simulated.Bounds(10 ** axis[0], 10 ** axis[-1]) for axis in (grid.lr, grid.backbone_lr)]
        self.space = simulated.Space(*ends, grid.losses)
        self._best = best_ratio_of(grid)

    def curve(self, lr: float, backbone_lr: float, loss: str, seed: int | None = None) -> Floats:
        """Return the validation losses (epochs,) of one run."""
        place, corners = (
            self._grid.losses.index(loss),
            self._grid.corners(np.log10(lr), np.log10(backbone_lr)),
        )
        chosen = self._rng.choice(len(corners), p=[weight for *_, weight in corners])
        row, column, _ = corners[chosen]
        which = slice(None) if seed is None else seed
        residual = self._rng.choice(self._grid.pool(row, column, place, which))
        return self._grid.mean_at(corners, place) + residual

    def truth(self, lr: float, backbone_lr: float, loss: str) -> tuple[float, float]:
        """Return the expected loss there, and the error of log10 ratio."""
        lr, backbone_lr = float(np.log10(lr)), float(np.log10(backbone_lr))
        expected = self._grid.expected(lr, backbone_lr, self._grid.losses.index(loss))
        return expected, abs(lr - backbone_lr - self._best)

    def judge(self, found: Answer) -> dict[str, float]:
        """Return how the zones stand to the truth, and by how many errors the choice's loss is too low."""
        choice = found.choice
        said = choice and choice.expected_validation_loss
        if choice is None or said is None or not choice.standard_error:
            off = np.nan
        else:
            off = (self.truth(choice.lr, choice.backbone_lr, choice.loss)[0] - said) / choice.standard_error
        identified = bool(found.curve and found.curve.identified)
        return {"off": off, "identified": identified, **judged(*ratio_excess_of(self._grid), found.zones)}


# --- searches


class Search(Protocol):
    """A tool under test."""

    seed: int | None
    """One of the world's seeds for the configuration asked for last; None: any."""

    def ask(self) -> tuple[float, float, str]:
        """Suggest lr, backbone_lr and loss of the next run."""
        ...

    def goes_on(self, epoch: int, loss: float) -> bool:
        """Take one epoch of that run."""
        ...

    def tell(self, loss: float | None, end: str) -> None:
        """Take its end: the lowest loss, None when it diverged."""
        ...

    def incumbent(self) -> tuple[float, float, str] | None:
        """Return the tool's own choice so far; None when that is the best complete trial."""
        ...


class ByOptuna:
    """Any of Optuna's samplers and pruners."""

    def __init__(self, world: World, sampler: Any, pruner: Any, *, turns: int = 0) -> None:
        self._world = world
        self._study = optuna.create_study(sampler=sampler, pruner=pruner)
        self._seeds = world.seeds[:turns]
        self._taken: dict[tuple[float, float, str], set[int]] = defaultdict(set)
        self.seed: int | None = None

    def enqueue(self, lr: float, backbone_lr: float, loss: str) -> None:
        """Have a configuration tried first."""
        self._study.enqueue_trial({"lr": lr, "backbone_lr": backbone_lr, "loss": loss})

    def ask(self) -> tuple[float, float, str]:
        """Suggest the next configuration."""
        self._trial, space = self._study.ask(), self._world.space
        lr = self._trial.suggest_float("lr", space.lr.low, space.lr.high, log=True)
        slow = self._trial.suggest_float(
            "backbone_lr", space.backbone_lr.low, space.backbone_lr.high, log=True
        )
        loss = self._trial.suggest_categorical("loss", list(space.loss))
        if self._seeds:  # as hpo.search.tuning_seed
            taken, number = self._taken[round(lr, 9), round(slow, 9), loss], self._trial.number
            turns = [self._seeds[(number + turn) % len(self._seeds)] for turn in range(len(self._seeds))]
            self.seed = next((seed for seed in turns if seed not in taken), None)
            if self.seed is not None:
                taken.add(self.seed)
                self._trial.set_user_attr("seed", self.seed)
        return lr, slow, loss

    def goes_on(self, epoch: int, loss: float) -> bool:
        """Report one epoch; say whether the pruner lets it go on."""
        self._trial.report(loss, epoch)
        return not self._trial.should_prune()

    def tell(self, loss: float | None, end: str) -> None:
        """Tell the study how the trial ended."""
        if end == "finished" and loss is not None:
            self._study.tell(self._trial, loss)
        else:
            self._study.tell(self._trial, state=optuna.trial.TrialState.PRUNED)

    def incumbent(self) -> None:
        """The user's choice is the best complete trial."""


class ByGrid(ByOptuna):
    """The published search of PPG-Bench (arXiv 2610.13435), re-stated: six pairs of rates, Optuna in between.

    Its two rates are a head's and a share of it for the encoder; here the loss is searched beside them, as by
    everybody. A pair outside of what was recorded gives the nearest that was: better than it would be.
    """

    HEAD = (1e-3, 1e-4, 1e-5)
    SHARE = (0.1, 0.01)
    TRIALS = 48

    def __init__(self, world: World, repeat: int) -> None:
        sampler = optuna.samplers.TPESampler(seed=repeat, multivariate=True)
        pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=world.epochs)
        super().__init__(world, sampler, pruner)

    def ask(self) -> tuple[float, float, str]:
        """Suggest one of the six pairs."""
        self._trial = self._study.ask()
        lr = float(self._trial.suggest_categorical("lr", self.HEAD))
        share = float(self._trial.suggest_categorical("share", self.SHARE))
        loss = self._trial.suggest_categorical("loss", list(self._world.space.loss))
        return lr, lr * share, str(loss)


class KeepTheBest:
    """Random search in which only what is best after one epoch of all so far goes on."""

    seed = None

    def __init__(self, world: World, repeat: int) -> None:
        self._space, self._rng = world.space, np.random.default_rng([11, repeat])
        self._lowest = np.inf

    def ask(self) -> tuple[float, float, str]:
        """Draw the next configuration."""
        ends = self._space.lr, self._space.backbone_lr
        lr, slow = (10 ** self._rng.uniform(np.log10(end.low), np.log10(end.high)) for end in ends)
        return float(lr), float(slow), str(self._rng.choice(list(self._space.loss)))

    def goes_on(self, epoch: int, loss: float) -> bool:
        """Say whether the first epoch was the best first epoch."""
        if epoch > 1:
            return True
        is_best, self._lowest = loss < self._lowest, min(loss, self._lowest)
        return is_best

    def tell(self, loss: float | None, end: str) -> None:
        """Nothing is learned from an end."""

    def incumbent(self) -> None:
        """The user's choice is the best complete trial."""


def _ours(rule: str = "information", pruner: Any = None) -> Callable[[World, int], Search]:
    def make(world: World, repeat: int) -> Search:
        stops = ImprovementPruner() if pruner is None else pruner()
        return ByOptuna(world, RatioSampler(seed=repeat, rule=rule), stops)

    return make


def _warm(world: World, repeat: int) -> Search:
    """Begin at the leaders of a search of ours on the other recorded task (``hpo run --warm-start``)."""
    if not isinstance(world, Recorded) or world.task not in WARM_FROM:
        raise SystemExit(f"ours_warm: only for {', '.join(WARM_FROM)}")
    there = Recorded(recorded(WARM_FROM[world.task]), repeat)
    history = run(there, METHODS["ours"](there, repeat), WARM_EPOCHS)
    search = ByOptuna(world, RatioSampler(seed=repeat), ImprovementPruner())
    for one in leaders(*history.frames(len(history.rows)), there.space, LEADERS):
        search.enqueue(one.lr, one.backbone_lr, one.loss)
    return search


def _optuna(sampler: Callable[[int], Any], pruner: Callable[[World], Any]) -> Callable[[World, int], Search]:
    return lambda world, repeat: ByOptuna(world, sampler(repeat), pruner(world))


def _turns(seeds: int) -> Callable[[World, int], Search]:
    """Ours with a few seeds in turn (``space.seed.count``)."""
    return lambda world, repeat: ByOptuna(world, RatioSampler(seed=repeat), ImprovementPruner(), turns=seeds)


def _one_seed(world: World, repeat: int) -> Search:
    """TPE and the median rule with one seed for all runs, as many do who tune by hand."""
    search = ByOptuna(world, optuna.samplers.TPESampler(seed=repeat), optuna.pruners.MedianPruner())
    search.seed = world.seeds[repeat % len(world.seeds)]
    return search


METHODS: Mapping[str, Callable[[World, int], Search]] = {
    "ours": _ours(),
    "ours_turns": _turns(3),
    "ours_turns_5": _turns(5),
    "ours_turns_10": _turns(10),
    "ours_improvement": _ours("improvement"),
    "ours_thompson": _ours("thompson"),
    "ours_decision": _ours("decision"),
    "ours_confidence": _ours("confidence"),
    "ours_median": _ours(pruner=optuna.pruners.MedianPruner),
    "ours_warm": _warm,
    "ours_replicated": _ours(),
    "ours_unpruned": _ours(pruner=optuna.pruners.NopPruner),
    "random": _optuna(
        lambda seed: optuna.samplers.RandomSampler(seed=seed), lambda world: optuna.pruners.NopPruner()
    ),
    "tpe_median": _optuna(
        lambda seed: optuna.samplers.TPESampler(seed=seed), lambda world: optuna.pruners.MedianPruner()
    ),
    "tpe_one_seed": _one_seed,
    "tpe_hyperband": _optuna(
        lambda seed: optuna.samplers.TPESampler(seed=seed),
        lambda world: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=world.epochs),
    ),
    "ppg_bench": ByGrid,
    "keep_the_best": KeepTheBest,
    "smac": lambda world, repeat: BySmac(world, repeat),
    "asha": lambda world, repeat: BySyneTune(world, repeat, "ASHA"),
    "asha_cqr": lambda world, repeat: BySyneTune(world, repeat, "ASHACQR"),
    "gp_median": _optuna(
        lambda seed: optuna.samplers.GPSampler(seed=seed), lambda world: optuna.pruners.MedianPruner()
    ),
}


@dataclass
class History:
    """The trials of one search as tables grow from them."""

    rows: list[dict[str, Any]]
    curves: list[Floats]
    spent: list[int]
    """Epochs after each trial."""
    suggest_s: list[float]
    """CPU time of each suggestion."""
    incumbents: list[tuple[float, float, str] | None]
    """The tool's own choice after each trial, where it has one."""

    def frames(self, trials: int) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return the tables of the first trials."""
        points = [
            (number, epoch + 1, loss)
            for number, curve in enumerate(self.curves[:trials])
            for epoch, loss in enumerate(curve)
        ]
        return (
            pd.DataFrame(self.rows[:trials]),
            pd.DataFrame(points, columns=["number", "epoch", "validation_loss"]),
        )


@dataclass
class Race:
    """The last part of a budget: rounds of runs of the leaders, none stopped (:mod:`hpo.search.race`)."""

    racing: list[Setting]
    seed: int | None = None
    results: dict[tuple[Setting, int], float] = field(default_factory=dict)
    """Loss of each, by round."""

    @classmethod
    def of(cls, history: History, space: Any) -> Race:
        """Return the race of the leaders of the trials so far."""
        return cls(leaders(*history.frames(len(history.rows)), space, LEADERS))

    def ask(self) -> tuple[float, float, str]:
        """Suggest the next of the round that still runs."""
        self._now = next(one for number in count() for one in self._left(number))
        setting, _ = self._now
        return setting.lr, setting.backbone_lr, setting.loss

    def _left(self, number: int) -> Iterator[tuple[Setting, int]]:
        """Yield who has not run yet in a round."""
        for one in self.racing:
            is_in = one is self.racing[0] or not is_behind(self.results, one, self.racing[0], range(number))
            if is_in and (one, number) not in self.results:
                yield one, number

    def goes_on(self, epoch: int, loss: float) -> bool:
        """Never stop a run."""
        return True

    def tell(self, loss: float | None, end: str) -> None:
        """Take the end of the run."""
        self.results[self._now] = np.inf if loss is None else loss

    def incumbent(self) -> None:
        """The choice is the answer's."""


def run(
    world: World, search: Search, epochs: float, trials: int | None = None, *, replicates: float = 0.0
) -> History:
    """Search until ``epochs`` are spent, or so many trials are made; the last share of them by a race."""
    history, spent = History([], [], [], [], []), 0
    while spent < epochs and len(history.rows) != trials:
        if spent >= (1 - replicates) * epochs and not isinstance(search, Race):
            search = Race.of(history, world.space)
        started = time.process_time()
        lr, backbone_lr, loss = search.ask()
        history.suggest_s.append(time.process_time() - started)
        curve, end = _followed(search, world.curve(lr, backbone_lr, loss, search.seed), world.epochs)
        value = None if end == "diverged" else float(np.nanmin(curve))
        search.tell(value, end)
        spent += len(curve)
        history.rows.append(
            {
                "number": len(history.rows),
                "state": "complete" if end == "finished" else "pruned",
                "origin": "search",
                "lr": lr,
                "backbone_lr": backbone_lr,
                "ratio": lr / backbone_lr,
                "loss": loss,
                "seed": -1 - len(history.rows) if search.seed is None else search.seed,
                "fold": None,
                "value": np.nan if value is None else value,
                "end": end,
                "best_epoch": 1,
                "epochs": len(curve),
            }
        )
        history.curves.append(curve)
        history.spent.append(spent)
        history.incumbents.append(search.incumbent())
    return history


def _followed(search: Search, curve: Floats, epochs: int) -> tuple[Floats, str]:
    """Return the curve as far as the search lets it go, and why it ended."""
    for epoch, loss in enumerate(curve, start=1):
        if np.isnan(loss):
            return curve[:epoch], "diverged"
        if not search.goes_on(epoch, float(loss)) and epoch < epochs:
            return curve[:epoch], "pruned"
    return curve, "finished"


Picked = tuple[float, float, str]


def checkpoints(
    world: World, history: History, marks: Sequence[int], epochs: int, *, peer: bool, with_answer: bool
) -> Iterator[dict[str, Any]]:
    """Yield what would be chosen after each of ``marks`` (for runs of 8), and how good that is."""
    for mark in (mark * world.epochs // 8 for mark in marks):
        trials = sum(spent <= mark for spent in history.spent)
        complete = [row for row in history.rows[:trials] if row["state"] == "complete"]
        if mark > epochs or not complete:
            continue
        best = picked(min(complete, key=lambda row: row["value"]))
        ways = {"own" if peer else "naive": history.incumbents[trials - 1] or best}
        judgements: dict[str, dict[str, float]] = {}
        if with_answer or not peer:
            found = answer(*history.frames(trials), world.space, None, world.trivial)
            choice, way = found.choice, "+answer" if peer else "own"
            ways[way] = best if choice is None else (choice.lr, choice.backbone_lr, choice.loss)
            judgements[way] = world.judge(found) if isinstance(world, Recorded) else {}
        for way, chosen in ways.items():
            loss, error = world.truth(*chosen)
            row = {"epochs": mark, "trials": trials, "way": way, "loss": loss, "ratio_error": error}
            yield row | dict.fromkeys(JUDGED) | judgements.get(way, {})


def picked(row: Mapping[str, Any]) -> Picked:
    """Return the configuration of a trial."""
    return row["lr"], row["backbone_lr"], row["loss"]


@cache
def recorded(world: str) -> Grid:
    """Return the emulator of one task, with more of its seeds where the name says so; read once."""
    task, _, seeds = world.partition(":")
    return Grid.load(file_of(plan_of(task)), task, int(seeds) if seeds else None)


def replay(
    world: str, method: str, repeat: int, epochs: int, marks: Sequence[int], *, with_answer: bool
) -> Iterator[dict[str, Any]]:
    """Yield the outcomes of one search."""
    made = Simulated(world, repeat) if world in simulated.LANDSCAPES else Recorded(recorded(world), repeat)
    total = epochs * made.epochs // 8
    replicates = REPLICATES if method == "ours_replicated" else 0.0
    history = run(made, METHODS[method](made, repeat), total, replicates=replicates)
    cost = {"suggest_ms": 1000 * float(np.mean(history.suggest_s)), "all_trials": len(history.rows)}
    peer = not method.startswith("ours")
    for row in checkpoints(made, history, marks, total, peer=peer, with_answer=with_answer):
        yield {"world": world, "method": method, "repeat": repeat, **row, **cost}


def summary(file: Path) -> None:
    """Print, for each world: the outcomes at each checkpoint, and how soon each method is as good as TPE."""
    found = pd.read_csv(file).drop_duplicates(["world", "method", "way", "repeat", "epochs"])
    found["way"] = found["method"] + found["way"].map(
        {"own": "", "+answer": " +answer", "naive": " (best trial)"}
    )
    for world, rows in found.groupby("world"):
        grouped = rows.groupby(["way", "epochs"])
        for name in ("loss", "ratio_error"):
            table = grouped[name].mean().unstack().round(3)
            print(f"\n{world}: mean {name} after so many epochs, n = {rows['repeat'].nunique()} at most")
            print(table.to_string())
        if str(world).partition(":")[0] in RECORDED:
            lowest, *place = recorded(str(world)).best()
            bar = lowest + NEAR * recorded(str(world)).seed_sd(*place)
            is_near = rows.assign(near=rows["loss"] <= bar).groupby(["way", "epochs"])["near"]
            print(
                f"\n{world}: share of choices within {NEAR} seed standard deviations of the best ({bar:.4f})"
            )
            print(is_near.mean().unstack().round(2).to_string())
        if "resolved" in rows and rows["resolved"].notna().any():
            print(f"\n{world}: zones of the last answers; their share of wrong ones, and of errors over 4")
            print(zones_of(rows).round(3).to_string())
        print(grouped["repeat"].nunique().unstack().max(axis=1).rename("n").to_string())
        tpe = rows[rows["way"] == "tpe_median"].groupby("epochs")["trials"].median()
        if (tpe >= 100).any():
            mark = int(tpe.index[tpe >= 100][0])
            print(
                f"TPE + median: 100 trials in about {mark} epochs; as good as that, in epochs of its {mark}:"
            )
            print(as_good_as(rows, mark).to_string())


def zones_of(rows: pd.DataFrame) -> pd.DataFrame:
    """Return, for each way and checkpoint, how wrong and how useful its answers' zones are."""
    told = rows[rows["resolved"].notna()]
    marked = told.assign(
        wrong=told["zone_wrong"] > NEAR_DECADES, far_off=told["off"].abs() > 4, n=1.0
    ).astype({"identified": float})
    grouped = marked.groupby(["way", "epochs"])
    means = grouped[["resolved", "resolved_wrong", "wrong", "identified", "off", "far_off"]].mean()
    return means.join(grouped["n"].sum())


def as_good_as(rows: pd.DataFrame, mark: int, resamples: int = 1000) -> pd.DataFrame:
    """Return how soon each method's median loss is that of TPE + median after ``mark`` epochs.

    In epochs, as a share of ``mark``, and the ends of the share's 90 % interval over the repetitions
    (bootstrap); inf where it never is.
    """
    rng = np.random.default_rng(0)
    tables = {
        str(way): part.pivot_table(index="repeat", columns="epochs", values="loss")
        for way, part in rows.groupby("way")
    }
    tpe = tables["tpe_median"][mark].to_numpy()
    found = {}
    for way, table in tables.items():
        marks, losses = table.columns.to_numpy(float), table.to_numpy()
        soon = [_first(marks, losses, float(np.nanmedian(tpe)))]
        for _ in range(resamples):
            other, own = (values[rng.integers(0, len(values), len(values))] for values in (tpe, losses))
            soon.append(_first(marks, own, float(np.nanmedian(other))))
        low, high = np.quantile(soon[1:], [0.05, 0.95], method="nearest")
        found[way] = {"n": len(losses), "epochs": soon[0], "share": soon[0] / mark} | {
            "low": low / mark,
            "high": high / mark,
        }
    return pd.DataFrame(found).T.round(2)


def _first(marks: Floats, losses: Floats, target: float) -> float:
    """Return the first of the marks (m,) at which the median of losses (n, m) is at most ``target``."""
    reached = np.nanmedian(losses, axis=0) <= target
    return float(marks[np.argmax(reached)]) if reached.any() else np.inf


def cost(trials: int) -> None:
    """Print the CPU time of a suggestion of ours after ``trials`` trials with curves: warm, and anew."""
    rng, spec = np.random.default_rng(0), load_spec("bidmc_hr")
    spec = spec.model_copy(update={"sampler": Sampler(kind="ratio")})
    landscape = simulated.sharp(rng, 0.03)
    past: list[PastTrial] = []
    for slot in range(trials):
        lr, slow = float(10 ** rng.uniform(-5, -2)), float(10 ** rng.uniform(-6, -2))
        loss = int(rng.integers(3))
        curve = simulated._curve(landscape, 0.03, np.log10(lr), np.log10(lr / slow), loss, rng)
        end = "pruned" if curve.min() > 1.1 else "finished"
        best = np.minimum.accumulate(curve)[: 4 if end == "pruned" else None]
        configuration = Configuration(lr, slow, spec.space.loss[loss], slot)
        past.append(PastTrial(slot, configuration, end, best[-1], len(best), None, tuple(best)))
    memory: Memory = {}
    times = []
    for slot in range(trials, trials + 20):
        started = time.process_time()
        suggest(spec, slot, past, memory)
        times.append(time.process_time() - started)
    anew, warm = times[0], float(np.median(times[1:]))
    mean = warm + (anew - warm) / ((GROWTH - 1) * trials)
    started = time.process_time()
    prospects = learned_from(past)
    assert prospects is not None
    prospects.is_hopeless(past[0].configuration, [1.5, 1.4, 1.3])
    learning = time.process_time() - started
    started = time.process_time()
    for trial in past[:100]:
        prospects.is_hopeless(trial.configuration, [1.5, 1.4, 1.3])
    asking = (time.process_time() - started) / 100
    print(f"pruning: learning from the curves {1000 * learning:.0f} ms, a decision {1000 * asking:.2f} ms")
    print(f"{trials} trials: median {1000 * warm:.0f} ms, with parameters drawn anew {1000 * anew:.0f} ms,")
    print(f"which happens once in {(GROWTH - 1) * trials:.0f} suggestions: mean {1000 * mean:.0f} ms")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", nargs="+", default=["bidmc_hr", "bidmc_rr"])
    parser.add_argument(
        "--method",
        nargs="+",
        default=["ours", "tpe_median", "random"],
        help=f"NAME or NAME:EPOCHS; {', '.join(METHODS)}",
    )
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument(
        "--epochs", type=int, default=480, help="for runs of 8 epochs; in proportion for others"
    )
    parser.add_argument(
        "--at", type=int, nargs="+", default=CHECKPOINTS, help="epochs at which to look, for runs of 8"
    )
    parser.add_argument("--own-only", action="store_true", help="no answer of ours from peers' trials")
    parser.add_argument("--out", type=Path, default=Path("search.csv"))
    parser.add_argument("--summary", type=Path, help="print the tables of this file, run nothing")
    parser.add_argument("--cost", type=int, help="time suggestions after so many trials, run nothing else")
    options = parser.parse_args(arguments)
    if options.summary:
        return summary(options.summary)
    keep_freed_memory()
    if options.cost:
        return cost(options.cost)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    named = [method.partition(":") for method in options.method]
    budgets = {name: int(epochs or options.epochs) for name, _, epochs in named}
    with options.out.open("a", newline="") as file:
        writer = None
        for repeat in range(options.first, options.first + options.repeats):
            for world in options.world:
                for method, epochs in budgets.items():
                    for row in replay(
                        world, method, repeat, epochs, options.at, with_answer=not options.own_only
                    ):
                        if writer is None:
                            writer = csv.DictWriter(file, row)
                            if file.tell() == 0:
                                writer.writeheader()
                        writer.writerow(row)
                    file.flush()
                    print(world, method, repeat, row, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
