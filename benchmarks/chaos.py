"""Workers are killed and frozen, the server restarts, the disk is full, the file is locked: what is lost?

    python benchmarks/chaos.py [--parts kills clocks restarts freezes disk lock] [--databases sqlite postgres]

Each part runs one study of ``stateful_trainer`` (trials of 10 epochs; everything that an epoch needs is in
its checkpoint) with several processes of ``hpo.worker.work`` and disturbs them:

kills     four workers, 200 trials, one that runs a trial killed with SIGKILL about every second and replaced.
clocks    the same on SQLite, 60 trials, but what two of the four workers take for the time is an hour ahead.
restarts  PostgreSQL restarted with ``-m immediate`` ten times while four workers run.
freezes   a worker that runs a trial is stopped (SIGSTOP) for longer than its lease, five times.
disk      the SQLite file and the checkpoints lie on a small tmpfs, which a foreign file fills for 30 s.
lock      a foreign process holds an exclusive lock on the SQLite file, or on our tables, for 30 s.

Then what the database holds is compared with an undisturbed run of the same spec. Its sampler is random and
it has no pruner, so a configuration follows from the slot alone, and each trial's whole result (end, value,
best epoch, metrics, every point of its curve, bit for bit) from configuration and seed. An *orphan* is a
trial that is RUNNING or WAITING for plain Optuna, a slot that is free or running, or an attempt without an
end; a *duplicate* is a trial number that occurs twice, or a slot with more than one result.

Three attempts that were killed close a slot as failed. A trial of 1.5 s among four workers, of which one is
killed each second, is killed with probability 0.3, again in its shorter rest with 0.17 and 0.09: one of 200
slots would be lost in a usual run, as it should be. So that the rest can be judged, a worker whose trial is
on its last attempt is spared and another is killed instead; ``--no-mercy`` spares none. Since only deaths
without a new epoch count, nobody need be spared: docs/measured/service.md has the runs of now.

Result, n = 1 run a row, 2 cores shared with other heavy work (load 8 to 20, so wall times say little), Python
3.11.7, optuna 5.0.0, SQLAlchemy 2.1.9, psycopg 3.3.9, SQLite 3.40.1, PostgreSQL 18.4:

| what | database | finished | failed | orphans | duplicates | died | same | cut short | trained again |
|---|---|---|---|---|---|---|---|---|---|
| 179 kills in a trial (39 times spared) | PostgreSQL | 200 of 200 | 0 | 0 | 0 | 0 | yes | 177 | 42 of 2000 |
| 282 kills (131 times spared), once more | PostgreSQL | 200 of 200 | 0 | 0 | 0 | 0 | yes | 279 | 78 of 2000 |
| 132 kills in a trial (28 times spared) | SQLite | 200 of 200 | 0 | 0 | 0 | 0 | yes | 132 | 4 of 2000 |
| 280 kills (124 times spared), (a) | PostgreSQL | 200 of 200 | 0 | 0 | 0 | 0 | yes | 278 | 53 of 2000 |
| 10 restarts -m immediate, 4 workers, (a) | PostgreSQL | 60 of 60 | 0 | 0 | 0 | 0 | yes | 0 | 0 of 600 |
| 10 restarts -m immediate, 4 workers | PostgreSQL | 60 of 60 | 0 | 0 | 0 | 0 | yes | 0 | 0 of 600 |
| the same, once more | PostgreSQL | 60 of 60 | 0 | 0 | 0 | 0 | yes | 1 | 0 of 600 |
| 5 times SIGSTOP for three leases | PostgreSQL | 30 of 30 | 0 | 0 | 0 | 0 | yes | 5 | 6 of 300 |
| 5 times SIGSTOP for three leases | SQLite | 30 of 30 | 0 | 0 | 0 | 0 | yes | 5 | 5 of 300 |
| disk full for 30 s | SQLite | 30 of 30 | 0 | 0 | 0 | 0 | yes | 0 | 0 of 300 |
| foreign exclusive lock for 30 s | SQLite | 30 of 30 | 0 | 0 | 0 | 0 | yes | 0 | 0 of 300 |
| 111 kills, 24 trials, (b) | SQLite | 22 of 24 | 2 | 0 | 0 | 0 | no | 111 | 21 of 235 |

"Died": workers that ended by themselves otherwise than for want of work. "Same": every trial's result equals
the undisturbed run's. "Cut short": attempts without a result; some kills came just after a trial's end; the
one among the restarts is a claim whose answer was lost, taken again when its lease had run out. The
workers said 91 to 115 times that they wait for the server that restarts, 8 times each for disk and lock. (a):
with claims that do not wait for the disk (hpo/ledger/on_postgresql.py), 2 cores of an AMD EPYC, shared,
load 10 to 14; the other rows are older. (b): lost leases are no
faults here, but the tenth closed a slot: two had lost ten; since then it is the thirtieth. 2 cores, load 16
to 20.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import multiprocessing
import os
import platform
import random
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import optuna
import pandas as pd
import sqlalchemy as sa
from postgres import Server, database, own_server

from hpo.ledger.ends import FAULTS
from hpo.ledger.ledger import Ledger
from hpo.reading.frames import attempts_frame, curves_frame, trials_frame
from hpo.storage import clock, open_engine, parse_url
from hpo.storage.tables import slots, workers
from hpo.study import StudySpec
from hpo.worker import Event, Settings, open_study, work

NAME = "chaos"
EPOCHS = 10
PARTS = ["kills", "clocks", "restarts", "freezes", "disk", "lock"]
RESULTS = ("finished", "patience", "pruned", "diverged")
PROCESSES = multiprocessing.get_context("forkserver")
HEADER = (
    "what",
    "database",
    "trials",
    "finished",
    "failed",
    "orphans",
    "duplicates",
    "workers that died by themselves",
    "as undisturbed",
    "attempts cut short",
    "epochs trained again",
    "messages of waiting",
    "wall s",
)


def spec() -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": NAME,
            "task": "synthetic_rr",
            "backbone": {"name": "cmssl_tiny_ppg"},
            "recipe": {"epochs": EPOCHS, "patience": EPOCHS},
            "space": {
                "lr": {"low": 1e-5, "high": 1e-2},
                "backbone_lr": {"low": 1e-6, "high": 1e-2},
                "loss": ["mse", "l1"],
            },
            "sampler": {"kind": "random"},
            "pruner": {"kind": "none"},
            "baseline": {"name": "default", "lr": 1e-4, "backbone_lr": 1e-5, "loss": "mse"},
        }
    )


@dataclass(frozen=True)
class Place:
    """A study on its database, and the folder of its data and logs; checkpoints lie where they always do."""

    url: str
    folder: Path
    trials: int
    lease_s: float = 60.0

    @property
    def settings(self) -> Settings:
        """The same for all workers."""
        cache, trainer = self.folder / "cache", "stateful_trainer"
        return Settings(self.folder, cache, "cpu", lease_s=self.lease_s, poll_s=0.2, doorway=trainer)

    def open(self, epoch_s: float) -> None:
        """Make the study, whose epochs last ``epoch_s``."""
        (self.folder / "epoch_s").write_text(str(epoch_s))
        (self.folder / "epochs_trained").touch()
        open_study(self.url, spec(), self.settings, total=self.trials)

    def waited(self) -> int:
        """Return how often a worker said that it waits for the database."""
        log = self.folder / "waiting.log"
        return len(log.read_text().splitlines()) if log.exists() else 0


def attach(place: Place, ahead_s: float = 0.0) -> None:
    """Be a worker: serve the study until there is no work, by a clock that is ``ahead_s`` ahead."""
    if ahead_s:
        true = clock.KernelClock()
        clock.now = lambda: true() + ahead_s

    def note(event: Event) -> None:
        if event.kind == "waiting":
            with (place.folder / "waiting.log").open("a") as log:
                log.write(f"{os.getpid()} {event.text}\n")

    work(place.url, [NAME], settings=place.settings, on_event=note)


class Team:
    """The workers of a study: processes that know nothing of each other and have no parent that cares."""

    def __init__(self, place: Place, size: int, ahead_s: float = 0.0) -> None:
        self.place = place
        self.kills = 0
        self._ahead_s = ahead_s
        self._started = 0
        self._processes = [self._start() for _ in range(size)]

    def _start(self) -> multiprocessing.process.BaseProcess:
        """Start a worker; every second one has the clock that is ahead."""
        ahead_s = self._ahead_s * (self._started % 2)
        process = PROCESSES.Process(target=attach, args=(self.place, ahead_s))
        process.start()
        self._started += 1
        return process

    @property
    def alive(self) -> list[int]:
        """Process ids of those that have not ended."""
        return [process.pid for process in self._processes if process.is_alive() and process.pid]

    @property
    def died(self) -> int:
        """How many of those that we did not kill ended otherwise than for want of work."""
        return sum(bool(process.exitcode) for process in self._processes)

    def kill(self, pid: int) -> None:
        """Kill one with SIGKILL and start another in its place."""
        (victim,) = [process for process in self._processes if process.pid == pid]
        victim.kill()
        self._processes.remove(victim)
        victim.join()
        victim.close()
        self._processes.append(self._start())
        self.kills += 1

    def join(self) -> None:
        """Wait until all have ended."""
        for process in self._processes:
            process.join()


def pids_at_work(engine: sa.Engine) -> dict[int, int]:
    """Return the processes that run a trial, and the faults that it had before."""
    at_work = (slots.c.worker_id == workers.c.worker_id) & (slots.c.state == "running")
    query = sa.select(workers.c.pid, slots.c.faults).join(slots, at_work)
    with engine.connect() as connection:
        return {row.pid: row.faults for row in connection.execute(query)}


# --- disturbances: each takes a team and returns, in words, what it did


def kill_now_and_then(team: Team, seed: int, mercy: bool) -> str:
    """Kill one of the workers that run a trial about every second, until all is done."""
    draw, engine, spared = random.Random(seed), open_engine(team.place.url), 0
    while team.alive:
        time.sleep(draw.uniform(0.5, 1.5))
        faults = pids_at_work(engine)
        at_work = sorted(faults.keys() & set(team.alive))
        victims = [pid for pid in at_work if faults[pid] < FAULTS - 1 or not mercy]
        spared += len(at_work) - len(victims)
        if victims:
            team.kill(draw.choice(victims))
    engine.dispose()
    return f"{team.kills} kills, {spared} times spared a last attempt"


def restart_now_and_then(team: Team, restart: Callable[[], None], times: int) -> str:
    done = 0
    while team.alive and done < times:
        time.sleep(2.0)
        restart()
        done += 1
    return f"{done} restarts -m immediate"


def freeze_now_and_then(team: Team, times: int) -> str:
    """Stop a worker in the middle of a trial for three times its lease, several times."""
    engine, done = open_engine(team.place.url), 0
    while team.alive and done < times:
        time.sleep(0.7)
        if not (at_work := sorted(pids_at_work(engine).keys() & set(team.alive))):
            continue
        pid = at_work[done % len(at_work)]
        os.kill(pid, signal.SIGSTOP)
        time.sleep(3 * team.place.lease_s)
        os.kill(pid, signal.SIGCONT)
        done += 1
    engine.dispose()
    return f"{done} times SIGSTOP for three leases"


def fill_disk(team: Team, seconds: float) -> str:
    """Leave no byte on the file system of the database for so long."""
    time.sleep(2.0)
    filler = Path(parse_url(team.place.url).database or "").parent / "foreign"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(bytes(4096)):
            pass
    time.sleep(seconds)
    filler.unlink()
    return f"disk full for {seconds:.0f} s"


def lock_all(team: Team, seconds: float) -> str:
    """Lock what the ledger writes to, for so long."""
    time.sleep(2.0)
    if team.place.url.startswith("postgresql"):
        engine = open_engine(team.place.url)
        with engine.connect() as connection:
            connection.execute(sa.text("LOCK TABLE hpo_slot, hpo_study, hpo_worker, hpo_curve, trials"))
            time.sleep(seconds)
        engine.dispose()
        return f"our tables locked for {seconds:.0f} s"
    foreign = sqlite3.connect(parse_url(team.place.url).database or "", isolation_level=None, timeout=60)
    foreign.execute("BEGIN EXCLUSIVE")
    time.sleep(seconds)
    foreign.rollback()
    foreign.close()
    return f"foreign exclusive lock for {seconds:.0f} s"


# --- what is left in the database


def table(url: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the trials (what configuration and seed decide of them) and all their curves."""
    engine = open_engine(url)
    study_id = Ledger(engine).study(NAME).study_id
    trials = trials_frame(engine, study_id).drop(columns=["elapsed_s", "worker", "attempts"])
    curves = curves_frame(engine, study_id).sort_values(["number", "epoch"], ignore_index=True)
    engine.dispose()
    return trials, curves


def is_same(found: tuple[pd.DataFrame, pd.DataFrame], expected: tuple[pd.DataFrame, pd.DataFrame]) -> bool:
    return all(ours.equals(theirs) for ours, theirs in zip(found, expected, strict=True))


def orphans_and_duplicates(url: str) -> tuple[int, int, int]:
    """Return orphans, duplicates, and attempts that ended without a result."""
    engine = open_engine(url)
    study_id = Ledger(engine).study(NAME).study_id
    counts, attempts = Ledger(engine).counts(study_id), attempts_frame(engine, study_id)
    engine.dispose()
    storage = optuna.storages.RDBStorage(parse_url(url).render_as_string(hide_password=False))
    trials = optuna.load_study(study_name=NAME, storage=storage).trials
    storage.engine.dispose()
    unfinished = sum(not trial.state.is_finished() for trial in trials)
    orphans = counts.free + counts.running + unfinished + int(attempts["end"].isna().sum())
    repeated = len(trials) - len({trial.number for trial in trials})
    has_result = attempts["end"].isin(RESULTS)
    repeated += int(attempts[has_result].duplicated("number").sum())
    return orphans, repeated, int((~has_result).sum())


@functools.cache
def undisturbed(trials: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the table of a run that nobody disturbs."""
    with tempfile.TemporaryDirectory(prefix="hpo-chaos-") as folder:
        place = Place(f"sqlite:///{folder}/hpo.db", Path(folder), trials)
        place.open(0.0)
        Team(place, 2).join()
        return table(place.url)


def run_part(
    kind: str,
    place: Place,
    epoch_s: float,
    size: int,
    disturb: Callable[[Team], str],
    ahead_s: float = 0.0,
) -> dict[str, object]:
    """Run a study while it is disturbed; return one row of the table."""
    place.open(epoch_s)
    began = time.monotonic()
    team = Team(place, size, ahead_s)
    what = disturb(team)
    team.join()
    wall_s = time.monotonic() - began
    found, expected = table(place.url), undisturbed(place.trials)
    states = found[0]["state"].value_counts()
    orphans, duplicates, cut = orphans_and_duplicates(place.url)
    needed = len(found[1])
    again = (place.folder / "epochs_trained").stat().st_size - needed
    finished = int(states.get("complete", 0) + states.get("pruned", 0))
    values: Sequence[object] = (
        f"{size} workers, {what}",
        kind,
        place.trials,
        finished,
        int(states.get("failed", 0)),
        orphans,
        duplicates,
        team.died,
        "yes" if is_same(found, expected) else "NO",
        cut,
        f"{again} of {needed}",
        place.waited(),
        f"{wall_s:.0f}",
    )
    return dict(zip(HEADER, values, strict=True))


@contextlib.contextmanager
def place_on(kind: str, server: Server, trials: int, lease_s: float = 60.0) -> Iterator[Place]:
    with (
        database(kind, server.url) as url,
        tempfile.TemporaryDirectory(prefix="hpo-chaos-") as folder,
    ):
        yield Place(url, Path(folder), trials, lease_s)


@contextlib.contextmanager
def place_on_small_disk(trials: int, mib: int = 16) -> Iterator[Place]:
    """Give an SQLite file and its checkpoints on a file system of ``mib`` MiB; needs root."""
    with (
        tempfile.TemporaryDirectory(prefix="hpo-chaos-") as folder,
        tempfile.TemporaryDirectory(prefix="hpo-disk-") as disk,
    ):
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={mib}m", "tmpfs", disk], check=True)
        try:
            yield Place(f"sqlite:///{disk}/hpo.db", Path(folder), trials)
        finally:
            subprocess.run(["umount", disk], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", nargs="+", default=PARTS)
    parser.add_argument("--databases", nargs="+", default=["postgres", "sqlite"])
    parser.add_argument("--trials", type=int, default=200, help="of the part kills")
    parser.add_argument("--rounds", type=int, default=1, help="of the part kills")
    parser.add_argument("--epoch-s", type=float, default=0.12)
    parser.add_argument("--seconds", type=float, default=30.0, help="of the parts disk and lock")
    parser.add_argument("--no-mercy", action="store_true")
    options = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    PROCESSES.set_forkserver_preload(["stateful_trainer", "hpo.worker", "psycopg"])
    print(where())
    print(f"| {' | '.join(HEADER)} |\n|{'---|' * len(HEADER)}")
    with own_server() as server:
        for row in rows(options, server):
            print(f"| {' | '.join(str(cell) for cell in row.values())} |", flush=True)


def rows(options: argparse.Namespace, server: Server) -> Iterator[dict[str, object]]:
    """Run the parts that were asked for."""
    epoch_s, parts = options.epoch_s, set(options.parts)
    for kind in options.databases if "kills" in parts else ():
        for seed in range(options.rounds):
            with place_on(kind, server, options.trials, lease_s=2.0) as place:
                kill = lambda team, seed=seed: kill_now_and_then(team, seed, not options.no_mercy)  # noqa: E731
                yield run_part(kind, place, epoch_s, 4, kill)
    if "clocks" in parts:
        with place_on("sqlite", server, min(60, options.trials), lease_s=2.0) as place:
            kill = lambda team: "two an hour ahead, " + kill_now_and_then(team, 7, not options.no_mercy)  # noqa: E731
            yield run_part("sqlite", place, epoch_s, 4, kill, ahead_s=3600.0)
    if "restarts" in parts and server.restart is not None:
        restart = server.restart
        with place_on("postgres", server, 60) as place:
            yield run_part(
                "postgres", place, epoch_s, 4, lambda team: restart_now_and_then(team, restart, 10)
            )
    for kind in options.databases if "freezes" in parts else ():
        with place_on(kind, server, 30, lease_s=2.0) as place:
            yield run_part(kind, place, epoch_s, 2, lambda team: freeze_now_and_then(team, 5))
    if "disk" in parts:
        with place_on_small_disk(30) as place:
            yield run_part("sqlite", place, epoch_s, 2, lambda team: fill_disk(team, options.seconds))
    for kind in options.databases if "lock" in parts else ():
        with place_on(kind, server, 30) as place:
            yield run_part(kind, place, epoch_s, 2, lambda team: lock_all(team, options.seconds))


def where() -> str:
    """Return machine and versions."""
    names = ("optuna", "SQLAlchemy", "psycopg")
    versions = ", ".join(f"{name} {version(name)}" for name in names)
    machine = f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}"
    return f"{machine}, {versions}, SQLite {sqlite3.sqlite_version}"


if __name__ == "__main__":
    main()
