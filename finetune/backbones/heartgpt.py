"""HeartGPT (PPG-PT and ECG-PT): decoder-only transformers on tokenised signals, as feature extractors.

Source: Davies, Monsen and Mandic 2024, "Interpretable pre-trained transformers for heart time-series
data" (arXiv:2407.20775), repository harryjdavies/HeartGPT, MIT. As published: pre-norm blocks, one
key, query and value matrix a head without bias, attention scaled by E ** -0.5 (not by the head's width),
ReLU, learned positions, causal masks; the feature is the last token's hidden state after the final norm,
from which the published classifiers read. Files are read by :mod:`finetune.backbones.heartgpt_files`.

Not as published: no dropout on the attention probabilities (the other two dropouts of each block are
there). Written out, 500 x 500 probabilities of 8 heads take 0.5 GB a layer at batch 64; torch's fused
attention keeps none of them, but its own dropout would draw from the global stream.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812  # torch's own convention

from finetune.backbones.base import Backbone, apply_dropout, call_layer, empty_linear
from finetune.random import Noise

LEVELS = 100
"""A window's minimum becomes token 0, its maximum token 100."""


@dataclass(frozen=True)
class HeartGptArchitecture:
    """The numbers that fix the decoder's tensors and its dropout; the defaults are ECG-PT's."""

    vocabulary: int = 101
    """102 in PPG-PT, of which token 101 never occurs."""
    embedding: int = 64
    layers: int = 8
    heads: int = 8
    context: int = 500
    """Tokens at most."""
    dropout: float = 0.2
    is_causal: bool = True
    """As published. False lets every token see the whole window: another model than the pretrained one."""


class HeartGpt(Backbone):
    """Windows (B, T) at ``rate_hz`` to features (B, E): the last token's hidden state."""

    def __init__(self, architecture: HeartGptArchitecture, rate_hz: float, model_rate_hz: float) -> None:
        super().__init__()
        self.architecture, self.rate_hz, self.model_rate_hz = architecture, rate_hz, model_rate_hz
        width = self.embedding = architecture.embedding
        self.token_embedding_table = nn.Embedding(architecture.vocabulary, width, device="meta").to_empty(
            device="cpu"
        )
        self.position_embedding_table = nn.Embedding(architecture.context, width, device="meta").to_empty(
            device="cpu"
        )
        self.blocks = nn.ModuleList(Block(architecture) for _ in range(architecture.layers))
        self.ln_f = nn.LayerNorm(width)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> HeartGpt:
        """Draw all parameters from ``generator``: normal, standard deviation 0.02 (GPT-2); returns itself."""
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
            elif parameter.dim() > 1:
                parameter.normal_(0.0, 0.02, generator=generator)
        return self

    def recompute_layers(self) -> None:
        """Keep only what goes into each block."""
        self.recomputes = True

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return the embeddings, each block, and the final norm."""
        tables = [self.token_embedding_table, self.position_embedding_table]
        embeddings = [parameter for table in tables for parameter in table.parameters()]
        blocks = [list(block.parameters()) for block in self.blocks]
        return [embeddings, *blocks, list(self.ln_f.parameters())]

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        """Map windows (B, T) to the last token's hidden state (B, E)."""
        return self.hidden(self.tokens(x), noise)[:, -1]

    def tokens(self, x: Tensor) -> Tensor:
        """Turn windows (B, T) into tokens (B, <= context) at the model's own rate."""
        samples = round(x.shape[1] * self.model_rate_hz / self.rate_hz)
        resampled = F.interpolate(x.unsqueeze(1), samples, mode="linear", align_corners=False).squeeze(1)
        return tokenise(last_signal(resampled, self.architecture.context))

    def hidden(self, tokens: Tensor, noise: Noise | None) -> Tensor:
        """Map tokens (B, n) to hidden states after the final norm (B, n, E)."""
        x = self.token_embedding_table(tokens) + self.position_embedding_table.weight[: tokens.shape[1]]
        for block in self.blocks:
            x = call_layer(block, noise, x, recomputes=self.recomputes)
        states: Tensor = self.ln_f(x)
        return states


class Block(nn.Module):
    """One pre-norm block on (B, n, E): attention, then a ReLU feed-forward of width 4E."""

    def __init__(self, architecture: HeartGptArchitecture) -> None:
        super().__init__()
        width = architecture.embedding
        self.architecture = architecture
        self.qkv = empty_linear(width, 3 * width, bias=False)
        self.proj = empty_linear(width, width)
        self.wide = empty_linear(width, 4 * width)
        self.narrow = empty_linear(4 * width, width)
        self.ln1 = nn.LayerNorm(width)
        self.ln2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        """Map hidden states (B, n, E) to the next block's."""
        p = self.architecture.dropout
        x = x + apply_dropout(self.proj(self._attend(self.ln1(x))), noise, p)
        return x + apply_dropout(self.narrow(F.relu(self.wide(self.ln2(x)))), noise, p)

    def _attend(self, x: Tensor) -> Tensor:
        batch, count, width = x.shape
        heads = self.architecture.heads
        split = self.qkv(x).view(batch, count, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        query, key, value = split.unbind()  # each (B, heads, n, E / heads)
        mixed = F.scaled_dot_product_attention(
            query, key, value, is_causal=self.architecture.is_causal, scale=width**-0.5
        )
        return mixed.transpose(1, 2).reshape(batch, count, width)


def last_signal(x: Tensor, most: int) -> Tensor:
    """Return the last ``most`` samples (or all) of each window (B, T) before its padding.

    Padding is a run of one value at a window's end, longer than ``most // 10`` samples: records of 9 to
    61 s are padded to one length, and the end of a short one would be padding alone. Chosen by us; a
    window without padding keeps its last samples, as published.
    """
    samples = x.shape[1]
    if samples <= most:
        return x
    tolerance = 1e-6 * (x.amax(dim=1, keepdim=True) - x.amin(dim=1, keepdim=True))
    is_signal = (x - x[:, -1:]).abs() > tolerance
    end = (is_signal * torch.arange(samples, device=x.device)).amax(dim=1) + 1
    end = torch.where(samples - end > most // 10, end, samples)
    start = end.clamp(min=most) - most
    return x.gather(1, start.unsqueeze(1) + torch.arange(most, device=x.device))


def tokenise(x: Tensor) -> Tensor:
    """Scale each window (B, n) to 0..100 by its own minimum and maximum and round; a flat one becomes 0."""
    low, high = x.amin(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)
    span = torch.where(high > low, high - low, torch.ones_like(low))
    return ((x - low) / span * LEVELS).round().long()
