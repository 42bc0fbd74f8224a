"""PatchTSMixer of transformers, with weights or new ones: its patches' mean."""

from torch import nn
from transformers import PatchTSMixerConfig, PatchTSMixerModel


class Encoder(nn.Module):
    def __init__(self, options):
        super().__init__()
        self.net = PatchTSMixerModel(PatchTSMixerConfig(num_input_channels=1, **options))

    def forward(self, x):
        return self.net(past_values=x.transpose(1, 2)).last_hidden_state.mean(dim=(1, 2))


def build(weights, **options):
    encoder = Encoder(options)
    if weights is not None:
        encoder.net.load_state_dict(weights)
    return encoder
