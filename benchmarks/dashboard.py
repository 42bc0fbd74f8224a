"""CPU seconds that the dashboard's server spends on a first view and on a poll of a large study.

    python benchmarks/dashboard.py [--trials 10000] [--epochs 50] [--plain]

A study of that size is written to a new SQLite file (Optuna's rows and ours), and each dashboard is a
process of its own, whose CPU time is read before and after the requests that its page makes. ``--plain``
also measures optuna-dashboard as it comes, on a plain Optuna study with every epoch's value.

Measured on 2 busy cores without a GPU (optuna 5.0.0, optuna-dashboard 0.21.0, SQLite): 10,000 trials of
50 epochs: start 2.6, first view 4.0, reload 2.1, poll 0.01 CPU s; 3.5 MB compressed.
Our own pages (cards, study, figure), one run, cores busy with other work: first view 0.96, update 0.06 CPU s;
0.03 MB compressed; in the same run Optuna's: start 4.8, first view 6.4, reload 3.2, poll 0.03 CPU s.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.ledger import optuna_rows
from hpo.ledger.ledger import Ledger
from hpo.storage import open_engine, writing
from hpo.storage.tables import NO_FOLD, curve, slots
from hpo.study import Configuration, StudySpec

SPEC = StudySpec.model_validate(
    {
        "name": "large",
        "task": "synthetic_rr",
        "backbone": {"name": "cmssl_tiny_ppg"},
        "recipe": {"epochs": 50},
        "space": {
            "lr": {"low": 1e-6, "high": 1e-2},
            "backbone_lr": {"low": 1e-7, "high": 1e-3},
            "loss": ["mse", "l1"],
        },
        "baseline": {"name": "default", "lr": 1e-4, "backbone_lr": 1e-5, "loss": "mse"},
    }
)
DATA = {
    "task": "synthetic_rr",
    "data_hash": "benchmark",
    "windows": {"train": 100, "validation": 20, "test": 20},
    "trivial": {"validation_loss": 5.0},
    "trivial_name": "constant 15 breaths/min",
}


def fill(url: str, trials: int, epochs: int, *, every_value: bool) -> int:
    """Write a finished study of so many trials; ``every_value`` keeps every epoch in Optuna's table."""
    engine = open_engine(url)
    ledger = Ledger(engine)
    study = ledger.create_study(SPEC, data=DATA, versions={"hpo": "benchmark"})
    ledger.add_slots(study.study_id, trials)
    rng = random.Random(0)
    for first in range(0, trials, 500):
        with writing(engine) as connection:
            for slot in range(first, min(first + 500, trials)):
                write_trial(connection, study.study_id, slot, epochs, rng, every_value=every_value)
    engine.dispose()
    return study.study_id


def write_trial(
    connection: sa.Connection, study_id: int, slot: int, epochs: int, rng: random.Random, *, every_value: bool
) -> None:
    """Write one finished trial with all that a worker writes of it."""
    at = 1.7e9 + 60 * slot
    tried = Configuration(10 ** rng.uniform(-6, -2), 10 ** rng.uniform(-7, -3), "mse", rng.randrange(10_000))
    floor = 2 + 0.3 * (math.log10(tried.ratio) - 1) ** 2 + 0.1 * rng.gauss(0, 1)
    losses = [floor + 3 * math.exp(-epoch / 10) for epoch in range(1, epochs + 1)]
    trial = optuna_rows.create_trial(connection, study_id, slot, at)
    optuna_rows.write_params(connection, trial, tried, SPEC.space)
    result = {"end": "finished", "best_epoch": epochs, "epochs": epochs, "elapsed_s": 50.0, "device": "cpu"}
    attributes = {"ratio": tried.ratio, "origin": "search", "worker": "host-1-abc", "attempt": 1, **result}
    optuna_rows.write_attributes(connection, trial, attributes | {"metrics": {"mae": floor}})
    kept = [
        (trial, epoch, loss)
        for epoch, loss in enumerate(losses, 1)
        if every_value or optuna_rows.is_kept(epoch, epochs)
    ]
    optuna_rows.write_intermediate(connection, kept)
    optuna_rows.write_value(connection, trial, losses[-1])
    optuna_rows.end_trial(connection, trial, TrialState.COMPLETE, at + 50)
    mine = (slots.c.study_id == study_id) & (slots.c.slot == slot)
    ours = {
        "config": vars(tried),
        "trial_id": trial,
        "attempt": 1,
        "value": losses[-1],
        "metrics": {"mae": floor},
    }
    connection.execute(sa.update(slots).where(mine).values(state="done", **ours, **result))
    points = [
        {
            "study_id": study_id,
            "slot": slot,
            "epoch": epoch,
            "fold": NO_FOLD,
            "train_loss": loss,
            "validation_loss": loss,
            "best_so_far": loss,
            "metrics": {"mae": loss},
            "elapsed_s": 1.0,
        }
        for epoch, loss in enumerate(losses, 1)
    ]
    connection.execute(sa.insert(curve), points)


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process so far, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def get(port: int, path: str) -> tuple[int, int]:
    """Return the size of a page as it came over the wire and as a browser unpacks it, in bytes."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
    answer = connection.getresponse()
    body = answer.read()
    connection.close()
    if answer.status != 200:
        raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
    return len(body), len(gzip.decompress(body) if answer.getheader("Content-Encoding") == "gzip" else body)


def spent(pid: int, call: Callable[[], object]) -> float:
    """Return the CPU seconds of the server during ``call``."""
    before = cpu_s(pid)
    call()
    return cpu_s(pid) - before


def measure(name: str, command: list[str], port: int, study_id: int, trials: int, *, is_ours: bool) -> str:
    """Start a dashboard, look at the study as its page does, and return one line of the table."""
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        try:
            wait_until_idle(server.pid, port)
            started = cpu_s(server.pid)
            detail = f"/api/studies/{study_id}"
            size, unpacked = 0, 0

            def first_view() -> None:
                nonlocal size, unpacked
                for path in ("/dashboard", "/api/meta", "/api/studies", f"{detail}/param_importances"):
                    get(port, path)
                size, unpacked = get(port, f"{detail}?after=0")

            first = spent(server.pid, first_view)
            again = spent(server.pid, lambda: get(port, f"{detail}?after=0"))
            polls = []
            for _ in range(5):
                time.sleep(10.5)  # the dashboard itself answers from memory for 10 s
                polls.append(spent(server.pid, lambda: get(port, f"{detail}?after={trials}")))
            mine = own_pages(server.pid, port) if is_ours else ""
        finally:
            server.terminate()
    poll = sorted(polls)[2]
    sizes = f"{size / 1e6:8.2f} {unpacked / 1e6:8.1f}"
    return f"{name:24} {started:8.2f} {first:10.2f} {again:10.2f} {poll:8.3f} {sizes}{mine}"


def own_pages(pid: int, port: int) -> str:
    """Return a line of what our own pages cost: the cards and the study, and the study's updates."""
    first = spent(pid, lambda: [get(port, path) for path in ("/", "/study/large", "/study/large/ratio.svg")])
    size, unpacked = get(port, "/study/large")
    polls = []
    for _ in range(5):
        time.sleep(2.5)
        polls.append(spent(pid, lambda: get(port, "/live/large")))
    sizes = f"{size / 1e6:8.2f} {unpacked / 1e6:8.1f}"
    return f"\n{'  our own pages':24} {'':8} {first:10.2f} {'':10} {sorted(polls)[2]:8.3f} {sizes}"


def wait_until_idle(pid: int, port: int) -> None:
    """Wait until the server answers and no longer works by itself."""
    for _ in range(300):
        try:
            get(port, "/api/meta")
            break
        except OSError:
            time.sleep(0.2)
    while True:
        before = cpu_s(pid)
        time.sleep(3)
        if cpu_s(pid) - before < 0.05:
            return


def main() -> None:
    parser = argparse.ArgumentParser(description=re.sub(r"\s+", " ", __doc__ or ""))
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--plain", action="store_true")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(
            f"{asked.trials} trials of {asked.epochs} epochs, SQLite; CPU s of the server; median of 5 polls"
        )
        print(f"{'':24} {'start':>8} {'first view':>10} {'reload':>10} {'poll':>8} {'MB gzip':>8} {'MB':>8}")
        url = f"sqlite:///{folder}/ours.db"
        study_id = fill(url, asked.trials, asked.epochs, every_value=False)
        ours = [sys.executable, "-m", "hpo", "dashboard", "--storage", url, "--port", "18380"]
        print(measure("hpo dashboard", ours, 18380, study_id, asked.trials, is_ours=True), flush=True)
        if asked.plain:
            url = f"sqlite:///{folder}/plain.db"
            study_id = fill(url, asked.trials, asked.epochs, every_value=True)
            plain = [
                sys.executable,
                "-c",
                "from optuna_dashboard._cli import main; main()",
                url,
                "--port",
                "18381",
            ]
            print(
                measure("optuna-dashboard", plain, 18381, study_id, asked.trials, is_ours=False), flush=True
            )


if __name__ == "__main__":
    main()
