"""ECG_CRNN of torch_ecg with its default settings: what goes into its last layer."""

from torch import nn
from torch_ecg.cfg import CFG
from torch_ecg.model_configs import ECG_CRNN_CONFIG
from torch_ecg.models import ECG_CRNN


class Encoder(nn.Module):
    def __init__(self, name):
        super().__init__()
        config = CFG(ECG_CRNN_CONFIG)
        config.cnn.name = name
        self.net = ECG_CRNN(["a", "b"], n_leads=1, config=config)

    def forward(self, x):
        return self.net.extract_features(x).mean(dim=-1)


def build(weights, name="resnet_nature_comm"):
    encoder = Encoder(name)
    if weights is not None:
        encoder.net.load_state_dict(weights)
    return encoder
