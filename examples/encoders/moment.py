"""MOMENT of momentfm, with its weights or new ones: its embeddings of windows of up to 512 samples."""

from momentfm import MOMENTPipeline
from torch import nn

TRAINED = {"task_name": "embedding", "freeze_embedder": False, "freeze_encoder": False}


class Encoder(MOMENTPipeline):
    def forward(self, x):  # (B, C, T)
        return super().forward(x_enc=nn.functional.pad(x, (512 - x.shape[-1], 0))).embeddings


def build(weights, **config):
    encoder = Encoder({**TRAINED, **config}, model_kwargs={"task_name": "embedding"})
    if weights is not None:
        encoder.load_state_dict(weights)
    return encoder
