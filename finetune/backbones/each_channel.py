"""An encoder of one channel on windows of several: each channel passes alone, features stand side by side."""

from __future__ import annotations

from torch import Tensor, nn

from finetune.backbones.base import Backbone
from finetune.random import Noise


def for_channels(encoder: Backbone, takes: int, channels: int) -> Backbone:
    """Return the encoder as it is, or around each of ``channels`` where it takes one of several."""
    return encoder if takes == channels else EachChannel(encoder, channels)


class EachChannel(Backbone):
    """One encoder, its weights shared by all channels."""

    def __init__(self, encoder: Backbone, channels: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.embedding = channels * encoder.embedding

    def forward(self, x: Tensor, noise: Noise | None) -> Tensor:
        """Map windows (B, C, T) to features (B, C * E)."""
        batch, channels, samples = x.shape
        features: Tensor = self.encoder(x.reshape(batch * channels, samples), noise)  # (B * C, E)
        return features.view(batch, -1)

    def recompute_layers(self) -> None:
        """Ask the encoder to."""
        self.encoder.recompute_layers()

    def layer_groups(self) -> list[list[nn.Parameter]]:
        """Return those of the encoder."""
        return self.encoder.layer_groups()
