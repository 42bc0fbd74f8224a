"""Pretraining: what it sees, what it predicts, and that the shipped weights saw training subjects only."""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import torch
from published import Shelf

from finetune.backbones import BACKBONES, BackboneCard
from finetune.backbones.cmssl_files import load_cmssl_safetensors
from finetune.datasets.base import TRAIN
from finetune.datasets.bidmc import SPLIT
from finetune.errors import MissingDataError, SettingError
from finetune.pretraining import pretrain as pretrain_module
from finetune.pretraining.pretrain import (
    SPECTRUM_BINS,
    PretrainSpec,
    draw_windows,
    pretrain,
    spectrum,
    usual_spec,
)
from finetune.pretraining.sources import Recording, beat_energy, pretraining_recordings
from finetune.random import Purpose, stream


def _recording(rate_per_s: float) -> Recording:
    wave = np.sin(2 * np.pi * rate_per_s * np.arange(5000) / 125).astype(np.float32)
    return Recording("sine", "simulated", wave, wave)


def test_windows_are_standardised_and_a_pure_function_of_the_stream():
    drawn = [draw_windows([_recording(1.2)], 8, 1.5, stream(0, Purpose.PRETRAIN, step)) for step in (3, 3, 4)]
    windows, companions = drawn[0]

    assert windows.shape == companions.shape == (8, 1250)
    assert np.allclose(windows.mean(1), 0, atol=1e-5)
    assert np.allclose(windows.std(1), 1, atol=1e-5)
    assert np.array_equal(windows, drawn[1][0])
    assert not np.array_equal(windows, drawn[2][0])


def test_a_short_recording_is_padded_as_in_fine_tuning_and_the_padding_stays_constant():
    (window,), (companion,) = draw_windows([_recording(1.2)], 1, 1.0, stream(0, Purpose.PRETRAIN, 0), 7500)

    assert np.ptp(window[5000:]) == 0
    assert window[:4900].std() > 0.5
    assert (companion[5000:] == companion.min()).all()


def test_the_ecg_backbone_sees_the_windows_of_its_tasks():
    spec = usual_spec("cmssl_tiny_ecg", steps=3, batch_size=8, seed=0)

    assert spec.steps == 3
    assert {patches * 125 for patches in spec.patches} == {1250, 3750}


def test_the_spectrum_lies_where_the_companion_beats():
    time_s = torch.arange(1250) / 125
    shares = spectrum(torch.stack([torch.sin(2 * torch.pi * rate * time_s) for rate in (1.0, 2.5)]))

    assert torch.allclose(shares.sum(1), torch.ones(2))
    peaks_hz = [SPECTRUM_BINS[int(share.argmax())] / 40 for share in shares]
    assert peaks_hz == pytest.approx([1.0, 2.5], abs=0.025)


def test_beat_energy_is_high_where_the_heart_beats():
    rng = np.random.default_rng(0)
    ecg = 0.02 * rng.standard_normal(1250)
    beats = np.arange(60, 1250, 100)
    for beat in beats:
        ecg[beat - 3 : beat + 4] += np.array([-0.2, 0.2, 0.7, 1, 0.5, -0.4, -0.1])
    energy = beat_energy(ecg.astype(np.float32))

    between = np.delete(energy, np.concatenate([np.arange(b - 25, b + 26) for b in beats]).clip(0, 1249))
    assert energy[beats].min() > between.max()
    assert energy.mean() == pytest.approx(0, abs=1e-5)


def test_a_backbone_without_pretraining_is_the_users_fault(tmp_path):
    with pytest.raises(SettingError, match="heartgpt_ppg"):
        pretraining_recordings("heartgpt_ppg", tmp_path)


def test_missing_recordings_are_named(tmp_path):
    with pytest.raises(MissingDataError, match="subject"):
        pretraining_recordings("cmssl_tiny_ppg", tmp_path)


@pytest.mark.real_data
def test_pretraining_writes_the_same_weights_twice(
    hpo_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(pretrain_module, "pretraining_recordings", cache(pretraining_recordings))
    lines: list[str] = []
    spec = PretrainSpec(steps=2, batch_size=4)
    paths = [pretrain(spec, hpo_data, tmp_path / name, notify=lines.append) for name in "ab"]
    first, second = (load_cmssl_safetensors(path).state_dict() for path in paths)

    assert all(torch.equal(first[name], second[name]) for name in first)
    assert lines[0].startswith("42 recordings")
    card = json.loads(paths[0].with_suffix(".json").read_text())
    assert {name.removeprefix("bidmc ") for name in card["recordings"]} == {str(s) for s in SPLIT.train}


@pytest.mark.parametrize(
    "name", [card.name for card in BACKBONES.values() if "builtin" in card.weights and card.signal == "ppg"]
)
def test_the_shipped_weights_are_small_and_saw_no_validation_or_test_subject(name: str):
    folder = files("finetune") / "weights"
    card = json.loads((folder / f"{name}.json").read_text())
    seen = {recording.removeprefix("bidmc ") for recording in card["recordings"]}

    assert len((folder / f"{name}.safetensors").read_bytes()) < 4_000_000
    assert seen == {str(subject) for subject in SPLIT.train}
    assert card["loss_curve"][-1]["masked"] < 0.7 * card["loss_curve"][0]["masked"]


@pytest.mark.parametrize("card", [card for card in BACKBONES.values() if "builtin" in card.weights])
def test_every_built_in_backbone_ships_with_its_weights_and_card(card: BackboneCard):
    folder = files("finetune") / "weights"

    assert len((folder / f"{card.name}.safetensors").read_bytes()) < 4_000_000
    assert json.loads((folder / f"{card.name}.json").read_text())["name"] == card.name


def _training_units(dataset: str, published: Shelf) -> set[str]:
    windows = published.windows(dataset)
    return {f"{dataset} {name}" for name in windows.groups[windows.split == TRAIN]}


CARDS = sorted(card.name for card in (files("finetune") / "weights").iterdir() if card.name.endswith(".json"))


@pytest.mark.real_data
@pytest.mark.parametrize("name", CARDS)
def test_every_shipped_card_names_training_records_and_patients_only(name: str, published: Shelf):
    seen = set(json.loads((files("finetune") / "weights" / name).read_text())["recordings"])
    allowed = {f"bidmc {subject}" for subject in SPLIT.train}
    if any(not recording.startswith("bidmc ") for recording in seen):
        allowed |= _training_units("physionet2017", published) | _training_units("ptb-xl", published)

    assert seen
    assert seen <= allowed
