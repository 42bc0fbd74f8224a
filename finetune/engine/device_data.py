"""The prepared windows of a task as tensors that live on the device for all runs of a process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.data.prepared import Prepared, prepare
from finetune.spec import InputSpec
from finetune.tasks import Task, find_task


@dataclass(frozen=True)
class DeviceData:
    """Training and validation windows on one device."""

    task: Task
    train_x: Tensor
    """(N, T) float32."""
    train_y: Tensor
    """(N, outputs) float32, z-scored for regression; (N,) int64 for classes."""
    validation_x: Tensor
    validation_labels: NDArray[np.float32] | NDArray[np.int64]
    """As in the data set: label units; stays on the host, where the metrics are computed."""
    label_mean: NDArray[np.float64] | None
    """(outputs,) of the training labels; None when they are not z-scored."""
    label_std: NDArray[np.float64] | None

    def to_label_units(self, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Undo the z-score of outputs (N, outputs); logits pass as they are."""
        return to_label_units(outputs, self.label_mean, self.label_std)


def to_label_units(
    outputs: NDArray[np.float32], mean: NDArray[np.float64] | None, std: NDArray[np.float64] | None
) -> NDArray[np.float32]:
    """Undo the z-score of outputs (N, outputs); logits (``mean is None``) pass as they are."""
    return outputs if mean is None or std is None else (outputs * std + mean).astype(np.float32)


def place(prepared: Prepared, task: Task, device: torch.device) -> DeviceData:
    """Put the windows of a prepared task on ``device`` (on the CPU: the shared memory map itself)."""
    labels = prepared.train.y
    if prepared.label_mean is not None and prepared.label_std is not None:
        labels = ((labels - prepared.label_mean) / prepared.label_std).astype(np.float32)
    return DeviceData(
        task,
        torch.from_numpy(prepared.train.x).to(device),
        torch.from_numpy(np.ascontiguousarray(labels)).to(device),
        torch.from_numpy(prepared.validation.x).to(device),
        prepared.validation.y,
        prepared.label_mean,
        prepared.label_std,
    )


def data_loader(
    data_dir: Path, cache_dir: Path, device: torch.device
) -> Callable[[InputSpec, int | None], DeviceData]:
    """Return a function that gives the device's windows of (inputs, fold), each placed only once."""
    placed: dict[tuple[InputSpec, int | None], DeviceData] = {}

    def load(inputs: InputSpec, fold: int | None) -> DeviceData:
        key = (inputs, fold)
        if key not in placed:
            prepared = prepare(inputs, data_dir, cache_dir, fold=fold)
            placed[key] = place(prepared, find_task(inputs.task, inputs.own), device)
        return placed[key]

    return load
