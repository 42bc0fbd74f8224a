"""ECG_CRNN of torch-ecg with its own settings: the mean over time of what goes into its last layer."""

from torch import nn
from torch_ecg.cfg import CFG
from torch_ecg.model_configs import ECG_CRNN_CONFIG
from torch_ecg.models import ECG_CRNN


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = ECG_CRNN(["a", "b"], n_leads=1, config=CFG(ECG_CRNN_CONFIG))

    def forward(self, x):
        return self.net.extract_features(x).mean(dim=-1)


def build(weights):
    encoder = Encoder()
    if weights is not None:
        encoder.net.load_state_dict(weights)
    return encoder
