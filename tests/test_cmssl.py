"""The CM-SSL encoder against torch's own layers, and its files."""

from __future__ import annotations

import json
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from torch import Tensor, nn

from finetune.backbones import build_backbone
from finetune.backbones.cmssl import TINY, CmsslArchitecture, CmsslEncoder, EncoderLayer
from finetune.backbones.cmssl_files import load_cmssl_checkpoint, load_cmssl_safetensors, save_cmssl
from finetune.errors import CheckpointError, SettingError
from finetune.random import Noise, Purpose, torch_generator
from finetune.spec import BackboneSpec
from finetune.tasks import find_task

SMALL = CmsslArchitecture(patch=25, embedding=24, layers=2, heads=3, dropout=0.3, max_patches=40)


def encoder_of(architecture: CmsslArchitecture, seed: int = 0) -> CmsslEncoder:
    return CmsslEncoder(architecture).initialise(torch_generator(seed, Purpose.INIT))


def windows_of(architecture: CmsslArchitecture, patches: int = 10, batch: int = 5) -> Tensor:
    return torch.randn(batch, patches * architecture.patch, generator=torch.Generator().manual_seed(1))


def torch_layers(architecture: CmsslArchitecture, weights: dict[str, Tensor]) -> nn.Sequential:
    """Torch's own encoder layers with the encoder's weights, loaded by name, strictly."""
    layers = nn.Sequential(
        *(
            nn.TransformerEncoderLayer(
                architecture.embedding,
                architecture.heads,
                4 * architecture.embedding,
                0.0,
                nn.GELU(),
                batch_first=True,
            )
            for _ in range(architecture.layers)
        )
    )
    layers.load_state_dict(
        {name.removeprefix("layers."): value for name, value in weights.items() if name.startswith("layers.")}
    )
    return layers


def torch_features(
    architecture: CmsslArchitecture, layers: nn.Sequential, encoder: CmsslEncoder, x: Tensor
) -> Tensor:
    patches = x.view(len(x), -1, architecture.patch)
    tokens = nn.functional.linear(patches, encoder.linear_projection.weight, encoder.linear_projection.bias)
    features: Tensor = layers(tokens + encoder.pe.pe[:, : tokens.shape[1]]).mean(dim=1)
    return features


@pytest.mark.parametrize("patches", [1, 10, 20], ids="{} patches".format)
@pytest.mark.parametrize("architecture", [TINY, SMALL, replace(SMALL, embedding=256, heads=16)], ids=repr)
def test_it_computes_what_torchs_encoder_layers_do(architecture: CmsslArchitecture, patches: int) -> None:
    encoder = encoder_of(architecture)
    layers = torch_layers(architecture, encoder.state_dict())
    x = windows_of(architecture, patches)

    for is_training in (True, False):
        theirs = torch_features(architecture, layers.train(is_training), encoder, x)
        torch.testing.assert_close(encoder(x, None), theirs, atol=1e-5, rtol=1e-5)


def test_its_gradients_are_those_of_torchs_encoder_layers() -> None:
    architecture = replace(SMALL, dropout=0.0)
    encoder = encoder_of(architecture)
    layers = torch_layers(architecture, encoder.state_dict())
    x = windows_of(architecture)

    encoder(x, Noise(0, 0)).square().sum().backward()
    torch_features(architecture, layers, encoder_of(architecture), x).square().sum().backward()

    theirs = dict(layers.named_parameters())
    for name, parameter in encoder.layers.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, atol=1e-5, rtol=1e-3)


def plain_layer(layer: EncoderLayer, tokens: Tensor, batch: int, noise: Noise) -> Tensor:
    """The layer as torch's own operations, with the same dropout, for autograd to differentiate."""
    linear, norm = nn.functional.linear, nn.functional.layer_norm
    attention, p = layer.self_attn, layer.dropout
    count, width = len(tokens) // batch, tokens.shape[1]
    depth = width // attention.heads
    joint = linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = joint.view(batch, count, 3, attention.heads, depth).permute(2, 0, 3, 1, 4)
    scores = query @ key.transpose(-1, -2) / depth**0.5
    mixed = noise.dropout(scores.softmax(dim=-1), p).to(value.dtype) @ value
    mixed = mixed.transpose(1, 2).reshape(-1, width)
    attended = noise.dropout(attention.out_proj(mixed), p)
    tokens = norm(tokens + attended, (width,), layer.norm1.weight, layer.norm1.bias)
    hidden = noise.dropout(nn.functional.gelu(layer.linear1(tokens)), p)
    fed = noise.dropout(layer.linear2(hidden), p)
    return norm(tokens + fed, (width,), layer.norm2.weight, layer.norm2.bias)


@pytest.mark.parametrize(("kind", "close"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)], ids=str)
def test_values_and_gradients_with_dropout_are_those_of_autograd(kind: torch.dtype, close: float) -> None:
    (layer,) = encoder_of(replace(TINY, layers=1, dropout=0.3)).layers
    assert isinstance(layer, EncoderLayer)
    generator = torch.Generator().manual_seed(0)
    tokens, weights = torch.randn(2, 40, 64, generator=generator)
    found = []
    for call in (layer, partial(plain_layer, layer)):
        leaf = tokens.clone().requires_grad_()
        layer.zero_grad()
        with torch.autocast("cpu", dtype=kind, enabled=kind != torch.float32):
            value = call(leaf, 4, Noise(7, 3))
        (value * weights).sum().backward()
        found.append([value, leaf.grad, *(parameter.grad for parameter in layer.parameters())])

    for ours, theirs in zip(*found, strict=True):
        assert ours is not None
        assert theirs is not None
        assert ours.dtype == torch.float32
        assert (ours - theirs).norm() <= close * theirs.norm()


def test_initial_weights_have_the_bounds_of_torchs() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torchs = nn.TransformerEncoderLayer(64, 4, 256, batch_first=True).state_dict()

    for name, ours in encoder_of(TINY).layers[0].state_dict().items():
        assert float(ours.min()) == pytest.approx(float(torchs[name].min()), rel=0.1), name
        assert float(ours.max()) == pytest.approx(float(torchs[name].max()), rel=0.1), name


def test_positions_are_sines_and_cosines() -> None:
    positions = encoder_of(TINY).pe.pe

    assert positions.shape == (1, TINY.max_patches, TINY.embedding)
    assert positions[0, 3, 0] == pytest.approx(np.sin(3))
    assert positions[0, 3, 1] == pytest.approx(np.cos(3))
    assert positions[0, 7, 10] == pytest.approx(np.sin(7 / 10000 ** (10 / 64)), abs=1e-6)


def test_stochastic_depth_drops_whole_windows() -> None:
    architecture = replace(SMALL, dropout=0.0, stochastic_depth=0.5, layers=1)
    encoder = encoder_of(architecture)
    x = windows_of(architecture, batch=64)

    with torch.no_grad():
        dropped, kept = encoder(x, Noise(0, 0)), encoder(x, None)

    is_zero = (dropped == 0).all(dim=1)
    assert 0.25 < is_zero.float().mean() < 0.75
    torch.testing.assert_close(dropped[~is_zero], 2 * kept[~is_zero])


@pytest.mark.parametrize("samples", [0, 100, 1251, 125 * 129])
def test_windows_that_cannot_be_cut_into_patches_are_refused(samples: int) -> None:
    spec = BackboneSpec("cmssl_tiny_ppg", "none")

    with pytest.raises(SettingError, match=f"windows of {samples} samples; expected a multiple of 125"):
        build_backbone(spec, find_task("bidmc_hr"), samples, None, 0)


@pytest.mark.parametrize(
    "change",
    [{"heads": 5}, {"layers": 0}, {"dropout": 1.0}, {"stochastic_depth": -0.1}, {"patch": 0}],
    ids=str,
)
def test_an_impossible_architecture_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(SettingError):
        replace(TINY, **change)


def lightning_checkpoint(encoder: CmsslEncoder, **changes: Any) -> dict[str, Any]:
    """The content of a checkpoint as the reference's pretraining writes it."""
    a = encoder.architecture
    hyper_parameters = {
        "E_in_dim": a.patch,
        "E_embed": a.embedding,
        "E_nhead": a.heads,
        "E_drop_rate": a.dropout,
        "E_num_layers": a.layers,
        "max_seq_length": a.max_patches,
        "stochastic_depth_prob": a.stochastic_depth,
        "D_embed": 128,
        "num_transformer_heads": 8,
        "num_transformer_encoder_layers": 10,
        "tokenizer_used_channel": [0, 1],
        "tokenizer_path": "tokenizer.ckpt",
    }
    state = OrderedDict((f"encoder.{name}", value) for name, value in encoder.state_dict().items())
    state["tokenizer.te.linear.weight"] = torch.zeros(4, 4)
    state["prediction_head.weight"] = torch.zeros(8, a.embedding)
    content = {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": state,
        "callbacks": {
            "ModelCheckpoint": {"best_model_score": torch.tensor(0.1), "dirpath": Path("/checkpoints")}
        },
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}}],
        "lr": np.float64(1e-4),
        "hyper_parameters": hyper_parameters,
    }
    return content | changes


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[..., Path]:
    """Write a Lightning checkpoint of SMALL, after ``edit`` has changed its content."""

    def write(edit: Callable[[dict[str, Any]], object] = lambda content: None) -> Path:
        content = lightning_checkpoint(encoder_of(SMALL))
        edit(content)
        torch.save(content, tmp_path / "last.ckpt")
        return tmp_path / "last.ckpt"

    return write


def test_a_lightning_checkpoint_gives_the_encoder_that_was_saved(checkpoint: Callable[..., Path]) -> None:
    x = windows_of(SMALL)

    loaded = load_cmssl_checkpoint(checkpoint())

    assert loaded.architecture == SMALL
    assert torch.equal(loaded(x, None), encoder_of(SMALL)(x, None))


def test_the_registry_loads_a_lightning_checkpoint_with_another_dropout(
    checkpoint: Callable[..., Path],
) -> None:
    spec = BackboneSpec("cmssl", str(checkpoint()))

    backbone = build_backbone(spec, find_task("bidmc_hr"), 250, 0.05, 0)

    assert isinstance(backbone, CmsslEncoder)
    assert backbone.architecture == replace(SMALL, dropout=0.05)


def test_the_encoders_own_argument_names_are_understood(checkpoint: Callable[..., Path]) -> None:
    renames = {
        "E_in_dim": "in_dim",
        "E_nhead": "nhead",
        "E_drop_rate": "drop_rate",
        "E_num_layers": "num_layers",
    }

    def rename(content: dict[str, Any]) -> None:
        given = content["hyper_parameters"]
        content["hyper_parameters"] = {renames.get(name, name): value for name, value in given.items()}

    assert load_cmssl_checkpoint(checkpoint(rename)).architecture == SMALL


def test_a_checkpoint_from_before_stochastic_depth_has_none(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint(lambda content: content["hyper_parameters"].pop("stochastic_depth_prob"))

    assert load_cmssl_checkpoint(path).architecture.stochastic_depth == 0


def test_every_tensor_that_does_not_fit_is_named(checkpoint: Callable[..., Path]) -> None:
    def spoil(content: dict[str, Any]) -> None:
        state = content["state_dict"]
        del state["encoder.linear_projection.bias"], state["encoder.layers.1.norm2.weight"]
        state["encoder.layers.2.norm1.weight"] = torch.ones(24)
        state["encoder.pe.pe"] = torch.zeros(1, 8, 24)

    with pytest.raises(CheckpointError) as caught:
        load_cmssl_checkpoint(checkpoint(spoil))

    for name in (
        "missing encoder.linear_projection.bias",
        "missing encoder.layers.1.norm2.weight",
        "unexpected encoder.layers.2.norm1.weight",
        "encoder.pe.pe is (1, 8, 24) instead of (1, 40, 24)",
    ):
        assert name in str(caught.value)


def test_hyper_parameters_that_contradict_the_tensors_are_told(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint(lambda content: content["hyper_parameters"].update(E_num_layers=3))

    with pytest.raises(CheckpointError, match=r"missing encoder\.layers\.2\.self_attn\.in_proj_weight"):
        load_cmssl_checkpoint(path)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content.pop("hyper_parameters"), "has no hyper_parameters"),
        (lambda content: content.pop("state_dict"), "has no state_dict"),
        (
            lambda content: content["hyper_parameters"].clear(),
            "lack E_in_dim, E_embed, E_num_layers, E_nhead",
        ),
        (lambda content: content["hyper_parameters"].update(E_nhead=7), "with 7 heads"),
        (lambda content: content["hyper_parameters"].update(E_embed="wide"), "hyper_parameters of"),
    ],
    ids=["no hyper-parameters", "no state", "empty hyper-parameters", "heads", "a word for a number"],
)
def test_a_checkpoint_of_something_else_is_refused(
    checkpoint: Callable[..., Path], edit: Callable[[dict[str, Any]], object], message: str
) -> None:
    with pytest.raises(CheckpointError, match=message):
        load_cmssl_checkpoint(checkpoint(edit))


def test_a_truncated_checkpoint_is_one_clear_line(checkpoint: Callable[..., Path]) -> None:
    path = checkpoint()
    path.write_bytes(path.read_bytes()[:5000])

    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load_cmssl_checkpoint(path)

    assert "\n" not in str(caught.value)


def test_text_in_place_of_a_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.ckpt").write_text("not a checkpoint")

    with pytest.raises(CheckpointError, match="cannot be read"):
        load_cmssl_checkpoint(tmp_path / "a.ckpt")


class Harmful:
    """Unpickled without care, it makes a directory."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


def test_a_malicious_checkpoint_is_refused_and_nothing_runs(
    checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    path = checkpoint(lambda content: content.update(callbacks=Harmful(tmp_path / "harm")))

    with pytest.raises(CheckpointError, match="cannot be read") as caught:
        load_cmssl_checkpoint(path)

    assert not (tmp_path / "harm").exists()
    assert "\n" not in str(caught.value)


def test_a_saved_encoder_comes_back_with_its_metadata(tmp_path: Path) -> None:
    path, encoder, x = tmp_path / "a.safetensors", encoder_of(SMALL), windows_of(SMALL)

    save_cmssl(path, encoder, {"licence": "Apache-2.0"})
    loaded = load_cmssl_safetensors(path, dropout=0.5)

    assert loaded.architecture == replace(SMALL, dropout=0.5)
    assert torch.equal(loaded(x, None), encoder(x, None))
    with safe_open(path, framework="pt") as file:
        assert file.metadata()["licence"] == "Apache-2.0"
        assert json.loads(file.metadata()["architecture"])["embedding"] == 24
    assert [found.name for found in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_safetensors_file_of_something_else_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    save_file({"weight": torch.zeros(2)}, tmp_path / "b.safetensors", {"architecture": "{}"})
    (tmp_path / "c.safetensors").write_bytes(b"nothing")

    with pytest.raises(CheckpointError, match="cannot be read"):
        load_cmssl_safetensors(tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match=r"missing linear_projection\.weight.*unexpected weight"):
        load_cmssl_safetensors(tmp_path / "b.safetensors")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_cmssl_safetensors(tmp_path / "c.safetensors")


def test_ten_steps_are_bitwise_the_same_twice() -> None:
    def train() -> Tensor:
        encoder, x = encoder_of(TINY), windows_of(TINY, batch=16)
        optimizer = torch.optim.AdamW(encoder.parameters(), lr=1e-3, fused=True)
        for step in range(10):
            optimizer.zero_grad()
            encoder(x, Noise(3, step)).square().mean().backward()
            optimizer.step()
        with torch.no_grad():
            features: Tensor = encoder(x, None)
        return features

    assert torch.equal(train(), train())
