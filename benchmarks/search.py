"""Replayed searches: how many epochs until the right configuration and the right ratio are known?

    python benchmarks/search.py --world bidmc_hr bidmc_rr --repeats 30
    python benchmarks/search.py --world sharp interacting --method ours tpe_median

A search asks for configurations; its runs are read from recorded curves (benchmarks/record_grid.py) at the
nearest point of the grid, or simulated (the landscapes of benchmarks/simulated_studies.py). On a recorded
grid each repetition draws its runs from two of the three seeds and scores what was chosen on the third. A
peer's choice is what its user gets: its best complete trial (SMAC3: its incumbent); ours is that of
``hpo.analysis.answer``. "+answer" is the peer's trials with our answer.
Results, one line a repetition and checkpoint, go to --out as CSV; ``--summary`` prints the tables of such a
file, ``--cost 1000`` the CPU time of a suggestion after so many trials. What came of it: docs/search.md.

SMAC3 and Syne Tune are no dependencies: install them where this runs to have their methods.
"""

from __future__ import annotations

import argparse
import csv
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import optuna
import pandas as pd
import simulated_studies as simulated
from numpy.typing import NDArray
from search_peers import BySmac, BySyneTune

from hpo.analysis import answer
from hpo.search import PastTrial, suggest
from hpo.search.prospects import learned_from
from hpo.search.pruner import ImprovementPruner
from hpo.search.sampler import GROWTH, Memory, RatioSampler
from hpo.spec import Configuration, Sampler, load_spec

Floats = NDArray[np.float64]
GRID = Path(__file__).parent / "results" / "grid_bidmc.npz"
CHECKPOINTS = (60, 80, 100, 120, 140, 160, 200, 240, 280, 320, 400, 480)
"""Epochs after which the choice is looked at, for runs of 8; in proportion for others."""


class World(Protocol):
    """Where runs come from and what is true."""

    space: Any
    epochs: int
    trivial: float

    def curve(self, lr: float, backbone_lr: float, loss: str) -> Floats:
        """Run a configuration once; NaN where it diverged."""
        ...

    def truth(self, lr: float, backbone_lr: float, loss: str) -> tuple[float, float]:
        """Return the expected loss of a choice, and its log10 ratio's distance from the best."""
        ...


class Simulated:
    """A landscape with a known answer."""

    space = simulated.SPACE
    epochs = simulated.EPOCHS
    trivial = 1 + simulated.RANGE

    def __init__(self, name: str, repeat: int, noise: str = "middle") -> None:
        rng = np.random.default_rng([sorted(simulated.LANDSCAPES).index(name), repeat])
        self._noise = simulated.NOISES[noise]
        self._landscape = simulated.LANDSCAPES[name](rng, self._noise)
        self._best, self._lowest = self._landscape.best_ratio()
        self._rng = rng

    def curve(self, lr: float, backbone_lr: float, loss: str) -> Floats:
        """Run a configuration once."""
        rates = np.log10(lr), np.log10(lr / backbone_lr)
        place = simulated.LOSSES.index(loss)
        return simulated._curve(self._landscape, self._noise, *map(float, rates), place, self._rng)

    def truth(self, lr: float, backbone_lr: float, loss: str) -> tuple[float, float]:
        """Return the regret in seed standard deviations, and the error of log10 ratio."""
        ratio = np.log10(lr / backbone_lr)
        place = np.array(simulated.LOSSES.index(loss))
        expected = float(self._landscape.expected(np.log10(lr), ratio, place))
        return (expected - self._lowest) / self._noise, abs(float(ratio) - self._best)


@dataclass(frozen=True)
class Grid:
    """The recorded runs of one task: log10 rates, losses, curves (lr, backbone_lr, loss, seed, epoch)."""

    lr: Floats
    backbone_lr: Floats
    losses: tuple[str, ...]
    curves: Floats
    trivial: float

    @classmethod
    def load(cls, file: Path, task: str) -> Grid:
        """Read one task; its seeds are those that were recorded whole."""
        import json

        with np.load(file) as stored:
            place = list(stored["task"]).index(task)
            curves = stored["validation_loss"][place].astype(np.float64)
            whole = (stored["ended"][place] != "").all(axis=(0, 1, 2))
            provenance = json.loads(str(stored["provenance"]))["studies"][task]
            rates = np.log10(stored["lr"]), np.log10(stored["backbone_lr"])
            losses = tuple(str(loss) for loss in stored["loss"])
        return cls(*rates, losses, curves[:, :, :, whole], provenance["trivial"]["validation_loss"])

    def place(self, lr: float, backbone_lr: float, loss: str) -> tuple[int, int, int]:
        """Return the nearest point."""
        near = (np.argmin(np.abs(axis - np.log10(rate))) for axis, rate in
                ((self.lr, lr), (self.backbone_lr, backbone_lr)))  # fmt: skip
        row, column = (int(found) for found in near)
        return row, column, self.losses.index(loss)

    def best(self) -> tuple[int, int, int]:
        """Return the point with the lowest mean over all seeds and, for half of it, its neighbours' in rates.

        Three seeds alone leave the lowest of 90 means to luck.
        """
        mean = np.minimum(self.final(), self.trivial).mean(axis=-1)
        for axis in (0, 1):
            edges = np.pad(mean, [(1, 1) if axis == at else (0, 0) for at in range(3)], mode="edge")
            size = mean.shape[axis]
            near = [np.take(edges, range(shift, shift + size), axis=axis) for shift in (0, 1, 2)]
            mean = 0.25 * near[0] + 0.5 * near[1] + 0.25 * near[2]
        found = np.unravel_index(int(np.argmin(mean)), mean.shape)
        return int(found[0]), int(found[1]), int(found[2])

    def final(self) -> Floats:
        """Return the lowest loss of each run (lr, backbone_lr, loss, seed); inf for one that diverged."""
        return np.where(np.isnan(self.curves).any(axis=-1), np.inf, self.curves.min(axis=-1))


class Recorded:
    """A recorded grid whose runs come from all seeds but one, which scores what is chosen."""

    def __init__(self, grid: Grid, repeat: int) -> None:
        seeds = grid.curves.shape[3]
        self._grid = grid
        self._held = repeat % seeds
        self._seeds = [seed for seed in range(seeds) if seed != self._held] or [self._held]
        self._rng = np.random.default_rng([7, repeat])
        self.epochs = grid.curves.shape[4]
        self.trivial = grid.trivial
        ends = [simulated.Bounds(10 ** axis[0], 10 ** axis[-1]) for axis in (grid.lr, grid.backbone_lr)]
        self.space = simulated.Space(*ends, grid.losses)
        row, column, _ = grid.best()
        self._best_ratio = grid.lr[row] - grid.backbone_lr[column]

    def curve(self, lr: float, backbone_lr: float, loss: str) -> Floats:
        """Return one of the recorded runs."""
        place = self._grid.place(lr, backbone_lr, loss)
        found = self._grid.curves[(*place, int(self._rng.choice(self._seeds)))]
        return found[: int(np.argmax(np.isnan(found))) + 1] if np.isnan(found).any() else found

    def truth(self, lr: float, backbone_lr: float, loss: str) -> tuple[float, float]:
        """Return the held seed's loss there, and the error of log10 ratio."""
        place = self._grid.place(lr, backbone_lr, loss)
        final = self._grid.final()[(*place, self._held)]
        ratio = self._grid.lr[place[0]] - self._grid.backbone_lr[place[1]]
        return float(min(final, self.trivial)), abs(float(ratio - self._best_ratio))


# --- searches


class Search(Protocol):
    """A tool under test."""

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

    def __init__(self, world: World, sampler: Any, pruner: Any) -> None:
        self._world = world
        self._study = optuna.create_study(sampler=sampler, pruner=pruner)

    def ask(self) -> tuple[float, float, str]:
        """Suggest the next configuration."""
        self._trial, space = self._study.ask(), self._world.space
        lr = self._trial.suggest_float("lr", space.lr.low, space.lr.high, log=True)
        slow = self._trial.suggest_float(
            "backbone_lr", space.backbone_lr.low, space.backbone_lr.high, log=True
        )
        return lr, slow, self._trial.suggest_categorical("loss", list(space.loss))

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


def _ours(rule: str = "information", pruner: Any = None) -> Callable[[World, int], Search]:
    def make(world: World, repeat: int) -> Search:
        stops = ImprovementPruner() if pruner is None else pruner()
        return ByOptuna(world, RatioSampler(seed=repeat, rule=rule), stops)

    return make


def _optuna(sampler: Callable[[int], Any], pruner: Callable[[World], Any]) -> Callable[[World, int], Search]:
    return lambda world, repeat: ByOptuna(world, sampler(repeat), pruner(world))


METHODS: Mapping[str, Callable[[World, int], Search]] = {
    "ours": _ours(),
    "ours_improvement": _ours("improvement"),
    "ours_thompson": _ours("thompson"),
    "ours_median": _ours(pruner=optuna.pruners.MedianPruner),
    "ours_unpruned": _ours(pruner=optuna.pruners.NopPruner),
    "random": _optuna(
        lambda seed: optuna.samplers.RandomSampler(seed=seed), lambda world: optuna.pruners.NopPruner()
    ),
    "tpe_median": _optuna(
        lambda seed: optuna.samplers.TPESampler(seed=seed), lambda world: optuna.pruners.MedianPruner()
    ),
    "tpe_hyperband": _optuna(
        lambda seed: optuna.samplers.TPESampler(seed=seed),
        lambda world: optuna.pruners.HyperbandPruner(min_resource=1, max_resource=world.epochs),
    ),
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


def run(world: World, search: Search, epochs: int) -> History:
    """Search until ``epochs`` are spent."""
    history, spent = History([], [], [], [], []), 0
    while spent < epochs:
        started = time.process_time()
        lr, backbone_lr, loss = search.ask()
        history.suggest_s.append(time.process_time() - started)
        curve, end = _followed(search, world.curve(lr, backbone_lr, loss), world.epochs)
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
                "seed": len(history.rows),
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
    world: World, history: History, epochs: int, *, peer: bool, with_answer: bool
) -> Iterator[dict[str, Any]]:
    """Yield what would be chosen after each of CHECKPOINTS, and how good that is."""
    for mark in (mark * world.epochs // 8 for mark in CHECKPOINTS):
        trials = sum(spent <= mark for spent in history.spent)
        complete = [row for row in history.rows[:trials] if row["state"] == "complete"]
        if mark > epochs or not complete:
            continue
        best = picked(min(complete, key=lambda row: row["value"]))
        ways = {"own" if peer else "naive": history.incumbents[trials - 1] or best}
        if with_answer or not peer:
            found = answer(*history.frames(trials), world.space, None, world.trivial).choice
            choice = best if found is None else (found.lr, found.backbone_lr, found.loss)
            ways["+answer" if peer else "own"] = choice
        for way, chosen in ways.items():
            loss, error = world.truth(*chosen)
            yield {"epochs": mark, "trials": trials, "way": way, "loss": loss, "ratio_error": error}


def picked(row: Mapping[str, Any]) -> Picked:
    """Return the configuration of a trial."""
    return row["lr"], row["backbone_lr"], row["loss"]


def replay(
    world: str, grid: Path, method: str, repeat: int, epochs: int, *, with_answer: bool
) -> Iterator[dict[str, Any]]:
    """Yield the outcomes of one search."""
    made = (
        Simulated(world, repeat)
        if world in simulated.LANDSCAPES
        else Recorded(Grid.load(grid, world), repeat)
    )
    total = epochs * made.epochs // 8
    history = run(made, METHODS[method](made, repeat), total)
    cost = {"suggest_ms": 1000 * float(np.mean(history.suggest_s)), "all_trials": len(history.rows)}
    peer = not method.startswith("ours")
    for row in checkpoints(made, history, total, peer=peer, with_answer=with_answer):
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
        print(grouped["repeat"].nunique().unstack().max(axis=1).rename("n").to_string())
        tpe = rows[rows["way"] == "tpe_median"].groupby("epochs")[["loss", "trials"]].median()
        if (tpe["trials"] >= 100).any():
            mark = tpe.index[tpe["trials"] >= 100][0]
            target = tpe.loc[mark, "loss"]
            print(f"TPE + median: 100 trials in about {mark} epochs, median loss {target:.3f}; reached after")
            medians = grouped["loss"].median().unstack()
            print((medians <= target).idxmax(axis=1).where((medians <= target).any(axis=1)).to_string())


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
    learning = time.process_time() - started
    assert prospects is not None
    prospects.is_hopeless(past[0].configuration, [1.5, 1.4, 1.3])
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
    parser.add_argument("--own-only", action="store_true", help="no answer of ours from peers' trials")
    parser.add_argument("--grid", type=Path, default=GRID)
    parser.add_argument("--out", type=Path, default=Path("search.csv"))
    parser.add_argument("--summary", type=Path, help="print the tables of this file, run nothing")
    parser.add_argument("--cost", type=int, help="time suggestions after so many trials, run nothing else")
    options = parser.parse_args(arguments)
    if options.summary:
        return summary(options.summary)
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
                        world, options.grid, method, repeat, epochs, with_answer=not options.own_only
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
