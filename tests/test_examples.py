"""The adapters of examples/encoders: short, and they read files with the names that were published."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

CODE = Path(__file__).resolve().parent.parent / "examples" / "encoders"
ADAPTERS = ["patchtst", "moment", "braindecode_net", "papagei", "pulse_ppg", "ecgfounder"]


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(CODE))
    yield
    for name in [*ADAPTERS, "resnet1d", "net1d"]:
        sys.modules.pop(name, None)


def lines(name: str) -> int:
    code = (CODE / f"{name}.py").read_text(encoding="utf-8").split('"""')[-1]
    return sum(bool(line.strip()) and not line.strip().startswith("#") for line in code.splitlines())


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_is_at_most_15_lines(name: str) -> None:
    assert 0 < lines(name) <= 15


def papagei_file() -> dict[str, Any]:
    """Return tensors with the names and shapes of ``papagei_s.pt``, and random values."""
    shapes: dict[str, tuple[int, ...]] = {
        "first_block_conv.conv.weight": (32, 1, 3),
        "first_block_conv.conv.bias": (32,),
        **norm("first_block_bn", 32),
        **norm("final_bn", 512),
        "dense.weight": (512, 512),
        "dense.bias": (512,),
        "expert_layers_1.2.0.weight": (256, 512),
        "gating_network_2.0.bias": (3,),
    }
    shapes |= residual(32, 3, 18)
    return {f"module.{name}": torch.rand(shape) for name, shape in shapes.items()}


def pulse_ppg_file() -> dict[str, Any]:
    shapes: dict[str, tuple[int, ...]] = {
        "first_block_conv.conv.weight": (128, 1, 11),
        "first_block_conv.conv.bias": (128,),
        **norm("first_block_bn", 128),
        **residual(128, 11, 12),
    }
    return {name: torch.rand(shape) for name, shape in shapes.items()}


def residual(width: int, kernel: int, blocks: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for place in range(blocks):
        inner = width * 2 ** (max(0, place - 1) // 4)
        outer = width * 2 ** (place // 4)
        block = f"basicblock_list.{place}"
        shapes |= norm(f"{block}.bn1", inner) | norm(f"{block}.bn2", outer)
        shapes |= {f"{block}.conv1.conv.weight": (outer, inner, kernel), f"{block}.conv1.conv.bias": (outer,)}
        shapes |= {f"{block}.conv2.conv.weight": (outer, outer, kernel), f"{block}.conv2.conv.bias": (outer,)}
    return shapes


def norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    parts = ("weight", "bias", "running_mean", "running_var")
    return {**{f"{name}.{part}": (width,) for part in parts}, f"{name}.num_batches_tracked": ()}


def ecgfounder_file() -> dict[str, Any]:
    shapes: dict[str, tuple[int, ...]] = {
        "first_conv.conv.weight": (64, 12, 16),
        "first_conv.conv.bias": (64,),
        **norm("first_bn", 64),
        "dense.weight": (150, 1024),
        "dense.bias": (150,),
    }
    before = 64
    widths, depths = (64, 160, 160, 400, 400, 1024, 1024), (2, 2, 2, 3, 3, 4, 4)
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for place in range(depth):
            block, inner = f"stage_list.{stage}.block_list.{place}", width if place else before
            shapes |= norm(f"{block}.bn1", inner) | norm(f"{block}.bn2", width) | norm(f"{block}.bn3", width)
            convolutions = {"conv1": (width, inner, 1), "conv2": (width, 16, 16), "conv3": (width, width, 1)}
            for name, shape in convolutions.items():
                shapes |= {f"{block}.{name}.conv.weight": shape, f"{block}.{name}.conv.bias": (width,)}
            shapes |= {f"{block}.se_fc1.weight": (width // 2, width), f"{block}.se_fc1.bias": (width // 2,)}
            shapes |= {f"{block}.se_fc2.weight": (width, width // 2), f"{block}.se_fc2.bias": (width,)}
        before = width
    return {name: 0.1 * torch.rand(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("name", "file", "options", "shape", "features"),
    [
        ("papagei", papagei_file, {}, (2, 1, 1250), 512),
        ("pulse_ppg", pulse_ppg_file, {}, (2, 1, 500), 512),
        ("ecgfounder", ecgfounder_file, {"channels": 12}, (2, 12, 500), 1024),
    ],
)
def test_an_adapter_reads_the_published_names(
    name: str, file: Any, options: dict[str, int], shape: tuple[int, ...], features: int
) -> None:
    module, tensors = importlib.import_module(name), file()
    encoder = module.build(tensors, **options).eval()
    own = encoder.state_dict()

    said = encoder(torch.randn(shape))

    assert said.shape == (2, features)
    plain = {key.removeprefix("module."): value for key, value in tensors.items()}
    kept = {key: value for key, value in own.items() if not key.endswith("num_batches_tracked")}
    assert all(torch.equal(value, plain[key]) for key, value in kept.items())
