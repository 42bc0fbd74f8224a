"""Verdicts on arms whose true difference is known: how often is "better" said, and rightly?

    python benchmarks/verdicts.py --repeats 1000
    python benchmarks/verdicts.py --repeats 1000 --looks 10

Two arms on the same seeds and subjects. A run's loss on a subject is the subject's difficulty, the seed's
luck (standard deviation 1, of which a share is common to both arms, because data order and dropout come from
the same seed) and what this arm makes of this subject with this seed. A constant predictor stands 10 above.

- Null: equal means. The seed's luck is normal, t(2) or lognormal; or the arms make something of every
  subject (two, three or six of them) that averages to nothing over people; or a run of either arm diverges in
  5 or 10 % of the seeds; or the choice alone fails rarely: by so much, without diverging, that it pays for
  being better in all other seeds.
- Power: the first arm is better by one seed standard deviation.

One row a cell, in % of the repeats: "better", "better unless it fails" (no seed failed, but a failure rate
that so few seeds cannot exclude would undo it), "worse", withheld because of seeds that failed; whether the
95 % interval holds the true difference; the mean detectable difference. With ``--looks`` the same study is
confirmed again and again, with fresh seeds each time: in how many of the repeats "better" (of either kind)
was ever said.

Result: the tables in docs/confirmation.md. The random streams are seeded: the same on any machine up to
rounding.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hpo.confirm.judging import Against, judge_arms
from hpo.confirm.verdicts import Finding, Look

Floats = NDArray[np.float64]
CONSTANT = 20.0
"""Loss of the trivial predictor; the arms' is 10."""


@dataclass(frozen=True)
class Cell:
    """One simulated situation; losses in units of the seed's standard deviation."""

    name: str
    gain: float = 0.0
    seeds: int = 10
    units: int = 6
    shared: float = 0.5
    """Share of the seed's variance that both arms have in common."""
    taste: float = 0.3
    """Standard deviation of what an arm makes of a subject, whatever the seed."""
    arms: int = 1
    """Arms in the same confirmation; all but the first are null."""
    luck: Literal["normal", "t2", "lognormal"] = "normal"
    diverging: float = 0.0
    """Share of the runs, of either arm, that have no loss at all."""
    failing: float = 0.0
    """Share of the first arm's runs that are worse by ``cost``; the others are better: equal means."""
    cost: float = 0.0


NULLS = (
    Cell("null, normal"),
    Cell("null, t(2)", luck="t2"),
    Cell("null, lognormal", luck="lognormal"),
    Cell("null, 2 subjects", units=2, taste=1.0),
    Cell("null, 3 subjects", units=3, taste=1.0),
    Cell("null, 6 subjects", units=6, taste=1.0),
    Cell("null, 50 subjects", units=50),
    Cell("null, 6 seeds", seeds=6),
    Cell("null, 3 arms", arms=3),
    Cell("null, nothing shared", shared=0.0),
    Cell("null, 5 % diverge", diverging=0.05),
    Cell("null, 10 % diverge", diverging=0.10),
    Cell("null, 5 % fail by 5 sd", failing=0.05, cost=5.0),
    Cell("null, 10 % fail by 5 sd", failing=0.10, cost=5.0),
    Cell("null, 5 % fail by 10 sd", failing=0.05, cost=10.0),
    Cell("null, 10 % fail by 10 sd", failing=0.10, cost=10.0),
)
GAINS = (
    Cell("1 sd", 1.0),
    Cell("1 sd, 3 arms", 1.0, arms=3),
    Cell("1 sd, 50 subjects", 1.0, units=50),
    Cell("1 sd, nothing shared", 1.0, shared=0.0),
    Cell("1 sd, 6 seeds", 1.0, seeds=6),
    Cell("1 sd, 5 seeds", 1.0, seeds=5),
    Cell("1 sd, 10 % diverge", 1.0, diverging=0.10),
    Cell("5 sd", 5.0),
)
CELLS = (*NULLS, *GAINS)
REPEATED = (NULLS[0], NULLS[1], NULLS[2], NULLS[5])


class Situation:
    """One repeat of a cell: people and tastes stay, seeds are drawn anew at each look."""

    def __init__(self, cell: Cell, rng: np.random.Generator) -> None:
        self.cell, self.rng = cell, rng
        self.windows = rng.integers(200, 240, cell.units).astype(np.float64)
        self.difficulty = 2 * rng.standard_normal(cell.units)
        self.tastes = cell.taste * rng.standard_normal((cell.arms + 1, cell.units))

    def judged(self, look: Look) -> Against | None:
        """Return what is said of the first arm on fresh seeds."""
        cell, seeds = self.cell, range(self.cell.seeds)
        common = np.sqrt(cell.shared) * self._luck()
        arms = [self._arm(place, common) for place in range(cell.arms + 1)]
        constant = dict.fromkeys(seeds, CONSTANT * self.windows)
        *rivals, baseline = arms
        return judge_arms(rivals, baseline, constant, seeds=seeds, windows=self.windows, look=look)[0]

    def _luck(self) -> Floats:
        size, rng = (self.cell.seeds, 1), self.rng
        match self.cell.luck:
            case "normal":
                return rng.standard_normal(size)
            case "t2":
                return rng.standard_t(2, size)
            case "lognormal":
                return (np.exp(rng.standard_normal(size)) - np.exp(0.5)) / np.sqrt((np.e - 1) * np.e)

    def _arm(self, place: int, common: Floats) -> dict[int, Floats]:
        """Return an arm's losses by seed, without the seeds that diverged."""
        cell, rng = self.cell, self.rng
        luck = common + np.sqrt(1 - cell.shared) * self._luck()
        rest = 0.3 * rng.standard_normal((cell.seeds, cell.units))
        extra = np.zeros((cell.seeds, 1))
        if place == 0:
            fails = rng.random((cell.seeds, 1)) < cell.failing
            extra = cell.cost * (fails - cell.failing) - cell.gain
        losses = (10 + self.difficulty + self.tastes[place] + luck + rest + extra) * self.windows
        trained = rng.random(cell.seeds) >= cell.diverging
        return {seed: losses[seed] for seed in range(cell.seeds) if trained[seed]}


def situation(cell: Cell, number: int) -> Situation:
    return Situation(cell, np.random.default_rng([CELLS.index(cell), number]))


def row(cell: Cell, repeats: int) -> str:
    """Return one line of the table, about the first challenger."""
    found = [situation(cell, number).judged(Look(1)) for number in range(repeats)]
    said = Counter(Finding.ALL_FAILED if one is None else one.finding for one in found)
    shown = (Finding.BETTER, Finding.BETTER_UNLESS_IT_FAILS, Finding.WORSE, Finding.SEEDS_FAILED)
    shares = " ".join(f"{100 * said[word] / repeats:6.1f}%" for word in shown)
    compared = [one for one in found if one is not None]
    covered = np.mean([one.low <= -cell.gain <= one.high for one in compared])
    detectable = np.mean([one.detectable for one in compared if one.detectable is not None] or [np.nan])
    return f"{cell.name:26} {cell.seeds:5} {cell.units:8} {shares} {100 * covered:6.1f}% {detectable:10.2f}"


def ever(cell: Cell, repeats: int, looks: int) -> str:
    """Return how often "better" is ever said, each look with its alpha, and each with that of the first."""
    real = {Finding.BETTER, Finding.BETTER_UNLESS_IT_FAILS}
    spent, unspent = 0, 0
    for number in range(repeats):
        for which in ("spent", "unspent"):
            one = situation(cell, number)
            said = [one.judged(Look(k if which == "spent" else 1)) for k in range(1, looks + 1)]
            hit = any(found is not None and found.finding in real for found in said)
            spent, unspent = spent + (hit and which == "spent"), unspent + (hit and which == "unspent")
    return f"{cell.name:26} {looks:5} looks: {100 * spent / repeats:5.1f}% ({100 * unspent / repeats:5.1f}%)"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument(
        "--looks", type=int, default=0, help='in place of the table: "better" ever, in so many'
    )
    args = parser.parse_args()
    if args.looks:
        print('"better" ever said, with alpha spent over the looks (and without)')
        for cell in REPEATED:
            print(ever(cell, args.repeats, args.looks), flush=True)
        return
    print("situation                  seeds subjects better unless  worse  failed covers detectable")
    for cell in CELLS:
        print(row(cell, args.repeats), flush=True)


if __name__ == "__main__":
    main()
