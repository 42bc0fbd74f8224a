"""Simulated studies with a known answer: is the 95 % interval of the best ratio worth its name?

    python benchmarks/simulated_studies.py --studies 200

Five landscapes of expected validation loss over (lr, backbone_lr, loss) x three seed noises; 100 trials a
study, suggested half at random and half near the best so far, with learning curves, median pruning,
divergence and twice the noise in bad regions. One row a cell: coverage and median width of the interval,
how often the ratio is called identified, errors and optimism beside those of the naive best trial.

    python benchmarks/simulated_studies.py --studies 200 --scores scores.csv

keeps every study's score in a file, goes round the cells in blocks of 10 studies, and goes on where it was
stopped; the table is of all studies in the file.

    python benchmarks/simulated_studies.py --studies 60 --seeds 10

has the trials of a study take turns with ten seeds (``space.seed.count``), which share SHARED of the noise's
variance.

    python benchmarks/simulated_studies.py --time

times one answer at 100, 400 and 1,000 trials.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from hpo.allocator import keep_freed_memory
from hpo.analysis import answer

Floats = NDArray[np.float64]

LOSSES = ("mse", "l1", "huber")
EPOCHS = 20
RANGE = 0.2
"""Expected loss of the worst plateau above the best configuration."""
SHARED = 0.4
"""Of the noise's variance, with --seeds; of the good configurations of bidmc_hr it was 0.39."""
NOISES = {"low": 0.01, "middle": 0.03, "high": 0.06}


@dataclass(frozen=True)
class Bounds:
    """A range of learning rates."""

    low: float
    high: float


@dataclass(frozen=True)
class Space:
    """The search space of every simulated study."""

    lr: Bounds = Bounds(1e-5, 1e-2)
    backbone_lr: Bounds = Bounds(1e-6, 1e-3)
    loss: tuple[str, ...] = LOSSES


@dataclass(frozen=True)
class Setting:
    """The published default."""

    lr: float = 1e-4
    backbone_lr: float = 1e-5
    loss: str = "mse"


SPACE = Space()


@dataclass(frozen=True)
class Landscape:
    """Expected loss: 1 + RANGE (1 - exp(-q)), q a bowl around each loss's best (log10 lr, log10 ratio)."""

    lr: float
    ratio: float
    widths: tuple[float, float]
    """Decades of lr and ratio."""
    tilt: float = 0.0
    """Correlation of the bowl's axes."""
    offsets: tuple[float, ...] = (0.0, 0.02, 0.05)
    """Added to each loss."""
    shifts: tuple[float, ...] = (0.0, 0.0, 0.0)
    """Decades by which each loss moves the best ratio."""
    depth: float = RANGE
    cliff: float = np.inf
    """log10 lr at which half of the runs diverge."""

    def expected(self, lr: Floats, ratio: Floats, loss: NDArray[np.int64]) -> Floats:
        """Return the expected loss at log10 rates and ratios and loss indices."""
        a = (lr - self.lr) / self.widths[0]
        b = (ratio - self.ratio - np.array(self.shifts)[loss]) / self.widths[1]
        bowl = (a * a - 2 * self.tilt * a * b + b * b) / (1 - self.tilt**2)
        return np.asarray(1.0 + np.array(self.offsets)[loss] - self.depth * np.expm1(-bowl))

    def diverges(self, lr: Floats) -> Floats:
        """Return the probability that a run diverges."""
        return np.asarray(1 / (1 + np.exp(np.clip(-(lr - self.cliff) / 0.08, -500, 500))))

    def best_ratio(self) -> tuple[float, float]:
        """Return the log10 ratio of the best configuration in the box, and its expected loss.

        To a thousandth of a decade: the narrowest intervals are a few hundredths wide.
        """
        lr = np.linspace(np.log10(SPACE.lr.low), np.log10(SPACE.lr.high), 151)
        backbone_lr = np.linspace(np.log10(SPACE.backbone_lr.low), np.log10(SPACE.backbone_lr.high), 151)
        for _ in range(3):
            place = self._lowest_on(lr, backbone_lr)
            step = lr[1] - lr[0], backbone_lr[1] - backbone_lr[0]
            lr = _beside(place[0], 2 * step[0], SPACE.lr)
            backbone_lr = _beside(place[1], 2 * step[1], SPACE.backbone_lr)
        return place[0] - place[1], place[2]

    def _lowest_on(self, lr: Floats, backbone_lr: Floats) -> tuple[float, float, float]:
        """Return log10 lr, log10 backbone_lr and expected loss of the best on a grid."""
        rates, backbones, losses = np.meshgrid(lr, backbone_lr, np.arange(len(LOSSES)), indexing="ij")
        values = self.expected(rates, rates - backbones, losses)
        values = np.where(self.diverges(rates) > 0.5, np.inf, values)
        best = np.argmin(values)
        return float(rates.ravel()[best]), float(backbones.ravel()[best]), float(values.ravel()[best])


def _beside(middle: float, reach: float, bounds: Bounds) -> Floats:
    """Return 41 log10 rates around one of them, within the range."""
    return np.linspace(
        max(middle - reach, np.log10(bounds.low)), min(middle + reach, np.log10(bounds.high)), 41
    )


Maker = Callable[[np.random.Generator, float], Landscape]


def _inside(rng: np.random.Generator) -> tuple[float, float]:
    """Return log10 lr and log10 ratio of a point at least half a decade inside the box."""
    lr, backbone_lr = rng.uniform(-4.5, -2.5), rng.uniform(-5.5, -3.5)
    return float(lr), float(lr - backbone_lr)


def sharp(rng: np.random.Generator, _: float) -> Landscape:
    return Landscape(*_inside(rng), (rng.uniform(0.5, 1.0), rng.uniform(0.5, 0.8)))


def flat(rng: np.random.Generator, noise: float) -> Landscape:
    """Nothing matters but the loss; a dip of a tenth of the seed's noise marks the truth."""
    return Landscape(*_inside(rng), (0.5, 0.5), depth=0.1 * noise)


def interacting(rng: np.random.Generator, _: float) -> Landscape:
    return Landscape(
        *_inside(rng),
        (rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.0)),
        tilt=float(rng.choice([-1, 1]) * rng.uniform(0.4, 0.8)),
        offsets=tuple(rng.permutation([0.0, 0.01, 0.03])),
        shifts=(0.0, float(rng.uniform(-0.6, 0.6)), float(rng.uniform(-0.6, 0.6))),
    )


def edge(rng: np.random.Generator, _: float) -> Landscape:
    """The best backbone_lr lies at, or up to 0.4 decades beyond or before, the low end of its range."""
    lr = float(rng.uniform(-4.5, -2.5))
    backbone_lr = -6 + float(rng.uniform(-0.4, 0.4))
    return Landscape(lr, lr - backbone_lr, (rng.uniform(0.6, 1.0), rng.uniform(0.6, 1.0)))


def diverging(rng: np.random.Generator, _: float) -> Landscape:
    lr, ratio = _inside(rng)
    widths = (rng.uniform(0.6, 1.0), rng.uniform(0.5, 1.0))
    return Landscape(lr, ratio, widths, cliff=lr + float(rng.uniform(0.2, 0.6)))


LANDSCAPES: Mapping[str, Maker] = {
    "sharp": sharp,
    "flat": flat,
    "interacting": interacting,
    "edge": edge,
    "diverging": diverging,
}


@dataclass(frozen=True)
class Study:
    """A simulated study and its truth."""

    trials: pd.DataFrame
    curves: pd.DataFrame
    landscape: Landscape
    noise: float


def simulate(
    landscape: Landscape,
    noise: float,
    trials: int,
    rng: np.random.Generator,
    *,
    adaptive: bool = True,
    pruner: bool = True,
    seeds: int = 0,
) -> Study:
    """Return a study of ``trials`` trials on ``landscape``; the first is the baseline.

    Trials take turns with ``seeds`` seeds; 0: each has its own, of which nothing is shared.
    """
    luck = rng.standard_normal(seeds)
    rows: list[dict[str, object]] = []
    curves: list[Floats] = []
    reached = np.empty((0, EPOCHS))
    for number in range(trials):
        lr, backbone_lr, loss = _suggest(rows, rng, adaptive=adaptive) if number else (-4.0, -5.0, 0)
        shared = luck[number % seeds] if seeds else None
        curve = _curve(landscape, noise, lr, lr - backbone_lr, loss, rng, shared)
        curve, end = _pruned(curve, reached, startup=5 if pruner else trials)
        value = float(np.nanmin(curve)) if end != "diverged" else np.nan
        rows.append(
            {
                "number": number,
                "state": "complete" if end == "finished" else "pruned",
                "origin": "search" if number else "baseline",
                "lr": 10**lr,
                "backbone_lr": 10**backbone_lr,
                "ratio": 10 ** (lr - backbone_lr),
                "loss": LOSSES[loss],
                "seed": number % seeds if seeds else number,
                "fold": None,
                "value": value,
                "end": end,
                "best_epoch": int(np.nanargmin(curve)) + 1 if end != "diverged" else 0,
                "epochs": len(curve),
            }
        )
        curves.append(curve)
        if np.isfinite(curve[0]):
            reached = np.vstack([reached, _best_by_epoch(curve)])
    points = [
        (number, epoch + 1, loss) for number, curve in enumerate(curves) for epoch, loss in enumerate(curve)
    ]
    return Study(
        pd.DataFrame(rows),
        pd.DataFrame(points, columns=["number", "epoch", "validation_loss"]),
        landscape,
        noise,
    )


def _suggest(
    rows: list[dict[str, object]], rng: np.random.Generator, *, adaptive: bool
) -> tuple[float, float, int]:
    """Return log10 rates and the loss: at random, or near one of the best quarter (after 20 trials)."""
    done = sorted(
        (row for row in rows if row["state"] == "complete"), key=lambda row: float(str(row["value"]))
    )
    if not adaptive or len(rows) < 20 or not done or rng.random() < 0.3:
        return float(rng.uniform(-5, -2)), float(rng.uniform(-6, -3)), int(rng.integers(3))
    near = done[int(rng.integers(max(1, len(done) // 4)))]
    lr, backbone_lr = np.log10(
        [float(str(near["lr"])), float(str(near["backbone_lr"]))]
    ) + 0.3 * rng.standard_normal(2)
    loss = LOSSES.index(str(near["loss"])) if rng.random() < 0.7 else int(rng.integers(3))
    return float(np.clip(lr, -5, -2)), float(np.clip(backbone_lr, -6, -3)), loss


def _curve(
    landscape: Landscape,
    noise: float,
    lr: float,
    ratio: float,
    loss: int,
    rng: np.random.Generator,
    luck: float | None = None,
) -> Floats:
    """Return a validation curve (EPOCHS,) whose lowest point is the expected loss plus the seed's noise.

    ``luck`` is what the seed does to every configuration, in standard deviations.
    """
    if rng.random() < landscape.diverges(np.array(lr)):
        return np.append(1.5 + rng.random(int(rng.integers(0, 3))), np.nan)
    expected = float(landscape.expected(np.array(lr), np.array(ratio), np.array(loss)))
    badness = (expected - 1) / RANGE
    own = rng.standard_normal()
    whole = own if luck is None else np.sqrt(SHARED) * luck + np.sqrt(1 - SHARED) * own
    final = expected + noise * (1 + min(badness, 1.0)) * whole
    pace = 3.0 * 10 ** (-0.3 * (lr + 3.5)) * np.exp(0.2 * rng.standard_normal())
    wiggle = 0.3 * noise * np.abs(rng.standard_normal(EPOCHS))
    curve = 0.5 * np.exp(-np.arange(1, EPOCHS + 1) / pace + 0.1 * rng.standard_normal()) + wiggle
    return np.asarray(final + curve - curve.min())


def _best_by_epoch(curve: Floats) -> Floats:
    """Return the lowest loss (EPOCHS,) up to each epoch; after the curve's end its lowest."""
    best = np.fmin.accumulate(curve)
    return np.append(best, np.full(EPOCHS - len(best), best[-1]))


def _pruned(curve: Floats, reached: Floats, warmup: int = 3, startup: int = 5) -> tuple[Floats, str]:
    """Return the curve cut where the median pruner stops it, and why the run ended.

    ``reached`` (n, EPOCHS) is the lowest loss of each earlier run up to each epoch.
    """
    best = np.fmin.accumulate(curve)
    medians = np.median(reached, axis=0) if len(reached) >= startup else np.full(EPOCHS, np.inf)
    for epoch in range(len(curve)):
        if np.isnan(curve[epoch]):
            return curve[: epoch + 1], "diverged"
        if epoch >= warmup and best[epoch] > medians[epoch]:
            return curve[: epoch + 1], "pruned"
    return curve, "finished"


@dataclass(frozen=True)
class Score:
    """How one study's answer stands to the truth: log10 ratios; optimism, regret and noise in seed standard
    deviations."""

    truth: float
    best: float
    low: float
    high: float
    naive_best: float
    identified: bool
    optimism: float
    naive_optimism: float
    regret: float
    naive_regret: float
    seed_sd: float
    seconds: float


def score(study: Study) -> Score:
    """Analyse one study and compare with its truth."""
    started = time.process_time()
    found = answer(study.trials, study.curves, SPACE, Setting(), 1.0 + RANGE)
    seconds = time.process_time() - started
    truth, lowest = study.landscape.best_ratio()
    assert found.choice is not None
    assert found.best is not None
    assert found.curve is not None
    assert found.curve.best is not None
    low, high = found.curve.interval
    chosen, naive = (_expected(study, point) for point in (found.choice, found.best))
    return Score(
        truth,
        found.curve.best,
        low,
        high,
        float(np.log10(found.best.ratio)),
        found.curve.identified,
        (chosen - (found.choice.expected_validation_loss or np.nan)) / study.noise,
        (naive - found.best.validation_loss) / study.noise,
        (chosen - lowest) / study.noise,
        (naive - lowest) / study.noise,
        (found.noise.seed_sd or np.nan) / study.noise,
        seconds,
    )


def _expected(study: Study, point: object) -> float:
    lr, ratio, loss = (getattr(point, name) for name in ("lr", "ratio", "loss"))
    where = np.log10(lr), np.log10(ratio), np.array(LOSSES.index(loss))
    return float(study.landscape.expected(np.asarray(where[0]), np.asarray(where[1]), where[2]))


Cell = tuple[str, str]


def scored(cell: Cell, number: int, args: argparse.Namespace) -> Score:
    """Return the score of one study; study number i of a cell is the same in every run."""
    landscape, noise = cell
    rng = np.random.default_rng([list(LANDSCAPES).index(landscape), list(NOISES).index(noise), number])
    made = LANDSCAPES[landscape](rng, NOISES[noise])
    adaptive, pruner = args.sampler == "adaptive", args.pruner == "median"
    study = simulate(
        made, NOISES[noise], args.trials, rng, adaptive=adaptive, pruner=pruner, seeds=args.seeds
    )
    return score(study)


def rounds(cells: list[Cell], first: int, studies: int, block: int) -> Iterator[tuple[Cell, int]]:
    """Yield every study of every cell, ``block`` studies of each cell in turn."""
    end = first + studies
    for start in range(first, end, block):
        for cell in cells:
            for number in range(start, min(start + block, end)):
                yield cell, number


def kept(file: Path | None) -> list[dict[str, object]]:
    """Return the rows of an earlier run's file; none where there is no file."""
    if file is None or not file.exists():
        return []
    return [{str(name): value for name, value in row.items()} for row in pd.read_csv(file).to_dict("records")]


def run(cells: list[Cell], args: argparse.Namespace) -> pd.DataFrame:
    """Return a row for each study, those of ``args.scores`` included, each written as soon as it is known."""
    rows = kept(args.scores)
    have = {(row["landscape"], row["noise"], row["study"]) for row in rows}
    for cell, number in rounds(cells, args.first, args.studies, args.block):
        if (*cell, number) in have:
            continue
        row = {"landscape": cell[0], "noise": cell[1], "study": number} | asdict(scored(cell, number, args))
        if args.scores is not None:
            pd.DataFrame([row]).to_csv(args.scores, mode="a", header=not args.scores.exists(), index=False)
        rows.append(row)
    return pd.DataFrame(rows)


HEAD = (
    "landscape    noise    n  covers  width  identified  error (naive)  optimism (naive)  regret (naive)"
    "  seed sd  s/study"
)


def row(cell: Cell, scores: pd.DataFrame) -> str:
    """Return one line of the table: shares in %, medians of widths and errors, means of the rest."""
    low, high, truth = scores.low - 1e-6, scores.high + 1e-6, scores.truth
    error, naive = (scores.best - truth).abs().median(), (scores.naive_best - truth).abs().median()
    return (
        f"{cell[0]:12} {cell[1]:6} {len(scores):4} {100 * ((low <= truth) & (truth <= high)).mean():6.1f}%"
        f" {(high - low).median():6.2f} {100 * scores.identified.mean():10.1f}%  {error:5.2f} ({naive:5.2f})"
        f"  {scores.optimism.mean():8.2f} ({scores.naive_optimism.mean():5.2f})"
        f"  {scores.regret.mean():6.2f} ({scores.naive_regret.mean():5.2f})"
        f"  {scores.seed_sd.mean():7.2f}  {scores.seconds.median():7.2f}"
    )


def table(scores: pd.DataFrame, cells: Iterable[Cell]) -> str:
    """Return the table, a line for each cell that has studies."""
    parts = {cell: scores[(scores.landscape == cell[0]) & (scores.noise == cell[1])] for cell in cells}
    return "\n".join([HEAD, *(row(cell, part) for cell, part in parts.items() if len(part))])


def print_times(repeats: int = 3) -> None:
    """Print the CPU and wall seconds of one answer; the median of ``repeats`` studies of each size."""
    print("trials  CPU s  wall s")
    for trials in (100, 400, 1_000):
        taken = []
        for number in range(repeats):
            rng = np.random.default_rng(number)
            study = simulate(sharp(rng, NOISES["middle"]), NOISES["middle"], trials, rng)
            cpu, wall = time.process_time(), time.perf_counter()
            answer(study.trials, study.curves, SPACE, Setting(), 1.0 + RANGE)
            taken.append((time.process_time() - cpu, time.perf_counter() - wall))
        print(f"{trials:6} {np.median(taken, axis=0)[0]:6.2f} {np.median(taken, axis=0)[1]:7.2f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=40, help="per cell")
    parser.add_argument("--first", type=int, default=0, help="number of the first study")
    parser.add_argument("--block", type=int, default=10, help="studies of a cell before the next cell's turn")
    parser.add_argument("--scores", type=Path, help="CSV file that keeps the scores; a run goes on from it")
    parser.add_argument("--time", action="store_true", help="time an answer instead")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--sampler", choices=["adaptive", "random"], default="adaptive")
    parser.add_argument("--pruner", choices=["median", "none"], default="median")
    parser.add_argument("--seeds", type=int, default=0, help="so many in turn; 0: each trial has its own")
    parser.add_argument("--landscape", choices=list(LANDSCAPES), action="append")
    parser.add_argument("--noise", choices=list(NOISES), action="append")
    args = parser.parse_args()
    keep_freed_memory()
    if args.time:
        print_times()
        return
    cells = [
        (landscape, noise) for landscape in args.landscape or LANDSCAPES for noise in args.noise or NOISES
    ]
    print(table(run(cells, args), cells))


if __name__ == "__main__":
    main()
