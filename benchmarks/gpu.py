"""A GPU's figures: a user's plain loop against ours, populations of K, processes, and a whole search.

    python benchmarks/gpu.py [--out gpu.json] [--seconds 10] [--minutes 8]
    bash benchmarks/gpu_kit.sh FOLDER    # a folder that does so where there is no network

The file is written anew after each cell; no cell begins after --minutes, and the cells come by importance, so
that an early end leaves the best part. A cell that fails leaves its error in the file, and the next begins.

    equality   the first losses alone, by a graph and in a population of 8, beside the CPU's of --cpu-losses
    user       torch's layers, a DataLoader with two workers and pinned memory, `item()` each step
    ours       K slots of our engine; 1 is the plain loop
    graph      the plain loop, its step a CUDA graph
    compiled   the plain loop with torch.compile around the model
    launches   kernels a step, by torch's profiler
    processes  1 to 8 processes on one device, with NVIDIA's MPS and without
    search     `hpo run` of two workers on one device against SQLite

Trials an hour are of 12 epochs of 155 steps at batch 64, with validation and checkpoints, counted over at
least --seconds after the first epoch. `busy_percent` is the median of nvidia-smi's samples in a cell,
`peak_mib` torch's peak. Data are random windows of 1250 samples. On a machine with the CPU engine's
dependencies `--write-cpu-losses FILE` writes what equality needs: a GPU's Python need not have numba.

No figure of a GPU is stated anywhere in this project until this has been run on one.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import torch
from gpu_cells import ENCODERS, EQUAL_STEPS, Cell, Place, measure, random_data, spec_of

from finetune.api import Run
from finetune.engine.loop import open_member, train_epoch

PRECISIONS = ("fp32", "tf32", "bf16")


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
        Cell("search", processes=2),
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

    def __init__(self) -> None:
        self.busy: list[float] = []
        self.memory_mib: list[float] = []
        self._done = threading.Event()

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
        words = ["nvidia-smi", "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        while shutil.which("nvidia-smi") and not self._done.wait(0.2):
            found = subprocess.run(words, capture_output=True, text=True, check=False).stdout.split("\n")[0]
            if "," in found:
                busy, memory = found.split(",")
                self.busy.append(float(busy))
                self.memory_mib.append(float(memory))


def row_of(cell: Cell, place: Place) -> dict[str, object]:
    """Return a cell with its figures, or with the error that it ended in."""
    is_cuda = place.device.type == "cuda"
    if is_cuda:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(place.device)
    watch, began = Utilisation(), time.monotonic()
    with watch.sampled():
        try:
            found = measure(cell, place)
        except Exception as error:  # of whatever kind: the other cells are still to be had
            found = {"error": f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"}
    return {
        **asdict(cell),
        **found,
        "busy_percent": statistics.median(watch.busy) if watch.busy else None,
        "memory_mib": max(watch.memory_mib, default=None),
        "peak_mib": torch.cuda.max_memory_allocated(place.device) / 2**20 if is_cuda else None,
        "took_s": round(time.monotonic() - began, 1),
    }


def write_cpu_losses(options: argparse.Namespace, folder: Path) -> None:
    """Write what the CPU has for the first steps of each encoder."""
    cpu, losses = torch.device("cpu"), {}
    for name in options.encoders:
        cell = Cell("equality", name)
        data = random_data(EQUAL_STEPS * cell.batch, cpu)
        losses[name] = train_epoch(open_member(Run("equal", spec_of(cell, folder)), data, cpu))
    options.write_cpu_losses.write_text(json.dumps(losses))


def write(out: Path, device: torch.device, found: list[dict[str, object]]) -> None:
    """Write all rows so far, whole or not at all."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    temporary = out.with_suffix(".part")
    told = {"device": hardware, "torch": torch.__version__, "cuda": torch.version.cuda, "rows": found}
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
    parser.add_argument("--most-slots", type=int, default=64, help="leave larger populations out")
    parser.add_argument("--batches", nargs="+", type=int, default=[64, 512])
    parser.add_argument("--cpu-losses", type=Path)
    parser.add_argument("--write-cpu-losses", type=Path)
    parser.add_argument("--cell", help="measure this one alone, and print it")
    return parser.parse_args()


def main() -> None:
    options = parsed()
    device = torch.device(options.device)
    torch.set_num_threads(1 if device.type == "cpu" else torch.get_num_threads())
    cpu = json.loads(options.cpu_losses.read_text()) if options.cpu_losses else {}
    found: list[dict[str, object]] = []
    end = time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        if options.write_cpu_losses:
            return write_cpu_losses(options, Path(folder))
        place = Place(device, Path(folder), options.seconds, options.windows, cpu)
        if options.cell:
            return print(json.dumps(measure(Cell(**json.loads(options.cell)), place)))
        for cell in cells():
            is_left_out = cell.encoder not in options.encoders or cell.slots > options.most_slots
            if time.monotonic() > end or is_left_out or cell.batch not in options.batches:
                continue
            found.append(row_of(cell, place))
            print(json.dumps(found[-1]), flush=True)
            if options.out:
                write(options.out, device, found)


if __name__ == "__main__":
    main()
