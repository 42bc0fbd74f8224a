"""The CM-SSL encoder: patches, fixed positions, post-norm transformer layers, mean over the patches.

Source: "Cross-modality self-supervision for unimodal physiological signals representation learning",
repository ximosss/CM-SSL. Parameter names are those of its checkpoints, whose layers are
torch.nn.TransformerEncoderLayer; the computation is ours, so that dropout comes from :class:`Noise`.
Files are read and written by :mod:`finetune.backbones.cmssl_files`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own convention

from finetune.backbones.base import Backbone, call_layer, draw_mask, empty_linear, initialise_linear
from finetune.backbones.fused import add_norm, attend, gelu_dropout
from finetune.errors import SettingError
from finetune.random import Mask, Noise


@dataclass(frozen=True)
class CmsslArchitecture:
    """The numbers that fix the encoder's tensors and its dropout."""

    patch: int = 125
    """Samples a patch."""
    embedding: int = 64
    layers: int = 4
    heads: int = 4
    dropout: float = 0.1
    stochastic_depth: float = 0.0
    """Probability that a layer's whole output is zeroed for a window, in training."""
    max_patches: int = 128
    """Rows of the position table."""

    def __post_init__(self) -> None:
        if min(self.patch, self.embedding, self.layers, self.heads, self.max_patches) < 1:
            raise SettingError(f"architecture {self}", "positive sizes")
        if self.embedding % (2 * self.heads):
            raise SettingError(
                f"embedding {self.embedding} with {self.heads} heads", "an even multiple of the heads"
            )
        if not (0 <= self.dropout < 1 and 0 <= self.stochastic_depth < 1):
            raise SettingError(f"dropout {self.dropout}, {self.stochastic_depth}", "0 <= p < 1")


TINY = CmsslArchitecture()
"""The built-in encoders' architecture, 0.21 M parameters; chosen by us: an epoch takes seconds on a core."""


class CmsslEncoder(Backbone):
    """Windows (B, T) to features (B, E), with T a multiple of the patch length."""

    def __init__(self, architecture: CmsslArchitecture) -> None:
        super().__init__()
        self.architecture = architecture
        self.embedding = architecture.embedding
        self.linear_projection = empty_linear(architecture.patch, architecture.embedding)
        self.pe = Positions(architecture.max_patches, architecture.embedding)
        self.layers = nn.ModuleList(EncoderLayer(architecture) for _ in range(architecture.layers))

    def initialise(self, generator: torch.Generator) -> CmsslEncoder:
        """Draw all parameters as torch's layers would, but from ``generator``; returns itself."""
        initialise_linear(self.linear_projection, generator)
        for layer in self.layers:
            assert isinstance(layer, EncoderLayer)
            layer.initialise(generator)
        return self

    def recompute_layers(self) -> None:
        """Keep only what goes into each layer."""
        self.recomputes = True

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the projection, then each layer."""
        return [list(part.parameters()) for part in (self.linear_projection, *self.layers)]

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        """Map windows (B, T) to the mean of their patches' last hidden states (B, E)."""
        return self.encode(self.embed(x), noise).mean(dim=1)

    def embed(self, x: Tensor) -> Tensor:
        """Cut windows (B, T) into patches and project each: (B, P, E), without positions."""
        self.check_samples(x.shape[1])
        projected: Tensor = self.linear_projection(x.reshape(-1, self.architecture.patch))  # (B*P, E)
        return projected.view(x.shape[0], -1, self.embedding)

    def encode(self, patches: Tensor, noise: Noise | None) -> Tensor:
        """Add the positions to embedded patches (B, P, E) and pass them through all layers: (B, P, E)."""
        batch, count, _ = patches.shape
        tokens = self.pe(patches).view(batch * count, -1)
        for layer in self.layers:
            tokens = call_layer(layer, noise, tokens, batch, recomputes=self.recomputes)
        encoded: Tensor = tokens.view(batch, count, -1)
        return encoded

    def check_samples(self, samples: int) -> None:
        """Raise :class:`SettingError` unless windows of so many samples can be cut into patches."""
        patch, most = self.architecture.patch, self.architecture.max_patches
        if samples % patch or not patch <= samples <= patch * most:
            raise SettingError(
                f"windows of {samples} samples",
                f"a multiple of {patch}, at most {patch * most}",
                "set inputs.samples",
            )


class Positions(nn.Module):
    """Fixed sinusoidal positions (Vaswani et al. 2017), as a buffer ``pe`` (1, max_patches, E)."""

    pe: Tensor

    def __init__(self, count: int, embedding: int) -> None:
        super().__init__()
        position = torch.arange(count, dtype=torch.float).unsqueeze(1)
        rate = torch.exp(torch.arange(0, embedding, 2).float() * (-math.log(10000.0) / embedding))
        angles = position * rate  # (count, E / 2)
        self.register_buffer("pe", torch.stack((angles.sin(), angles.cos()), dim=2).view(1, count, embedding))

    def forward(self, patches: Tensor) -> Tensor:
        """Return patches (B, P, E) with their positions added."""
        return patches + self.pe[:, : patches.shape[1]]


class EncoderLayer(nn.Module):
    """One post-norm layer on tokens (B*P, E): attention, then GELU feed-forward of width 4E."""

    def __init__(self, architecture: CmsslArchitecture) -> None:
        super().__init__()
        width = architecture.embedding
        self.dropout, self.stochastic_depth = architecture.dropout, architecture.stochastic_depth
        self.self_attn = SelfAttention(width, architecture.heads, architecture.dropout)
        self.linear1 = empty_linear(width, 4 * width)
        self.linear2 = empty_linear(4 * width, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters as torch.nn.TransformerEncoderLayer does, but from ``generator``."""
        self.self_attn.initialise(generator)
        initialise_linear(self.linear1, generator)
        initialise_linear(self.linear2, generator)

    def forward(self, tokens: Tensor, batch: int, noise: Noise | None) -> Tensor:
        """Map tokens (B*P, E) of ``batch`` windows to tokens of the same shape."""
        if tokens.device.type == "cpu" and tokens.dtype == torch.float32:
            tokens = self._on_cpu(tokens, batch, noise)
        else:
            tokens = self._in_pieces(tokens, batch, noise)
        if noise is None or self.stochastic_depth == 0:
            return tokens
        return noise.drop_rows(tokens.view(batch, -1), self.stochastic_depth).view_as(tokens)

    def _on_cpu(self, tokens: Tensor, batch: int, noise: Noise | None) -> Tensor:
        from finetune.fast.cpu_layer import Masks, Weights, encoder_layer  # with numba: not for a GPU

        attention, count = self.self_attn, len(tokens) // batch
        masks = Masks(
            draw_mask(noise, (batch, attention.heads, count, count), self.dropout),
            draw_mask(noise, tokens.shape, self.dropout),
            draw_mask(noise, (len(tokens), self.linear1.out_features), self.dropout),
            draw_mask(noise, tokens.shape, self.dropout),
        )
        linear = (attention.out_proj, self.linear1, self.linear2, self.norm1, self.norm2)
        pairs = [pair for one in linear for pair in (one.weight, one.bias)]
        weights = Weights(attention.in_proj_weight, attention.in_proj_bias, *pairs)
        return encoder_layer(tokens.contiguous(), batch, attention.heads, self.norm1.eps, masks, weights)

    def _in_pieces(self, tokens: Tensor, batch: int, noise: Noise | None) -> Tensor:
        attended = self.self_attn(tokens, batch, noise)
        tokens = add_norm_of(self.norm1, tokens, attended, draw_mask(noise, attended.shape, self.dropout))
        hidden = self.linear1(tokens)  # (B*P, 4E)
        hidden = gelu_dropout(hidden, draw_mask(noise, hidden.shape, self.dropout))
        fed = self.linear2(hidden)
        return add_norm_of(self.norm2, tokens, fed, draw_mask(noise, fed.shape, self.dropout))


class SelfAttention(nn.Module):
    """Multi-head self-attention within each window, with the parameter names of torch's own.

    The probabilities are written out: the dropout inside torch's scaled_dot_product_attention would draw
    from the global stream, and without dropout it is no faster at 10 patches (one core).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = empty_linear(width, width)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        """Draw all parameters as torch.nn.MultiheadAttention does, but from ``generator``."""
        nn.init.xavier_uniform_(self.in_proj_weight, generator=generator)
        self.in_proj_bias.zero_()
        initialise_linear(self.out_proj, generator, zero_bias=True)

    def forward(self, tokens: Tensor, batch: int, noise: Noise | None) -> Tensor:
        """Map tokens (B*P, E) of ``batch`` windows to what they attend to (B*P, E)."""
        count = tokens.shape[0] // batch
        joint = F.linear(tokens, self.in_proj_weight, self.in_proj_bias)  # (B*P, 3E)
        mask = draw_mask(noise, (batch, self.heads, count, count), self.dropout)
        attended: Tensor = self.out_proj(attend(joint, batch, self.heads, mask))
        return attended


def add_norm_of(norm: nn.LayerNorm, tokens: Tensor, branch: Tensor, mask: Mask | None) -> Tensor:
    """Return ``norm(tokens + mask * branch)``."""
    return add_norm(tokens, branch, mask, norm.weight, norm.bias, norm.eps)
