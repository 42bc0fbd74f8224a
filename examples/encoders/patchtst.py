"""PatchTST of transformers, with its weights or new ones; features are the mean of its tokens."""

from torch import nn
from transformers import PatchTSTConfig, PatchTSTModel


class Encoder(nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.model = PatchTSTModel(PatchTSTConfig(num_input_channels=1, **config))

    def forward(self, x):  # (B, 1, T)
        return self.model(past_values=x.transpose(1, 2)).last_hidden_state.flatten(1, -2).mean(dim=1)


def build(weights, **config):
    encoder = Encoder(**config)
    if weights is not None:
        encoder.model.load_state_dict(weights)
    return encoder
