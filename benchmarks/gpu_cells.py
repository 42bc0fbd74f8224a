"""What `benchmarks/gpu.py` measures, a cell each: see there. Whole epochs, with validation and checkpoints.

A cell trains for so many seconds after its first epoch (which compiles, and fills caches) and counts the
epochs of all members in that time: ours through the engine's own loop over a source, a user's by the plain
program that stands here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from finetune.api import BackboneSpec, InputSpec, Precision, Recipe, Report, Run, RunResult, RunSpec, Slots
from finetune.backbones.cmssl import TINY, CmsslArchitecture, CmsslEncoder
from finetune.backbones.cmssl_files import save_cmssl
from finetune.engine.device_data import DeviceData
from finetune.engine.graph import graph_giver
from finetune.engine.loop import end_epoch, open_member, settle, train_epoch
from finetune.engine.population import run_all
from finetune.engine.stacked_epoch import train_epoch_stacked
from finetune.random import Purpose, torch_generator
from finetune.tasks import find_task

ENCODERS = {
    "tiny": TINY,
    "small": CmsslArchitecture(embedding=256, layers=4, heads=4),
    "large": CmsslArchitecture(embedding=1024, layers=12, heads=16),
}
REHEARSED = {name: replace(one, embedding=64, layers=min(4, one.layers)) for name, one in ENCODERS.items()}
"""What stands for them where the cells themselves are tried, on a CPU."""
EPOCHS = 12
"""Of a trial of the study bidmc_rr without pruning."""
EQUAL_STEPS, EQUAL_SLOTS = 4, 8
Kind = Literal["equality", "user", "ours", "graph", "compiled", "launches", "processes", "search"]


@dataclass(frozen=True)
class Cell:
    """What is measured in one go."""

    kind: Kind
    encoder: str = "tiny"
    precision: Precision = "fp32"
    slots: Slots = 1
    batch: int = 64
    processes: int = 1
    is_shared: bool = False
    """Of several processes: through NVIDIA's MPS."""


@dataclass(frozen=True)
class Place:
    """Where a cell is measured, and how long."""

    device: torch.device
    folder: Path
    seconds: float
    windows: int
    """Of the training; a fifth of them validates."""
    cpu_losses: Mapping[str, float]
    trials: int = 400
    """Of a whole search, at most."""
    is_rehearsal: bool = False

    def architecture(self, name: str) -> CmsslArchitecture:
        """Return the encoder of that name."""
        return (REHEARSED if self.is_rehearsal else ENCODERS)[name]


def measure(cell: Cell, place: Place) -> dict[str, object]:
    """Return the figures of a cell."""
    measures: dict[Kind, Callable[[Cell, Place], dict[str, object]]] = {
        "equality": equality,
        "user": user,
        "ours": ours,
        "graph": ours,
        "compiled": compiled,
        "launches": launches,
        "processes": processes,
        "search": search,
    }
    return measures[cell.kind](cell, place)


def rates(epochs: int, seconds: float) -> dict[str, object]:
    """Return what so many epochs of members in so many seconds come to."""
    return {
        "epochs": epochs,
        "seconds": round(seconds, 2),
        "trials_an_hour": round(3600 * epochs / seconds / EPOCHS, 2),
    }


# --- what they train


def random_data(windows: int, device: torch.device) -> DeviceData:
    """Return random windows, the same everywhere."""
    generator = torch.Generator().manual_seed(0)
    held = max(1, windows // 5)
    x = torch.randn(windows + held, 1250, generator=generator).to(device)
    y = torch.randn(windows + held, 1, generator=generator)
    task = find_task("bidmc_rr")
    return DeviceData(task, x[:windows], y[:windows].to(device), x[windows:], y[windows:].numpy(), None, None)


def encoder_file(name: str, place: Place) -> Path:
    """Write random weights of an encoder, the same everywhere, once, and return their file."""
    weights = place.folder / f"{name}.safetensors"
    if not weights.exists():
        encoder = CmsslEncoder(place.architecture(name)).initialise(torch_generator(0, Purpose.INIT))
        save_cmssl(weights, encoder, {"licence": "none"})
    return weights


def spec_of(cell: Cell, place: Place) -> RunSpec:
    """Return a run that trains on until it is told to stop."""
    recipe = Recipe(10**6, cell.batch, 10**6, precision=cell.precision)
    backbone = BackboneSpec("cmssl_tiny_ppg", str(encoder_file(cell.encoder, place)))
    return RunSpec(InputSpec("bidmc_rr"), backbone, "full_finetuning", recipe, 1e-4, 1e-5, "mse", 0)


# --- the cells


class Clocked:
    """A source of runs whose clock begins at the first report, and that stops all runs after so long."""

    def __init__(self, spec: RunSpec, folder: Path, seconds: float) -> None:
        self._spec, self._folder, self._limit, self._count = spec, folder, seconds, 0
        self._began: float | None = None
        self._is_over = False
        self.epochs, self.seconds = 0, 0.0

    def next_run(self) -> Run | None:
        """Return a run with another seed; None when the time is over."""
        if self._is_over:
            return None
        self._count += 1
        name = str(self._count)
        return Run(name, replace(self._spec, seed=self._count), self._folder / name)

    def report(self, reports: Sequence[Report]) -> list[bool]:
        """Count the epochs of all members, once the first is over."""
        now = time.perf_counter()
        if self._began is None:
            self._began = now
        else:
            self.epochs, self.seconds = self.epochs + len(reports), now - self._began
        self._is_over = self.epochs > 0 and self.seconds >= self._limit
        return [not self._is_over] * len(reports)

    def finish(self, result: RunResult) -> None:
        """Forget what the run kept."""
        shutil.rmtree(self._folder / result.run_id, ignore_errors=True)


def ours(cell: Cell, place: Place) -> dict[str, object]:
    """Train in as many slots as the cell says, or one run at a time by a CUDA graph."""
    data = random_data(place.windows, place.device)
    source = Clocked(spec_of(cell, place), place.folder, place.seconds)
    slots: Slots = "graph" if cell.kind == "graph" else cell.slots
    run_all(source, lambda spec: data, place.device, slots)
    return rates(source.epochs, source.seconds)


def compiled(cell: Cell, place: Place) -> dict[str, object]:
    """Train the plain loop with torch.compile around the model; what it cannot trace runs as ever.

    That is our autograd nodes in torch 2.11, and the CPU's loops.
    """
    import torch._dynamo
    from torch._dynamo.utils import counters

    torch._dynamo.config.suppress_errors = True
    torch._dynamo.config.trace_numpy = False
    run = Run("compiled", spec_of(cell, place), place.folder / "compiled")
    member = open_member(run, random_data(place.windows, place.device), place.device)
    member.model.compile()
    source = Clocked(run.spec, place.folder, place.seconds)
    goes_on = True
    while goes_on:
        report = end_epoch(member, train_epoch(member))
        (goes_on,) = source.report([report])
        if goes_on:
            settle(member, report, goes_on)
    member.keeper.wait()
    return {**rates(source.epochs, source.seconds), "graphs": counters["stats"]["unique_graphs"]}


def equality(cell: Cell, place: Place) -> dict[str, object]:
    """Compare the training losses of the first steps with the CPU's: alone, by a graph, in a population."""
    spec = spec_of(cell, place)
    data = random_data(EQUAL_STEPS * cell.batch, place.device)
    found = {"plain": train_epoch(open_member(Run("a", spec), data, place.device))}
    if place.device.type == "cuda":  # three steps are launched, the fourth is replayed
        member = open_member(Run("a", spec), data, place.device)
        graph_giver(place.device)(member)
        found["graph"] = train_epoch(member)
        if member.graph is None or not member.graph.is_recorded:
            del found["graph"]
    members = [
        open_member(Run(str(seed), replace(spec, seed=seed)), data, place.device)
        for seed in range(EQUAL_SLOTS)
    ]
    found["population"] = train_epoch_stacked(members, EQUAL_SLOTS)[0]
    is_whole = place.architecture(cell.encoder) == ENCODERS[cell.encoder]
    cpu = place.cpu_losses.get(cell.encoder) if is_whole else None
    off = {name: None if cpu is None else abs(loss / cpu - 1) for name, loss in found.items()}
    return {"losses": found, "cpu_loss": cpu, "off": off}


def launches(cell: Cell, place: Place) -> dict[str, object]:
    """Count the kernels and copies of an epoch of four steps, as the profiler saw them, over its steps."""
    from torch.profiler import ProfilerActivity, profile

    spec, data = spec_of(cell, place), random_data(EQUAL_STEPS * cell.batch, place.device)
    members = [
        open_member(Run(str(seed), replace(spec, seed=seed)), data, place.device)
        for seed in range(int(cell.slots))
    ]

    def epoch() -> object:
        return train_epoch(members[0]) if cell.slots == 1 else train_epoch_stacked(members, len(members))

    epoch()
    is_cuda = place.device.type == "cuda"
    with profile(activities=[ProfilerActivity.CUDA if is_cuda else ProfilerActivity.CPU]) as seen:
        epoch()
    events: list[Any] = list(seen.events() or [])
    on_device = [event for event in events if not is_cuda or "CUDA" in str(event.device_type)]
    return {"a_step": len(on_device) / EQUAL_STEPS, "counted": "kernels" if is_cuda else "calls of torch"}


def user(cell: Cell, place: Place) -> dict[str, object]:
    """Train what a user would write: torch's layers, a loader with workers, ``item()`` each step."""
    torch.manual_seed(0)
    data, device = random_data(place.windows, place.device), place.device
    architecture = place.architecture(cell.encoder)
    model = PlainModel(architecture).to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    rows = torch.utils.data.TensorDataset(data.train_x.cpu(), data.train_y.cpu())
    held = torch.utils.data.TensorDataset(data.validation_x.cpu(), torch.from_numpy(data.validation_labels))
    pinned: dict[str, Any] = {
        "num_workers": 2,
        "persistent_workers": True,
        "pin_memory": device.type == "cuda",
    }
    loaders = [
        torch.utils.data.DataLoader(one, cell.batch, shuffle=one is rows, **pinned) for one in (rows, held)
    ]
    torch.set_float32_matmul_precision("high" if cell.precision == "tf32" else "highest")
    source = Clocked(spec_of(cell, place), place.folder, place.seconds)
    goes_on = True
    while goes_on:
        loss = _plain_epoch(model, optimizer, loaders, device, cell.precision == "bf16")
        torch.save(
            {"model": model.state_dict(), "optimizer": optimizer.state_dict()}, place.folder / "user.pt"
        )
        (goes_on,) = source.report([Report("user", 1, loss, loss, {}, 0.0, is_finite=True)])
    torch.set_float32_matmul_precision("highest")
    return rates(source.epochs, source.seconds)


class PlainModel(torch.nn.Module):
    """The encoder out of torch's own layers, with a head."""

    def __init__(self, architecture: CmsslArchitecture) -> None:
        super().__init__()
        width = architecture.embedding
        layer = torch.nn.TransformerEncoderLayer(
            width, architecture.heads, 4 * width, architecture.dropout, "gelu", batch_first=True
        )
        self.patch = architecture.patch
        self.entry = torch.nn.Linear(architecture.patch, width)
        self.encoder = torch.nn.TransformerEncoder(layer, architecture.layers, enable_nested_tensor=False)
        self.head = torch.nn.Sequential(
            torch.nn.Linear(width, width // 2), torch.nn.GELU(), torch.nn.Linear(width // 2, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map windows (B, T) to outputs (B, 1)."""
        tokens = self.entry(x.view(len(x), -1, self.patch))
        out: torch.Tensor = self.head(self.encoder(tokens).mean(dim=1))
        return out


def _plain_epoch(
    model: PlainModel,
    optimizer: torch.optim.Optimizer,
    loaders: Sequence[Any],
    device: torch.device,
    bf16: bool,
) -> float:
    model.train()
    for x, y in loaders[0]:
        with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
            outputs = model(x.to(device, non_blocking=True))
        value = torch.nn.functional.mse_loss(outputs.float(), y.to(device, non_blocking=True))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        value.item()
    model.eval()
    with torch.no_grad():
        errors = [float((model(x.to(device)) - y.to(device)).abs().mean()) for x, y in loaders[1]]
    return float(np.mean(errors))


# --- several processes


def processes(cell: Cell, place: Place) -> dict[str, object]:
    """Train the plain loop in several processes on one device; their rates add up."""
    one = replace(cell, kind="ours", processes=1, is_shared=False)
    words = [sys.executable, str(Path(__file__).with_name("gpu.py")), "--cell", json.dumps(asdict(one))]
    words += ["--device", place.device.type, "--seconds", str(place.seconds), "--windows", str(place.windows)]
    words += ["--rehearse"] * place.is_rehearsal
    with _mps(cell.is_shared, place) as is_on:
        if not is_on:
            return {"error": "MPS does not run here"}
        running = [
            subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(cell.processes)
        ]
        said = [(*each.communicate(), each.returncode) for each in running]
    failed = [errors.strip()[-300:] for _, errors, code in said if code]
    if failed:
        return {"error": failed[0], "failed": len(failed)}
    each = [json.loads(out.strip().splitlines()[-1])["trials_an_hour"] for out, _, _ in said]
    return {"trials_an_hour": round(sum(each), 2), "each": each}


@contextmanager
def _mps(is_wanted: bool, place: Place) -> Iterator[bool]:
    """Run NVIDIA's MPS inside, and say whether it does; true where it is not wanted."""
    control = "nvidia-cuda-mps-control"
    if not is_wanted:
        yield True
        return
    if place.device.type != "cuda" or not shutil.which(control):
        yield False
        return
    with tempfile.TemporaryDirectory() as folder:
        names = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        os.environ.update(names)
        try:
            begun = subprocess.run([control, "-d"], capture_output=True, check=False, timeout=20)
            yield begun.returncode == 0
        finally:
            subprocess.run([control], input=b"quit\n", capture_output=True, check=False, timeout=20)
            for name in names:
                del os.environ[name]


def search(cell: Cell, place: Place) -> dict[str, object]:
    """Search with several workers on one device and SQLite, as a user types it: trials an hour."""
    seconds = 600 if place.is_rehearsal else max(60, round(3 * place.seconds))
    with tempfile.TemporaryDirectory(dir=place.folder) as folder:
        storage = ["--storage", f"{folder}/hpo.db"]
        words = [
            "run",
            "synthetic_rr",
            "--json",
            "--workers",
            str(cell.processes),
            "--slots",
            str(cell.slots),
        ]
        words += ["--trials", str(place.trials), "--timeout", f"{seconds}s", "--device", place.device.type]
        words += [*storage, "--data", folder, "--cache", folder]
        began = time.perf_counter()
        done = _hpo(*words)
        took_s = time.perf_counter() - began
        told = _hpo("status", "--json", *storage)
    if done.returncode or told.returncode:
        return {"error": (done.stderr or told.stderr).strip()[-400:]}
    (study,) = json.loads(told.stdout)["studies"]
    names = ("finished", "complete", "pruned", "failed", "epochs", "trials_per_hour", "epochs_per_hour")
    return {"seconds": round(took_s, 1), **{name: study[name] for name in names}}


def _hpo(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "hpo", *words], capture_output=True, text=True, check=False)
