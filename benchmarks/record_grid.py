"""Record real learning curves: fine-tuning on BIDMC over a grid of rates, losses and seeds, for replays.

    python benchmarks/record_grid.py --data DATA --database sqlite:///grid.db
    python benchmarks/record_grid.py --data DATA --database sqlite:///grid.db --export-only

Both BIDMC tasks x 5 lr x 6 backbone_lr (a rectangle of half decades, so that each lr has 6 ratios, and all
together have 10) x 3 losses x 3 seeds, every run to its last epoch: 540 curves of 8 epochs. Every fourth
window of each subject (of 10 s, now 8 s apart instead of 2 s), batches of 32; all else as in
studies/bidmc_*.yaml. The runs are slots of a study of kind ``grid`` in a database of our own ledger, worked
on by our own workers: stop and start as you like, on as many machines as see the database. bidmc_hr comes
before bidmc_rr, and within a task one seed after the other. Whatever is complete goes to
benchmarks/results/grid_bidmc.npz, which benchmarks/search.py replays; docs/search.md says what is in it.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa

from finetune.api import describe_data
from hpo.fleet import run_local
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.results import attempts_frame, curves_frame, trials_frame
from hpo.spec import Configuration, StudySpec, load_spec
from hpo.storage import open_engine
from hpo.worker import Event, Settings, versions

TASKS = ("bidmc_hr", "bidmc_rr")
LR = tuple(float(rate) for rate in 10 ** np.linspace(-4, -2, 5))
BACKBONE_LR = tuple(float(rate) for rate in 10 ** np.linspace(-5, -2.5, 6))
LOSSES = ("mse", "l1", "smooth_l1")
SEEDS = (0, 1, 2)
EPOCHS = 8
RESULT = Path(__file__).parent / "results" / "grid_bidmc.npz"
AXES = ("task", "lr", "backbone_lr", "loss", "seed")


def grid_spec(task: str) -> StudySpec:
    """Return the shipped study of ``task`` as it is recorded: cheaper epochs, all of them, nothing pruned."""
    shipped = load_spec(task).model_dump(exclude={"known", "replicate", "published"})
    changes: dict[str, Any] = {
        "name": f"grid_{task}",
        "title": f"Recorded grid of {task}",
        "inputs": shipped["inputs"] | {"every": 4},
        "recipe": shipped["recipe"] | {"epochs": EPOCHS, "batch_size": 32, "patience": EPOCHS},
        "sampler": {"kind": "random"},
        "pruner": {"kind": "none"},
    }
    return StudySpec.model_validate(shipped | changes)


def configurations() -> list[Configuration]:
    """Return the grid, one seed after the other."""
    points = product(SEEDS, LOSSES, LR, BACKBONE_LR)
    return [Configuration(lr, backbone_lr, loss, seed) for seed, loss, lr, backbone_lr in points]


def record(engine: sa.Engine, url: str, task: str, settings: Settings, workers: int) -> None:
    """Run what is missing of one task's grid."""
    spec, ledger = grid_spec(task), Ledger(engine)
    inputs = spec.run_spec(configurations()[0]).inputs
    data = describe_data(inputs, data_dir=settings.data_dir, cache_dir=settings.cache_dir)
    row = ledger.create_study(spec, kind="grid", data=asdict(data), versions=versions())
    slots = ledger.append_slots(row.study_id, [("fixed", found) for found in configurations()])
    run_local(
        url,
        row.name,
        total=max(slots) + 1,
        workers=workers,
        settings=settings,
        on_event=_progress(len(slots)),
    )


def _progress(total: int) -> Any:
    def tell(event: Event) -> None:
        if event.kind in {"complete", "pruned", "failed", "retried", "message"}:
            now = datetime.now(UTC).strftime("%H:%M:%S")
            print(
                f"{now} {event.study} {event.slot} of {total}: {event.kind} {event.value} {event.text}",
                flush=True,
            )

    return tell


def export(engine: sa.Engine, out: Path) -> dict[str, int]:
    """Write what is recorded to ``out``; return how many runs of each task there are."""
    ledger = Ledger(engine)
    there = {row.name for row in ledger.studies()}
    rows = {task: ledger.study(f"grid_{task}") for task in TASKS if f"grid_{task}" in there}
    shape = (len(TASKS), len(LR), len(BACKBONE_LR), len(LOSSES), len(SEEDS))
    arrays = {
        "validation_loss": np.full((*shape, EPOCHS), np.nan, np.float32),
        "train_loss": np.full((*shape, EPOCHS), np.nan, np.float32),
        "elapsed_s": np.full(shape, np.nan, np.float32),
        "ended": np.full(shape, "", "<U8"),
    }
    for task, row in rows.items():
        _fill(arrays, TASKS.index(task), engine, row)
    counts = {task: int((arrays["ended"][place] != "").sum()) for place, task in enumerate(TASKS)}
    axes = {"task": TASKS, "lr": LR, "backbone_lr": BACKBONE_LR, "loss": LOSSES, "seed": SEEDS}
    provenance = {"runs": counts, "studies": {task: _provenance(engine, row) for task, row in rows.items()}}
    out.parent.mkdir(exist_ok=True)
    np.savez_compressed(
        out, provenance=json.dumps(provenance), **{name: np.array(axes[name]) for name in AXES}, **arrays
    )
    return counts


def _fill(arrays: dict[str, Any], task: int, engine: sa.Engine, row: StudyRow) -> None:
    """Put the ended runs of one task's study into the arrays."""
    trials = trials_frame(engine, row.study_id)
    trials = trials[trials["state"].isin(["complete", "pruned"])]
    curves = dict(list(curves_frame(engine, row.study_id).groupby("number")))
    for trial in trials.itertuples():
        place = (
            task,
            int(np.argmin(np.abs(np.log(LR) - np.log(trial.lr)))),
            int(np.argmin(np.abs(np.log(BACKBONE_LR) - np.log(trial.backbone_lr)))),
            LOSSES.index(str(trial.loss)),
            SEEDS.index(int(trial.seed)),
        )
        curve = curves[trial.number]
        epochs = curve["epoch"].to_numpy() - 1
        arrays["validation_loss"][place][epochs] = curve["validation_loss"]
        arrays["train_loss"][place][epochs] = curve["train_loss"]
        arrays["elapsed_s"][place] = trial.elapsed_s
        arrays["ended"][place] = str(trial.end)


def _provenance(engine: sa.Engine, row: StudyRow) -> dict[str, Any]:
    """Return what made one task's curves: enough to tell whether others can be compared with them."""
    attempts = attempts_frame(engine, row.study_id).dropna(subset=["ended_at"])
    return {
        "spec": row.spec,
        "fingerprint": row.fingerprint,
        "data_hash": row.data["data_hash"],
        "windows": row.data["windows"],
        "trivial": row.data["trivial"],
        "versions": row.versions,
        "hardware": f"{_processor()}, one thread a run, fp32, {platform.system()} {platform.machine()}",
        "from": _day(attempts["started_at"].min()),
        "to": _day(attempts["ended_at"].max()),
    }


def _day(moment: pd.Timestamp) -> str:
    return "" if pd.isna(moment) else moment.strftime("%Y-%m-%d")


def _processor() -> str:
    """Return the processor's name where the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(names)} x {names[0]}" if names else platform.processor()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with the publishers' files")
    parser.add_argument("--cache", type=Path, default=Path(".cache"), help="folder of prepared windows")
    parser.add_argument("--database", default="sqlite:///grid.db")
    parser.add_argument("--task", choices=TASKS, action="append", help="default: both")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULT)
    parser.add_argument("--export-only", action="store_true", help="write what is there, run nothing")
    options = parser.parse_args(arguments)
    engine = open_engine(options.database)
    settings = Settings(options.data, options.cache, "cpu", 1)
    for task in () if options.export_only else options.task or TASKS:
        record(engine, options.database, task, settings, options.workers)
    print(export(engine, options.out))


if __name__ == "__main__":
    main()
