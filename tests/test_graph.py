"""The plain step as a CUDA graph, without CUDA: what is replayed is what would be launched, to the bit.

The recorder of these tests does what CUDA's does, one level higher: it keeps every operation with its tensors
and repeats them on the same memory, and no Python of ours runs in between. That CUDA can record a step is
shown on the meta device: nothing waits, nothing comes from the host, nothing new stays but gradients.
"""

from __future__ import annotations

import fcntl
import logging
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import SPEC, ListSource
from test_device_epoch import META, RECIPES, Traffic, data_of, evaluates_and_casts_on_meta, member_of, spec_of
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from finetune.api import BackboneSpec, Report, Run, RunResult, RunSpec, SettingError, train
from finetune.backbones.cmssl import EncoderLayer
from finetune.engine import arms, loop, population
from finetune.engine.arms import choose_slots
from finetune.engine.device_data import DeviceData
from finetune.engine.graph import WARM_STEPS, StepGraph, is_recordable
from finetune.engine.keeper import EVERY
from finetune.engine.loop import Member, end_epoch, fine_tune, train_epoch

__all__ = ["evaluates_and_casts_on_meta"]
CPU = torch.device("cpu")
BATCH, WINDOWS, EPOCHS = 4, 5 * 4 + 3, 3


class Tape(TorchDispatchMode):
    """Keeps each operation with its tensors, and what they held before it wrote on them."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Any]]] = []
        self.before: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = kwargs or {}
        for number, told in enumerate(func._schema.arguments):
            value = args[number] if number < len(args) else given.get(told.name)
            if told.alias_info and told.alias_info.is_write:
                self.before += [(one.detach(), one.detach().clone()) for one in tree_leaves(value)]
        found = func(*args, **given)
        self.calls.append((func, args, given, [one.detach() for one in tensors(found)]))
        return found

    def rewind(self) -> None:
        """Undo what was run: a recording runs nothing."""
        for tensor, value in reversed(self.before):
            tensor.copy_(value)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, results in self.calls:
            for kept, found in zip(results, tensors(func(*args, **kwargs)), strict=True):
                if kept.data_ptr() != found.data_ptr():
                    kept.copy_(found)


def tensors(found: object) -> list[torch.Tensor]:
    return [one for one in tree_leaves(found) if isinstance(one, torch.Tensor)]


class OnTape:
    """A recorder of operations in place of CUDA's of kernels."""

    def __init__(self) -> None:
        self.is_broken = False
        self.replays = 0

    def warm(self, call: Callable[[], None]) -> None:
        call()

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        with Tape() as tape:
            call()
        tape.rewind()

        def replay() -> None:
            self.replays += 1
            tape.replay()

        return replay


def windows_of(spec: RunSpec) -> DeviceData:
    data = data_of(spec.inputs.task)
    random = torch.Generator().manual_seed(3)
    width = 64 if spec.mode == "linear_probing_cached" else 1250
    width = 100 if spec.backbone.name == "heartgpt_ppg" else width  # it takes any, and is slow
    x, held = (torch.randn((count, width), generator=random) for count in (WINDOWS, 7))
    y = torch.randn((WINDOWS, 1), generator=random)
    return replace(
        data, train_x=x, train_y=y, validation_x=held, validation_labels=np.zeros((7, 1), np.float32)
    )


def small(mode: str = "full_finetuning", **recipe: object) -> RunSpec:
    changed = replace(SPEC.recipe, batch_size=BATCH, epochs=EPOCHS, **recipe)  # type: ignore[arg-type]
    return replace(SPEC, mode=mode, recipe=changed)  # type: ignore[arg-type]  # by name


def curve(
    spec: RunSpec, recorder: OnTape | None, folder: Path | None = None, **source: int
) -> tuple[list[tuple[float, float]], RunResult]:
    """Return the losses of a run whose step is recorded; of None: is launched."""

    def take_in(member: Member) -> None:
        if recorder is not None:
            assert is_recordable(member)
            member.graph = StepGraph(member, recorder)

    seen = ListSource(**source)  # type: ignore[arg-type]  # epochs
    result = fine_tune(Run("a", spec, folder), windows_of(spec), CPU, seen.report, take_in)
    return seen.curve("a"), result


@pytest.fixture(autouse=True)
def has_operations_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The CPU's compiled layer is no operation of torch: a layer in pieces, as on a GPU."""
    monkeypatch.setattr(EncoderLayer, "_on_cpu", EncoderLayer._in_pieces)


CHANGES: dict[str, dict[str, object]] = {
    "plain": {},
    "clipped": {"max_grad_norm": 0.1},
    "cosine": {"schedule": "cosine", "warmup_epochs": 1.0},
    "clipped one cycle": {"schedule": "one_cycle", "max_grad_norm": 0.1},
    "accumulated": {"accumulate": 3},
    "activations again": {"checkpoint_activations": True},
    "layer decay": {"layer_decay": 0.8},
    "bf16": {"precision": "bf16"},
}


@pytest.mark.parametrize(
    ("change", "mode"),
    [
        *((one, "full_finetuning") for one in CHANGES),
        ("clipped one cycle", "linear_probing"),
        ("clipped one cycle", "linear_probing_cached"),
    ],
)
def test_a_replayed_run_has_the_losses_of_one_that_is_launched(change: str, mode: str) -> None:
    """With an odd last batch in every epoch, and the first steps of the run launched."""
    spec, recorder = small(mode, **CHANGES[change]), OnTape()

    assert curve(spec, recorder)[0] == curve(spec, None)[0]
    assert recorder.replays == EPOCHS * (WINDOWS // BATCH) - WARM_STEPS


def test_heartgpt_too() -> None:
    spec = replace(small(), backbone=BackboneSpec("heartgpt_ppg", "none"))

    assert curve(spec, OnTape())[0] == curve(spec, None)[0]


def test_a_resumed_run_has_the_losses_of_one_in_one_go(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed steps go on from launched ones, and the other way round."""
    monkeypatch.setenv(EVERY, "0")
    spec = small(**CHANGES["clipped one cycle"])
    whole = curve(spec, None)[0]
    for number, recorders in enumerate([(OnTape(), OnTape()), (OnTape(), None), (None, OnTape())]):
        folder = tmp_path / str(number)
        with pytest.raises(ConnectionError):
            curve(spec, recorders[0], folder, raise_after=2)
        assert curve(spec, recorders[1], folder)[0] == whole[1:]


def test_a_pruned_run_stops_where_a_launched_one_does() -> None:
    recorded, launched = (curve(small(), recorder, prune_after=2) for recorder in (OnTape(), None))

    assert recorded[0] == launched[0]
    assert (recorded[1].reason, recorded[1].epochs) == ("pruned", 2)


def test_a_run_of_less_than_a_batch_is_launched() -> None:
    spec = small()
    spec = replace(spec, recipe=replace(spec.recipe, batch_size=WINDOWS + 1))
    recorder = OnTape()

    assert curve(spec, recorder)[0] == curve(spec, None)[0]
    assert recorder.replays == 0


class Refusing(OnTape):
    """What CUDA does with a step that it cannot record: it says so in the midst of it."""

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        with Tape() as tape:
            call()
        tape.rewind()
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore")


def test_a_step_that_cannot_be_recorded_is_launched_and_one_line_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Refusing()
    with caplog.at_level(logging.WARNING):
        found = [curve(small(), recorder)[0] for _ in range(2)]

    assert found == [curve(small(), None)[0]] * 2
    (line,) = caplog.messages
    assert line.startswith("no CUDA graph, every step is launched: CUDA error")
    assert "\n" not in line


# --- that CUDA can record it, on the meta device


class Births(TorchDispatchMode):
    """Notes the memory of all that operations make."""

    def __init__(self) -> None:
        super().__init__()
        self.made: dict[int, StorageWeakRef] = {}
        self._given: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._given |= {one.untyped_storage()._cdata for one in tensors((args, kwargs))} - set(self.made)
        found = func(*args, **(kwargs or {}))
        for one in tensors(found):
            place = one.untyped_storage()._cdata
            if place not in self._given:
                self.made[place] = StorageWeakRef(one.untyped_storage())
        return found

    def alive(self) -> set[int]:
        return {place for place, kept in self.made.items() if not kept.expired()}


class Looking:
    """A recorder that looks at what it is given, once."""

    def __init__(self) -> None:
        self.is_broken = False
        self.traffic: list[str] = []
        self.births: list[Births] = []

    def warm(self, call: Callable[[], None]) -> None:
        call()

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        with Traffic() as seen, Births() as births:
            call()
        self.traffic += seen.seen
        self.births.append(births)
        return lambda: None


def looked_at(spec: RunSpec, recorder: Looking) -> Member:
    member = member_of(spec, windows=5 * spec.recipe.batch_size + 1)
    assert is_recordable(member)
    member.graph = StepGraph(member, recorder)
    with Traffic():
        train_epoch(member)
    return member


CAN_BE = [one for one in RECIPES if one != "head first"]


@pytest.mark.parametrize(
    ("recipe", "mode"),
    [
        *((one, "full_finetuning") for one in CAN_BE),
        ("bf16", "linear_probing"),
        ("bf16", "linear_probing_cached"),
    ],
)
def test_a_recorded_step_takes_nothing_from_the_host_and_keeps_only_gradients(recipe: str, mode: str) -> None:
    recorder = Looking()
    member = looked_at(spec_of(mode, **RECIPES[recipe]), recorder)
    kept = {one.untyped_storage()._cdata for one in gradients(member)}

    assert recorder.traffic == []
    assert len(recorder.births) == 1
    assert recorder.births[0].alive() <= kept


def gradients(member: Member) -> list[torch.Tensor]:
    assert member.graph is not None
    return [gradient for _, gradient in member.graph._gradients]


# --- which way is taken


def chosen(
    costs: dict[object, float],
    monkeypatch: pytest.MonkeyPatch,
    spec: RunSpec | None = None,
    runs: Sequence[int | None] = (None, None),
) -> tuple[object, list[object]]:
    """Return what a GPU would take for so many runs, one number after the other, and what it tried.

    An epoch of each way takes as long as ``costs`` says; for others there is no memory.
    """
    tried: list[object] = []

    def give(member: Member) -> None:
        member.graph = StepGraph(member, Looking())
        member.graph._replay = member.data.train_x.zero_  # as if it had been recorded

    def seconds(members: list[Member], slots: int) -> float:
        way = "graph" if members[0].graph is not None else slots
        tried.append(way)
        if way not in costs:
            raise torch.OutOfMemoryError("none left")
        return costs[way] * slots

    arms._measured.cache_clear()
    monkeypatch.setattr(arms, "graph_giver", lambda device: give)
    monkeypatch.setattr(arms, "epoch_seconds", seconds)
    found = [choose_slots(spec or spec_of(), lambda spec: data_of(), META, one) for one in runs]
    return found[0] if len(set(found)) == 1 else found, tried


@pytest.mark.parametrize(
    ("costs", "way", "tried"),
    [
        ({1: 1.0, "graph": 0.5, 2: 0.8, 4: 0.48, 8: 0.47}, "graph", 5),  # 8 gain less than 5 %
        ({1: 1.0, "graph": 0.5, 2: 0.8, 4: 0.4, 8: 0.2}, 8, 6),  # 16 do not fit
        ({1: 1.0, "graph": 0.95, 2: 1.1}, 1, 3),
    ],
)
def test_the_way_that_is_measured_to_be_faster_is_taken(
    costs: dict[object, float], way: object, tried: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, ways = chosen(costs, monkeypatch)

    assert found == way
    assert len(ways) == tried


def test_a_recipe_of_schedules_is_tried_alone_and_by_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(schedule="cosine")

    assert chosen({1: 1.0, "graph": 0.5}, monkeypatch, spec) == ("graph", [1, "graph"])


HALVES: dict[object, float] = {1: 1.0, "graph": 0.9, **{2**n: 2.0**-n for n in range(1, 7)}}


@pytest.mark.parametrize(("runs", "way", "most"), [(1, 1, 1), (3, 2, 2), (7, 4, 4), (64, 64, 64)])
def test_no_more_slots_are_tried_than_there_are_runs(
    runs: int, way: object, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = {**HALVES, "graph": 1.0}
    found, ways = chosen(costs, monkeypatch, runs=[runs, runs])

    assert (found, max(one for one in ways if one != "graph")) == (way, most)
    assert len(ways) == len(set(ways))  # measured once


def test_fewer_runs_need_no_other_measurement_and_more_do(monkeypatch: pytest.MonkeyPatch) -> None:
    found, ways = chosen(HALVES, monkeypatch, runs=[9, 3, 20, None, 2])

    assert found == [8, 2, 16, 64, 2]
    assert [ways.count(slots) for slots in (1, 8, 16, 64)] == [3, 3, 2, 1]


def test_a_run_that_has_no_room_to_be_timed_is_trained_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert chosen({}, monkeypatch) == (1, [1])


def test_a_source_tells_how_many_runs_there_are(
    tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr(population, "choose_slots", lambda spec, load, device, runs: asked.append(runs) or 1)
    for others in (None, lambda: 4):
        run = replace(Run("a", SPEC), others=others)
        with pytest.raises(KeyError):  # data that no meta device holds
            population.run_all(ListSource(run), {}.__getitem__, META, "auto")

    assert asked == [None, 5]


def test_a_calibration_leaves_half_of_a_gpus_memory_to_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    gpu, limits = torch.device("cuda", 0), []
    there = SimpleNamespace(uuid="aa", total_memory=80)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(arms, "free_bytes", lambda device: 40)
    for name, call in {
        "get_device_properties": lambda device: there,
        "memory_allocated": lambda device: 10,
        "set_per_process_memory_fraction": lambda share, device: limits.append(share),
    }.items():
        monkeypatch.setattr(torch.cuda, name, call)

    with arms._by_itself(gpu):
        assert limits == [30 / 80]
        with (tmp_path / "hpo-aa.calibrates").open() as other, pytest.raises(BlockingIOError):
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)

    assert limits == [30 / 80, 1.0]


def test_an_epoch_is_timed_with_its_validation_and_checkpoint(tmp_path: Path) -> None:
    members = arms._opened(small(), windows_of(small()), CPU, 2, tmp_path)

    assert arms.epoch_seconds(members, 2) > 0
    assert [member.progress.epoch for member in members] == [2, 2]
    assert len(list(tmp_path.glob("*/last.pt"))) == 2


def test_a_graph_on_a_cpu_is_refused(tmp_path: Path, shared_cache_dir: Path) -> None:
    with pytest.raises(SettingError, match="slots graph on a cpu"):
        train(ListSource(Run("a", SPEC)), data_dir=tmp_path, cache_dir=shared_cache_dir, slots="graph")


def test_what_the_host_steers_within_a_step_is_not_recorded() -> None:
    asleep = member_of(spec_of(head_epochs=1))
    foreign = member_of(spec_of())
    foreign.model.backbone = torch.nn.Linear(1250, 64)

    assert not is_recordable(asleep)
    assert not is_recordable(foreign)


# --- memory that ends beside a graph


def test_a_run_goes_on_without_a_graph_where_memory_ends_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the second validation, where the epoch's steps had room: that epoch is trained again, launched."""
    spec, recorder, tries = small(), OnTape(), []
    launched = curve(spec, None)[0]

    def give(member: Member) -> None:
        member.graph = StepGraph(member, recorder)

    def no_room(member: Member, loss: float) -> Report:
        tries.append(member.graph is not None)
        if tries == [True, True]:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return end_epoch(member, loss)

    monkeypatch.setattr(loop, "end_epoch", no_room)
    monkeypatch.setattr(population, "graph_giver", lambda device: give)
    seen = ListSource(Run("a", spec, tmp_path / "a"), Run("b", spec, tmp_path / "b"))
    population.run_all(seen, windows_of, CPU, "graph")

    assert seen.curve("a") == seen.curve("b") == launched
    assert tries == [True, True, *[False] * 5]
