"""Runs on one device, one or many at a time: which loop takes them, and how many it takes.

A population has a fixed number of slots. At the end of an epoch every member is validated, reported and,
when it has ended, replaced: the plain loop's own functions (:mod:`finetune.engine.loop`), so that a run's
numbers and checkpoints do not depend on who computed its steps. Against the same run alone its losses agree
to about 1e-5; beside other mates, at the same number of slots, to the bit.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch

from finetune.engine.device_data import DeviceData
from finetune.engine.devices import is_out_of_memory, release_memory, warn_of_slow_precision
from finetune.engine.graph import CudaRecorder, StepGraph, is_recordable
from finetune.engine.loop import (
    Member,
    end_epoch,
    fine_tune,
    keeps_epochs,
    kept_if_stopped,
    open_member,
    result_of,
    settle,
    train_epoch,
)
from finetune.engine.recipe import is_plain
from finetune.engine.room import admit
from finetune.engine.stacked import is_stackable
from finetune.engine.stacked_epoch import train_epoch_stacked
from finetune.errors import SettingError
from finetune.spec import Report, Run, RunSource, RunSpec, Slots

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


def run_all(source: RunSource, load: LoadInputs, device: torch.device, slots: Slots) -> None:
    """Take runs from ``source`` until it has none, ``slots`` of them at a time.

    Raises :class:`SettingError` when several slots are asked for and the backbone has no stacked form, and
    for a graph on a device that has none.
    """
    first = source.next_run()
    if first is None:
        return
    warn_of_slow_precision(first.spec.recipe.precision, device)
    arm = choose_slots(first.spec, load, device) if slots == "auto" else slots
    if arm == "graph":
        _run_one_by_one(source, load, device, first, graph_giver(device))
    elif arm == 1:
        _run_one_by_one(source, load, device, first, admit_alone)
    else:
        Population(source, load, device, arm).run(first)


def _run_one_by_one(
    source: RunSource, load: LoadInputs, device: torch.device, first: Run, take_in: Callable[[Member], None]
) -> None:
    run: Run | None = first
    while run is not None:
        source.finish(fine_tune(run, load(run.spec), device, source.report, take_in))
        run = source.next_run()


def admit_alone(member: Member) -> None:
    """Raise :class:`SettingError` where a run has no room by itself."""
    admit(member, 1)


def graph_giver(device: torch.device) -> Callable[[Member], None]:
    """Return what admits a run, and gives it a CUDA graph if it can have one.

    It needs room for two: a graph keeps the memory of a step, and an odd last batch takes its own.
    """
    if device.type != "cuda":
        raise SettingError(
            f"slots graph on a {device.type} device",
            "a CUDA GPU: a graph is one of its launches",
            "use --slots 1",
        )
    recorder = CudaRecorder(device)

    def take_in(member: Member) -> None:
        admit_alone(member)
        if is_recordable(member) and not recorder.is_broken and admit(member, 2) == 2:
            member.graph = StepGraph(member, recorder)

    return take_in


class Population:
    """The members under way, and a run that has to wait because its model has another shape."""

    def __init__(self, source: RunSource, load: LoadInputs, device: torch.device, slots: int) -> None:
        self._source, self._load, self._device, self._slots = source, load, device, slots
        self._members: list[Member] = []
        self._waiting: list[Run] = []
        """Begun, and for want of memory taken out: they go on from their last epoch."""
        self._next: Run | None = None
        self._first: Run | None = None

    def run(self, first: Run) -> None:
        """Train until the source is empty."""
        self._next = self._first = first
        self._fill()
        while self._members:
            with kept_if_stopped(self._members):
                reports = self._train_one_epoch()
                if reports is None:
                    self._halve()
                else:
                    self._settle(reports)
                self._fill()

    def _train_one_epoch(self) -> list[Report] | None:
        """Return what to report; None when several members did not fit into the memory together."""
        can_halve = self._can_halve()
        try:
            losses = train_epoch_stacked(self._members, self._slots)
            return [end_epoch(member, loss) for member, loss in zip(self._members, losses, strict=True)]
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not can_halve:
                raise
        return None  # outside of the handler, whose traceback holds the memory

    def _can_halve(self) -> bool:
        """Return whether there are several slots, and each member can go on from what it has reported."""
        return self._slots > 1 and all(
            keeps_epochs(member.run) or member.progress.epoch == 0 for member in self._members
        )

    def _halve(self) -> None:
        """Take all members out, to go on from their last epoch in half as many slots."""
        for member in self._members:
            member.keeper.flush()
        self._waiting = [member.run for member in self._members] + self._waiting
        self._members = []
        self._slots = max(1, self._slots // 2)
        release_memory()

    def _settle(self, reports: Sequence[Report]) -> None:
        verdicts = self._source.report(reports)
        going_on = []
        for member, report, goes_on in zip(self._members, reports, verdicts, strict=True):
            result = settle(member, report, goes_on)
            if result is None:
                going_on.append(member)
            else:
                self._source.finish(result)
        self._members = going_on

    def _fill(self) -> None:
        """Give every free slot the next run, while its model has the shape of the others."""
        while len(self._members) < self._slots:
            if self._waiting and self._next is None:
                self._next = self._waiting.pop(0)
            self._next = self._next or self._source.next_run()
            if self._next is None or not self._fits(self._next):
                return
            if self._goes_alone(self._next):
                data = self._load(self._next.spec)
                report = self._source.report
                self._source.finish(fine_tune(self._next, data, self._device, report, admit_alone))
                self._next = None
                continue
            member = self._open(self._next)
            if member is None:  # there is no room for more
                self._waiting.insert(0, self._next)
                self._next, self._slots = None, len(self._members)
                release_memory()
                return
            self._next = None
            check_stackable(member, self._slots)
            if member.is_over:
                self._source.finish(result_of(member))
                continue
            if not self._members:
                self._slots = admit(member, self._slots)
            self._members.append(member)

    def _open(self, run: Run) -> Member | None:
        """Return the run's member; None when there is no memory for it beside the others."""
        try:
            mate = self._members[0] if self._members else None
            return open_member(run, self._load(run.spec), self._device, mate)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error) or not self._members:
                raise
        return None

    def _goes_alone(self, run: Run) -> bool:
        """Return whether a run has a recipe that cannot be stacked, among others that can.

        A study that searches schedules has both; where the first run is such a one, so are all, and several
        slots are refused.
        """
        return self._slots > 1 and run is not self._first and not is_plain(run.spec.recipe)

    def _fits(self, run: Run) -> bool:
        return not self._members or _shape(run.spec) == _shape(self._members[0].run.spec)


def _shape(spec: RunSpec) -> tuple[object, ...]:
    """Return what members must have in common."""
    return spec.inputs, spec.backbone, spec.mode, spec.recipe


def check_stackable(member: Member, slots: int) -> None:
    """Raise :class:`SettingError` unless the member can be one of several."""
    if not is_plain(member.run.spec.recipe):
        raise SettingError(
            f"slots {slots} with a recipe of schedules, layers, the head alone or parts of a batch",
            "1: such runs train one at a time",
            "use --slots 1",
        )
    if not is_stackable(member.model):
        name = member.run.spec.backbone.name
        raise SettingError(
            f"slots {slots} with backbone {name!r}",
            "1: only cmssl encoders, and the heads of linear_probing_cached, train several at a time",
            "use --slots 1",
        )


def choose_slots(spec: RunSpec, load: LoadInputs, device: torch.device) -> Arm:
    """Return the way to train runs like ``spec``.

    On the CPU: one at a time, where stacking gains nothing, but :data:`CPU_HEADS` cached heads. On a GPU: the
    simplest arm whose cost per member is within 10 % of the best, by timing an epoch of each.
    """
    if device.type == "cpu":
        return CPU_HEADS if spec.mode == "linear_probing_cached" else 1
    costs = arm_costs(spec, _an_epoch(load(spec), spec), device)
    told = ", ".join(f"{arm}: {seconds:.3g}" for arm, seconds in costs.items())
    _log.info("seconds a run and epoch by slots, with validation and checkpoints: %s", told)
    return simplest_near_best(costs)


def simplest_near_best(costs: Costs, tolerance: float = 0.1) -> Arm:
    """Return the first arm whose cost is within ``tolerance`` of the least."""
    bound = min(costs.values()) * (1 + tolerance)
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
