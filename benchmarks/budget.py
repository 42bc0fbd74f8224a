"""A budget of 100 trials, 8 workers, five times: how many are run?

    python benchmarks/budget.py

The trials cost nothing, which is the hardest case: all workers come for the last slots at once. Plain
Optuna is tuned (WAL, 60 s busy timeout, pinged connections); none of its workers died, none of our trials
was run twice.

Result, n = 5 rounds each, 8 processes on 2 busy cores (load about 15), Python 3.11.7, optuna 5.0.0,
SQLAlchemy 2.1.9, psycopg 3.3.9, SQLite 3.40.1, PostgreSQL 18.4:

| database | plain Optuna, MaxTrialsCallback(100) | here |
|---|---|---|
| SQLite | 106, 107, 107, 107, 107 | 100, 100, 100, 100, 100 |
| PostgreSQL | 106, 106, 107, 107, 106 | 100, 100, 100, 100, 100 |
"""

from __future__ import annotations

import argparse
import multiprocessing
from concurrent.futures import ProcessPoolExecutor

import optuna
import sqlalchemy as sa
import zero_cost
from postgres import database, server

from hpo.storage import open_engine
from hpo.storage.tables import attempts


def ours(url: str, workers: int, budget: int) -> tuple[int, int]:
    """Return finished trials, and trials that were run more than once."""
    with pool(workers) as processes:
        done = list(processes.map(zero_cost.run_ours, [url] * workers, [budget] * workers))
    engine = open_engine(url)
    with engine.connect() as connection:
        repeated = connection.execute(sa.select(sa.func.count()).where(attempts.c.attempt > 1)).scalar_one()
    engine.dispose()
    return len({slot for slots in done for slot in slots}), int(repeated)


def plain(url: str, workers: int, budget: int) -> tuple[int, int]:
    """Return finished trials with MaxTrialsCallback, and the workers that died."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    open_engine(url).dispose()  # WAL, for SQLite
    study = zero_cost.plain_study(url)
    with pool(workers) as processes:
        alive = list(processes.map(zero_cost.run_plain_budget, [url] * workers, [budget] * workers))
    finished = sum(trial.state.is_finished() for trial in study.get_trials())
    study._storage._backend.engine.dispose()
    return finished, alive.count(False)


def pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["zero_cost"])
    return ProcessPoolExecutor(workers, mp_context=context)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--budget", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--databases", nargs="+", default=["sqlite", "postgres"])
    options = parser.parse_args()
    print("| database | round | plain Optuna, MaxTrialsCallback (workers dead) | here (run twice) |")
    print("|---|---|---|---|")
    with server() as url_of_server:
        for kind in options.databases:
            for number in range(1, options.rounds + 1):
                with database(kind, url_of_server) as url:
                    found, repeated = ours(url, options.workers, options.budget)
                with database(kind, url_of_server) as url:
                    theirs, dead = plain(url, options.workers, options.budget)
                print(f"| {kind} | {number} | {theirs} ({dead}) | {found} ({repeated}) |", flush=True)


if __name__ == "__main__":
    main()
