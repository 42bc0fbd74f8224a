"""Layer decay x the head alone first x schedule on the built-in encoder: paired seeds, with our own verdicts.

    python benchmarks/recipes.py --data DATA --study ptb-xl --seeds 10 --every 1 --epochs 20

Each recipe trains with the same seeds at the published default's ratio (lr 1e-3, backbone_lr 1e-4) and is
compared with the plain one on the best validation loss of each seed (sign flips, Holm over the recipes).
Results go to ``benchmarks/results/recipes_<study>.json``; a run that is there is not run again.
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
from hpo.confirm.paired import holm, sign_flip_p
from hpo.study import Configuration, load_spec

RESULTS = Path(__file__).resolve().parent / "results"
LAYER_DECAY, HEAD_EPOCHS, SCHEDULES = (1.0, 0.75), (0, 2), ("constant", "cosine")
LR, BACKBONE_LR = 1e-3, 1e-4


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


def recipes(base: Recipe) -> dict[str, Recipe]:
    """Return the recipes by name, the plain one first."""
    return {
        f"decay {decay:g}, head {head}, {schedule}": replace(
            base, layer_decay=decay, head_epochs=head, schedule=schedule
        )
        for decay, head, schedule in itertools.product(LAYER_DECAY, HEAD_EPOCHS, SCHEDULES)
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
    options = parser.parse_args()
    spec = load_spec(options.study)
    one = spec.run_spec(Configuration(LR, BACKBONE_LR, spec.space.loss[0], 0))
    inputs = replace(one.inputs, allow_partial=True, every=options.every)
    base = replace(one.recipe, epochs=options.epochs, patience=options.epochs)
    named = recipes(base)
    file = RESULTS / f"recipes_{options.study}.json"
    kept: dict[str, float] = json.loads(file.read_text()) if file.exists() else {}
    runs = [
        Run(f"{name} / {seed}", _with(replace(one, inputs=inputs), recipe, seed))
        for seed in range(options.seeds)
        for name, recipe in named.items()
        if f"{name} / {seed}" not in kept
    ]
    train(Runs(runs, kept, file), data_dir=options.data, cache_dir=options.cache, device="cpu")
    print(table(named, kept, options.seeds))


def _with(spec: RunSpec, recipe: Recipe, seed: int) -> RunSpec:
    return replace(spec, recipe=recipe, seed=seed)


def table(named: dict[str, Recipe], kept: dict[str, float], seeds: int) -> str:
    """Return the table of all recipes beside the plain one."""
    losses = {name: np.array([kept[f"{name} / {seed}"] for seed in range(seeds)]) for name in named}
    plain, *others = named
    gaps = {name: losses[name] - losses[plain] for name in others}
    p = holm([sign_flip_p(gap) for gap in gaps.values()])
    lines = [
        "| recipe | best validation loss, mean (sd) | beside the plain one | better in | p (Holm) |",
        "|---|---|---|---|---|",
    ]
    lines.append(f"| {plain} | {losses[plain].mean():.4f} ({losses[plain].std(ddof=1):.4f}) | | | |")
    for (name, gap), one in zip(gaps.items(), p, strict=True):
        own = f"{losses[name].mean():.4f} ({losses[name].std(ddof=1):.4f})"
        lines.append(
            f"| {name} | {own} | {gap.mean():+.4f} ({gap.std(ddof=1):.4f}) "
            f"| {(gap < 0).sum()} of {seeds} | {one:.3f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
