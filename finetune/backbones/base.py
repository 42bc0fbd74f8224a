"""What every backbone is: a module that maps prepared windows to one feature vector each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from finetune.random import Mask, Noise


class Backbone(nn.Module, ABC):
    """An encoder. Its dropout comes from the :class:`Noise` it is given, never from ``train()``."""

    embedding: int
    """Width E of the features."""

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return all parameters by layer, ordered from the input."""
        return [list(self.parameters())]

    @abstractmethod
    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        """Map windows (B, T) to features (B, E); ``noise=None`` means evaluation, no dropout."""


def empty_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer with memory but no values: torch's own draws from the global stream."""
    return nn.Linear(inputs, outputs, bias=bias, device="meta").to_empty(device="cpu")


@torch.no_grad()
def initialise_linear(layer: nn.Linear, generator: torch.Generator, *, zero_bias: bool = False) -> None:
    """Draw weight and bias as torch.nn.Linear does (uniform within 1 / sqrt(fan in)), from ``generator``."""
    bound = layer.in_features**-0.5
    layer.weight.uniform_(-bound, bound, generator=generator)
    if layer.bias is not None and zero_bias:
        layer.bias.zero_()
    elif layer.bias is not None:
        layer.bias.uniform_(-bound, bound, generator=generator)


def apply_dropout(x: Tensor, noise: Noise | None, p: float) -> Tensor:
    """Return ``x`` after dropout; unchanged without noise."""
    return x if noise is None or p == 0 else noise.dropout(x, p)


def draw_mask(noise: Noise | None, shape: Sequence[int], p: float) -> Mask | None:
    """Return the next dropout mask of ``shape``; None without noise or dropout."""
    return None if noise is None or p == 0 else noise.mask(shape, p)
