"""Whole epochs as a GPU is asked to take them, on the meta device: every mode, and no wait within one.

Meta tensors mix with those of the CPU as little as a GPU's do, and have no values: whatever brings one to the
host, or a tensor from there, is counted. Autocast knows no meta device: its rules for CUDA stand here, as
torch's documentation lists them (fake tensors of a device "cuda" cannot be trained with torch's build for
CPUs). On a machine with a GPU the epochs run with CUDA's own check too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_runs import SPEC
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from finetune.api import BackboneSpec, Precision, Run, RunSpec
from finetune.engine import loop, stacked_epoch
from finetune.engine.device_data import DeviceData
from finetune.engine.keeper import EVERY
from finetune.engine.loop import Member, end_epoch, open_member, settle, train_epoch
from finetune.engine.stacked_epoch import train_epoch_stacked
from finetune.tasks import find_task

META = torch.device("meta")
BATCH, WINDOWS = 16, 2 * 16 + 3
WAITS = {
    "_local_scalar_dense",
    "item",
    "nonzero",
    "masked_select",
    "equal",
    "is_nonzero",
    "unique_dim",
    "_unique2",
}


class Traffic(TorchDispatchMode):
    """Counts what waits for the device, and what is copied to it or from it, by name and step.

    Where a value is asked for it is 1: a meta tensor has none.
    """

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.partition("::")[2]
        places = {one.device.type for one in tree_leaves((args, kwargs)) if isinstance(one, torch.Tensor)}
        if name in WAITS and "meta" in places:
            self.seen.append(name)
            if name == "_local_scalar_dense":
                return 1.0
        if name == "_to_copy" and "meta" in places and (kwargs or {}).get("device") == torch.device("cpu"):
            self.seen.append("to_host")
            return torch.ones(args[0].shape, dtype=(kwargs or {}).get("dtype") or args[0].dtype)
        found = func(*args, **(kwargs or {}))
        arrives = isinstance(found, torch.Tensor) and found.device.type == "meta"
        if name in ("_to_copy", "copy_", "lift_fresh", "scalar_tensor") and arrives and "cpu" in places:
            self.seen.append("from_host")
        return found


SHORT = {"linear", "bmm", "baddbmm", "matmul", "__matmul__", "mm", "addmm", "scaled_dot_product_attention"}
LONG = {
    "layer_norm",
    "softmax",
    "log_softmax",
    "norm",
    "cross_entropy",
    "l1_loss",
    "mse_loss",
    "smooth_l1_loss",
}
LONG |= {"huber_loss", "binary_cross_entropy_with_logits", "exp", "log", "pow", "cumsum", "prod", "sum"}


class Autocast(TorchFunctionMode):
    """CUDA's autocast to bfloat16: products in it, norms, losses and sums in float32."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name, given = getattr(func, "__name__", ""), kwargs or {}
        if name in SHORT | LONG and "out" not in given:
            kind = torch.bfloat16 if name in SHORT else torch.float32

            def cast(value: torch.Tensor) -> torch.Tensor:
                return value.to(kind) if value.dtype in (torch.float32, torch.bfloat16) else value

            args, given = tree_map_only(torch.Tensor, cast, (args, given))
        return func(*args, **given)


def data_of(task: str = "synthetic_hr", windows: int = WINDOWS) -> DeviceData:
    found = find_task(task)
    y = torch.empty(windows, found.outputs, device=META)
    if found.kind == "multiclass":
        y = torch.empty(windows, dtype=torch.int64, device=META)
    x, held = torch.empty(windows, 1250, device=META), torch.empty(7, 1250, device=META)
    labels = np.ones((7, found.outputs), np.float32)
    return DeviceData(found, x, y, held, labels, None, None)


def spec_of(mode: str = "full_finetuning", **recipe: object) -> RunSpec:
    changed = replace(SPEC.recipe, batch_size=BATCH, **recipe)  # type: ignore[arg-type]  # by name
    return replace(SPEC, mode=mode, recipe=changed)  # type: ignore[arg-type]  # as above


def member_of(spec: RunSpec, folder: Path | None = None, windows: int = WINDOWS) -> Member:
    data = data_of(spec.inputs.task, windows)
    if spec.mode == "linear_probing_cached":
        data = replace(
            data,
            train_x=torch.empty(len(data.train_x), 64, device=META),
            validation_x=torch.empty(7, 64, device=META),
        )
    return open_member(Run("a", spec, folder), data, META)


def traffic(call: Callable[[], object]) -> list[str]:
    with Traffic() as found:
        call()
    return found.seen


@pytest.fixture(autouse=True)
def evaluates_and_casts_on_meta(monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.precision

    def precision(kind: Precision, device: torch.device) -> AbstractContextManager[Any]:
        return Autocast() if kind == "bf16" and device == META else real(kind, device)

    monkeypatch.setitem(loop.EVALUATION_BATCH, "meta", 4)
    for module in (loop, stacked_epoch):
        monkeypatch.setattr(module, "precision", precision)


RECIPES: dict[str, dict[str, object]] = {
    "plain": {},
    "clipped": {"max_grad_norm": 1.0},
    "tf32": {"precision": "tf32"},
    "bf16": {"precision": "bf16", "max_grad_norm": 1.0},
    "no dropout": {"dropout": 0.0},
    "accumulated": {"accumulate": 3},
    "activations again": {"checkpoint_activations": True},
    "cosine": {"schedule": "cosine", "warmup_epochs": 1.0},
    "one cycle": {"schedule": "one_cycle"},
    "head first": {"head_epochs": 1, "unfreeze_epochs": 1},
    "layer decay": {"layer_decay": 0.8},
}
STACKED = ("plain", "clipped", "tf32", "bf16", "no dropout")
MODES = ("full_finetuning", "linear_probing", "linear_probing_cached")


@pytest.mark.parametrize(
    ("recipe", "mode"), [*((one, MODES[0]) for one in RECIPES), *(("bf16", one) for one in MODES[1:])]
)
def test_a_plain_epoch_waits_for_the_device_at_its_end_only(recipe: str, mode: str) -> None:
    member = member_of(spec_of(mode, **RECIPES[recipe]))
    counts = []
    for windows in (WINDOWS, 3 * WINDOWS):
        one = replace(member, data=replace(member.data, **longer(member.data, windows)))
        counts.append(Counter(traffic(lambda one=one: train_epoch(one))))  # type: ignore[misc]  # bound now

    assert counts[0]["_local_scalar_dense"] == 1
    assert counts[0] == counts[1]  # three times as many steps, and nothing more waited for or fetched


def longer(data: DeviceData, windows: int) -> dict[str, torch.Tensor]:
    return {
        "train_x": data.train_x.new_empty((windows, *data.train_x.shape[1:])),
        "train_y": data.train_y.new_empty((windows, *data.train_y.shape[1:])),
    }


@pytest.mark.parametrize(
    ("recipe", "mode"), [*((one, MODES[0]) for one in STACKED), *(("bf16", one) for one in MODES[1:])]
)
def test_a_populations_epoch_waits_for_the_device_at_its_end_only(recipe: str, mode: str) -> None:
    """With a slot that is empty, losses that differ, and members with fewer windows, which stand still."""
    counts = []
    for times in (1, 3):
        spec = spec_of(mode, **RECIPES[recipe])
        those = [
            member_of(
                replace(spec, seed=n, loss=("l1", "mse")[n % 2]), windows=times * (WINDOWS - 17 * (n % 2))
            )
            for n in range(3)
        ]
        counts.append(Counter(traffic(lambda those=those: train_epoch_stacked(those, 5))))  # type: ignore[misc]

    assert counts[0] == counts[1]


@pytest.mark.parametrize("backbone", ["cmssl_tiny_ppg", "heartgpt_ppg"])
@pytest.mark.parametrize("loss", ["mse", "huber", "smooth_l1"])
def test_every_loss_and_encoder_of_ours_trains_on_a_device(backbone: str, loss: str) -> None:
    precision = "bf16" if loss == "huber" else "fp32"
    spec = replace(spec_of(precision=precision), loss=loss, backbone=BackboneSpec(backbone, "none"))

    assert traffic(lambda: train_epoch(member_of(spec, windows=20))).count("_local_scalar_dense") == 1


@pytest.mark.filterwarnings("ignore:.*copying from a non-meta parameter")  # of torch: meta has no values
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("slots", [1, 2])
def test_an_epoch_is_validated_kept_and_gone_on_from(
    slots: int, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EVERY, "0")
    spec = spec_of(mode, **RECIPES["bf16" if slots == 1 else "plain"])
    members = [member_of(replace(spec, seed=n), tmp_path / str(n)) for n in range(slots)]
    with Traffic():
        losses = [train_epoch(members[0])] if slots == 1 else train_epoch_stacked(members, slots)
        for member, loss in zip(members, losses, strict=True):
            assert settle(member, end_epoch(member, loss), goes_on=True) is None
            member.keeper.wait()
        again = [member_of(replace(spec, seed=n), tmp_path / str(n)) for n in range(slots)]
        losses = [train_epoch(again[0])] if slots == 1 else train_epoch_stacked(again, slots)

    keeps = mode != "linear_probing_cached"
    assert [one.progress.epoch for one in again] == [int(keeps)] * slots
    places = {value.device.type for one in again for value in one.model.state_dict().values()}
    places |= {
        value.device.type
        for one in again
        for state in one.optimizer.state.values()
        for value in state.values()
    }
    assert places == {"meta"}


@pytest.mark.parametrize("slots", [1, 2])
def test_every_product_of_a_bf16_epoch_is_in_bf16(slots: int) -> None:
    """Forward and backward, of the encoder and the head."""
    members = [member_of(replace(spec_of(precision="bf16"), seed=seed)) for seed in range(slots)]
    with Traffic(), Kinds() as kinds:
        _ = train_epoch(members[0]) if slots == 1 else train_epoch_stacked(members, slots)

    assert kinds.seen == {torch.bfloat16}


class Kinds(TorchDispatchMode):
    """Collects the types of all matrix products."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        found = func(*args, **(kwargs or {}))
        if func._schema.name.partition("::")[2] in ("mm", "addmm", "bmm", "baddbmm"):
            self.seen.add(found.dtype)
        return found


def test_a_wait_in_a_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.add_gradient

    def waiting(*given: Any) -> torch.Tensor:
        value = real(*given)
        float(value)
        return value

    monkeypatch.setattr(loop, "add_gradient", waiting)

    assert traffic(lambda: train_epoch(member_of(spec_of()))).count("_local_scalar_dense") == 3 + 1


def test_a_copy_from_the_host_in_a_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    before = Counter(traffic(lambda: train_epoch_stacked([member_of(spec_of())], 2)))
    real = stacked_epoch.Plan.batch

    def copying(plan: stacked_epoch.Plan, index: int) -> stacked_epoch.Batch:
        torch.tensor([1.0, 2.0]).to(META)
        return real(plan, index)

    monkeypatch.setattr(stacked_epoch.Plan, "batch", copying)
    after = Counter(traffic(lambda: train_epoch_stacked([member_of(spec_of())], 2)))

    assert after["from_host"] - before["from_host"] == 3


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("mode", MODES)
def test_cuda_itself_sees_no_wait_in_an_epoch(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cuda", 0)
    data = data_of()
    width = 64 if mode == "linear_probing_cached" else 1250
    x, y = torch.randn(WINDOWS, width, device=device), torch.randn(WINDOWS, 1, device=device)
    member = open_member(Run("a", spec_of(mode)), replace(data, train_x=x, train_y=y, validation_x=x), device)
    train_epoch(member)
    real = loop.add_gradient

    def strict(*given: Any) -> torch.Tensor:
        torch.cuda.set_sync_debug_mode("error")
        try:
            return real(*given)
        finally:
            torch.cuda.set_sync_debug_mode("default")

    monkeypatch.setattr(loop, "add_gradient", strict)
    assert np.isfinite(train_epoch(member))
