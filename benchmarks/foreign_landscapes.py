"""Foreign truths: is the answer right on landscapes that its model was not made for?

    python benchmarks/foreign_landscapes.py --studies 30 --trials 100 --scores foreign.csv
    python benchmarks/foreign_landscapes.py --scores foreign.csv --summary

FAMILIES of benchmarks/foreign_families.py, two noises. A study is a search of so many trials, the first being
the published default: --design cheap suggests half at random and half near the best so far, with the median
rule; --design search is ours, sampler and pruner. Its answer is compared with the truth, which is known on a
grid of 0.02 decades. A study's number decides its landscape and its runs, whatever is asked of it. --scores
keeps a line a study; a call goes on where another was stopped, a block of each cell in turn.

Columns: regrets in seeds' standard deviations (at the best place) above the best expected loss; ``off``: by
how many of its standard errors the choice's expected loss is too low; ``zone_wrong``: decades by which a
ratio lies in the wrong zone; ``resolved`` and ``resolved_wrong``: shares of the axis; ``likely_...``:
the same of what is called at least likely.
"""

from __future__ import annotations

import argparse
import math
import time
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import simulated_studies as simulated
from foreign_families import FAMILIES, MATTERS, OWN, TUNED, Floats, Truth
from judged_zones import NEAR_DECADES, judged
from search import ByOptuna, History, run
from simulated_studies import EPOCHS, LOSSES, NOISES, RANGE, SPACE

from hpo.allocator import keep_freed_memory
from hpo.analysis import answer
from hpo.analysis.matters import HARDLY, Mattering
from hpo.analysis.values import Answer
from hpo.search.pruner import ImprovementPruner
from hpo.search.sampler import RatioSampler

LEVELS = ("low", "middle")
DEFAULT = simulated.Setting()
AXES = ("lr", "backbone_lr", "ratio")


Place = tuple[float, float, int]
"""log10 lr, log10 backbone_lr, index of the loss."""


class World:
    """Runs of one landscape, for a search."""

    first: Place = (math.log10(DEFAULT.lr), math.log10(DEFAULT.backbone_lr), LOSSES.index(DEFAULT.loss))

    space: Any = SPACE
    baseline: Any = DEFAULT
    epochs = EPOCHS
    trivial = 1 + RANGE
    seeds: tuple[int, ...] = ()

    def __init__(self, truth: Truth, rng: np.random.Generator) -> None:
        self.made, self.rng = truth, rng

    def curve(self, lr: float, backbone_lr: float, loss: str, seed: int | None = None) -> Floats:
        """Run a configuration once."""
        return self.made.curve(math.log10(lr), math.log10(backbone_lr), LOSSES.index(loss), self.rng)

    def snapped(self, place: Place) -> Place:
        """Return the nearest place where runs can be had: any."""
        return place

    def truth(self, lr: float, backbone_lr: float, loss: str) -> tuple[float, float]:
        """Return the regret in seed standard deviations, and how far the ratio costs less than one."""
        place = np.log10(lr), np.log10(backbone_lr), np.array(LOSSES.index(loss))
        failing = self.made.diverges(*place) > 0.5
        expected = 1 + RANGE if failing else float(self.made.expected(*place))
        return (expected - self.made.lowest) / self.made.noise, math.nan


class Cheap:
    """Half at random, half near the best so far, with the median rule: a search that costs nothing."""

    seed = None

    def __init__(self, world: Any) -> None:
        self._world, self._rng = world, world.rng
        self._lr, self._slow = (
            (math.log10(ends.low), math.log10(ends.high))
            for ends in (world.space.lr, world.space.backbone_lr)
        )
        self._done: list[tuple[float, Place]] = []
        self._asked: list[Place] = []
        self._reached = np.empty((0, world.epochs))
        self._curve: list[float] = []

    def ask(self) -> tuple[float, float, str]:
        """Suggest the next configuration; the published default first."""
        self._curve = []
        place = self._place() if self._asked else self._world.first
        self._asked.append(self._world.snapped(place))
        lr, slow, loss = self._asked[-1]
        return 10**lr, 10**slow, self._world.space.loss[loss]

    def _place(self) -> Place:
        """Return log10 rates and a loss: at random, or near one of the best quarter (after 20 trials)."""
        rng, losses = self._rng, len(self._world.space.loss)
        if len(self._asked) < 20 or not self._done or rng.random() < 0.3:
            return float(rng.uniform(*self._lr)), float(rng.uniform(*self._slow)), int(rng.integers(losses))
        best = sorted(self._done)[: max(1, len(self._done) // 4)]
        lr, slow, loss = best[int(rng.integers(len(best)))][1]
        shifts = np.array([np.ptp(self._lr), np.ptp(self._slow)]) / 10 * rng.standard_normal(2)
        near = np.clip(lr + shifts[0], *self._lr), np.clip(slow + shifts[1], *self._slow)
        return float(near[0]), float(near[1]), loss if rng.random() < 0.7 else int(rng.integers(losses))

    def goes_on(self, epoch: int, loss: float) -> bool:
        """Say whether the median rule lets the run go on; never stops the default."""
        self._curve.append(min([loss, *self._curve]))
        if len(self._asked) == 1 or epoch <= 3 or len(self._reached) < 5:
            return True
        return self._curve[-1] <= float(np.median(self._reached[:, epoch - 1]))

    def tell(self, loss: float | None, end: str) -> None:
        """Take the end of the run."""
        if loss is not None and end == "finished":
            self._done.append((loss, self._asked[-1]))
        if self._curve:
            last = np.full(self._world.epochs - len(self._curve), self._curve[-1])
            self._reached = np.vstack([self._reached, np.append(self._curve, last)])

    def incumbent(self) -> None:
        """The choice is the answer's."""


class Ours(ByOptuna):
    """Our search, the published default first and never stopped."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__(world, RatioSampler(seed=seed), ImprovementPruner())
        self.enqueue(DEFAULT.lr, DEFAULT.backbone_lr, DEFAULT.loss)

    def goes_on(self, epoch: int, loss: float) -> bool:
        """Report one epoch."""
        return super().goes_on(epoch, loss) or self._trial.number == 0


def studied(family: str, noise: str, number: int, trials: int, design: str) -> tuple[World, History]:
    """Return a world and one search in it; any design and number of trials has the same landscape."""
    key = [zlib.crc32(family.encode()), LEVELS.index(noise), number]
    truth = FAMILIES[family](np.random.default_rng(key), NOISES[noise])
    world = World(truth, np.random.default_rng([*key, 1]))
    search = Cheap(world) if design == "cheap" else Ours(world, number)
    return world, run(world, search, math.inf, trials)


@dataclass(frozen=True)
class Score:
    """How one study's answer stands to the truth."""

    complete: int
    regret: float
    naive_regret: float
    off: float
    identified: bool
    identified_wrong: bool
    """Some ratio as good as the best lies outside the interval, by more than NEAR_DECADES."""
    width: float
    zone_wrong: float
    resolved: float
    resolved_wrong: float
    likely_zone_wrong: float
    likely_resolved: float
    likely_resolved_wrong: float
    as_good: float
    """Share of the axis that is truly as good, by the study's own worth."""
    worth: float
    """In seed standard deviations."""
    matters: str
    """Verdicts on lr, backbone_lr and ratio; empty where none is given."""
    matters_wrong: int
    """How many of the three are false."""
    fits: str
    seconds: float


def score(world: Any, history: History) -> Score:
    """Answer one study and compare with its truth, ``world.made``."""
    truth = world.made
    started = time.process_time()
    found = answer(*history.frames(len(history.rows)), world.space, world.baseline, world.trivial)
    seconds = time.process_time() - started
    best, choice, curve = found.best, found.choice, found.curve
    naive = math.nan if best is None else world.truth(best.lr, best.backbone_lr, best.loss)[0]
    regret, off = naive, math.nan
    if choice is not None:
        regret = world.truth(choice.lr, choice.backbone_lr, choice.loss)[0]
        said, error = choice.expected_validation_loss, choice.standard_error
        if said is not None and error:
            off = (truth.lowest + regret * truth.noise - said) / error
    identified = bool(curve and curve.identified)
    low, high = curve.interval if curve else (math.nan, math.nan)
    return Score(
        found.trials["complete"],
        regret,
        naive,
        off,
        identified,
        identified and _misses(truth, low, high),
        high - low,
        **zones_of(truth, found),
        matters=" ".join(str(found.matters[name].standing.value) for name in AXES if name in found.matters),
        matters_wrong=sum(_is_false(truth, found, name) for name in found.matters),
        fits=str(found.fit.fits) if found.fit else "",
        seconds=seconds,
    )


def _misses(truth: Any, low: float, high: float) -> bool:
    """Return whether a ratio that costs hardly more than the best is left out of an interval."""
    ratio, excess = truth.excess("ratio")
    best = ratio[excess <= 0.02 * truth.noise]
    return bool(best.min() < low - NEAR_DECADES or best.max() > high + NEAR_DECADES)


def zones_of(truth: Any, found: Answer) -> dict[str, float]:
    """Return how the zones stand to the truth, their worth in seed standard deviations."""
    zones = judged(*truth.excess("ratio"), found.zones)
    return {**zones, "worth": zones["worth"] / truth.noise}


def _is_false(truth: Any, found: Answer, name: str) -> bool:
    """Return whether a verdict is false: what a decade off truly costs, by its own worth."""
    one = found.matters[name]
    place, excess = truth.excess(name)
    here = excess[np.argmin(np.abs(place - one.best))]
    ends = [end for end in (one.best - 1, one.best + 1) if place[0] <= end <= place[-1]]
    cost = max((excess[np.argmin(np.abs(place - end))] - here for end in ends), default=0.0)
    if one.standing is Mattering.DOES_NOT_MATTER:
        return bool(cost > HARDLY * one.zones.worth)
    return one.standing is Mattering.MATTERS and bool(cost < one.zones.worth)


Cell = tuple[str, str, int, str]
"""Family, noise, trials, design."""


def rows_of(cells: Sequence[Cell], first: int, studies: int, block: int, file: Path) -> Iterator[str]:
    """Score every study that the file lacks, ``block`` of each cell in turn; yield what was done."""
    known = set()
    if file.exists():
        kept = pd.read_csv(file)
        names = ("family", "noise", "trials", "design", "study")
        known = set(kept[list(names)].itertuples(index=False, name=None))
    for start in range(first, first + studies, block):
        for cell in cells:
            for number in range(start, min(start + block, first + studies)):
                if (*cell, number) in known:
                    continue
                family, noise, trials, design = cell
                made = score(*studied(family, noise, number, trials, design))
                row = dict(zip(("family", "noise", "trials", "design"), cell, strict=True))
                line = pd.DataFrame([{**row, "study": number, **asdict(made)}])
                line.to_csv(file, mode="a", header=not file.exists(), index=False)
                yield f"{cell} {number}: {made}"


def kind_of(family: str) -> str:
    """Return what a family was to the model: own, tuned on, or only judged on."""
    return "own" if family in OWN else "tuned" if family in TUNED else "judged"


def summary(file: Path) -> None:
    """Print the bars: a line a cell, and pooled over own, tuned and judged families."""
    rows = pd.read_csv(file)
    rows["kind"] = rows["family"].map(kind_of)
    for keys in (["family", "noise"], ["kind"], []):
        groups = ["trials", "design", *keys]
        print("\n" + rows.groupby(groups).apply(bars, include_groups=False).to_string())


def bars(rows: pd.DataFrame) -> pd.Series:
    """Return the figures that the bars are about, shares in per cent."""
    has_zones = rows["zone_wrong"].notna()
    right = (
        [_named_rightly(*row) for row in zip(rows["family"], rows["matters"].fillna(""), strict=True)]
        if "family" in rows
        else []
    )
    told = [one for one in right if one is not None]
    lead = rows["regret"] - rows["naive_regret"]
    return pd.Series(
        {
            "n": len(rows),
            "complete": rows["complete"].mean(),
            "zones wrong": 100 * (rows["zone_wrong"] > NEAR_DECADES)[has_zones].mean(),
            "resolved": 100 * rows["resolved"].mean(),
            "of it wrong": 100 * rows["resolved_wrong"].sum() / max(rows["resolved"].sum(), 1e-9),
            "likely": 100 * rows["likely_resolved"].mean(),
            "of likely wrong": 100
            * rows["likely_resolved_wrong"].sum()
            / max(rows["likely_resolved"].sum(), 1e-9),
            "identified": 100 * rows["identified"].mean(),
            "and wrong": 100 * rows["identified_wrong"].mean(),
            "off > 2": 100 * (rows["off"].abs() > 2).mean(),
            "off > 4": 100 * (rows["off"].abs() > 4).mean(),
            "worst off": rows["off"].abs().max(),
            "regret": rows["regret"].mean(),
            "luckiest": rows["naive_regret"].mean(),
            "difference": lead.mean(),
            "error": lead.std(ddof=1) / math.sqrt(len(rows)),
            "verdicts wrong": 100 * rows["matters_wrong"].mean() / len(AXES),
            "matters right": 100 * float(np.mean(told)) if told else math.nan,
            "fits": 100 * (rows["fits"].astype(str) == "True").mean(),
            "CPU s": rows["seconds"].median(),
        }
    ).round(2)


def _named_rightly(family: str, verdicts: str) -> bool | None:
    """Return whether what matters on a ridge is named rightly; None for what is no ridge."""
    if family not in MATTERS or not verdicts:
        return None
    lr, slow, ratio = verdicts.split()
    if MATTERS[family] == "ratio":
        return ratio == "matters"
    of, other = (lr, slow) if MATTERS[family] == "lr" else (slow, lr)
    return of == "matters" and other == "does_not_matter"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", nargs="+", choices=list(FAMILIES), default=list(FAMILIES))
    parser.add_argument("--noise", nargs="+", choices=LEVELS, default=list(LEVELS))
    parser.add_argument("--trials", nargs="+", type=int, default=[100])
    parser.add_argument("--design", nargs="+", choices=["cheap", "search"], default=["cheap"])
    parser.add_argument("--studies", type=int, default=30, help="per cell")
    parser.add_argument("--first", type=int, default=0, help="number of the first study")
    parser.add_argument("--block", type=int, default=5)
    parser.add_argument("--scores", type=Path, default=Path("foreign.csv"))
    parser.add_argument("--summary", action="store_true", help="print the tables of the file, run nothing")
    options = parser.parse_args(arguments)
    if options.summary:
        return summary(options.scores)
    keep_freed_memory()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cells = list(product(options.family, options.noise, options.trials, options.design))
    for line in rows_of(cells, options.first, options.studies, options.block, options.scores):
        print(line, flush=True)


if __name__ == "__main__":
    main()
