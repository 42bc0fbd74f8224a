"""Which way runs are trained on a device: one after the other, by a CUDA graph, or so many at a time."""

from __future__ import annotations

import fcntl
import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from finetune.engine.device_data import DeviceData
from finetune.engine.devices import is_out_of_memory, release_memory
from finetune.engine.graph import graph_giver
from finetune.engine.loop import Member, end_epoch, open_member, train_epoch
from finetune.engine.recipe import is_plain
from finetune.engine.room import free_bytes
from finetune.engine.stacked import is_stackable
from finetune.engine.stacked_epoch import train_epoch_stacked
from finetune.spec import Run, RunSpec

LoadInputs = Callable[[RunSpec], DeviceData]
Arm = int | Literal["graph"]
"""A way to train runs: so many slots, or one run at a time by a CUDA graph."""
Costs = dict[Arm, float]
"""Seconds a member and epoch, the simplest arm first."""

CPU_HEADS = 16
"""Cached heads at a time on the CPU; docs/engine.md has the measurement. More are hardly faster, and a search
that hands out more trials at once knows less when it chooses them."""
CANDIDATES = (2, 4, 8, 16, 32, 64)
"""Numbers of slots that a calibration on a GPU tries."""
CALIBRATION_STEPS = 200
"""Of an epoch at most."""
_log = logging.getLogger(__name__)


def shape_of(spec: RunSpec) -> tuple[object, ...]:
    """Return what members of a population must have in common."""
    return spec.inputs, spec.backbone, spec.mode, spec.recipe


def choose_slots(spec: RunSpec, load: LoadInputs, device: torch.device, runs: int | None = None) -> Arm:
    """Return the way to train ``runs`` runs like ``spec`` (None: no end of them).

    On the CPU: one at a time, where stacking gains nothing, but :data:`CPU_HEADS` cached heads. On a GPU: the
    simplest arm whose cost per member is within 10 % of the best, of those that have not more slots than
    there are runs.
    """
    if device.type == "cpu":
        return CPU_HEADS if spec.mode == "linear_probing_cached" else 1
    costs = costs_here(spec, load, device, runs)
    filled = {arm: cost for arm, cost in costs.items() if arm in (1, "graph", *slots_for(runs))}
    return simplest_near_best(filled) if filled else 1


def costs_here(spec: RunSpec, load: LoadInputs, device: torch.device, runs: int | None = None) -> Costs:
    """Return what an epoch of each arm costs on a GPU, timed once a process; of none on a CPU."""
    if device.type == "cpu":
        return {}
    measured, wanted = _measured(shape_of(spec), device), slots_for(runs)
    if not measured or (len(wanted) > len(measured[0].tried) and measured[0].is_cut):
        with _by_itself(device):
            costs = arm_costs(spec, _an_epoch(load(spec), spec), device, wanted)
        told = ", ".join(f"{arm}: {seconds:.3g}" for arm, seconds in costs.items())
        _log.info("seconds a run and epoch by slots, with validation and checkpoints: %s", told)
        measured[:] = [Measured(costs, wanted)]
    return measured[0].costs


def slots_for(runs: int | None) -> Sequence[int]:
    """Return the numbers of slots that so many runs can fill."""
    return [slots for slots in CANDIDATES if runs is None or slots <= runs]


@dataclass(frozen=True)
class Measured:
    """What a calibration found."""

    costs: Costs
    tried: Sequence[int]
    """Numbers of slots that were to be timed, while they gain."""

    @property
    def is_cut(self) -> bool:
        """Whether more slots might have gained, but there were not so many runs."""
        return not self.tried or self.tried[-1] in self.costs


@cache
def _measured(shape: tuple[object, ...], device: torch.device) -> list[Measured]:
    """Return where a process keeps what it measured for such runs: a worker takes up a study many times."""
    return []


@contextmanager
def _by_itself(device: torch.device) -> Iterator[None]:
    """Let one process at a time calibrate on a GPU, within half of the memory that others leave it.

    A population that grows until memory ends would take it from the runs of other workers.
    """
    if device.type != "cuda":
        yield
        return
    there = torch.cuda.get_device_properties(device)
    with ExitStack() as held:
        with suppress(OSError):  # another user's file, or no folder to write to: by its memory alone
            name = Path(tempfile.gettempdir()) / f"hpo-{there.uuid}.calibrates"
            turn = held.enter_context(name.open("a"))
            fcntl.flock(turn, fcntl.LOCK_EX)
        most = torch.cuda.memory_allocated(device) + (free_bytes(device) or 0) // 2
        torch.cuda.set_per_process_memory_fraction(most / there.total_memory, device)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, device)


def simplest_near_best(costs: Costs) -> Arm:
    """Return the first arm whose cost is within 10 % of the least."""
    bound = 1.1 * min(costs.values())
    return next(arm for arm, cost in costs.items() if cost <= bound)


def arm_costs(
    spec: RunSpec, data: DeviceData, device: torch.device, candidates: Sequence[int] = CANDIDATES
) -> Costs:
    """Time one slot, a graph, and ``candidates`` while they fit and twice as many are cheaper by 5 %.

    Nothing where not even one run has room.
    """
    costs: Costs = {}
    arms: list[Arm] = [1, "graph", *candidates]
    with tempfile.TemporaryDirectory() as folder:
        for arm in arms:
            seconds = _arm_seconds(spec, data, device, arm, Path(folder, str(arm)))
            release_memory()
            if seconds is not None:
                costs[arm] = seconds
            if isinstance(arm, int) and (seconds is None or seconds > 0.95 * costs.get(arm // 2, math.inf)):
                break
    return costs


def _arm_seconds(
    spec: RunSpec, data: DeviceData, device: torch.device, arm: Arm, folder: Path
) -> float | None:
    """Return the seconds a run and epoch; None where such runs cannot be trained so, or have no room."""
    slots = 1 if arm == "graph" else arm
    try:
        members = _opened(spec, data, device, slots, folder)
        one = members[0]
        if arm == "graph":
            graph_giver(device)(one)
        is_stacked = is_plain(spec.recipe) and is_stackable(one.model)
        can_be = one.graph is not None if arm == "graph" else arm == 1 or is_stacked
        seconds = epoch_seconds(members, slots) if can_be else None
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return None
    if seconds is None or (one.graph is not None and not one.graph.is_recorded):
        return None
    return seconds / slots


def _opened(spec: RunSpec, data: DeviceData, device: torch.device, slots: int, folder: Path) -> list[Member]:
    return [
        open_member(
            Run("calibration", replace(spec, seed=spec.seed + slot), folder / f"{slots}-{slot}"), data, device
        )
        for slot in range(slots)
    ]


def epoch_seconds(members: Sequence[Member], slots: int) -> float:
    """Return the seconds of all members' second epoch, with validation and checkpoints."""
    for _ in range(2):
        began = time.perf_counter()
        losses = [train_epoch(members[0])] if slots == 1 else train_epoch_stacked(members, slots)
        for member, loss in zip(members, losses, strict=True):
            end_epoch(member, loss)
            member.keeper.take(member.progress, member.model, member.optimizer)
        seconds = time.perf_counter() - began  # the copies to the host have waited for the device
        for member in members:
            member.keeper.wait()
    return seconds


def _an_epoch(data: DeviceData, spec: RunSpec) -> DeviceData:
    rows = CALIBRATION_STEPS * spec.recipe.batch_size
    return replace(data, train_x=data.train_x[:rows], train_y=data.train_y[:rows])
