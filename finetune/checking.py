"""A look at data, encoder and recipe before the first trial: a few steps on a few windows, in seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from finetune.data.prepared import prepare
from finetune.engine.device_data import DeviceData, place
from finetune.engine.features import features_of
from finetune.engine.loop import Member, open_member, train_epoch
from finetune.fast.sheet import epoch_noise
from finetune.model import FineTunedModel
from finetune.spec import Checked, CheckFault, Run, RunSpec
from finetune.tasks import find_task

LOOKED_AT = 32
"""Windows of the steps that look for gradients and for a lower loss; of a large encoder fewer."""
FEWEST = 2
LIGHT_MFLOP = 68.0
"""Of a forward pass of one window, up to which all of them are looked at: the check passes about 200 windows
forward and backward, in 2 s at the 30 GFLOP/s that one thread of a CPU does."""
TIMED_STEPS = 2
LOOKS = (3, 10)
"""Steps after which a loss that is lower has shown enough."""
SAME = 1e-4
"""Relative difference up to which two outputs are the same."""


def check(spec: RunSpec, data_dir: Path, cache_dir: Path, device: torch.device) -> Checked:
    """Return what the first steps of a run show; raises as training would.

    Learns on training windows alone; validates nothing and opens no test window.
    """
    task = find_task(spec.inputs.task, spec.inputs.own)
    prepared = prepare(spec.inputs, data_dir, cache_dir, fold=spec.fold)
    data = place(prepared, task, device)
    shape = tuple(data.train_x.shape)
    is_cached = spec.mode == "linear_probing_cached"
    whole = replace(spec, mode="linear_probing") if is_cached else spec
    opened = open_member(Run("check", whole), _rows(data, LOOKED_AT), device)
    count = looked_at(_mflop(opened))
    member = replace(opened, data=_rows(data, count))
    faults = _mode_faults(member)
    if is_cached:
        member, data = _on_features(spec, data, count, device)
    faults += _gradient_faults(member)
    before = _loss(member)
    kept, features = _state(member), _features(member)
    after, window_s = _descend(member, before)
    if not np.isfinite([before, after]).all():
        faults.append("not_finite")
    elif not after < before:
        faults.append("loss_not_lowered")
    steps = -(-shape[0] // spec.recipe.batch_size)
    epoch_s = steps * (window_s * spec.recipe.batch_size if count < LOOKED_AT else _step_s(member, data))
    member.model.load_state_dict(kept)
    if "not_repeatable" not in faults and not _is_close(member, features, _features(member), features):
        faults.append("state_not_kept")
    return Checked(
        windows=shape,
        embedding=member.model.head.hidden.in_features,
        backbone_parameters=_count(member.model.backbone),
        head_parameters=_count(member.model.head),
        trained_parameters=sum(p.numel() for p in member.model.parameters() if p.requires_grad),
        steps=member.progress.epoch,
        loss_before=before,
        loss_after=after,
        epoch_s=epoch_s,
        memory_mib=_memory_mib(device),
        faults=tuple(faults),
    )


def looked_at(mflop: float) -> int:
    """Return how many windows the steps look at, given what a forward pass of one costs."""
    return max(FEWEST, min(LOOKED_AT, int(LOOKED_AT * LIGHT_MFLOP / max(mflop, 1e-9))))


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's, as in __init__
    """Counts as torch's FlopCounterMode does, without its import of torch's compiler (torch 2.13: 1.5 s)."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.flop = 0.0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found, count = func(*args, **(kwargs or {})), flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flop += float(count(*args, **(kwargs or {}), out_val=found))
        return found


@torch.no_grad()
def _mflop(member: Member) -> float:
    """Return the MFLOP of a forward pass of one window: the same on every machine."""
    counted = _Operations()
    with counted:
        member.model(member.data.train_x[:1], None)
    return counted.flop / 1e6


def _on_features(
    spec: RunSpec, data: DeviceData, count: int, device: torch.device
) -> tuple[Member, DeviceData]:
    """Return a run that sees ``count`` windows' features of its frozen backbone, and what its steps take."""
    few = _rows(data, max(count, TIMED_STEPS * spec.recipe.batch_size))
    features = features_of(spec, replace(few, validation_x=data.validation_x[:1]), device)
    return open_member(Run("check", spec), _rows(features, count), device), features


def _rows(data: DeviceData, count: int) -> DeviceData:
    """Return the data with ``count`` training windows, evenly spread."""
    rows = torch.linspace(0, len(data.train_x) - 1, min(count, len(data.train_x))).long()
    return replace(data, train_x=data.train_x[rows], train_y=data.train_y[rows])


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _mode_faults(member: Member) -> list[CheckFault]:
    """Look for outputs that are not repeatable, hang on other windows of the batch, or are all the same."""
    features, again, alone = _features(member), _features(member), _features(member, 1)
    faults: list[CheckFault] = []
    if not _is_close(member, features, again, features):
        faults.append("not_repeatable")
    elif not _is_close(member, features[:1], alone, features):
        faults.append("batch_mates_matter")
    if len(features) > 1 and float(features.std(dim=0).max()) <= SAME * float(features.abs().max()):
        faults.append("constant_features")
    return faults


@torch.no_grad()
def _features(member: Member, count: int | None = None) -> Tensor:
    """Return the encoder's features (B, E) of the first ``count`` windows, in evaluation mode."""
    found: Tensor = member.model.backbone(member.data.train_x[:count], None)
    return found


def _state(member: Member) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in member.model.state_dict().items()}


def _is_close(member: Member, one: Tensor, other: Tensor, among: Tensor) -> bool:
    """Return whether features differ by little beside what tells windows apart, or by rounding."""
    rounding = max(torch.finfo(parameter.dtype).eps for parameter in member.model.parameters())
    apart, largest = float(among.std(dim=0, correction=0).max()), float(among.abs().max())
    allowed = 10 * SAME * apart + max(0.1 * SAME, 2 * rounding) * largest
    return bool(torch.isfinite(one).all()) and float((one - other).abs().max()) <= max(allowed, 1e-9)


def _gradient_faults(member: Member) -> list[CheckFault]:
    """Look for parts that are to be trained and get no gradient."""
    model, data, spec = member.model, member.data, member.run.spec
    noise = epoch_noise(spec.seed, 0, 1, member.device)
    value = member.loss(model(data.train_x, noise(0)).float(), data.train_y).mean()
    value.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
    faults: list[CheckFault] = []
    if not _has_gradient(list(model.head.parameters())):
        faults.append("no_gradient_head")
    trained = [parameter for parameter in model.backbone.parameters() if parameter.requires_grad]
    if spec.mode == "full_finetuning" and not _has_gradient(trained):
        faults.append("no_gradient_backbone")
    elif trained and not all(_has_gradient([parameter]) for parameter in trained):
        faults.append("part_without_gradient")
    member.optimizer.zero_grad()
    return faults


def _has_gradient(parameters: Sequence[Tensor]) -> bool:
    return any(parameter.grad is not None and bool((parameter.grad != 0).any()) for parameter in parameters)


def _descend(member: Member, before: float) -> tuple[float, float]:
    """Take some steps; return the loss after them, and the seconds that the last took for each window."""
    after, took = before, 0.0
    while member.progress.epoch < LOOKS[-1] and not after < before:
        began = time.perf_counter()
        train_epoch(member)
        took = time.perf_counter() - began
        member.progress.epoch += 1
        if member.progress.epoch in LOOKS:
            after = _loss(member)
    return after, took / len(member.data.train_x)


@torch.no_grad()
def _loss(member: Member) -> float:
    """Return the training loss of the looked-at windows, without dropout."""
    model: FineTunedModel = member.model
    return float(member.loss(model(member.data.train_x, None).float(), member.data.train_y).mean())


def _step_s(member: Member, data: DeviceData) -> float:
    """Return the seconds of a step, by a few at the recipe's batch size."""
    batch = member.run.spec.recipe.batch_size
    few = _rows(data, TIMED_STEPS * batch)
    one = _rows(few, min(batch, len(few.train_x)))
    train_epoch(replace(member, data=one))  # warms up: compiled loops, memory
    began = time.perf_counter()
    train_epoch(replace(member, data=few))
    return (time.perf_counter() - began) / -(-len(few.train_x) // batch)


def _memory_mib(device: torch.device) -> float:
    """Return the peak of the device's memory (of the process, on a CPU)."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
