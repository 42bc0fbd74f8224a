"""What ``hpo init`` writes: a study, an encoder and a data stub that run as they are, to be changed."""

from __future__ import annotations

import json
from pathlib import Path

from hpo.errors import Said, UsageError

STUDY = """\
# A study on your own signals with your own encoder. Every key: docs/studies.md
name: {name}
title: My signals, my encoder
data:
  file: {file} # signal x (N, T) or (N, C, T), label y (N,), subject (N,)
  kind: regression # or classes, multilabel
  label: y
  subject: subject
  split: {{grouped: [0.8, 0.1, 0.1], seed: 42}} # or a column: split: split
  rate_hz: 50
  unit: bpm
  modality: ppg # or ecg, any
inputs: {{normalisation: window, samples: 500}}
backbone:
  factory: my_encoder.py:build # in the folder of --code; or name: cmssl_tiny_ppg
  weights: none # or the path of a .pt or .safetensors with tensors
  options: {{width: 32}}
  groups: my_encoder.py:layers
recipe: {{epochs: 5, batch_size: 32, patience: 3}}
space:
  lr: {{low: 1e-5, high: 1e-2}}
  backbone_lr: {{low: 1e-6, high: 1e-2}}
  loss: [mse, l1]
baseline: {{name: published default, lr: 1e-4, backbone_lr: 1e-5, loss: mse}}
budget: {{trials: 20}}
"""
ENCODER = '''\
"""An encoder of your own: build(weights, **options) returns a module, (B, C, T) -> (B, E)."""

from torch import nn


class Encoder(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(1, width, 15, stride=3), nn.BatchNorm1d(width), nn.ReLU())
        self.second = nn.Sequential(nn.Conv1d(width, width, 7, stride=2), nn.BatchNorm1d(width), nn.ReLU())
        self.dropout = nn.Dropout(0.1)

    def forward(self, x):
        return self.dropout(self.second(self.first(x)).mean(dim=-1))


def build(weights, width=32):
    encoder = Encoder(width)
    if weights is not None:  # tensors by name, out of backbone.weights
        encoder.load_state_dict(weights)
    return encoder


def layers(encoder):
    return [encoder.first, encoder.second]
'''
DATA = '''\
"""Writes windows.npz: simulated pulses of 12 people, to be replaced by signals of your own."""

from pathlib import Path

import numpy as np

RATE_HZ, SECONDS, PEOPLE, EACH = 50, 10, 12, 30

rng = np.random.default_rng(0)
bpm = np.clip(np.repeat(rng.uniform(60, 95, PEOPLE), EACH) + rng.normal(0, 5, PEOPLE * EACH), 45, 120)
time_s = np.arange(RATE_HZ * SECONDS) / RATE_HZ
phase = 2 * np.pi * bpm[:, None] / 60 * time_s + rng.uniform(0, 6, (len(bpm), 1))
x = np.sin(phase) + 0.4 * np.sin(2 * phase + 1) + 0.1 * rng.normal(size=phase.shape)
np.savez(
    Path(__file__).with_name("windows.npz"),
    x=x.astype(np.float32),
    y=bpm.astype(np.float32),
    subject=np.repeat([f"p{place:02d}" for place in range(PEOPLE)], EACH),
)
'''


def write_starter(folder: Path, name: str) -> list[Path]:
    """Write the three files below ``folder`` and return them; raises :class:`UsageError` for one there."""
    texts = {
        folder / "study.yaml": STUDY.format(name=name, file=json.dumps(f"{folder.resolve()}/windows.npz")),
        folder / "code" / "my_encoder.py": ENCODER,
        folder / "make_windows.py": DATA,
    }
    there = [path for path in texts if path.exists()]
    if there:
        raise UsageError(
            Said("{there} is there already", there=there[0]),
            "a folder without it",
            "type: hpo init ANOTHER_DIR",
        )
    try:
        for path, text in texts.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(
            Said("cannot write to {folder} ({strerror})", folder=folder, strerror=error.strerror),
            "a folder that can be written",
        ) from error
    return list(texts)
