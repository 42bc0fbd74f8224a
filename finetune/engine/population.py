"""Runs on one device, one or many at a time: which loop takes them.

A population has a fixed number of slots. At the end of an epoch every member is validated, reported and,
when it has ended, replaced: the plain loop's own functions (:mod:`finetune.engine.loop`), so that a run's
numbers and checkpoints do not depend on who computed its steps. Against the same run alone its losses agree
to about 1e-5; beside other mates, at the same number of slots, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from finetune.engine.arms import LoadInputs, choose_slots, shape_of
from finetune.engine.device_data import DeviceData
from finetune.engine.devices import is_out_of_memory, release_memory, warn_of_slow_precision
from finetune.engine.graph import graph_giver
from finetune.engine.loop import (
    Member,
    end_epoch,
    fine_tune,
    keeps_epochs,
    kept_if_stopped,
    open_member,
    result_of,
    settle,
)
from finetune.engine.recipe import is_plain
from finetune.engine.room import admit
from finetune.engine.stacked import is_stackable
from finetune.engine.stacked_epoch import train_epoch_stacked
from finetune.errors import SettingError
from finetune.spec import Report, Run, RunResult, RunSource, Slots


def run_all(source: RunSource, load: LoadInputs, device: torch.device, slots: Slots) -> None:
    """Take runs from ``source`` until it has none, ``slots`` of them at a time.

    Raises :class:`SettingError` when several slots are asked for and the backbone has no stacked form, and
    for a graph on a device that has none.
    """
    first = source.next_run()
    if first is None:
        return
    warn_of_slow_precision(first.spec.recipe.precision, device)
    if slots == "auto":
        runs = 1 + first.others() if first.others is not None and device.type != "cpu" else None
        slots = choose_slots(first.spec, load, device, runs)
    if slots == "graph":
        _run_one_by_one(source, load, device, first, graph_giver(device))
    elif slots == 1:
        _run_one_by_one(source, load, device, first, admit_alone)
    else:
        Population(source, load, device, slots).run(first)


def _run_one_by_one(
    source: RunSource, load: LoadInputs, device: torch.device, first: Run, take_in: Callable[[Member], None]
) -> None:
    run: Run | None = first
    while run is not None:
        result = _tried(run, load(run.spec), device, source, take_in)
        if result is None:
            take_in = admit_alone
            release_memory()
            continue
        source.finish(result)
        run = source.next_run()


def _tried(
    run: Run, data: DeviceData, device: torch.device, source: RunSource, take_in: Callable[[Member], None]
) -> RunResult | None:
    """Return how a run ended; None when memory ended beside a graph, without which it goes on from there."""
    try:
        return fine_tune(run, data, device, source.report, take_in)
    except (RuntimeError, MemoryError) as error:
        if take_in is admit_alone or not keeps_epochs(run) or not is_out_of_memory(error):
            raise
    return None


def admit_alone(member: Member) -> None:
    """Raise :class:`SettingError` where a run has no room by itself."""
    admit(member, 1)


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
        return not self._members or shape_of(run.spec) == shape_of(self._members[0].run.spec)


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
