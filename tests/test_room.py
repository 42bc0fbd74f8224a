"""Memory is looked at before the first step: what does not fit is refused, or fewer train at a time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_runs import SPEC, ListSource

from finetune.api import Run, SettingError, train
from finetune.data.prepared import prepare
from finetune.engine import room
from finetune.engine.device_data import place
from finetune.engine.loop import Member, open_member, train_epoch
from finetune.engine.room import MIB, activation_bytes, admit, free_bytes, needed
from finetune.tasks import TASKS

CPU = torch.device("cpu")


def member_of(cache: Path, **changes: object) -> Member:
    recipe = replace(SPEC.recipe, **changes)  # type: ignore[arg-type]  # by name
    data = place(prepare(SPEC.inputs, Path(), cache), TASKS["synthetic_hr"], CPU)
    return open_member(Run("a", replace(SPEC, recipe=recipe)), data, CPU)


def group(root: Path, version: int, limit: str, used: int, cache: int) -> Path:
    """Write what a kernel shows of a control group ``/a/b`` whose outer group has the limit."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 9 kB\nMemAvailable:   {50 * 1024} kB\n")
    if version == 2:
        (root / "proc/self/cgroup").write_text("0::/a/b\n")
        folder = root / "sys/fs/cgroup/a"
        names = ("memory.max", "memory.current", "inactive_file")
    else:
        (root / "proc/self/cgroup").write_text("5:cpu,cpuacct:/\n3:memory:/a/b\n")
        folder = root / "sys/fs/cgroup/memory/a"
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    (folder / "b").mkdir(parents=True)
    (folder / names[0]).write_text(f"{limit}\n")
    (folder / names[1]).write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\n{names[2]} {cache}\n")
    return root


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("limit", "left"), [(40, 40 - 30 + 7), (90, 50), (20, 0)])
def test_the_least_of_machine_and_control_groups_is_left(
    version: int, limit: int, left: int, tmp_path: Path
) -> None:
    root = group(tmp_path, version, str(limit * MIB), 30 * MIB, 7 * MIB)

    assert free_bytes(CPU, root) == left * MIB


def test_a_group_without_a_limit_and_a_machine_that_tells_nothing_refuse_nobody(
    tmp_path: Path, shared_cache_dir: Path
) -> None:
    assert free_bytes(CPU, group(tmp_path / "a", 2, "max", 30, 0)) == 50 * MIB
    assert free_bytes(CPU, tmp_path / "nothing") is None
    assert admit(member_of(shared_cache_dir), 5, tmp_path / "nothing") == 5


def test_what_a_step_keeps_grows_with_its_batch_and_not_with_accumulated_parts(
    shared_cache_dir: Path,
) -> None:
    small, large, parts = (
        activation_bytes(member_of(shared_cache_dir, **recipe))
        for recipe in ({"batch_size": 8}, {"batch_size": 32}, {"batch_size": 32, "accumulate": 4})
    )

    assert small == parts
    assert 3.5 * small < large < 4.5 * small


def test_activations_computed_again_need_less(shared_cache_dir: Path) -> None:
    kept, again = (
        activation_bytes(member_of(shared_cache_dir, batch_size=32, checkpoint_activations=one))
        for one in (False, True)
    )

    assert again < kept / 2


def test_what_is_counted_is_what_a_whole_batch_keeps(shared_cache_dir: Path) -> None:
    member = member_of(shared_cache_dir, batch_size=16)

    assert activation_bytes(member) == pytest.approx(room._kept(member, 16), rel=0.02)


def test_looking_changes_nothing_of_a_run(shared_cache_dir: Path) -> None:
    plain, looked_at = member_of(shared_cache_dir), member_of(shared_cache_dir)
    needed(looked_at)

    assert train_epoch(plain) == train_epoch(looked_at)


@pytest.mark.parametrize(("per_slot", "admitted"), [(8.0, 8), (3.5, 3), (1.0, 1)])
def test_as_many_slots_as_fit_are_taken(
    per_slot: float, admitted: int, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = member_of(shared_cache_dir)
    monkeypatch.setattr(room, "free_bytes", lambda device, root: int(per_slot * needed(member).slot))

    assert admit(member, 8) == admitted


@pytest.mark.parametrize("slots", [1, 4])
def test_a_run_that_does_not_fit_alone_is_one_line_before_its_first_step(
    slots: int, tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda device, root: MIB // 2)
    source = ListSource(Run("a", SPEC))
    with pytest.raises(SettingError, match=r"MiB or more, and 0 MiB .*free.*set recipe.accumulate") as caught:
        train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu", slots=slots)

    assert "\n" not in str(caught.value)
    assert source.reports == []


def test_a_population_trains_in_as_many_slots_as_have_room(
    tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    member = member_of(shared_cache_dir)
    monkeypatch.setattr(room, "free_bytes", lambda device, root: int(2.5 * needed(member).slot))
    source = ListSource(*[Run(str(seed), replace(SPEC, seed=seed)) for seed in range(4)])
    train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu", slots=4)

    assert {len(batch) for batch in source.batches} == {2}
    assert len(source.results) == 4


def test_on_a_gpu_what_torch_holds_unused_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 200)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 9000))

    assert free_bytes(torch.device("cuda", 0)) == 1500
