"""What every backbone is: a module that maps prepared windows to one feature vector each."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from finetune.errors import SettingError
from finetune.random import Mask, Noise


class Backbone(nn.Module, ABC):
    """An encoder. Its dropout comes from the :class:`Noise` it is given, never from ``train()``."""

    embedding: int
    """Width E of the features."""

    recomputes = False
    """Whether a layer's activations are computed again in the backward pass instead of being kept."""

    def recompute_layers(self) -> None:
        """Keep only what goes into each layer; raises :class:`SettingError` where there is no way to."""
        raise SettingError(
            f"checkpoint_activations with a {type(self).__name__}",
            "one whose layers can be computed again",
        )

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return all parameters by layer, ordered from the input."""
        return [list(self.parameters())]

    @abstractmethod
    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        """Map windows (B, T) to features (B, E); ``noise=None`` means evaluation, no dropout."""


def call_layer(
    layer: nn.Module, noise: Noise | None, x: Tensor, *others: object, recomputes: bool = False
) -> Tensor:
    """Return ``layer(x, *others, noise)``; what it ``recomputes`` draws the same masks again."""
    if not recomputes or not x.requires_grad or not torch.is_grad_enabled():
        found: Tensor = layer(x, *others, noise)
        return found
    begin = 0 if noise is None else noise.position

    def call(given: Tensor) -> Tensor:
        if noise is None:
            return call_layer(layer, None, given, *others)
        end, noise.position = noise.position, begin
        mapped = call_layer(layer, noise, given, *others)
        noise.position = max(end, noise.position)
        return mapped

    # Reentrant: the other kind keeps what a layer's own node holds outside of torch's saved tensors.
    again: Tensor = checkpoint(call, x, use_reentrant=True, preserve_rng_state=False)
    return again


class EmptyLinear(nn.Linear):
    """A linear layer with memory but no values: torch's own draws from the global stream.

    Not made on the meta device, as :func:`torch.nn.utils.skip_init` does: that imports sympy, a second.
    """

    def reset_parameters(self) -> None:
        """Draw nothing."""


def empty_linear(inputs: int, outputs: int, *, bias: bool = True) -> nn.Linear:
    """Return a linear layer without values."""
    return EmptyLinear(inputs, outputs, bias=bias)


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
