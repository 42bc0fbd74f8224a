"""ECGFounder (arXiv 2410.04133), from its published file: an ECG of 1 or 12 leads, features of width 1024."""

from net1d import Net1D

UNUSED = (".bn1.", ".bn2.", ".bn3.", "first_bn.", "dense.")


def build(weights, channels=1):
    encoder = Net1D(channels)
    if weights is not None:
        encoder.load_state_dict({k: v for k, v in weights.items() if not any(part in k for part in UNUSED)})
    return encoder


def layers(encoder):
    return [encoder.first_conv, *encoder.stage_list]
