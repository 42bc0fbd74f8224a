"""One suite that every backbone passes, from random initialisation: no weights needed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from finetune.backbones import BACKBONES, build_backbone, check_backbone
from finetune.backbones.base import Backbone
from finetune.errors import CheckpointError, SettingError, UnknownNameError
from finetune.random import Noise
from finetune.spec import BackboneSpec
from finetune.tasks import Task, find_task

TASK_OF = {"ppg": "bidmc_hr", "any": "bidmc_hr", "ecg": "ptb-xl"}
FROM_SCRATCH = [name for name, card in BACKBONES.items() if "none" in card.weights]
SAMPLES = 1250

every_backbone = pytest.mark.parametrize("name", FROM_SCRATCH)


def task_of(name: str) -> Task:
    return find_task(TASK_OF[BACKBONES[name].signal])


def build(name: str, seed: int = 0, dropout: float | None = None) -> Backbone:
    return build_backbone(BackboneSpec(name, "none"), task_of(name), SAMPLES, dropout, seed)


@pytest.fixture(scope="module")
def windows() -> Tensor:
    time_s = torch.arange(SAMPLES) / 125
    phase = torch.rand(3, 1, generator=torch.Generator().manual_seed(0))
    return torch.sin(2 * torch.pi * (1.2 * time_s + phase)) + 0.1 * torch.sin(40 * time_s + phase)


@every_backbone
def test_features_have_the_shape_and_width_that_the_card_states(name: str, windows: Tensor) -> None:
    backbone, card = build(name), BACKBONES[name]

    with torch.no_grad():
        features = backbone(windows, None)

    assert features.shape == (3, backbone.embedding)
    assert backbone.embedding == card.embedding
    assert sum(parameter.numel() for parameter in backbone.parameters()) == card.parameters
    assert features.isfinite().all()


@every_backbone
def test_different_windows_have_different_features(name: str, windows: Tensor) -> None:
    with torch.no_grad():
        features = build(name)(windows, None)

    assert (features[0] - features[1]).abs().max() > 1e-4


@every_backbone
def test_a_window_does_not_see_its_batch(name: str, windows: Tensor) -> None:
    backbone = build(name)

    with torch.no_grad():
        torch.testing.assert_close(
            backbone(windows, None)[1:2], backbone(windows[1:2], None), atol=1e-5, rtol=1e-4
        )


@every_backbone
def test_evaluation_is_deterministic_whatever_the_mode_flag(name: str, windows: Tensor) -> None:
    backbone = build(name)
    with torch.no_grad():
        first = backbone.train()(windows, None)

        assert torch.equal(first, backbone.eval()(windows, None))


@every_backbone
def test_dropout_is_a_function_of_seed_and_step(name: str, windows: Tensor) -> None:
    backbone = build(name)
    with torch.no_grad():
        first = backbone(windows, Noise(1, 7))

        assert torch.equal(first, backbone(windows, Noise(1, 7)))
        assert not torch.equal(first, backbone(windows, Noise(1, 8)))
        assert not torch.equal(first, backbone(windows, Noise(2, 7)))
        assert not torch.equal(first, backbone(windows, None))


@every_backbone
def test_without_dropout_training_computes_what_evaluation_does(name: str, windows: Tensor) -> None:
    backbone = build(name, dropout=0.0)

    with torch.no_grad():
        assert torch.equal(backbone(windows, Noise(0, 0)), backbone(windows, None))


@every_backbone
def test_initialisation_is_a_function_of_the_seed(name: str) -> None:
    first, again, other = build(name, seed=5), build(name, seed=5), build(name, seed=6)

    for key, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[key])
    assert any(not torch.equal(value, other.state_dict()[key]) for key, value in first.state_dict().items())


@every_backbone
def test_building_and_training_leave_the_global_stream_alone(name: str, windows: Tensor) -> None:
    before = torch.get_rng_state()

    build(name)(windows, Noise(0, 0)).sum().backward()

    assert torch.equal(torch.get_rng_state(), before)


@every_backbone
def test_every_parameter_gets_a_contiguous_gradient(name: str, windows: Tensor) -> None:
    backbone = build(name)

    backbone(windows, Noise(0, 0)).square().sum().backward()

    for parameter_name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.stride() == parameter.stride(), parameter_name
        assert parameter.grad.isfinite().all(), parameter_name


@every_backbone
def test_a_step_of_gradient_descent_lowers_the_loss(name: str, windows: Tensor) -> None:
    backbone = build(name)
    optimizer = torch.optim.AdamW(backbone.parameters(), lr=1e-3, fused=True)
    target = torch.tensor([[-1.0], [1.0]])
    losses = []
    for step in range(4):
        loss = (backbone(windows[:2], Noise(0, step)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())

    assert losses[-1] < losses[0]


@every_backbone
def test_the_state_survives_a_round_trip(name: str, windows: Tensor) -> None:
    first, second = build(name, seed=0), build(name, seed=1)

    second.load_state_dict(first.state_dict())

    with torch.no_grad():
        assert torch.equal(first(windows, None), second(windows, None))


@every_backbone
def test_bf16_autocast_gives_nearly_the_same_features(name: str, windows: Tensor) -> None:
    backbone = build(name)
    with torch.no_grad():
        exact = backbone(windows, None)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = backbone(windows, Noise(0, 0)), backbone(windows, None)

    assert rounded[0].isfinite().all()
    torch.testing.assert_close(rounded[1].float(), exact, atol=0.1, rtol=0.1)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_card_is_filled_in(name: str) -> None:
    card = BACKBONES[name]

    assert card.name == name
    assert card.licence
    assert card.leakage
    assert card.source
    assert card.pretrained_on
    assert card.rate_hz > 0
    assert card.window_samples > 0


@pytest.mark.parametrize("name", BACKBONES)
def test_a_file_of_weights_that_is_not_there_is_named(name: str, tmp_path: Path) -> None:
    spec = BackboneSpec(name, str(tmp_path / "lost.ckpt"))

    with pytest.raises(CheckpointError, match=r"lost\.ckpt is not there"):
        build_backbone(spec, task_of(name), SAMPLES, None, 0)


def test_an_unknown_backbone_offers_the_nearest_names() -> None:
    with pytest.raises(UnknownNameError, match="did you mean cmssl_tiny_ppg"):
        check_backbone(BackboneSpec("cmssl_tiny_pgp"), find_task("bidmc_hr"))


def test_an_ecg_backbone_is_refused_for_a_ppg_task_and_the_fitting_ones_are_named() -> None:
    with pytest.raises(
        SettingError, match="task 'bidmc_hr' has ppg; expected one of cmssl, cmssl_tiny_ppg, heartgpt_ppg"
    ):
        check_backbone(BackboneSpec("cmssl_tiny_ecg"), find_task("bidmc_hr"))


def test_weights_that_do_not_ship_say_where_to_get_them() -> None:
    with pytest.raises(
        SettingError, match=r"the path of a file or none; files: github\.com/harryjdavies/HeartGPT"
    ):
        check_backbone(BackboneSpec("heartgpt_ppg", "builtin"), find_task("bidmc_hr"))


@pytest.mark.parametrize("dropout", [-0.1, 1.0])
def test_a_dropout_out_of_range_is_refused(dropout: float) -> None:
    with pytest.raises(SettingError, match="0 <= dropout < 1"):
        build("cmssl_tiny_ppg", dropout=dropout)


def test_cards_are_frozen() -> None:
    card = BACKBONES["cmssl"]

    assert replace(card, name="other") != card
    with pytest.raises(AttributeError):
        card.name = "other"  # type: ignore[misc]  # what is tested
