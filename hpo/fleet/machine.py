"""What this machine has for workers: cores that it may use, and GPUs as CUDA would count them."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from finetune.api import gpu_count

ORDER, VISIBLE = "CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES"
DEV = Path("/dev")
BY_BUS = {ORDER: "PCI_BUS_ID"}
"""Numbers then mean what nvidia-smi calls them; CUDA's own default puts the fastest GPU first."""
_GPU = re.compile(r"GPU (\d+): .*\(UUID: ([^)]+)\)")
_MIG = re.compile(r"\s+MIG .*\(UUID: ([^)]+)\)")


# --- cores ---


def cores(root: Path = Path("/")) -> int:
    """Return how many processes can compute at once: this process's cores, within its control group's quota.

    A container that was given one CPU of eight sees eight cores. ``root`` is where /proc and /sys are.
    """
    allowed = len(os.sched_getaffinity(0))
    return max(1, min([allowed, *(math.ceil(quota) for quota in _quotas(root))]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPUs that each control group of this process allows: its own, and those around it."""
    for mount, kind in _mounts(root):
        for group in _groups(root, kind):
            try:
                inside = group.relative_to(mount.source)
            except ValueError:
                inside = PurePosixPath()  # the names of another namespace: what is mounted is ours
            for folder in (inside, *inside.parents):
                quota = _quota(root / mount.target.relative_to("/") / folder, kind)
                if quota is not None:
                    yield quota


@dataclass(frozen=True)
class _Mount:
    source: PurePosixPath
    """The control group that is mounted."""
    target: PurePosixPath


def _mounts(root: Path) -> Iterator[tuple[_Mount, int]]:
    """Yield where control groups that may limit the CPU are mounted, with their version (proc(5))."""
    for line in _lines(root / "proc/self/mountinfo"):
        before, _, after = line.partition(" - ")
        fields, kinds = before.split(), after.split()
        if len(fields) < 5 or len(kinds) < 3:
            continue
        mount = _Mount(PurePosixPath(fields[3]), PurePosixPath(fields[4]))
        if kinds[0] == "cgroup2":
            yield mount, 2
        elif kinds[0] == "cgroup" and "cpu" in kinds[2].split(","):
            yield mount, 1


def _groups(root: Path, kind: int) -> Iterator[PurePosixPath]:
    """Yield the control group of this process in the hierarchy of that version (cgroups(7))."""
    for line in _lines(root / "proc/self/cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if (kind == 2 and number == "0" and not controllers) or (
            kind == 1 and "cpu" in controllers.split(",")
        ):
            yield PurePosixPath(path)


def _quota(folder: Path, kind: int) -> float | None:
    """Return the CPUs that one control group allows; None for no limit."""
    if kind == 2:
        words = " ".join(_lines(folder / "cpu.max")).split()
    else:
        words = [*_lines(folder / "cpu.cfs_quota_us"), *_lines(folder / "cpu.cfs_period_us")]
    try:
        quota, period = (float(word) for word in words)
    except ValueError:
        return None  # "max", or no such files
    return quota / period if quota > 0 and period > 0 else None


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


# --- GPUs ---


@dataclass(frozen=True)
class Gpu:
    """One GPU of this machine, whether this process may use it or not."""

    index: str
    """As nvidia-smi numbers it: by its place on the PCI bus."""
    uuid: str
    parts: tuple[str, ...] = ()
    """Ids of its MIG devices, where it is parted: then only they can compute."""

    @property
    def devices(self) -> tuple[str, ...]:
        """What can be given to a worker of its own."""
        return self.parts or (self.uuid,)


ASKED_S = 60.0
"""How long nvidia-smi may take: with a GPU that fell off the bus it may never end."""


def installed_gpus() -> list[Gpu]:
    """Return the GPUs that ``nvidia-smi -L`` lists, because torch must not be loaded here."""
    if shutil.which("nvidia-smi") is None:
        return []
    words = ["nvidia-smi", "-L"]
    try:
        found = subprocess.run(words, capture_output=True, text=True, check=False, timeout=ASKED_S)
    except subprocess.TimeoutExpired:
        return []
    gpus: list[Gpu] = []
    for line in found.stdout.splitlines():  # of all that answer, where one does not
        if gpu := _GPU.match(line):
            gpus.append(Gpu(gpu[1], gpu[2]))
        elif gpus and (part := _MIG.match(line)):
            last = gpus.pop()
            gpus.append(Gpu(last.index, last.uuid, (*last.parts, part[1])))
    return gpus


def visible_gpus() -> list[str]:
    """Return the unique ids of the GPUs that this process may use, in CUDA's order, as CUDA would count them.

    CUDA_VISIBLE_DEVICES is read as the CUDA programming guide says (and torch.cuda does): numbers, or
    beginnings of ids; the list ends before the first entry that names no GPU or more than one (-1,
    NoDevFiles, a number too high), and a GPU named twice leaves none at all. In a container without
    nvidia-smi it is torch that counts them.
    """
    installed, chosen = installed_gpus(), os.environ.get(VISIBLE)
    if not installed and any(DEV.glob("nvidia[0-9]*")):
        named = [str(number) for number in range(gpu_count())]
        return named if chosen is None else [entry.strip() for entry in chosen.split(",")][: len(named)]
    if chosen is None:
        return [device for gpu in installed for device in gpu.devices]
    entries = [entry.strip() for entry in chosen.split(",")]
    found: list[str] = []
    for entry in entries:
        device = _named(entry, entries[0], installed)
        if device is None:
            break
        if device in found:
            return []
        found.append(device)
    return found


def _named(entry: str, first: str, installed: list[Gpu]) -> str | None:
    """Return the id of the one GPU that an entry names; the first entry says what kind the list is of."""
    for kind, devices in (
        ("MIG-", [part for gpu in installed for part in gpu.parts]),
        ("GPU-", [gpu.uuid for gpu in installed]),
    ):
        if first.startswith(kind):
            named = [device for device in devices if entry.startswith(kind) and device.startswith(entry)]
            return _part(named[0], installed) if len(named) == 1 else None
    number = re.match(r"\+?(\d+)", entry)
    named = [gpu.uuid for gpu in installed if number is not None and int(gpu.index) == int(number[1])]
    return _part(named[0], installed) if named else None


def _part(device: str, installed: list[Gpu]) -> str:
    """Return what CUDA opens for a GPU: of one that is parted, its first part."""
    return next((gpu.devices[0] for gpu in installed if gpu.uuid == device), device)
