"""The test split: opened here and nowhere else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from finetune.data.prepared import load_test, prepare
from finetune.engine.checkpoint import load_best
from finetune.engine.device_data import to_label_units
from finetune.engine.loop import predict
from finetune.metrics import evaluate
from finetune.model import build_model
from finetune.spec import InputSpec, RunSpec, TestScores
from finetune.tasks import Kind, find_task
from finetune.trivial import trivial_metrics, trivial_predictions


def score(
    spec: RunSpec, checkpoint: Path, data_dir: Path, cache_dir: Path, device: torch.device
) -> TestScores:
    """Return the predictions and metrics of one checkpoint on the test split, in label units."""
    task = find_task(spec.inputs.task, spec.inputs.own)
    model = build_model(spec, task)
    load_best(checkpoint, model)
    prepared = prepare(spec.inputs, data_dir, cache_dir, fold=spec.fold)
    test = load_test(spec.inputs, data_dir, cache_dir, fold=spec.fold)
    outputs = predict(model.to(device), torch.from_numpy(test.x).to(device))
    outputs = to_label_units(outputs, prepared.label_mean, prepared.label_std)
    return TestScores(
        task.name,
        predictions=to_probabilities(task.kind, outputs).tolist(),
        labels=np.reshape(test.y, (len(test.y), -1)).tolist(),
        groups=[str(group) for group in test.groups],
        metrics=evaluate(task, outputs, test.y),
    )


def score_constant(inputs: InputSpec, fold: int | None, data_dir: Path, cache_dir: Path) -> TestScores:
    """Return what the trivial predictor of the training windows scores on the test split."""
    task = find_task(inputs.task, inputs.own)
    training = prepare(inputs, data_dir, cache_dir, fold=fold).train.y
    test = load_test(inputs, data_dir, cache_dir, fold=fold)
    metrics = trivial_metrics(task, training, test.y)
    return TestScores(
        task.name,
        predictions=trivial_predictions(task, training, len(test.y)).tolist(),
        labels=np.reshape(test.y, (len(test.y), -1)).tolist(),
        groups=[str(group) for group in test.groups],
        metrics={name: value for name, value in metrics.items() if name != "validation_loss"},
    )


def to_probabilities(kind: Kind, outputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn logits (N, outputs) into probabilities; regression outputs pass as they are."""
    if kind == "regression":
        return outputs
    logits = torch.from_numpy(outputs)
    return (logits.softmax(1) if kind == "multiclass" else logits.sigmoid()).numpy()
