"""The plain loop: one run on one device, read down the page.

The windows live on the device, a batch is a slice of a permutation of their indices, nothing waits for
the device inside an epoch, and metrics are computed once an epoch. Randomness is a pure function of
(seed, purpose, step): a run gives the same numbers alone, beside others, and after any resume (bitwise on
one machine, device and thread count).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.engine.checkpoint import BEST, Progress, load_last
from finetune.engine.device_data import DeviceData
from finetune.engine.devices import is_out_of_memory, release_memory
from finetune.engine.keeper import Keeper
from finetune.engine.optim import AdamW, check_contiguous, make_optimizer
from finetune.engine.recipe import has_constant_rates, rate_factor, trained_layers, wake_layers
from finetune.fast.sheet import epoch_noise
from finetune.losses import Loss, make_loss
from finetune.metrics import evaluate
from finetune.model import FineTunedModel, build_model
from finetune.random import Noise, Purpose, stream
from finetune.spec import EndReason, Precision, Recipe, Report, Run, RunResult, RunSpec

if TYPE_CHECKING:
    from finetune.engine.graph import StepGraph

ReportCall = Callable[[Sequence[Report]], Sequence[bool]]

EVALUATION_BATCH = {"cpu": 128, "cuda": 1024}
"""Windows a forward pass without gradients. On the CPU 128 was as fast as 1024 or faster: the gain varied
between processes from none to twofold (docs/engine.md)."""


@dataclass
class Member:
    """One run under way: all that an epoch needs and changes."""

    run: Run
    model: FineTunedModel
    optimizer: AdamW
    loss: Loss
    """(predictions (B, outputs), targets) to one value a row (B,)."""
    data: DeviceData
    device: torch.device
    progress: Progress
    keeper: Keeper
    began: float
    """On the monotonic clock, as if all its epochs had been run in one go."""
    layers: list[list[torch.nn.Parameter]]
    """The trained parameters of the backbone, from the input on; those of some recipes wake one by one."""
    graph: StepGraph | None = None
    """Takes the steps on whole batches; None: they are launched one by one."""

    @property
    def is_over(self) -> bool:
        """Whether its checkpoint had reached the end already."""
        return _end(self.progress, self.run.spec.recipe) is not None


def fine_tune(
    run: Run, data: DeviceData, device: torch.device, report: ReportCall, admit: Callable[[Member], None]
) -> RunResult:
    """Run one fine-tuning to its end, reporting every epoch; ``report`` decides whether it goes on.

    ``admit`` raises before the first step of one that has no room.
    """
    member = open_member(run, data, device)
    admit(member)
    result = result_of(member) if member.is_over else None
    with kept_if_stopped([member]):
        while result is None:
            train_loss = train_epoch(member)
            epoch_report = end_epoch(member, train_loss)
            (goes_on,) = report([epoch_report])
            result = settle(member, epoch_report, goes_on)
    return result


def shares_backbone(spec: RunSpec, other: RunSpec) -> bool:
    """Return whether two runs have the same backbone, and neither changes it."""
    is_frozen = spec.mode == other.mode != "full_finetuning"
    return is_frozen and spec.backbone == other.backbone and spec.backbone.weights != "none"


@contextmanager
def kept_if_stopped(members: Sequence[Member]) -> Iterator[None]:
    """Write the last whole epoch of each member if anything is raised inside: a signal, a fault."""
    try:
        yield
    except BaseException:
        for member in members:
            member.keeper.leave()
        raise


def open_member(run: Run, data: DeviceData, device: torch.device, mate: Member | None = None) -> Member:
    """Build the model of a run, or restore it from its checkpoint.

    For ``linear_probing_cached`` ``data`` are the features (:mod:`finetune.engine.features`). Of a ``mate``
    with the same frozen weights it takes the backbone: K members hold one.
    """
    spec = run.spec
    is_shared = mate is not None and shares_backbone(spec, mate.run.spec)
    model = build_model(spec, data.task, mate.model.backbone if mate and is_shared else None).to(device)
    optimizer = make_optimizer(model, spec)
    layers = trained_layers(model)
    smoothing = spec.recipe.label_smoothing
    loss = make_loss(spec.loss, data.train_y, "none", smoothing, data.task.outputs)
    progress = load_last(run.checkpoint, spec, model, optimizer)
    if spec.mode == "linear_probing_cached" and not is_shared:
        model.backbone = Identity(model.backbone)
    began = time.monotonic() - progress.elapsed_s
    keeper = Keeper(run, progress, epochs=keeps_epochs(run))
    return Member(run, model, optimizer, loss, data, device, progress, keeper, began, layers)


def end_epoch(member: Member, train_loss: float) -> Report:
    """Validate after an epoch's training and count it; returns what to report."""
    progress, yardstick = member.progress, member.data.task.yardstick
    metrics = validate(member.model, member.data)
    _advance(progress, metrics, yardstick)
    if progress.best_epoch == progress.epoch:
        member.keeper.take_best(progress.epoch, member.model)
    progress.elapsed_s = time.monotonic() - member.began
    return _report(member.run.run_id, progress, train_loss, metrics, yardstick)


def keeps_epochs(run: Run) -> bool:
    """Return whether a run can go on from its last epoch.

    A cached head's whole run takes a second or so: it starts again, with the same numbers.
    """
    return run.checkpoint is not None and run.spec.mode != "linear_probing_cached"


def settle(member: Member, report: Report, goes_on: bool) -> RunResult | None:
    """Return the result if the run ends after this epoch; otherwise keep its checkpoint and return None."""
    recipe = member.run.spec.recipe
    end = _end(member.progress, recipe, is_finite=report.is_finite, goes_on=goes_on)
    if end is not None:
        return result_of(member, end)
    member.keeper.take(member.progress, member.model, member.optimizer)
    return None


def train_epoch(member: Member) -> float:
    """Take one pass over the training windows; return the mean training loss (the epoch's only sync)."""
    optimizer, data, spec, graph = member.optimizer, member.data, member.run.spec, member.graph
    device, epoch = member.device, member.progress.epoch + 1
    order = epoch_order(spec, len(data.train_x), epoch).to(device)
    batches = torch.split(order, spec.recipe.batch_size)
    first_step = (epoch - 1) * len(batches)
    noise = epoch_noise(spec.seed, first_step, len(batches), device)
    total = torch.zeros((), device=device) if graph is None else graph.begin_epoch(order, first_step)
    wake_layers(member.layers, spec.recipe, epoch)
    with tensor_cores(spec.recipe.precision):
        for index, batch in enumerate(batches):
            if not has_constant_rates(spec.recipe):
                optimizer.scale_rates(rate_factor(spec.recipe, first_step + index, len(batches)))
            if graph is not None and len(batch) == graph.batch:
                graph.step(member)
                continue
            value = add_whole_gradient(member, batch, noise(index))
            optimizer.step()
            total += value * len(batch)
    return float(total) / len(data.train_x)


def add_whole_gradient(member: Member, batch: Tensor, noise: Noise) -> Tensor:
    """Make the gradient that a step on ``batch`` takes, clipped as the recipe says; return the mean loss."""
    most = member.run.spec.recipe.max_grad_norm
    member.optimizer.zero_grad()
    value = add_gradient(member, batch, noise)
    if noise.step == 0:
        check_contiguous(member.model)
    if most is not None:
        torch.nn.utils.clip_grad_norm_(member.model.parameters(), most)
    return value


def add_gradient(member: Member, batch: Tensor, noise: Noise) -> Tensor:
    """Add the gradient of the mean loss of ``batch``, part by part as the recipe says; return that loss."""
    recipe, data, values = member.run.spec.recipe, member.data, []
    for number, part in enumerate(torch.chunk(batch, recipe.accumulate)):
        noise.part = number
        with precision(recipe.precision, member.device):
            outputs = member.model(data.train_x[part], noise)  # (B, outputs)
            rows = member.loss(outputs.float(), data.train_y[part])
            value = rows.mean() if len(part) == len(batch) else rows.sum() / len(batch)
        value.backward()  # type: ignore[no-untyped-call]  # torch leaves Tensor.backward untyped
        values.append(value.detach())
    return values[0] if len(values) == 1 else torch.stack(values).sum()


def epoch_order(spec: RunSpec, windows: int, epoch: int) -> Tensor:
    """Return the order (N,) of the training windows in an epoch (from 1), on the CPU."""
    return torch.from_numpy(stream(spec.seed, Purpose.ORDER, epoch).permutation(windows))


def precision(kind: Precision, device: torch.device) -> AbstractContextManager[None]:
    """Return the autocast context of a precision (none but for bf16)."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if kind == "bf16" else nullcontext()


@contextmanager
def tensor_cores(kind: Precision) -> Iterator[None]:
    """Let float32 matrix products, forward and backward, use TF32 inside; a setting of the whole process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if kind == "tf32" else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class Identity(torch.nn.Module):
    """Stands for a frozen backbone whose features are the input; keeps its weights for checkpoints."""

    def __init__(self, backbone: torch.nn.Module) -> None:
        super().__init__()
        self.embedding = backbone.embedding
        for name, child in backbone.named_children():
            self.add_module(name, child)
        for name, parameter in backbone.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name, buffer in backbone.named_buffers(recurse=False):
            self.register_buffer(name, buffer)

    def forward(self, features: Tensor, noise: Noise | None) -> Tensor:
        """Return the features (B, E) as they are."""
        return features


@torch.no_grad()
def in_batches(call: Callable[[Tensor], Tensor], windows: Tensor) -> Tensor:
    """Return ``call`` of all windows, in batches, without gradients; in smaller ones where memory ends."""
    size = EVALUATION_BATCH[windows.device.type]
    while True:
        try:
            return torch.cat([call(batch) for batch in torch.split(windows, size)])
        except (RuntimeError, MemoryError) as error:
            if size == 1 or not is_out_of_memory(error):
                raise
        release_memory()  # outside of the handler, whose traceback holds the memory
        size = -(-size // 2)


def predict(model: FineTunedModel, windows: Tensor) -> NDArray[np.float32]:
    """Return outputs (N, outputs) for windows (N, T), without dropout, in float32."""
    outputs = in_batches(lambda x: model(x, None), windows)
    return outputs.float().cpu().numpy()


def validate(model: FineTunedModel, data: DeviceData) -> dict[str, float]:
    """Return all validation metrics of the task, in label units; NaN when an output is not finite."""
    outputs = data.to_label_units(predict(model, data.validation_x))
    if not np.isfinite(outputs).all():
        return dict.fromkeys(data.task.metrics, math.nan)
    return evaluate(data.task, outputs, data.validation_labels)


def _advance(progress: Progress, metrics: dict[str, float], yardstick: str) -> None:
    progress.epoch += 1
    if metrics[yardstick] < progress.best_validation_loss:
        progress.best_epoch = progress.epoch
        progress.best_validation_loss = metrics[yardstick]
        progress.best_metrics = metrics


def _report(
    run_id: str, progress: Progress, train_loss: float, metrics: dict[str, float], yardstick: str
) -> Report:
    validation_loss = metrics[yardstick]
    is_finite = math.isfinite(train_loss) and math.isfinite(validation_loss)
    return Report(run_id, progress.epoch, train_loss, validation_loss, metrics, progress.elapsed_s, is_finite)


def _end(
    progress: Progress, recipe: Recipe, *, is_finite: bool = True, goes_on: bool = True
) -> EndReason | None:
    if not is_finite:
        return "diverged"
    if not goes_on:
        return "pruned"
    if progress.epoch >= recipe.epochs:
        return "finished"
    without_better = progress.epoch - max(progress.best_epoch, recipe.head_epochs)
    return "patience" if without_better >= recipe.patience else None


def result_of(member: Member, reason: EndReason | None = None) -> RunResult:
    """Return how the run ended; without a ``reason``, as its checkpoint says."""
    run, progress = member.run, member.progress
    reason = reason or _end(progress, run.spec.recipe)
    assert reason is not None
    member.keeper.finish()
    keeps = run.checkpoint is not None and progress.best_epoch > 0
    checkpoint = run.checkpoint / BEST if keeps and run.checkpoint else None
    return RunResult(
        run.run_id,
        reason,
        progress.epoch,
        progress.best_epoch,
        progress.best_validation_loss,
        progress.best_metrics,
        progress.elapsed_s,
        device_name(member.device),
        checkpoint,
    )


def device_name(device: torch.device) -> str:
    """Name the hardware: ``cpu``, or the GPU's own name."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
