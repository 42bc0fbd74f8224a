"""Paired verdicts on arms whose true difference is known: how often is "better" said, and rightly?

    python benchmarks/verdicts.py --repeats 500

Two arms on the same seeds and subjects. A run's loss on a subject is the subject's difficulty, the seed's
luck (standard deviation 1, of which a share is common to both arms, because data order and dropout come from
the same seed) and what this arm makes of this subject with this seed. Null: no true difference. Power: the
first arm is better by one seed standard deviation. One row a cell: shares of "better" and of "worse" in %,
the interval's coverage of the true difference, and the mean smallest detectable effect.

Result: the table in docs/answer.md, 500 repeats a row. The random streams are seeded: the same on any machine
up to rounding. About 4 CPU minutes.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hpo.confirm.paired import adjust, compare, verdict

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """One simulated situation; losses in units of the seed's standard deviation."""

    name: str
    gain: float
    seeds: int = 10
    units: int = 6
    shared: float = 0.5
    """Share of the seed's variance that both arms have in common."""
    taste: float = 0.3
    """Standard deviation of what an arm makes of a subject, whatever the seed."""
    arms: int = 1
    """Arms in the same confirmation; all but the first are null."""
    window_counts: tuple[int, int] = (200, 240)


CELLS = (
    Cell("null", 0.0),
    Cell("null, 3 arms", 0.0, arms=3),
    Cell("null, 50 subjects", 0.0, units=50),
    Cell("null, nothing shared", 0.0, shared=0.0),
    Cell("null, 6 seeds", 0.0, seeds=6),
    Cell("null, 5 seeds", 0.0, seeds=5),
    Cell("1 sd", 1.0),
    Cell("1 sd, 3 arms", 1.0, arms=3),
    Cell("1 sd, 50 subjects", 1.0, units=50),
    Cell("1 sd, nothing shared", 1.0, shared=0.0),
    Cell("1 sd, 6 seeds", 1.0, seeds=6),
    Cell("1 sd, 5 seeds", 1.0, seeds=5),
)


def simulate(cell: Cell, rng: np.random.Generator) -> tuple[list[Floats], Floats, Floats]:
    """Return the losses of the challengers (each (S, U)), of the baseline, and windows (U,)."""
    windows = rng.integers(*cell.window_counts, cell.units).astype(np.float64)
    difficulty = 2 * rng.standard_normal(cell.units)
    common = np.sqrt(cell.shared) * rng.standard_normal((cell.seeds, 1))

    def arm(gain: float) -> Floats:
        luck = common + np.sqrt(1 - cell.shared) * rng.standard_normal((cell.seeds, 1))
        taste = cell.taste * rng.standard_normal(cell.units)
        rest = 0.3 * rng.standard_normal((cell.seeds, cell.units))
        return np.asarray((10 + difficulty + taste + luck + rest - gain) * windows)

    return [arm(cell.gain), *(arm(0.0) for _ in range(cell.arms - 1))], arm(0.0), windows


def row(cell: Cell, repeats: int) -> str:
    """Return one line of the table, about the first challenger."""
    said, covered, detectable = [], [], []
    for number in range(repeats):
        arms, baseline, windows = simulate(cell, np.random.default_rng([CELLS.index(cell), number]))
        found = [compare(arm, baseline, windows) for arm in arms]
        adjusted = adjust([one.p for one in found])
        said.append(verdict(found[0], adjusted[0]))
        covered.append(found[0].low <= -cell.gain <= found[0].high)
        detectable.append(found[0].detectable or np.nan)
    better, worse = (100 * np.mean([one == word for one in said]) for word in ("better", "worse"))
    return (
        f"{cell.name:22} {cell.seeds:5} {cell.units:8} {repeats:7} {better:6.1f}% {worse:5.1f}%"
        f" {100 * np.mean(covered):6.1f}% {np.mean(detectable):10.2f}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=500)
    args = parser.parse_args()
    print("situation              seeds subjects repeats better  worse  covers detectable")
    for cell in CELLS:
        print(row(cell, args.repeats), flush=True)


if __name__ == "__main__":
    main()
