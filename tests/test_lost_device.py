"""Want of memory and a GPU that fails, simulated on the CPU by raising what torch raises."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_runs import SPEC, ListSource

from finetune.api import DeviceLostError, Run, train
from finetune.engine import loop, population
from finetune.engine.devices import is_lost, is_out_of_memory
from finetune.engine.loop import Member

NO_ROOM = "CUDA out of memory. Tried to allocate 2.00 GiB"
TRAIN = population.train_epoch_stacked


def runs(folder: Path, count: int) -> list[Run]:
    return [Run(f"r{n}", replace(SPEC, seed=n), folder / f"r{n}") for n in range(count)]


def limited(room: int, first_epoch: int = 0) -> Callable[..., object]:
    """Return a training that has memory for ``room`` slots, from the epoch after ``first_epoch`` on."""

    def train_epoch(members: list[Member], slots: int) -> object:
        losses = TRAIN(members, slots)
        if slots > room and members[0].progress.epoch >= first_epoch:
            raise torch.OutOfMemoryError(NO_ROOM)
        return losses

    return train_epoch


def searched(folder: Path, cache: Path, slots: int, count: int = 3) -> ListSource:
    source = ListSource(*runs(folder, count))
    train(source, data_dir=folder, cache_dir=cache, device="cpu", slots=slots)
    return source


@pytest.mark.parametrize("first_epoch", [0, 2])
def test_members_that_do_not_fit_are_halved_and_lose_nothing(
    first_epoch: int, tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = searched(tmp_path / "alone", shared_cache_dir, 4)
    monkeypatch.setattr(population, "train_epoch_stacked", limited(1, first_epoch))

    halved = searched(tmp_path / "halved", shared_cache_dir, 4)

    assert sorted(result.run_id for result in halved.results) == ["r0", "r1", "r2"]
    for name in ("r0", "r1", "r2"):
        epochs = [report.epoch for report in halved.reports if report.run_id == name]
        assert epochs == [1, 2, 3]  # each reported once
        assert halved.curve(name) == [pytest.approx(point, rel=1e-3) for point in alone.curve(name)]


def test_want_of_memory_of_a_run_alone_is_told(
    tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(population, "train_epoch_stacked", limited(0))

    with pytest.raises(torch.OutOfMemoryError):
        searched(tmp_path, shared_cache_dir, 4)


def test_a_run_that_cannot_be_opened_beside_the_others_waits(
    tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened = population.open_member, []

    def open_member(run: Run, *rest: object) -> Member:
        opened.append(run.run_id)
        if len(opened) == 2:
            raise torch.OutOfMemoryError(NO_ROOM)
        return real(run, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(population, "open_member", open_member)
    source = searched(tmp_path, shared_cache_dir, 4)

    assert sorted(result.run_id for result in source.results) == ["r0", "r1", "r2"]
    assert opened == ["r0", "r1", "r1", "r2"]


def test_the_memory_of_a_run_that_failed_is_returned(
    tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[weakref.ref[torch.nn.Module]] = []

    def fail(members: list[Member], slots: int) -> object:
        models.extend(weakref.ref(member.model) for member in members)
        raise torch.OutOfMemoryError(NO_ROOM)

    monkeypatch.setattr(population, "train_epoch_stacked", fail)
    kept: BaseException | None = None
    try:
        searched(tmp_path, shared_cache_dir, 2)
    except torch.OutOfMemoryError as error:
        kept = error  # as a worker that records its traceback
    gc.collect()

    assert kept is not None
    assert models
    assert [model() for model in models] == [None] * len(models)


LOST = [
    torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might"),
    RuntimeError("CUDA error: unspecified launch failure"),
    RuntimeError("CUDA error: device-side assert triggered"),
    RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
    RuntimeError("CUBLAS_STATUS_EXECUTION_FAILED when calling cublasSgemm"),
    torch.AcceleratorError("CUDA error: uncorrectable ECC error encountered"),
]


@pytest.mark.parametrize("error", LOST, ids=range(len(LOST)))
def test_a_device_that_failed_is_told_apart(
    error: RuntimeError, tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(members: list[Member], slots: int) -> object:
        raise error

    monkeypatch.setattr(population, "train_epoch_stacked", fail)
    with pytest.raises(DeviceLostError, match="the device failed: ") as caught:
        searched(tmp_path, shared_cache_dir, 2)

    assert "\n" not in str(caught.value)
    assert is_lost(error)
    assert not is_out_of_memory(error)


@pytest.mark.parametrize(
    ("error", "is_memory"),
    [
        (torch.OutOfMemoryError(NO_ROOM), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
        (ValueError("CUDA error"), False),
    ],
    ids=["cuda", "cpu", "python", "cublas", "shapes", "another"],
)
def test_other_faults_lose_no_device(error: Exception, is_memory: bool) -> None:
    assert is_out_of_memory(error) == is_memory
    assert not is_lost(error)


@pytest.mark.parametrize(("room", "batch"), [(1, 1), (5, 4), (100, 16)])
def test_validation_takes_smaller_batches_where_memory_ends(
    room: int, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it may: a step of 64 windows has room, a pass over 1024 has not."""
    sizes: list[int] = []
    monkeypatch.setitem(loop.EVALUATION_BATCH, "cpu", 16)
    windows = torch.arange(70.0).reshape(35, 2)

    def doubled(x: torch.Tensor) -> torch.Tensor:
        sizes.append(len(x))
        if len(x) > room:
            raise torch.OutOfMemoryError(NO_ROOM)
        return 2 * x

    assert torch.equal(loop.in_batches(doubled, windows), 2 * windows)
    parts = [len(part) for part in torch.split(windows, batch)]
    assert sizes[-len(parts) :] == parts


def test_validation_that_has_no_room_for_one_window_is_told() -> None:
    def fail(x: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError(NO_ROOM)

    with pytest.raises(torch.OutOfMemoryError):
        loop.in_batches(fail, torch.zeros(3, 2))
