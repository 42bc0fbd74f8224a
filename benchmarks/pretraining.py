"""What the built-in weights are worth: fine-tuned from them against from scratch, same budget.

    python benchmarks/pretraining.py --data DATA
    python benchmarks/pretraining.py --data DATA --study physionet2017 --plan 300:12 all:4
    python benchmarks/pretraining.py --data DATA --study ptb-xl --plan 100:20 all:20

For each number of training subjects (``--plan SUBJECTS:EPOCHS``), both arms run the same seeds, recipe and
learning rates: lr 1e-3 for the head, and two rates for the backbone, of which each arm keeps the one with the
better mean. Inputs and the plain loss are the study's. The figure is the validation loss of the best epoch on
the task's yardstick (MAE in label units, cross-entropy or BCE) and its paired difference. Runs that stand in
--out already are not run again. Results: docs/backbones.md and benchmarks/results/pretraining*.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd

from finetune.api import Recipe, Report, Run, RunResult, RunSpec, train
from hpo.study import Configuration, StudySpec, load_spec

ARMS = {"pretrained": "builtin", "scratch": "none"}


class OneRun:
    """A source of one run."""

    def __init__(self, spec: RunSpec) -> None:
        self._runs = [Run("run", spec)]
        self.result: RunResult | None = None

    def next_run(self) -> Run | None:
        """Give the run once."""
        return self._runs.pop() if self._runs else None

    def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        """Let every run go on."""
        return [True] * len(reports)

    def finish(self, result: RunResult) -> None:
        """Keep the result."""
        self.result = result


def fine_tune(spec: RunSpec, data: Path, cache: Path) -> dict[str, Any]:
    """Run one configuration; return its best validation loss."""
    source = OneRun(spec)
    train(source, data_dir=data, cache_dir=cache, device="cpu")
    assert source.result is not None
    return describe(spec) | {
        "validation_loss": source.result.best_validation_loss,
    }


def describe(spec: RunSpec) -> dict[str, Any]:
    """Return what tells a run from the others; 0 subjects means all."""
    return {
        "subjects": spec.inputs.train_subjects or 0,
        "epochs": spec.recipe.epochs,
        "arm": next(arm for arm, weights in ARMS.items() if weights == spec.backbone.weights),
        "backbone_lr": spec.backbone_lr,
        "seed": spec.seed,
    }


def specs(options: argparse.Namespace) -> list[RunSpec]:
    """Return all runs: seeds x subjects x backbone rates x arms."""
    study = load_spec(options.study)
    return [
        run_spec(study, Configuration(options.lr, rate, loss_of(study), seed), subjects, epochs, weights)
        for rate, seed, (subjects, epochs), weights in itertools.product(
            options.backbone_lr, range(options.seeds), options.plan, ARMS.values()
        )
    ]


def loss_of(study: StudySpec) -> str:
    """Return the loss of all runs: L1 where the study has it, else its plain loss, the first."""
    return "l1" if "l1" in study.space.loss else study.space.loss[0]


def run_spec(
    study: StudySpec, configuration: Configuration, subjects: int | None, epochs: int, weights: str
) -> RunSpec:
    """Return one run on a study's inputs and backbone, with a part of its training subjects."""
    spec = study.run_spec(configuration)
    return replace(
        spec,
        inputs=replace(spec.inputs, train_subjects=subjects, allow_partial=True),
        backbone=replace(spec.backbone, weights=weights),
        mode="full_finetuning",
        recipe=Recipe(epochs=epochs, batch_size=64, patience=epochs),
    )


def step(text: str) -> tuple[int | None, int]:
    """Read ``SUBJECTS:EPOCHS``; SUBJECTS may be ``all``."""
    subjects, epochs = text.split(":")
    return (None if subjects == "all" else int(subjects)), int(epochs)


def key(row: dict[str, Any]) -> tuple[Any, ...]:
    """Name a run."""
    return row["subjects"], row["epochs"], row["arm"], row["backbone_lr"], row["seed"]


def table(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return, for each step of the plan, each arm at its better rate and the paired difference."""
    frame = pd.DataFrame(rows)
    lines = []
    for (subjects, epochs), group in frame.groupby(["subjects", "epochs"]):
        line: dict[str, Any] = {"subjects": int(subjects) or "all", "epochs": int(epochs)}
        scores = {}
        for arm, runs in group.groupby("arm"):
            means = runs.groupby("backbone_lr").validation_loss.mean()
            best = runs[runs.backbone_lr == means.idxmin()].sort_values("seed").validation_loss.to_numpy()
            scores[arm] = best
            line |= {
                f"{arm}_backbone_lr": float(means.idxmin()),
                f"{arm}_mean": round(float(best.mean()), 3),
                f"{arm}_sd": round(float(best.std(ddof=1)), 3),
            }
        difference = scores["pretrained"] - scores["scratch"]
        line |= {"n": len(difference), "difference": round(float(difference.mean()), 3)}
        lines.append(line | {"better_in": int((difference < 0).sum())})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=Path(".cache"))
    parser.add_argument("--study", default="bidmc_hr")
    parser.add_argument("--plan", type=step, nargs="+", default=[(5, 24), (10, 16), (None, 6)])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--backbone-lr", type=float, nargs="+", default=[1e-3, 1e-4])
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    options.out = options.out or Path(f"benchmarks/results/pretraining_{options.study}.json")
    os.environ["OMP_NUM_THREADS"] = "1"
    rows = json.loads(options.out.read_text())["runs"] if options.out.exists() else []
    done = {key(row) for row in rows}
    with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
        wanted = [spec for spec in specs(options) if key(describe(spec)) not in done]
        jobs = [pool.submit(fine_tune, spec, options.data, options.cache) for spec in wanted]
        for job in jobs:
            rows.append(job.result())
            print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(result(options, rows), indent=1) + "\n")
    print(pd.DataFrame(table(rows)).to_string(index=False))


def result(options: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what is written: how, where, the table and every run."""
    return {
        "command": f"python benchmarks/pretraining.py --data DATA --study {options.study} --plan "
        + " ".join(f"{subjects or 'all'}:{epochs}" for subjects, epochs in options.plan),
        "lr": options.lr,
        "loss": loss_of(load_spec(options.study)),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "versions": {"python": platform.python_version(), "torch": version("torch")},
        "table": table(rows),
        "runs": rows,
    }


if __name__ == "__main__":
    main()
