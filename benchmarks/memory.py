"""Are the windows in memory once, or once a worker?

    python benchmarks/memory.py --data DATA [--study physionet2017] [--workers 2]

Starts ``hpo run`` with so many workers on a new SQLite file, waits until each has trained an epoch, and adds
up what /proc says of the mapped files of prepared windows: resident in each process (RSS), each process's
fair share of it (PSS: a page that two processes map counts half in each), and what no other process shares.
Then the search is ended. Linux only.

Result, 2 cores of an AMD EPYC, Linux, Python 3.11.7, torch 2.13.0 (CPU build), MiB, one run a row:

| study | workers | windows: RSS of each | PSS of all | shared with nobody | whole RSS of each |
|---|---|---|---|---|---|
| bidmc_rr | 2 | 53, 53 | 53 | 0 | 435, 433 |
| bidmc_rr | 4 | 53, 53, 53, 53 | 53 | 0 | 501, 435, 436, 435 |
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from hpo.errors import StorageError
from hpo.reading.activity import Activity, activities
from hpo.storage import open_engine

MIB = 1024


@dataclass(frozen=True)
class Mapped:
    """Memory of one process's mapped windows, and all of its own, in KiB."""

    rss: int
    pss: int
    private: int
    whole_rss: int


def mapped_by(pid: int) -> Mapped:
    """Read what a process has mapped of files of prepared windows (``*-x.npy``)."""
    found = {"Rss": 0, "Pss": 0, "Private_Clean": 0, "Private_Dirty": 0}
    whole, is_ours = 0, False
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if " " in key:  # the head of a mapping: addresses, permissions, ..., file
            is_ours = line.endswith("-x.npy")
        elif key in found:
            size = int(rest.split()[0])
            whole += size if key == "Rss" else 0
            found[key] += size if is_ours else 0
    return Mapped(found["Rss"], found["Pss"], found["Private_Clean"] + found["Private_Dirty"], whole)


def training(url: str, workers: int, timeout_s: float) -> list[int]:
    """Wait until so many workers have each trained an epoch; return their pids."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until:
        time.sleep(1)
        pids = [one.pid for one in _active(url) if one.epoch]
        if len(pids) >= workers:
            return pids
    raise SystemExit(f"{workers} workers did not train an epoch within {timeout_s:.0f} s")


def _active(url: str) -> list[Activity]:
    if not Path(url.removeprefix("sqlite:///")).exists():
        return []
    try:
        engine = open_engine(url, create=False)
    except StorageError:  # the search has only begun to make its tables
        return []
    try:
        return activities(engine)
    finally:
        engine.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HPO_DATA", "data")))
    parser.add_argument("--cache", type=Path, default=Path(os.environ.get("HPO_CACHE", ".cache")))
    parser.add_argument("--study", default="physionet2017")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--timeout", type=float, default=900, help="seconds until each has trained an epoch")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/memory.db"
        words = [
            *(sys.executable, "-m", "hpo", "run", "--study", options.study, "--trials", "50"),
            *("--workers", str(options.workers), "--storage", url, "--device", "cpu"),
            *("--data", str(options.data), "--cache", str(options.cache)),
        ]
        search = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            found = [mapped_by(pid) for pid in training(url, options.workers, options.timeout)]
        finally:
            search.send_signal(signal.SIGINT)
            search.wait()
    show(options.study, found)


def show(study: str, found: list[Mapped]) -> None:
    """Print the table, in MiB."""
    print("| study | workers | windows: RSS of each | PSS of all | shared with nobody | whole RSS of each |")
    print("|---|---|---|---|---|---|")
    each = ", ".join(f"{one.rss / MIB:.0f}" for one in found)
    whole = ", ".join(f"{one.whole_rss / MIB:.0f}" for one in found)
    pss, private = (sum(getattr(one, name) for one in found) / MIB for name in ("pss", "private"))
    print(f"| {study} | {len(found)} | {each} | {pss:.0f} | {private:.0f} | {whole} |")


if __name__ == "__main__":
    main()
