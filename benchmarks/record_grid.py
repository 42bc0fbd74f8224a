"""Record real learning curves: fine-tuning over a grid of rates, losses and seeds, for replays.

    python benchmarks/record_grid.py --data DATA --database sqlite:///grid.db
    python benchmarks/record_grid.py --data DATA --database sqlite:///grid.db --plan ptb-xl
    python benchmarks/record_grid.py --data DATA --database sqlite:///grid.db --export-only

Every plan is 5 lr x 6 backbone_lr (a rectangle of half decades, so that each lr has 6 ratios, and all
together have 10) x 3 losses x seeds, every run to its last epoch, in batches of 32; all else as in the
shipped study.

- ``bidmc``: both BIDMC tasks, 3 seeds, 540 curves of 8 epochs, every fourth window of each subject (of 10 s,
  now 8 s apart instead of 2 s). Called again when they are there: the 30 best configurations of a task (by
  the mean of their three seeds) with 7 more seeds each, because what good configurations share of a seed
  shows only with many.
- ``ptb-xl``: the 500 records of PTB-XL that DATA may be cut down to, 10 seeds, 900 curves of 20 epochs.

The runs are slots of a study of kind ``grid`` in a database of our own ledger, worked on by our own workers:
stop and start as you like, on as many machines as see the database. One task comes after the other, and
within a task one seed after the other. Whatever is complete goes to benchmarks/results/grid_PLAN.npz, which
benchmarks/search.py replays; docs/search.md says what is in it. Runs that stand in that file already are not
run again, so a new database goes on where the file ends; its provenance lists each part with its versions,
hardware and days.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
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
from hpo.reading.frames import attempts_frame, curves_frame, trials_frame
from hpo.storage import open_engine
from hpo.study import Configuration, StudySpec, load_spec
from hpo.worker import Event, Settings, versions

LR = tuple(float(rate) for rate in 10 ** np.linspace(-4, -2, 5))
BACKBONE_LR = tuple(float(rate) for rate in 10 ** np.linspace(-5, -2.5, 6))
SEEDS = tuple(range(10))
CURVES = ("validation_loss", "train_loss")
AXES = ("task", "lr", "backbone_lr", "loss", "seed")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Plan:
    """Which runs of which tasks one file holds."""

    tasks: tuple[str, ...]
    losses: tuple[str, ...]
    epochs: int
    every: int
    """Of each subject's windows, every so many."""
    is_partial: bool
    """Whether the publisher's files may be fewer than all."""
    everywhere: int
    """Every configuration is run with so many of the seeds, the first ones; ``good`` of them with all."""
    good: int


PLANS = {
    "bidmc": Plan(("bidmc_hr", "bidmc_rr"), ("mse", "l1", "smooth_l1"), 8, 4, False, 3, 30),
    "ptb-xl": Plan(("ptb-xl",), ("bce", "bce_balanced", "bce_focal"), 20, 1, True, len(SEEDS), 0),
}


def file_of(plan: str) -> Path:
    """Return where a plan's recording is kept."""
    return RESULTS / f"grid_{plan}.npz"


def plan_of(task: str) -> str:
    """Return the plan that records a task."""
    return next(name for name, plan in PLANS.items() if task in plan.tasks)


def grid_spec(task: str) -> StudySpec:
    """Return the shipped study of ``task`` as it is recorded: cheaper epochs, all of them, nothing pruned."""
    plan = PLANS[plan_of(task)]
    shipped = load_spec(task).model_dump(exclude={"known", "replicate", "published"})
    changes: dict[str, Any] = {
        "name": f"grid_{task}",
        "title": f"Recorded grid of {task}",
        "inputs": shipped["inputs"] | {"every": plan.every, "allow_partial": plan.is_partial},
        "recipe": shipped["recipe"] | {"epochs": plan.epochs, "batch_size": 32, "patience": plan.epochs},
        "sampler": {"kind": "random"},
        "pruner": {"kind": "none"},
    }
    return StudySpec.model_validate(shipped | changes)


def configurations(task: str, known: Recording) -> list[Configuration]:
    """Return the grid, one seed after the other; with every seed where ``known`` tells which are good."""
    plan = known.plan
    every = [Configuration(*point, 0) for point in product(LR, BACKBONE_LR, plan.losses)]
    first = [replace(one, seed=seed) for seed in SEEDS[: plan.everywhere] for one in every]
    if not all(known.ended[known.place_of(task, one)] for one in first):
        return first
    best = known.arrays["validation_loss"].min(axis=-1)
    means = {one: best[known.place_of(task, one)[:-1]][: plan.everywhere].mean() for one in every}
    good = sorted(every, key=lambda one: float(np.nan_to_num(means[one], nan=np.inf)))[: plan.good]
    return first + [replace(one, seed=seed) for seed in SEEDS[plan.everywhere :] for one in good]


def record(
    engine: sa.Engine, url: str, task: str, settings: Settings, workers: int, known: Recording
) -> None:
    """Run what is missing of one task's grid."""
    wanted = configurations(task, known)
    missing = [found for found in wanted if not known.ended[known.place_of(task, found)]]
    if not missing:
        return
    spec, ledger = grid_spec(task), Ledger(engine)
    inputs = spec.run_spec(missing[0]).inputs
    data = describe_data(inputs, data_dir=settings.data_dir, cache_dir=settings.cache_dir)
    row = ledger.create_study(spec, kind="grid", data=asdict(data), versions=versions())
    slots = ledger.append_slots(row.study_id, [("fixed", found) for found in missing])
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


@dataclass(frozen=True)
class Recording:
    """What a file holds: arrays over (task, lr, backbone_lr, loss, seed[, epoch]), and where it is from."""

    plan: Plan
    arrays: dict[str, Any]
    studies: dict[str, dict[str, Any]]
    """By task: spec, fingerprint, data hash, and the parts it was recorded in."""

    @classmethod
    def load(cls, file: Path, plan: Plan) -> Recording:
        """Read the file; an empty recording where there is none."""
        shape = (len(plan.tasks), len(LR), len(BACKBONE_LR), len(plan.losses), len(SEEDS))
        if not file.exists():
            losses = {name: np.full((*shape, plan.epochs), np.nan, np.float32) for name in CURVES}
            return cls(plan, {**losses, "elapsed_s": np.full(shape, np.nan, np.float32),
                              "ended": np.full(shape, "", "<U8")}, {})  # fmt: skip
        with np.load(file) as stored:
            arrays = {name: stored[name] for name in (*CURVES, "elapsed_s", "ended")}
            lacking = len(SEEDS) - len(stored["seed"])
            arrays = {name: _padded(values, lacking) for name, values in arrays.items()}
            return cls(plan, arrays, json.loads(str(stored["provenance"]))["studies"])

    def place_of(self, task: str, found: Configuration) -> tuple[int, int, int, int, int]:
        """Return where a run stands in the arrays."""
        return (
            self.plan.tasks.index(task),
            int(np.argmin(np.abs(np.log(LR) - np.log(found.lr)))),
            int(np.argmin(np.abs(np.log(BACKBONE_LR) - np.log(found.backbone_lr)))),
            self.plan.losses.index(found.loss),
            SEEDS.index(found.seed),
        )

    @property
    def ended(self) -> Any:
        """Return True where a run is recorded."""
        return self.arrays["ended"] != ""

    def write(self, file: Path) -> dict[str, int]:
        """Write the file; return how many runs of each task there are."""
        tasks, losses = self.plan.tasks, self.plan.losses
        counts = {task: int(self.ended[place].sum()) for place, task in enumerate(tasks)}
        axes = {"task": tasks, "lr": LR, "backbone_lr": BACKBONE_LR, "loss": losses, "seed": SEEDS}
        provenance = json.dumps({"runs": counts, "studies": self.studies})
        file.parent.mkdir(exist_ok=True)
        named = {name: np.array(axes[name]) for name in AXES}
        np.savez_compressed(file, provenance=provenance, **named, **self.arrays)
        return counts


def _padded(values: Any, seeds: int) -> Any:
    """Return one array of a recording with room for so many more seeds (its fifth axis)."""
    room = [(0, 0)] * values.ndim
    room[AXES.index("seed")] = (0, seeds)
    return np.pad(values, room, constant_values="" if values.dtype.kind == "U" else np.nan)


def export(engine: sa.Engine, out: Path, plan: Plan) -> dict[str, int]:
    """Add what the database holds to ``out``; return how many runs of each task there are."""
    ledger, found = Ledger(engine), Recording.load(out, plan)
    there = {row.name for row in ledger.studies()}
    for task in plan.tasks:
        if f"grid_{task}" in there:
            _add(found, task, engine, ledger.study(f"grid_{task}"))
    return found.write(out)


def _add(recording: Recording, task: str, engine: sa.Engine, row: StudyRow) -> None:
    """Put the ended runs of one task's study into the recording; refuse a study that differs from it."""
    known = recording.studies.setdefault(task, _what(row))
    for key in ("fingerprint", "data_hash"):
        if known[key] != _what(row)[key]:
            raise SystemExit(f"{task}: {key} is {_what(row)[key]} here, {known[key]} in the recording")
    trials = trials_frame(engine, row.study_id)
    trials = trials[trials["state"].isin(["complete", "pruned"])]
    curves = dict(list(curves_frame(engine, row.study_id).groupby("number")))
    arrays = recording.arrays
    for trial in trials.itertuples():
        configuration = Configuration(trial.lr, trial.backbone_lr, str(trial.loss), int(trial.seed))
        place = recording.place_of(task, configuration)
        curve = curves[trial.number]
        epochs = curve["epoch"].to_numpy() - 1
        arrays["validation_loss"][place][epochs] = curve["validation_loss"]
        arrays["train_loss"][place][epochs] = curve["train_loss"]
        arrays["elapsed_s"][place] = trial.elapsed_s
        arrays["ended"][place] = str(trial.end)
    part = _part(engine, row) | {"runs": len(trials)}
    known["parts"] = [one for one in known["parts"] if one["study"] != part["study"]] + [part]


def _what(row: StudyRow) -> dict[str, Any]:
    """Return what was recorded: enough to tell whether other curves can be compared with these."""
    return {
        "spec": row.spec,
        "fingerprint": row.fingerprint,
        "data_hash": row.data["data_hash"],
        "windows": row.data["windows"],
        "trivial": row.data["trivial"],
        "parts": [],
    }


def _part(engine: sa.Engine, row: StudyRow) -> dict[str, Any]:
    """Return by what and when one database's runs were recorded."""
    attempts = attempts_frame(engine, row.study_id).dropna(subset=["ended_at"])
    return {
        "study": f"{row.name}, made {datetime.fromtimestamp(row.created_at, UTC):%Y-%m-%d %H:%M:%S} UTC",
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
    parser.add_argument("--plan", choices=PLANS, default="bidmc")
    parser.add_argument("--task", action="append", help="default: all of the plan")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--out", type=Path, help="default: benchmarks/results/grid_PLAN.npz")
    parser.add_argument("--export-only", action="store_true", help="write what is there, run nothing")
    options = parser.parse_args(arguments)
    engine = open_engine(options.database)
    settings = Settings(options.data, options.cache, "cpu", 1)
    plan, out = PLANS[options.plan], options.out or file_of(options.plan)
    if unknown := set(options.task or ()) - set(plan.tasks):
        parser.error(f"--task {', '.join(sorted(unknown))}: {options.plan} records {', '.join(plan.tasks)}")
    for task in () if options.export_only else options.task or plan.tasks:
        record(engine, options.database, task, settings, options.workers, Recording.load(out, plan))
    print(export(engine, out, plan))


if __name__ == "__main__":
    main()
