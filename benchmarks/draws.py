"""How much of a choice is the Monte Carlo seed of the posterior's draws, and not the trials.

    python benchmarks/draws.py [--repeats 40]

Random search on the emulator of PTB-XL (benchmarks/search.py), every run complete; the same trials answered
with other seeds of the draws, and with more draws. True expected loss of the choice, mean over the
repetitions, and how far one repetition's choices lie apart between the seeds (standard deviation).

Result, one core of an AMD EPYC, Python 3.11.7, NumPy 2.4.6, SciPy 1.17.1, 100 s:

| complete trials | seed 0 | seed 1 | seed 2 | seed 0, more draws | between seeds | n |
|---|---|---|---|---|---|---|
| 16 | 0.4365 | 0.4293 | 0.4334 | 0.4400 | 0.0094 | 40 |
| 40 | 0.4272 | 0.4259 | 0.4277 | 0.4276 | 0.0064 | 40 |

The repetitions share the seeds: their standard errors say nothing of the difference between two columns.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

import numpy as np
from search import METHODS, History, Recorded, recorded, run

from hpo.allocator import keep_freed_memory
from hpo.analysis import answer
from hpo.analysis.posterior import fit_surrogates
from hpo.analysis.surrogate import Surrogate

TRIALS = (16, 40)
SEEDS = (0, 1, 2)
MORE = {"PARTICLES": 400}


def _seeded(seed: int) -> Callable[..., list[Surrogate]]:
    def fit(*evidence: Any, **settings: Any) -> list[Surrogate]:
        return fit_surrogates(*evidence, **{**settings, "seed": seed})

    return fit


def choices(world: Recorded, history: History, trials: int) -> Iterator[tuple[str, float]]:
    """Yield the true expected loss of the choice from the first trials, for each way to draw."""
    for seed, more in [*((seed, {}) for seed in SEEDS), (SEEDS[0], MORE)]:
        with ExitStack() as patches:
            patches.enter_context(patch("hpo.analysis.evidence.fit_surrogates", _seeded(seed)))
            if more:
                patches.enter_context(patch.multiple("hpo.analysis.look", **more))
            found = answer(*history.frames(trials), world.space, None, world.trivial).choice
        assert found is not None
        name = f"seed {seed}" + (", more draws" if more else "")
        yield name, world.truth(found.lr, found.backbone_lr, found.loss)[0]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=40)
    repeats = parser.parse_args().repeats
    keep_freed_memory()
    losses: dict[tuple[int, str], list[float]] = defaultdict(list)
    for repeat in range(repeats):
        world = Recorded(recorded("ptb-xl"), repeat)
        history = run(world, METHODS["random"](world, repeat), TRIALS[-1] * world.epochs)
        for trials in TRIALS:
            for name, loss in choices(world, history, trials):
                losses[trials, name].append(loss)
    names = list(dict.fromkeys(name for _, name in losses))
    print("| complete trials |", " | ".join(names), "| between seeds | n |\n|" + "---|" * (len(names) + 3))
    for trials in TRIALS:
        means = [f"{np.mean(losses[trials, name]):.4f}" for name in names]
        apart = np.std([losses[trials, name] for name in names[: len(SEEDS)]], axis=0, ddof=1)
        print(f"| {trials} |", " | ".join(means), f"| {np.sqrt(np.mean(apart**2)):.4f} | {repeats} |")


if __name__ == "__main__":
    main()
