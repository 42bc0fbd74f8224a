r"""Layer decay x the head alone first x schedule on the built-in encoder: paired seeds, our own verdicts.

    python benchmarks/recipes.py --data DATA --study bidmc_hr --lr 1e-2 --backbone-lr 1e-4 --loss l1 \
        --epochs 8 --every 4
    python benchmarks/recipes.py --data DATA --study ptb-xl --lr 3.2e-3 --backbone-lr 1e-3 --loss bce_focal

Each recipe trains with the same seeds at the rates that were best for the plain one in the recorded runs, and
is compared with the plain one on the best validation loss of each seed: the interval, the sign flips and the
conditions of a confirmation (Holm over the recipes). Each factor alone and all three together; ``--cross``
takes every combination. Results go to ``benchmarks/results/recipes_<study>.json``; a run that is there is not
run again, and the table is of the seeds that all recipes have.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from finetune.api import Recipe, Report, Run, RunResult, RunSpec, train
from hpo.confirm.paired import Comparison, compare, doubt, holm
from hpo.study import Configuration, load_spec

RESULTS = Path(__file__).resolve().parent / "results"
LAYER_DECAY, HEAD_EPOCHS, SCHEDULES = (1.0, 0.75), (0, 2), ("constant", "cosine")
BATCH = 32
"""As in the recorded runs."""


class Runs:
    """A source of runs that keeps the best validation loss of each as it ends."""

    def __init__(self, runs: Sequence[Run], kept: dict[str, float], file: Path) -> None:
        self._runs, self._kept, self._file = list(runs), kept, file

    def next_run(self) -> Run | None:
        """Give the next run."""
        return self._runs.pop(0) if self._runs else None

    def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        """Let all go on."""
        return [True] * len(reports)

    def finish(self, result: RunResult) -> None:
        """Keep the best loss."""
        self._kept[result.run_id] = result.best_validation_loss
        self._file.write_text(json.dumps(self._kept, indent=1, sort_keys=True) + "\n")
        print(
            result.run_id, f"{result.best_validation_loss:.4g}", f"{result.elapsed_s:.0f} s", file=sys.stderr
        )


def recipes(base: Recipe, has_cross: bool) -> dict[str, Recipe]:
    """Return the recipes by name, plain first: each factor alone and all of them, or every combination."""
    cells = list(itertools.product(LAYER_DECAY, HEAD_EPOCHS, SCHEDULES))
    plain = cells[0]
    if not has_cross:
        changed = [sum(one != other for one, other in zip(cell, plain, strict=True)) for cell in cells]
        cells = [cell for cell, many in zip(cells, changed, strict=True) if many != 2]
    return {
        f"decay {decay:g}, head {head}, {schedule}": replace(
            base, layer_decay=decay, head_epochs=head, schedule=schedule
        )
        for decay, head, schedule in cells
    }


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--study", default="ptb-xl")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path("cache"))
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--lr", type=float, default=3.2e-3)
    parser.add_argument("--backbone-lr", type=float, default=1e-3)
    parser.add_argument("--loss", default="bce_focal")
    parser.add_argument("--cross", action="store_true")
    parser.add_argument("--table", action="store_true", help="print the table of what is there, run nothing")
    options = parser.parse_args()
    spec = load_spec(options.study)
    one = spec.run_spec(Configuration(options.lr, options.backbone_lr, options.loss, 0))
    inputs = replace(one.inputs, allow_partial=True, every=options.every)
    base = replace(one.recipe, epochs=options.epochs, patience=options.epochs, batch_size=BATCH)
    named = recipes(base, options.cross)
    file = RESULTS / f"recipes_{options.study}.json"
    kept: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    runs = [
        Run(f"{name} / {seed}", _with(replace(one, inputs=inputs), recipe, seed))
        for seed in range(options.seeds)
        for name, recipe in named.items()
        if f"{name} / {seed}" not in kept
    ]
    if not options.table:
        train(Runs(runs, kept, file), data_dir=options.data, cache_dir=options.cache, device="cpu")
    print(table(list(named), kept, options.seeds))


def _with(spec: RunSpec, recipe: Recipe, seed: int) -> RunSpec:
    return replace(spec, recipe=recipe, seed=seed)


def table(names: Sequence[str], kept: dict[str, float], seeds: int) -> str:
    """Return the table of all recipes beside the plain one."""
    done = [seed for seed in range(seeds) if all(f"{name} / {seed}" in kept for name in names)]
    losses = {name: np.array([[kept[f"{name} / {seed}"]] for seed in done]) for name in names}
    plain, *others = names
    found = [compare(losses[name], losses[plain], np.ones(1)) for name in others]
    lines = [
        "| recipe | best validation loss, mean (sd) | beside the plain one, 95 % interval | better in "
        "| p (Holm) | verdict |",
        "|---|---|---|---|---|---|",
        f"| {plain} | {_spread(losses[plain])} | | | | |",
    ]
    for name, one, p in zip(others, found, holm([one.p for one in found]), strict=True):
        wins = (losses[name] < losses[plain]).sum()
        lines.append(
            f"| {name} | {_spread(losses[name])} | {one.difference:+.4f} [{one.low:+.4f}, {one.high:+.4f}] "
            f"| {wins} of {len(done)} | {p:.3f} | {verdict(one, p)} |"
        )
    return "\n".join(lines)


def verdict(found: Comparison, p: float) -> str:
    """Return what a confirmation would say of the difference."""
    why = doubt(found, p)
    if why is None:
        return "better" if found.difference < 0 else "worse"
    apart = "" if found.detectable is None else f" (would be seen from {found.detectable:.2g})"
    return f"cannot be told: {why.value}{apart}"


def _spread(losses: np.ndarray) -> str:
    return f"{losses.mean():.4f} ({losses.std(ddof=1):.4f})"


if __name__ == "__main__":
    main()
