"""Which way runs are trained on a device: one after the other, by a CUDA graph, or so many at a time."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal

import torch

from finetune.engine.device_data import DeviceData
from finetune.engine.devices import is_out_of_memory, release_memory
from finetune.engine.graph import graph_giver
from finetune.engine.loop import Member, end_epoch, open_member, train_epoch
from finetune.engine.recipe import is_plain
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


def choose_slots(spec: RunSpec, load: LoadInputs, device: torch.device) -> Arm:
    """Return the way to train runs like ``spec``.

    On the CPU: one at a time, where stacking gains nothing, but :data:`CPU_HEADS` cached heads. On a GPU: the
    simplest arm whose cost per member is within 10 % of the best, by timing an epoch of each, once a process.
    """
    if device.type == "cpu":
        return CPU_HEADS if spec.mode == "linear_probing_cached" else 1
    measured = _measured(shape_of(spec), device)
    if not measured:
        costs = arm_costs(spec, _an_epoch(load(spec), spec), device)
        told = ", ".join(f"{arm}: {seconds:.3g}" for arm, seconds in costs.items())
        _log.info("seconds a run and epoch by slots, with validation and checkpoints: %s", told)
        measured.append(simplest_near_best(costs))
    return measured[0]


@cache
def _measured(shape: tuple[object, ...], device: torch.device) -> list[Arm]:
    """Return where a process keeps what it measured for such runs: a worker takes up a study many times."""
    return []


def simplest_near_best(costs: Costs) -> Arm:
    """Return the first arm whose cost is within 10 % of the least."""
    bound = 1.1 * min(costs.values())
    return next(arm for arm, cost in costs.items() if cost <= bound)


def arm_costs(spec: RunSpec, data: DeviceData, device: torch.device) -> Costs:
    """Time one slot, a graph, and :data:`CANDIDATES` of slots while twice as many are cheaper by 5 %."""
    with tempfile.TemporaryDirectory() as folder:
        one = _opened(spec, data, device, 1, Path(folder))
        costs: Costs = {1: epoch_seconds(one, 1)}
        graph_giver(device)(one[0])
        if one[0].graph is not None:
            seconds = epoch_seconds(one, 1)
            if one[0].graph.is_recorded:
                costs["graph"] = seconds
        if is_plain(spec.recipe) and is_stackable(one[0].model):
            for slots, seconds in _stacked_costs(spec, data, device, Path(folder)):
                costs[slots] = seconds
                if seconds > 0.95 * costs.get(slots // 2, 0.0):
                    break
    return costs


def _stacked_costs(
    spec: RunSpec, data: DeviceData, device: torch.device, folder: Path
) -> Iterator[tuple[int, float]]:
    """Yield the cost of each number of slots until one does not fit into the memory."""
    for slots in CANDIDATES:
        try:
            seconds = epoch_seconds(_opened(spec, data, device, slots, folder), slots)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            seconds = None
        release_memory()
        if seconds is None:
            return
        yield slots, seconds / slots


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
