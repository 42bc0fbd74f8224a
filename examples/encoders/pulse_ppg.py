"""Pulse-PPG (arXiv 2502.01108), from its published file: one PPG at 50 Hz, normalised, 512 features."""

from resnet1d import ResNet1D


def build(weights, width=128, blocks=12):
    encoder = ResNet1D(width, kernel=11, blocks=blocks, pool="max", has_final_norm=False)
    if weights is not None:
        encoder.load_state_dict({name.removeprefix("net."): value for name, value in weights.items()})
    return encoder


def prepare(x):
    return (x - x.mean(dim=-1, keepdim=True)) / (x.std(dim=-1, keepdim=True) + 1e-5)
