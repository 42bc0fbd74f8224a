"""Do the best learning rates belong to the data set or to the encoder? Encoders crossed with data sets.

    python benchmarks/crossed_encoders.py --data DATA --runs runs.jsonl
    python benchmarks/crossed_encoders.py --runs benchmarks/results/crossed_encoders.jsonl --summary

Heart rate from PPG (BIDMC, every fourth window, ``l1``) and diagnoses from ECG (the 500 records of PTB-XL
that DATA may be cut down to, ``bce_focal``), each fine-tuned from three encoders of one architecture:
pretrained on PPG, pretrained on ECG, and not at all. 2 lr x 6 backbone_lr x 4 seeds of the recorded grid,
every run to its last epoch, recipe and inputs those of benchmarks/record_grid.py; the encoder that fits the
signal stands in that recording already and is not run again. A run is a line of --runs; a call goes on where
another was stopped. --summary prints what each value of a rate and of the ratio costs
(benchmarks/recorded_runs.py), and at the larger lr the means over backbone_lr and what 1e-4 costs instead of
1e-3, paired over the seeds, with its standard error.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
from record_grid import BACKBONE_LR, grid_spec
from recorded_runs import configurations, load_runs, standings

import finetune
from finetune.api import Report, Run, RunResult, RunSpec, train
from hpo.study import Configuration

LR = (10**-3.5, 10**-2.5)
SEEDS = range(4)
LOSSES = {"bidmc_hr": "l1", "ptb-xl": "bce_focal"}
ENCODERS = ("ppg", "ecg", "scratch")
WEIGHTS = Path(finetune.__file__).parent / "weights"
FITS = {"bidmc_hr": "ppg", "ptb-xl": "ecg"}
CELLS = tuple(cell for cell in product(LOSSES, ENCODERS) if FITS[cell[0]] != cell[1])


def specs(task: str, encoder: str) -> dict[str, RunSpec]:
    """Return the runs of one cell by name, one seed after the other."""
    study = grid_spec(task)
    weights = "none" if encoder == "scratch" else str(WEIGHTS / f"cmssl_tiny_{encoder}.safetensors")
    every = [
        Configuration(lr, slow, LOSSES[task], seed) for seed, lr, slow in product(SEEDS, LR, BACKBONE_LR)
    ]
    runs = [study.run_spec(one) for one in every]
    return {
        f"{task} {encoder} {run.lr:.3g} {run.backbone_lr:.3g} {run.seed}": replace(
            run, backbone=replace(run.backbone, weights=weights)
        )
        for run in runs
    }


class Missing:
    """The runs of one cell that the file lacks."""

    def __init__(self, task: str, encoder: str, file: Path) -> None:
        known = {row["run"] for row in rows_of(file)}
        self._left = [Run(name, spec) for name, spec in specs(task, encoder).items() if name not in known]
        self._specs = {run.run_id: run.spec for run in self._left}
        self._cell, self._file = {"task": task, "encoder": encoder}, file

    def next_run(self) -> Run | None:
        """Give a run that is missing."""
        return self._left.pop(0) if self._left else None

    def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        """Let every run go on."""
        return [True] * len(reports)

    def finish(self, result: RunResult) -> None:
        """Write the run down."""
        spec = self._specs[result.run_id]
        row = {
            "run": result.run_id,
            **self._cell,
            "lr": spec.lr,
            "backbone_lr": spec.backbone_lr,
            "loss": spec.loss,
            "seed": spec.seed,
            "epoch": spec.recipe.epochs,
            "validation_loss": result.best_validation_loss,
        }
        with self._file.open("a") as out:
            out.write(json.dumps(row) + "\n")


def rows_of(file: Path) -> list[dict[str, Any]]:
    """Return what is there."""
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def run_cell(task: str, encoder: str, file: Path, data: Path, cache: Path) -> None:
    """Run what one cell lacks."""
    train(Missing(task, encoder, file), data_dir=data, cache_dir=cache, device="cpu")


def runs_of(task: str, encoder: str, file: Path) -> pd.DataFrame:
    """Return the runs of one cell, a line each."""
    if FITS[task] != encoder:
        rows = pd.DataFrame(rows_of(file))
        return rows[(rows["task"] == task) & (rows["encoder"] == encoder)]
    rows = load_runs(task)
    rows = rows[(rows["loss"] == LOSSES[task]) & rows["seed"].isin(SEEDS)]
    is_asked = [any(abs(lr / own - 1) < 0.01 for own in LR) for lr in rows["lr"]]
    return rows[is_asked]


def summary(file: Path) -> None:
    """Print what each rate and ratio costs, a table a cell."""
    for task, encoder in product(LOSSES, ENCODERS):
        runs = runs_of(task, encoder, file)
        table = configurations(runs)
        best = table.loc[table["mean"].idxmin()]
        print(
            f"\n{task}, {encoder}: lr {best['lr']:.2g}, backbone_lr {best['backbone_lr']:.2g} "
            f"(ratio {best['ratio']:.3g}): {best['mean']:.4g} (sd {best['sd']:.2g}, n {best['count']:.0f})"
        )
        for axis in ("backbone_lr", "ratio", "lr"):
            told = [f"{value:.2g}: {cost:.3g} {standing}" for value, cost, standing in standings(table, axis)]
            print(f"  {axis}: " + "; ".join(told))
        print("  " + beside_lr(runs))


def beside_lr(runs: pd.DataFrame) -> str:
    """Return the means over backbone_lr at the larger lr, and the paired difference of 1e-4 to 1e-3 there."""
    lowest = runs[runs["lr"] > LR[0] * 2].groupby(["seed", "backbone_lr"])["validation_loss"].min().unstack()
    lowest.columns = [f"{slow:.2g}" for slow in lowest.columns]
    means = "; ".join(f"{slow}: {mean:.3f}" for slow, mean in lowest.mean().items())
    gap = (lowest["0.0001"] - lowest["0.001"]).dropna()
    error = gap.std(ddof=1) / len(gap) ** 0.5
    return f"at lr {LR[1]:.2g}: {means}; 1e-4 for 1e-3: {gap.mean():+.3f} ± {error:.3f} (n {len(gap)})"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="folder with the publishers' files")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="folder of prepared windows")
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--summary", action="store_true")
    options = parser.parse_args()
    if options.summary:
        return summary(options.runs)
    if options.data is None:
        parser.error("--data is missing")
    with ProcessPoolExecutor(options.workers, get_context("spawn")) as pool:
        asked = [pool.submit(run_cell, *cell, options.runs, options.data, options.cache) for cell in CELLS]
        for one in asked:
            one.result()
    return None


if __name__ == "__main__":
    main()
