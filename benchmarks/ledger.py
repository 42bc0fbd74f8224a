"""What the ledger costs beside plain Optuna: an epoch's report, attaching, a glance, trials per second.

    python benchmarks/ledger.py [--trials 10000] [--parts epoch attach status throughput] [--databases sqlite]

CPU is that of the client process; PostgreSQL's own is not in it. Ours and theirs alternate, trial by trial.

Result, 2 cores of an AMD EPYC, shared with other heavy work (load 8 to 14: caches are cold and wall times
inflated, so the comparison counts), Python 3.11.7, optuna 5.0.0, SQLAlchemy 2.1.9, psycopg 3.3.9, SQLite
3.40.1, PostgreSQL 18.4; (a) older, load 9 to 20:

| what | database | plain Optuna | here | n |
|---|---|---|---|---|
| report and pruning at 10,000 x 50, CPU ms | PostgreSQL | 25.32 (24 to 28) | 1.64 (1.5 to 1.9) | 10; 10 |
| the same (a) | SQLite | 17.45 (16 to 21) | 1.86 (1.5 to 2.4) | 10; 10 |
| with the pruner improvement, that has learned | PostgreSQL | - | 2.30 (2.0 to 2.4) | 10 |
| the same | SQLite | - | 1.24 (1.1 to 1.5) | 8 |
| attaching to 10,000 x 50, CPU s | PostgreSQL | 16.02 | 0.46 | 1; 3 |
| the same (a) | SQLite | 19.32 | 0.41 | 1; 3 |
| memory above a worker on an empty study, MiB | PostgreSQL | 961 | 14 | 1; 3 |
| the same (a) | SQLite | 962 | 16 | 1; 3 |
| attaching, sampler ratio, pruner improvement, CPU s | PostgreSQL | - | 2.99 | 3 |
| the same | SQLite | - | 2.50 | 3 |
| the same, freed memory kept and no pandas, idle machine | SQLite | - | 1.69 (1.66 to 1.76) | 3 |
| alternating with it, as before | SQLite | - | 2.51 (2.31 to 2.62) | 3 |
| its memory above a worker on an empty study, MiB | PostgreSQL | - | 149 | 3 |
| report and pruning, the machine idle | PostgreSQL | 12.94 (12 to 15) | 0.60 (0.5 to 0.8) | 6; 6 |
| with the pruner improvement, the machine idle | PostgreSQL | - | 0.89 (0.6 to 1.0) | 6 |
| hpo status of 1,000 trials, wall s, the machine idle | SQLite | - | 0.97 (0.86 to 1.06) | 5 |
| the same | PostgreSQL | - | 1.04 (0.94 to 1.05) | 5 |
| hpo status of 1,000 trials, CPU s | SQLite | - | 0.80 (0.78 to 0.86) | 5 |
| the same, wall s, beside some ten busy processes | SQLite | - | 10.8 (10.4 to 12.7) | 5 |
| hpo status of 1,000 trials, CPU s | PostgreSQL | - | 0.95 (0.90 to 0.97) | 5 |
| the same, wall s, as busy | PostgreSQL | - | 5.5 (5.0 to 5.7) | 5 |
| 32 workers, zero-cost trials a second, before (a) | PostgreSQL | 10.7 | 68.7 | 1 |
| the same, now, load 9 at the start | PostgreSQL | not warm in 30 s | 93.8 | 1 |
| the same, now, load 10 to 28 | PostgreSQL | not warm in 45 s | 48.5 | 1 |

Of the 1.7 s that our own sampler takes to attach, about 0.4 are imports, 0.7 fit the model and 0.6 pass over
10,000 trials (SQLite); its peak fell from 301 to 259 MiB. One report alone fell from 1.03 to 0.69 ms when it
became one statement (n = 8, 10).

The ten times are not shown: with other work on both cores no process of plain Optuna finished a trial in the
time, so there is no pair for the statements of now. Before them each of ours was four commits of 25 messages,
and claims of one study waited for the disk (12 ms a commit) one after the other: at most 80 a second.
Now it is four messages and three commits that wait, shared among workers; what is left is CPU time.
"""

from __future__ import annotations

import argparse
import functools
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path

import numpy as np
import optuna
import sqlalchemy as sa
import zero_cost
from postgres import database, server

from hpo.allocator import keep_freed_memory
from hpo.ledger import optuna_rows
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.search import Suggester
from hpo.search.pruning import is_above_median
from hpo.storage import open_engine, writing
from hpo.storage.tables import NO_FOLD, curve, slots

EPOCHS = 50
CHUNK = 500
WARM_UP_S = 30.0
"""For processes to start, to connect and to run their first trials; more on a busy machine."""


# --- a history of finished trials, written in bulk


def fill_ours(url: str, trials: int) -> None:
    """Give the study ``trials`` finished trials of 50 epochs, in our tables and thinned out in Optuna's."""
    engine = open_engine(url)
    ledger = Ledger(engine)
    study = zero_cost.open_study(ledger, trials + 100)
    rng = np.random.default_rng(0)
    for first in range(0, trials, CHUNK):
        with writing(engine) as connection:
            losses = rng.uniform(size=(min(CHUNK, trials - first), EPOCHS))
            kept = [epoch for epoch in range(1, EPOCHS + 1) if optuna_rows.is_kept(epoch, EPOCHS)]
            fill_optuna(connection, study.study_id, first, losses, kept)
            connection.execute(sa.insert(curve), curve_rows(study.study_id, first, losses))
            number = sa.bindparam("number")
            connection.execute(
                sa.update(slots).where(slots.c.study_id == study.study_id, slots.c.slot == number),
                [
                    {
                        "number": first + row,
                        "state": "done",
                        "attempt": 1,
                        "end": "finished",
                        "value": float(losses[row].min()),
                        "best_epoch": int(losses[row].argmin()) + 1,
                        "epochs": EPOCHS,
                        "metrics": {"mae": float(losses[row].min())},
                        "config": vars(zero_cost.configuration()),
                    }
                    for row in range(len(losses))
                ],
            )
    tidy(engine)


def curve_rows(study_id: int, first: int, losses: np.ndarray) -> list[dict[str, object]]:
    best = np.minimum.accumulate(losses, axis=1)
    return [
        {
            "study_id": study_id,
            "slot": first + row,
            "epoch": epoch + 1,
            "fold": NO_FOLD,
            "train_loss": 1.0,
            "validation_loss": float(losses[row, epoch]),
            "best_so_far": float(best[row, epoch]),
            "metrics": {"mae": float(losses[row, epoch]), "rmse": 1.0, "r2": 0.5},
            "elapsed_s": 1.0,
        }
        for row in range(len(losses))
        for epoch in range(EPOCHS)
    ]


def fill_plain(url: str, trials: int) -> None:
    """Give a plain Optuna study the same, every epoch as an intermediate value."""
    open_engine(url).dispose()
    study_id = zero_cost.plain_study(url)._study_id
    engine = open_engine(url)
    rng = np.random.default_rng(0)
    for first in range(0, trials, CHUNK):
        with writing(engine) as connection:
            losses = rng.uniform(size=(min(CHUNK, trials - first), EPOCHS))
            fill_optuna(connection, study_id, first, losses, list(range(1, EPOCHS + 1)))
    tidy(engine)


def fill_optuna(
    connection: sa.Connection, study_id: int, first: int, losses: np.ndarray, steps: list[int]
) -> None:
    """Write complete trials and these steps of their curves."""
    ids = []
    for row in range(len(losses)):
        trial_id = optuna_rows.create_trial(connection, study_id, first + row, time.time())
        optuna_rows.write_params(
            connection, trial_id, zero_cost.configuration(), zero_cost.spec(EPOCHS).space
        )
        optuna_rows.write_value(connection, trial_id, float(losses[row].min()))
        optuna_rows.end_trial(connection, trial_id, optuna.trial.TrialState.COMPLETE, time.time())
        ids.append(trial_id)
    points = [
        (trial_id, step, float(losses[row, step - 1])) for row, trial_id in enumerate(ids) for step in steps
    ]
    optuna_rows.write_intermediate(connection, points)


def tidy(engine: sa.Engine) -> None:
    """Do what a server's autovacuum would have done by then."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE" if engine.dialect.name == "postgresql" else "ANALYZE"))
    engine.dispose()


# --- an epoch


def epochs_of_both(ours: str, plain: str, repeats: int) -> tuple[list[float], list[float]]:
    """Return the CPU ms of one report with its pruning decision, the mean of each of several trials.

    Ours and theirs alternate. Plain Optuna has loaded the history before the clock starts.
    """
    engine = open_engine(ours)
    ledger = Ledger(engine)
    row = ledger.study(zero_cost.NAME)
    study = zero_cost.plain_study(plain, optuna.pruners.MedianPruner(n_warmup_steps=3))
    epochs_plain(study)
    epochs_ours(ledger, row)
    pairs = [(epochs_ours(ledger, row), epochs_plain(study)) for _ in range(repeats)]
    engine.dispose()
    here, there = zip(*pairs, strict=True)
    return list(here), list(there)


def epochs_ours(ledger: Ledger, study: StudyRow) -> float:
    """Run one trial of 50 epochs; return the CPU ms of an epoch."""
    claim = zero_cost.start(ledger, study, "benchmark")
    assert claim is not None
    pruner = zero_cost.spec().pruner
    begun = time.process_time()
    for epoch in range(1, EPOCHS + 1):
        ledger.report([zero_cost.point(claim, epoch)], lease_s=60)
        is_above_median(pruner, 0.5, ledger.peers_at(claim, epoch))
    spent = time.process_time() - begun
    ledger.finish(claim, zero_cost.outcome(0.5, EPOCHS))
    return 1e3 * spent / EPOCHS


def epochs_learned(ledger: Ledger, study: StudyRow, suggester: Suggester) -> float:
    """Run one trial of 50 epochs with the pruner ``improvement`` as a worker does; return an epoch's CPU ms.

    No other trial ends meanwhile: it has learned already.
    """
    claim = zero_cost.start(ledger, study, "benchmark")
    assert claim is not None
    assert claim.configuration is not None
    losses: list[float] = []
    begun = time.process_time()
    for epoch in range(1, EPOCHS + 1):
        point = zero_cost.point(claim, epoch)
        ledger.report([point], lease_s=60)
        losses.append(min([point.validation_loss, *losses[-1:]]))
        prospects = suggester.prospects(None)
        assert prospects is not None
        prospects.is_hopeless(claim.configuration, losses)
    spent = time.process_time() - begun
    ledger.give_back(claim)
    return 1e3 * spent / EPOCHS


def epochs_of_improvement(ours: str, repeats: int) -> list[float]:
    """Return the CPU ms of :func:`epochs_learned` for several trials, one worker's."""
    engine = open_engine(ours)
    ledger = Ledger(engine)
    row = ledger.study(zero_cost.NAME)
    suggester = Suggester(zero_cost.spec(EPOCHS, pruner="improvement"), row.study_id, engine)
    epochs_learned(ledger, row, suggester)
    spent = [epochs_learned(ledger, row, suggester) for _ in range(repeats)]
    engine.dispose()
    return spent


def epochs_plain(study: optuna.Study) -> float:
    """Run one trial of trial.report and trial.should_prune; return the CPU ms of an epoch."""
    trial = study.ask()
    zero_cost.suggest(trial)
    begun = time.process_time()
    for epoch in range(1, EPOCHS + 1):
        trial.report(0.5, epoch)
        trial.should_prune()
    spent = time.process_time() - begun
    study.tell(trial, 0.5)
    return 1e3 * spent / EPOCHS


# --- a worker that attaches


def attach_median(url: str) -> None:
    """Attach as a worker whose study samples at random and prunes by the median."""
    _attach(url, "random", "median")


def attach_ratio(url: str) -> None:
    """Attach as a worker whose study has our own sampler and pruner, which learn from curves."""
    _attach(url, "ratio", "improvement")


def _attach(url: str, sampler: str, pruner: str) -> None:
    """Do what a worker does until its first run has begun and its first epoch is decided."""
    spec = zero_cost.spec(EPOCHS, sampler=sampler, pruner=pruner)
    engine = open_engine(url)
    ledger = Ledger(engine)
    study = ledger.study(zero_cost.NAME)
    worker = ledger.register_worker("benchmark", 0, "cpu", {})
    claim = ledger.claim(study.study_id, worker, lease_s=60)
    assert claim is not None
    suggester = Suggester(spec, study.study_id, engine)
    suggestion = suggester.suggest(claim.slot)
    begun = ledger.begin(claim, suggestion, spec.space, {})
    assert begun is not None
    ledger.report([zero_cost.point(begun, 5)], lease_s=60)
    prospects = suggester.prospects(None) if pruner == "improvement" else None
    if prospects is not None:
        prospects.is_hopeless(suggestion, [0.9, 0.8, 0.7, 0.6, 0.5])
    else:
        ledger.peers_at(begun, 5)


def attach_plain(url: str) -> None:
    study = zero_cost.plain_study(url, optuna.pruners.MedianPruner(n_warmup_steps=3))
    trial = study.ask()
    zero_cost.suggest(trial)
    trial.report(0.5, 5)
    trial.should_prune()


ATTACH: dict[str, Callable[[str], None]] = {
    "median": attach_median,
    "ratio": attach_ratio,
    "plain": attach_plain,
}


def attach_here(what: str, url: str) -> None:
    """Attach in this process; print CPU s since after the imports, and MiB of memory at the end."""
    begun = time.process_time()
    keep_freed_memory()
    ATTACH[what](url)
    print(json.dumps([time.process_time() - begun, peak_mib()]))


def peak_mib() -> float:
    """Return the most memory that this process had. getrusage would say its parent's: it outlives exec."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def attach(what: str, url: str, repeats: int = 3) -> tuple[float, float]:
    """Return the median CPU s and memory (MiB) of fresh processes."""
    command = [sys.executable, "-W", "ignore", __file__, "--attach", what, url]
    found = [
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        for _ in range(repeats)
    ]
    cpu, memory = np.median(np.array(found), axis=0)
    return float(cpu), float(memory)


# --- trials per second


def trials_per_second(
    run: Callable[..., list[int]], url: str, options: argparse.Namespace, *more: object
) -> float:
    """Return finished trials a second, counted when all processes are there and warm."""
    workers, seconds = options.workers, options.seconds
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zero_cost"])
    with ProcessPoolExecutor(workers, mp_context=context) as processes:
        begin = time.time() + options.warm_up
        futures = [processes.submit(run, url, *more, begin, seconds) for _ in range(workers)]
        return sum(len(future.result()) for future in futures) / seconds


# --- a glance


STATUS = """
import resource, sys, time
from hpo.cli.app import main
assert main(sys.argv[1:]) == 0
own = resource.getrusage(resource.RUSAGE_SELF)
print(own.ru_utime + own.ru_stime, file=sys.stderr)
"""


def status_s(url: str, repeats: int = 5) -> tuple[list[float], list[float]]:
    """Return CPU and wall seconds of ``hpo status`` in fresh processes, from their start to their end."""
    cpu, wall = [], []
    for _ in range(repeats):
        began = time.monotonic()
        command = [sys.executable, "-W", "ignore", "-c", STATUS, "status", "--storage", url]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stderr
        wall.append(time.monotonic() - began)
        cpu.append(float(told.strip().rpartition("\n")[2]))
    return cpu, wall


# --- tables


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=10, help="trials of 50 epochs")
    parser.add_argument("--workers", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--warm-up", type=float, default=WARM_UP_S, help="seconds, before the count begins")
    parser.add_argument("--parts", nargs="+", default=["epoch", "attach", "status", "throughput"])
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--plain-steps", action="store_true", help="PostgreSQL with SQLite's steps")
    parser.add_argument("--attach", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    if options.attach:
        attach_here(*options.attach)
        return
    print(where())
    print("| what | database | plain Optuna | here |\n|---|---|---|---|")
    with server() as url_of_server:
        for kind in options.databases:
            if {"epoch", "attach"} & set(options.parts):
                measure_history(kind, url_of_server, options)
            if "status" in options.parts:
                measure_status(kind, url_of_server, min(options.trials, 1000))
            if "throughput" in options.parts:
                measure_throughput(kind, url_of_server, options)


def measure_history(kind: str, url_of_server: str, options: argparse.Namespace) -> None:
    history = f"{options.trials} x {EPOCHS}"
    with database(kind, url_of_server) as ours, database(kind, url_of_server) as plain:
        with database(kind, url_of_server) as empty:
            fill_ours(empty, 0)
            idle, idle_ratio = attach("median", empty)[1], attach("ratio", empty)[1]
        fill_ours(ours, options.trials)
        fill_plain(plain, options.trials)
        if "epoch" in options.parts:
            here, there = epochs_of_both(ours, plain, options.repeats)
            row(
                f"epoch's report and pruning decision at {history}, CPU ms", kind, spread(there), spread(here)
            )
            learned = epochs_of_improvement(ours, options.repeats)
            row("the same with the pruner improvement, once it has learned", kind, "-", spread(learned))
        if "attach" in options.parts:
            (cpu, memory), (cpu_plain, memory_plain) = attach("median", ours), attach("plain", plain, 1)
            row(f"attaching to {history}, CPU s", kind, f"{cpu_plain:.2f}", f"{cpu:.2f}")
            more, more_plain = memory - idle, memory_plain - idle
            row("memory above a worker on an empty study, MiB", kind, f"{more_plain:.0f}", f"{more:.0f}")
            cpu, memory = attach("ratio", ours)
            row("attaching with the sampler ratio and the pruner improvement, CPU s", kind, "-", f"{cpu:.2f}")
            row("its memory above a worker on an empty study, MiB", kind, "-", f"{memory - idle_ratio:.0f}")


def measure_status(kind: str, url_of_server: str, trials: int) -> None:
    with database(kind, url_of_server) as url:
        fill_ours(url, trials)
        cpu, wall = status_s(url)
    row(f"hpo status of {trials} trials, whole process, CPU s", kind, "-", spread(cpu))
    row(f"hpo status of {trials} trials, whole process, wall s", kind, "-", spread(wall))


def measure_throughput(kind: str, url_of_server: str, options: argparse.Namespace) -> None:
    with database(kind, url_of_server) as url:
        engine = open_engine(url)
        zero_cost.open_study(Ledger(engine), 20_000)
        engine.dispose()
        run = functools.partial(zero_cost.run_ours, plain_steps=options.plain_steps)
        here = trials_per_second(run, url, options, 20_000)
    with database(kind, url_of_server) as url:
        open_engine(url).dispose()
        zero_cost.plain_study(url)
        there = trials_per_second(zero_cost.run_plain, url, options)
    row(f"{options.workers} workers, zero-cost trials a second", kind, f"{there:.1f}", f"{here:.1f}")


def spread(values: list[float]) -> str:
    """Return the median, and the least and the most."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def row(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


def where() -> str:
    """Return machine and versions."""
    names = ("optuna", "SQLAlchemy", "psycopg")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}, {versions}"


if __name__ == "__main__":
    main()
