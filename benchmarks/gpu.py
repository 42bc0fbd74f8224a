"""A GPU's figures: a user's plain loop against ours, populations of K, processes, and a whole search.

    python benchmarks/gpu.py [--out gpu.json] [--seconds 10] [--minutes 8]
    python benchmarks/gpu.py --rehearse --out rehearsal.json    # every cell, on a CPU, with small encoders
    bash benchmarks/gpu_kit.sh FOLDER    # a folder that does so where there is no network

The file is written anew after each cell; no cell begins after --minutes, none goes on 45 seconds later, and
the cells come by importance, so that an early end leaves the best part. A process of its own measures them:
a cell that takes longer than --limit is ended with it, as one that fails leaves its error in the file, and
the next begins; so it does after a fault of CUDA, which every later call of a process would meet again.

    equality   the first losses alone, by a graph and in a population of 8, beside the CPU's of --cpu-losses
    user       torch's layers, a DataLoader with two workers and pinned memory, `item()` each step
    ours       K slots of our engine; 1 is the plain loop
    graph      the plain loop, its step a CUDA graph
    compiled   the plain loop with torch.compile around the model
    launches   kernels a step, by torch's profiler
    processes  1 to 8 processes on one device, with NVIDIA's MPS and without
    search     `hpo run` of two workers on one device against SQLite, by itself and with `--slots auto`

Trials an hour are of 12 epochs of 155 steps at batch 64, with validation and checkpoints, counted over at
least --seconds after the first epoch. `busy_percent` is the median of nvidia-smi's samples in a cell,
`peak_mib` torch's peak. Data are random windows of 1250 samples. On a machine with the CPU engine's
dependencies `--write-cpu-losses FILE` writes what equality needs: a GPU's Python need not have numba.

No figure of a GPU is stated anywhere in this project until this has been run on one.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from gpu_cells import ENCODERS, EQUAL_STEPS, Cell, Place, measure, random_data, spec_of

from finetune.api import Run
from finetune.engine.devices import is_lost, open_device, why_no_gpu
from finetune.engine.loop import device_name, open_member, train_epoch

PRECISIONS = ("fp32", "tf32", "bf16")
LAST_S = 45
"""What a cell that began in time may take beyond it."""


def cells() -> list[Cell]:
    """Return all cells, the most important first, each once."""
    first = [
        Cell("equality"),
        Cell("user"),
        Cell("ours"),
        Cell("graph"),
        *(Cell("ours", slots=slots) for slots in (8, 32)),
        Cell("user", precision="bf16"),
        Cell("user", precision="tf32"),
        *(Cell("launches", slots=slots) for slots in (1, 8)),
        *(Cell("user", "small", one) for one in ("tf32", "bf16")),
        Cell("graph", "small", "tf32"),
        *(Cell("ours", "small", "tf32", slots) for slots in (1, 4, 8)),
        Cell("user", "large", "tf32"),
        Cell("ours", "large", "tf32"),
        Cell("graph", "large", "tf32"),
        *(Cell("search", slots=slots, processes=2) for slots in (1, "auto")),
        *(Cell("processes", processes=count) for count in (2, 4, 8)),
        Cell("user", batch=512),
        *(Cell("ours", batch=512, slots=slots) for slots in (1, 8)),
        Cell("processes", processes=4, is_shared=True),
        Cell("compiled"),
        Cell("user", "large", "bf16"),
        Cell("ours", "large", "bf16"),
        *(Cell("ours", slots=slots) for slots in (16, 64, 4, 2)),
        *(Cell("equality", name) for name in ("small", "large")),
        *(Cell("ours", precision=one, slots=slots) for one in ("bf16", "tf32") for slots in (1, 32)),
    ]
    rest = [
        Cell(kind, name, precision, slots, batch)
        for batch in (64, 512)
        for name in ENCODERS
        for precision in PRECISIONS
        for kind, slots in [
            ("user", 1),
            ("graph", 1),
            *(("ours", slots) for slots in (1, 2, 4, 8, 16, 32, 64)),
        ]
        if not (name == "large" and slots > 4)
    ]
    more = [Cell("processes", processes=1), Cell("processes", processes=8, is_shared=True)]
    return list(dict.fromkeys([*first, *more, *rest]))


class Utilisation:
    """Samples of nvidia-smi: share of time with a kernel running (%), and memory (MiB)."""

    def __init__(self, device: torch.device) -> None:
        self.busy: list[float] = []
        self.memory_mib: list[float] = []
        self._done = threading.Event()
        self._words = [
            "nvidia-smi",
            "--query-gpu=utilization.gpu,memory.used",
            "--format=csv,noheader,nounits",
        ]
        if device.type == "cuda":
            self._words.append(f"--id=GPU-{torch.cuda.get_device_properties(device).uuid}")

    @contextmanager
    def sampled(self) -> Iterator[None]:
        """Sample five times a second while the block runs."""
        thread = threading.Thread(target=self._sample, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._done.set()
            thread.join()

    def _sample(self) -> None:
        while shutil.which("nvidia-smi") and not self._done.wait(0.2):
            found = subprocess.run(self._words, capture_output=True, text=True, check=False).stdout
            busy, _, memory = found.partition(",")
            with suppress(ValueError):  # [N/A], of a part of a GPU; or no such GPU
                self.busy.append(float(busy))
            with suppress(ValueError):
                self.memory_mib.append(float(memory))


def row_of(cell: Cell, place: Place) -> dict[str, object]:
    """Return a cell with its figures, or with the error that it ended in."""
    is_cuda = place.device.type == "cuda"
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(place.device)
    watch, began = Utilisation(place.device), time.monotonic()
    with watch.sampled():
        try:
            found = measure(cell, place)
        except Exception as error:  # of whatever kind: the other cells are still to be had
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
            found |= {"is_lost": True} if is_lost(error) else {}
    return {
        **asdict(cell),
        **found,
        "busy_percent": statistics.median(watch.busy) if watch.busy else None,
        "memory_mib": max(watch.memory_mib, default=None),
        "peak_mib": torch.cuda.max_memory_allocated(place.device) / 2**20 if is_cuda else None,
        "took_s": round(time.monotonic() - began, 1),
    }


def serve(pipe: Connection, options: argparse.Namespace) -> None:
    """Measure the cells that come through ``pipe``, in a group of processes of its own, until told to end."""
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is ended
    with tempfile.TemporaryDirectory() as folder:
        place = place_of(options, Path(folder))
        while True:
            row = row_of(pipe.recv(), place)
            pipe.send({"device": device_name(place.device), **row})
            if "is_lost" in row:
                return


class Server:
    """A process that measures one cell after the other; another takes its place where it had to be ended."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._process: SpawnProcess | None = None

    def row(self, cell: Cell, limit_s: float) -> dict[str, object]:
        """Return a cell with its figures, or with the error that it or its process ended in."""
        began = time.monotonic()
        if self._process is None:
            context = multiprocessing.get_context("spawn")
            self._pipe, its = context.Pipe()
            self._process = context.Process(target=serve, args=(its, self._options))
            self._process.start()
            its.close()
        try:
            self._pipe.send(cell)
            if self._pipe.poll(limit_s):
                row: dict[str, object] = self._pipe.recv()
                if "is_lost" in row:
                    self.end()
                return row
            error = f"ended: it took longer than {limit_s:.0f} s"
        except (EOFError, OSError):
            self._process.join(5)
            error = f"its process died (exit status {self._process.exitcode})"
        self.end()
        return {**asdict(cell), "error": error, "took_s": round(time.monotonic() - began, 1)}

    def end(self) -> None:
        """End the process and all that it started: first by asking."""
        if self._process is None or self._process.pid is None:
            return
        for how in (signal.SIGTERM, signal.SIGKILL):
            for call in (os.killpg, os.kill):  # it may not have its group yet
                with suppress(ProcessLookupError):
                    call(self._process.pid, how)
                    break
            self._process.join(5)
        self._process, _ = None, self._pipe.close()


def place_of(options: argparse.Namespace, folder: Path) -> Place:
    """Open the device, and return where the cells are measured."""
    cpu = json.loads(options.cpu_losses.read_text()) if options.cpu_losses else {}
    threads = torch.get_num_threads()
    device = open_device(options.device)
    torch.set_num_threads(1 if device.type == "cpu" else threads)
    return Place(
        device, folder, options.seconds, options.windows, cpu, options.trials, is_rehearsal=options.rehearse
    )


def write_cpu_losses(options: argparse.Namespace, place: Place) -> None:
    """Write what the CPU has for the first steps of each encoder."""
    losses = {}
    for name in options.encoders:
        cell = Cell("equality", name)
        data = random_data(EQUAL_STEPS * cell.batch, place.device)
        losses[name] = train_epoch(open_member(Run("equal", spec_of(cell, place)), data, place.device))
    options.write_cpu_losses.write_text(json.dumps(losses))


def measure_all(options: argparse.Namespace) -> None:
    """Measure all cells in their order until the time is over, and write the file after each."""
    ending = time.monotonic() + 60 * options.minutes
    wanted = [cell for cell in cells() if is_wanted(cell, options)]
    found: list[dict[str, object]] = []
    server = Server(options)
    try:
        for cell in wanted:
            left_s = ending - time.monotonic()
            if left_s < 0:
                break
            found.append(server.row(cell, min(options.limit, left_s + LAST_S)))
            print(json.dumps(found[-1]), flush=True)
            if options.out:
                write(options.out, found, len(wanted) - len(found))
    finally:
        server.end()
    print(f"{len(found)} of {len(wanted)} cells, before the time was over", file=sys.stderr)


def is_wanted(cell: Cell, options: argparse.Namespace) -> bool:
    """Return whether the options leave a cell in."""
    is_large = isinstance(cell.slots, int) and cell.slots > options.most_slots
    return cell.encoder in options.encoders and cell.batch in options.batches and not is_large


def write(out: Path, found: list[dict[str, object]], left: int) -> None:
    """Write all rows so far, whole or not at all."""
    temporary = out.with_suffix(".part")
    told = {"torch": torch.__version__, "cuda": torch.version.cuda, "cells_left": left, "rows": found}
    temporary.write_text(json.dumps(told, indent=1))
    temporary.replace(out)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--seconds", type=float, default=10.0, help="of a cell, after its first epoch")
    parser.add_argument("--windows", type=int, default=155 * 64, help="of an epoch")
    parser.add_argument("--minutes", type=float, default=8.0, help="no cell begins after them")
    parser.add_argument("--limit", type=float, default=100.0, help="seconds after which a cell is ended")
    parser.add_argument("--trials", type=int, default=400, help="of a whole search, at most")
    parser.add_argument("--most-slots", type=int, default=64, help="leave larger populations out")
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 512])
    parser.add_argument("--cpu-losses", type=Path)
    parser.add_argument("--write-cpu-losses", type=Path)
    parser.add_argument("--cell", help="measure this one alone, and print it")
    parser.add_argument(
        "--rehearse", action="store_true", help="try every cell on a CPU; figures mean nothing"
    )
    options = parser.parse_args()
    if options.rehearse:
        few = {"device": "cpu", "seconds": 0.05, "windows": 2 * 64 + 3, "trials": 3}
        vars(options).update(few, minutes=24 * 60.0, limit=1200.0)
    return options


def main() -> None:
    options = parsed()
    if not (options.cell or options.write_cpu_losses):
        if options.device.startswith("cuda") and not torch.cuda.is_available():
            sys.exit(f"there is no GPU for torch ({why_no_gpu()}); --rehearse tries the cells on a CPU")
        return measure_all(options)
    with tempfile.TemporaryDirectory() as folder:
        place = place_of(options, Path(folder))
        if options.cell:
            return print(json.dumps(measure(Cell(**json.loads(options.cell)), place)))
        return write_cpu_losses(options, place)


if __name__ == "__main__":
    main()
