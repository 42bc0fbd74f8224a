"""A network of braindecode, with its weights or new ones: what goes into its last layer."""

from braindecode.models import ShallowFBCSPNet
from torch import nn


def build(weights, samples=500):
    model = ShallowFBCSPNet(n_chans=1, n_outputs=2, n_times=samples, final_conv_length="auto")
    if weights is not None:
        model.load_state_dict(weights)
    model.final_layer = nn.Flatten()  # (B, filters, times, 1) -> (B, E)
    return model
