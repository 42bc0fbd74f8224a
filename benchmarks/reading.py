"""What reading and preparing a data set costs on one core: the first time, and from the cache.

    python benchmarks/reading.py --data DATA [--tasks bidmc_hr physionet2017] [--repeats 5]

Every figure is of a process of its own that is bound to one core: ``read`` is the reader alone (original
files to windows), ``prepare`` the whole first preparation into an empty cache, ``cached`` the same call once
more in a new process. Imports are not in them: ``imports`` is what a process needs before. Wall and CPU time
(medians, with the longest wall time) are of the call, peak memory is of the whole process. Files are in the
page cache after the first.

Measured on complete BIDMC (53 subjects, signals as csv.gz) and complete PhysioNet 2017 (8,528 records, zip);
n = 3 a figure; one of 2 cores of an AMD EPYC, 24 GiB, with other work all the time (load 8 to 14, so wall
times are several times what a free core takes); python 3.11.7, numpy 2.4.6, pandas 2.3.3, scipy 1.17.1,
scikit-learn 1.9.1:

    step                    wall, median (longest)    CPU       peak        bar
    bidmc_hr prepare        13.1 s (15.1)             3.8 s     196 MiB     60 s
    bidmc_hr cached         0.025 s (0.059)           0.005 s   34 MiB      1 s
    bidmc_rr prepare        11.6 s (15.6)             3.5 s     197 MiB     60 s
    bidmc_rr cached         0.014 s (0.021)           0.005 s   34 MiB      1 s
    physionet2017 read      24.2 s (31.9)             4.6 s     767 MiB     90 s, 3 GB
    physionet2017 prepare   54 s (54.8)               9.1 s     1,096 MiB   90 s, 3 GB
    physionet2017 cached    0.011 s (0.027)           0.003 s   33 MiB
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

STEPS = ("read", "prepare", "cached")
SAMPLES = {"physionet2017": 3750}
"""As the shipped studies prepare it; the others at 1,250."""

PROGRAM = """
import json, os, resource, sys, time
from pathlib import Path

os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
step, task, data, cache, samples = sys.argv[1:]
began = time.perf_counter()
from finetune.datasets import find_reader
from finetune.data.prepared import prepare
from finetune.spec import InputSpec
from finetune.tasks import TASKS

imports_s = time.perf_counter() - began
inputs = InputSpec(task, samples=int(samples), allow_partial=True)
reader = find_reader(TASKS[task].dataset)
began, began_cpu = time.perf_counter(), time.process_time()
if step == "read":
    windows = reader.read(Path(data) / reader.folder, task)
    found, count = windows.records_found, len(windows.signal)
else:
    summary = prepare(inputs, Path(data), Path(cache)).summary
    found, count = summary.partial or "all", sum(summary.windows.values())
took, took_cpu = time.perf_counter() - began, time.process_time() - began_cpu
peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"wall_s": took, "cpu_s": took_cpu, "imports_s": imports_s, "peak_mib": peak_mib,
                  "records": found, "windows": count}))
"""


def measure(step: str, task: str, data: Path, cache: Path) -> dict[str, Any]:
    """Return what one process took for one step; ``cached`` needs a cache that ``prepare`` has filled."""
    words = [step, task, str(data), str(cache), str(SAMPLES.get(task, 1250))]
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    told = subprocess.run(
        [sys.executable, "-c", PROGRAM, *words],
        env=os.environ | threads,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def repeat(task: str, data: Path, repeats: int) -> dict[str, list[dict[str, Any]]]:
    """Return every measurement of a task by step; each repeat begins with an empty cache."""
    found: dict[str, list[dict[str, Any]]] = {step: [] for step in STEPS}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as cache:
            for step in STEPS:
                found[step].append(measure(step, task, data, Path(cache)))
    return found


def summary(runs: list[dict[str, Any]]) -> str:
    """Return medians and the worst of some measurements in one line."""
    middle = {key: statistics.median(run[key] for run in runs) for key in ("wall_s", "cpu_s", "imports_s")}
    longest, peak = max(run["wall_s"] for run in runs), max(run["peak_mib"] for run in runs)
    return (
        f"wall {middle['wall_s']:.3g} s (longest {longest:.3g}), CPU {middle['cpu_s']:.3g} s, "
        f"peak {peak:.0f} MiB, imports {middle['imports_s']:.2g} s, "
        f"{runs[0]['windows']} windows, records {runs[0]['records']}, n = {len(runs)}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("HPO_DATA", "data")))
    parser.add_argument("--tasks", nargs="+", default=["bidmc_hr", "bidmc_rr", "physionet2017"])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, help="also write every measurement as JSON")
    options = parser.parse_args()
    versions = {name: version(name) for name in ("numpy", "pandas", "scipy", "scikit-learn")}
    print(f"python {platform.python_version()}, {versions}, load {os.getloadavg()[0]:.1f}")
    found = {task: repeat(task, options.data, options.repeats) for task in options.tasks}
    for task, steps in found.items():
        for step, runs in steps.items():
            print(f"{task} {step}: {summary(runs)}")
    if options.out is not None:
        options.out.write_text(json.dumps({"versions": versions, "runs": found}, indent=1) + "\n")


if __name__ == "__main__":
    main()
