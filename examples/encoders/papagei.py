"""PaPaGei-S (arXiv 2410.20542), from its published file: one PPG at 125 Hz, features of width 512."""

from resnet1d import ResNet1D

HEADS = ("dense.", "expert_layers_", "gating_network_", "projector.")


def build(weights, width=32, blocks=18):
    encoder = ResNet1D(width, kernel=3, blocks=blocks, pool="mean", has_final_norm=True)
    if weights is not None:
        plain = {name.removeprefix("module."): value for name, value in weights.items()}
        encoder.load_state_dict({name: value for name, value in plain.items() if not name.startswith(HEADS)})
    return encoder
