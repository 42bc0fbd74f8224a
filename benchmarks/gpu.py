"""A GPU's figures: the plain loop against populations of K, for the tiny and a 256-wide encoder.

    python benchmarks/gpu.py [--out gpu.json] [--batch 64] [--precision fp32 tf32 bf16] [--slots 2 4 8 16 32]

For each encoder, precision and K: milliseconds a member and step (minimum of two epochs of a few steps,
after one to warm up), trials an hour of 12 epochs of 155 steps, and the device's utilisation and memory as
nvidia-smi samples them during the timing. Data are random windows of 1250 samples on the device. K = 1 is
the plain loop; `--slots auto` takes the smallest K within 10 % of the best.

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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from finetune.api import BackboneSpec, InputSpec, Precision, Recipe, RunSpec
from finetune.backbones.cmssl import TINY, CmsslArchitecture, CmsslEncoder
from finetune.backbones.cmssl_files import save_cmssl
from finetune.engine.device_data import DeviceData
from finetune.engine.population import CALIBRATION_STEPS, smallest_near_best, step_costs
from finetune.random import Purpose, torch_generator
from finetune.tasks import find_task

PRECISIONS: tuple[Precision, ...] = ("fp32", "tf32", "bf16")
ENCODERS = {"tiny": TINY, "small": CmsslArchitecture(embedding=256, layers=4, heads=4)}
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


def measure(options: argparse.Namespace, device: torch.device, folder: Path) -> Iterator[dict[str, object]]:
    """Yield one record an encoder, precision and K."""
    data = random_data(options.batch, device)
    for name, architecture in ENCODERS.items():
        weights = folder / f"{name}.safetensors"
        encoder = CmsslEncoder(architecture).initialise(torch_generator(0, Purpose.INIT))
        save_cmssl(weights, encoder, {"licence": "none"})
        for precision in options.precision:
            spec = spec_of(weights, options.batch, precision)
            costs: dict[int, float] = {}
            for slots in options.slots:
                watch = Utilisation()
                with watch.sampled():
                    found = step_costs(spec, data, device, (slots,))
                costs.update(found)
                if slots not in found:
                    break  # out of memory
                yield record(name, precision, slots, found, watch)
            print(json.dumps({"encoder": name, "precision": precision, "auto": smallest_near_best(costs)}))


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
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for one in measure(options, device, Path(folder)):
            found.append(one)
            print(json.dumps(one), flush=True)
    if options.out:
        hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        options.out.write_text(
            json.dumps({"device": hardware, "torch": torch.__version__, "rows": found}, indent=1)
        )


if __name__ == "__main__":
    main()
