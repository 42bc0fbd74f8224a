"""A GPU's figures: the plain loop against populations of K, for the tiny and a 256-wide encoder.

    python benchmarks/gpu.py [--out gpu.json] [--batch 64] [--precision fp32 tf32 bf16] [--slots 2 4 8 16 32]
    bash benchmarks/gpu_kit.sh FOLDER    # a folder that does so where there is no network

The file is written anew after each cell, and no cell begins after --minutes. First of an encoder: a step of
what a user would write (torch's own layers, a DataLoader with two workers and pinned memory, `loss.item()`
each step), and the plain loop's training loss of the first steps beside the CPU's, as --cpu-losses has it
from `--write-cpu-losses FILE` on another machine: a GPU's Python need not have numba. Then, for each encoder,
precision and K: milliseconds a member and step (minimum of two epochs of a few steps, after one to warm up),
trials an hour of 12 epochs of 155 steps, the device's utilisation and memory as nvidia-smi samples them in
that time, and torch's peak memory. Data are random windows of 1250 samples on the device. K = 1 is the
plain loop; `--slots auto` takes the smallest K within 10 % of the best.

Not measured yet: no GPU figure is stated anywhere in this project until this has been run.
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
from pathlib import Path

import numpy as np
import torch

from finetune.api import BackboneSpec, InputSpec, Precision, Recipe, Run, RunSpec
from finetune.backbones.cmssl import TINY, CmsslArchitecture, CmsslEncoder
from finetune.backbones.cmssl_files import save_cmssl
from finetune.engine.device_data import DeviceData
from finetune.engine.loop import open_member, train_epoch
from finetune.engine.population import CALIBRATION_STEPS, smallest_near_best, step_costs
from finetune.random import Purpose, torch_generator
from finetune.tasks import find_task

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
ENCODERS = {
    "tiny": TINY,
    "small": CmsslArchitecture(embedding=256, layers=4, heads=4),
    "large": CmsslArchitecture(embedding=1024, layers=12, heads=16),
}
EPOCHS, STEPS = 12, 155
"""A trial of the study bidmc_rr without pruning."""


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


def random_data(batch: int, device: torch.device) -> DeviceData:
    """Return a few batches of random windows."""
    generator = torch.Generator().manual_seed(0)
    windows = torch.randn(CALIBRATION_STEPS * batch, 1250, generator=generator).to(device)
    labels = torch.randn(len(windows), 1, generator=generator).to(device)
    return DeviceData(
        find_task("bidmc_rr"), windows, labels, windows, np.zeros((len(windows), 1), np.float32), None, None
    )


def spec_of(weights: Path, batch: int, precision: Precision) -> RunSpec:
    recipe = Recipe(EPOCHS, batch, EPOCHS, precision=precision)
    backbone = BackboneSpec("cmssl_tiny_ppg", str(weights))
    return RunSpec(InputSpec("bidmc_rr"), backbone, "full_finetuning", recipe, 1e-4, 1e-5, "mse", 0)


def first_loss(spec: RunSpec, batch: int, device: torch.device) -> float:
    """Return the mean training loss of the first steps of the plain loop."""
    return train_epoch(open_member(Run("equal", spec), random_data(batch, device), device))


def encoder_file(name: str, folder: Path) -> Path:
    """Write random weights of an encoder, the same everywhere, and return their file."""
    weights = folder / f"{name}.safetensors"
    encoder = CmsslEncoder(ENCODERS[name]).initialise(torch_generator(0, Purpose.INIT))
    save_cmssl(weights, encoder, {"licence": "none"})
    return weights


def write_cpu_losses(options: argparse.Namespace, folder: Path) -> None:
    """Write what the CPU has for the first steps of each encoder."""
    cpu = torch.device("cpu")
    losses = {
        name: first_loss(spec_of(encoder_file(name, folder), options.batch, "fp32"), options.batch, cpu)
        for name in options.encoders
    }
    options.write_cpu_losses.write_text(json.dumps({"batch": options.batch, "losses": losses}))


def cpu_loss(options: argparse.Namespace, name: str) -> float | None:
    """Return the CPU's loss of an encoder at this batch size, where the file has it."""
    if options.cpu_losses is None:
        return None
    told = json.loads(options.cpu_losses.read_text())
    found: float | None = told["losses"].get(name) if told["batch"] == options.batch else None
    return found


def user_step_ms(
    architecture: CmsslArchitecture, data: DeviceData, batch: int, device: torch.device
) -> float:
    """Return milliseconds a step of a plain program on the same windows: least of two epochs after one."""
    width = architecture.embedding
    layer = torch.nn.TransformerEncoderLayer(
        width, architecture.heads, 4 * width, architecture.dropout, "gelu", batch_first=True
    )
    encoder = torch.nn.TransformerEncoder(layer, architecture.layers, enable_nested_tensor=False).to(device)
    entry = torch.nn.Linear(architecture.patch, width).to(device)
    head = torch.nn.Linear(width, 1).to(device)
    parameters = [p for part in (entry, encoder, head) for p in part.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=True)
    rows = torch.utils.data.TensorDataset(data.train_x.cpu(), data.train_y.cpu())
    loader = torch.utils.data.DataLoader(
        rows, batch, shuffle=True, num_workers=2, persistent_workers=True, pin_memory=device.type == "cuda"
    )
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        for x, y in loader:
            patches = x.to(device, non_blocking=True).view(len(x), -1, architecture.patch)
            outputs = head(encoder(entry(patches)).mean(dim=1))
            value = torch.nn.functional.mse_loss(outputs, y.to(device, non_blocking=True))
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            value.item()
        seconds.append(time.perf_counter() - began)
    return 1000 * min(seconds[1:]) / len(loader)


def measure(options: argparse.Namespace, device: torch.device, folder: Path) -> Iterator[dict[str, object]]:
    """Yield one record an encoder, and one an encoder, precision and K, until the time is over."""
    data, end = random_data(options.batch, device), time.monotonic() + 60 * options.minutes
    for name in options.encoders:
        architecture = ENCODERS[name]
        weights = encoder_file(name, folder)
        if time.monotonic() > end:
            return
        yield {
            "encoder": name,
            "user_step_ms": round(user_step_ms(architecture, data, options.batch, device), 3),
            "loss": first_loss(spec_of(weights, options.batch, "fp32"), options.batch, device),
            "cpu_loss": cpu_loss(options, name),
        }
        for precision in options.precision:
            spec = spec_of(weights, options.batch, precision)
            costs: dict[int, float] = {}
            for slots in options.slots:
                if time.monotonic() > end:
                    return
                if device.type == "cuda":
                    torch.cuda.reset_peak_memory_stats(device)
                watch = Utilisation()
                with watch.sampled():
                    found = step_costs(spec, data, device, (slots,))
                costs.update(found)
                if slots not in found:
                    break  # out of memory
                yield record(name, precision, slots, found, watch) | {"peak_mib": peak_mib(device)}
            print(json.dumps({"encoder": name, "precision": precision, "auto": smallest_near_best(costs)}))


def peak_mib(device: torch.device) -> float | None:
    """Return the most memory that torch had in use at a time."""
    return torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else None


def write(out: Path, device: torch.device, found: list[dict[str, object]]) -> None:
    """Write all records so far, whole or not at all."""
    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    temporary = out.with_suffix(".part")
    temporary.write_text(
        json.dumps({"device": hardware, "torch": torch.__version__, "rows": found}, indent=1)
    )
    temporary.replace(out)


def record(
    name: str, precision: str, slots: int, found: dict[int, float], watch: Utilisation
) -> dict[str, object]:
    member_ms = {key: 1000 * value / CALIBRATION_STEPS for key, value in found.items()}
    return {
        "encoder": name,
        "precision": precision,
        "slots": slots,
        "plain_step_ms": round(member_ms[1], 3),
        "member_step_ms": round(member_ms[slots], 3),
        "speedup": round(member_ms[1] / member_ms[slots], 2),
        "trials_an_hour": round(3.6e6 / (member_ms[slots] * EPOCHS * STEPS), 1),
        "busy_percent": statistics.median(watch.busy) if watch.busy else None,
        "memory_mib": max(watch.memory_mib, default=None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--precision", nargs="+", default=PRECISIONS, choices=PRECISIONS)
    parser.add_argument("--slots", nargs="+", type=int, default=[2, 4, 8, 16, 32, 64])
    parser.add_argument("--encoders", nargs="+", default=list(ENCODERS), choices=ENCODERS)
    parser.add_argument("--cpu-losses", type=Path)
    parser.add_argument("--write-cpu-losses", type=Path)
    parser.add_argument("--minutes", type=float, default=8.0, help="no cell begins after them")
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        if options.write_cpu_losses:
            return write_cpu_losses(options, Path(folder))
        for one in measure(options, device, Path(folder)):
            found.append(one)
            print(json.dumps(one), flush=True)
            if options.out:
                write(options.out, device, found)


if __name__ == "__main__":
    main()
