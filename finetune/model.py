"""Backbone and head as one model: building, freezing, parameter groups."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from finetune.backbones import build_backbone
from finetune.backbones.base import empty_linear, initialise_linear
from finetune.random import Noise, Purpose, torch_generator
from finetune.spec import RunSpec
from finetune.tasks import Task


class Head(nn.Module):
    """Linear(E, E/2), GELU, Linear(E/2, outputs): the reference's head (CM-SSL)."""

    def __init__(self, embedding: int, outputs: int, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = empty_linear(embedding, embedding // 2)
        self.out = empty_linear(embedding // 2, outputs)
        for layer in (self.hidden, self.out):
            initialise_linear(layer, generator)

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, E) to outputs (B, outputs): z-scored labels, or logits."""
        outputs: Tensor = self.out(nn.functional.gelu(self.hidden(features)))
        return outputs


class FineTunedModel(nn.Module):
    """A backbone with a head on top."""

    def __init__(self, backbone: nn.Module, head: Head) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head

    def forward(self, windows: Tensor, noise: Noise | None = None) -> Tensor:
        """Map windows (B, T) or (B, C, T) to outputs (B, outputs); ``noise=None``: no dropout."""
        return self.head(self.backbone(windows, noise))  # type: ignore[no-any-return]  # nn.Module.__call__


def build_model(spec: RunSpec, task: Task, frozen: nn.Module | None = None) -> FineTunedModel:
    """Build the run's model on the CPU; every random draw comes from ``spec.seed``.

    ``frozen`` is the backbone of another run with the same weights, which neither changes: it stays where it
    is, and is both runs'. Raises :class:`finetune.errors.CheckpointError` when the weights do not fit.
    """
    if frozen is not None:
        return FineTunedModel(frozen, _head(spec, task, frozen))
    backbone = build_backbone(
        spec.backbone,
        task,
        samples=spec.inputs.samples,
        dropout=spec.recipe.dropout,
        seed=spec.seed,
        channels=spec.inputs.channels,
    )
    if spec.recipe.checkpoint_activations:
        backbone.recompute_layers()
    if spec.mode != "full_finetuning":
        backbone.requires_grad_(False)
    return FineTunedModel(backbone, _head(spec, task, backbone))


def _head(spec: RunSpec, task: Task, backbone: nn.Module) -> Head:
    width = backbone.embedding
    assert isinstance(width, int)
    return Head(width, task.outputs, torch_generator(spec.seed, Purpose.HEAD))
