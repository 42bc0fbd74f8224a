"""A GPU's attention and norm, one launch each: what torch's operations say, by Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_sheet import CPU, META, model_of, plain_step, stacked_step

from finetune.engine.devices import is_lost
from finetune.fast import layer_device, philox_device
from finetune.fast.layer_device import CLOSE_BF16, is_fused, is_right
from finetune.fast.trusted import CLOSE, SWITCH


def interpreted(code: str) -> None:
    """Run code in a process in which Triton interprets its kernels on the CPU."""
    root = Path(__file__).resolve().parent
    path = os.pathsep.join([str(root.parent), str(root), *sys.path])
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": path}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")


@needs_triton
def test_the_kernels_say_what_torch_says_for_members_patches_and_heads_of_every_size() -> None:
    interpreted("""
import torch
from finetune.fast.layer_device import largest_error
for members, patches, heads in ((1, 1, 1), (2, 10, 4), (1, 7, 2), (3, 20, 3), (1, 32, 1)):
    error = largest_error(torch.device("cpu"), members, patches, heads)
    assert error < 1e-6, (members, patches, heads, error)
""")


@needs_triton
def test_the_kernels_in_bf16_are_nearly_those_in_fp32() -> None:
    interpreted("""
import torch
from finetune.fast.layer_device import CLOSE_BF16, bf16_error
assert 1e-3 < bf16_error(torch.device("cpu")) < CLOSE_BF16 / 2
""")


@needs_triton
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_model_on_the_kernels_is_the_model_without(dropout: float) -> None:
    interpreted(f"""
from dataclasses import replace
import torch
from test_sheet import TINY, Rows, StackedNoise, forward, model_of
from finetune.backbones.cmssl import EncoderLayer
from finetune.engine.devices import is_lost
from finetune.fast import layer_device, philox_device
from finetune.random import Noise

EncoderLayer._on_cpu = EncoderLayer._in_pieces
models = [model_of(seed, replace(TINY, layers=2, dropout={dropout})) for seed in (0, 1)]
windows = torch.randn(2, 3, 1250, generator=torch.Generator().manual_seed(1))

def alone():
    outputs = [model(x, Noise(seed, 4)) for seed, (model, x) in enumerate(zip(models, windows))]
    pairs = zip(models, outputs)
    return outputs, [torch.autograd.grad(out.sum(), list(model.parameters())) for model, out in pairs]

def together():
    layout = Rows.of(list(models[0].named_parameters()))
    flat = torch.zeros(2, layout.offsets[-1])
    for row, model in zip(flat, models):
        layout.pack(row, [value.detach() for value in model.parameters()])
    noise = StackedNoise([Noise(0, 4), Noise(1, 4)], [0, 1])
    return list(forward(layout.views(flat), models[0], windows, noise))

expected, slopes = alone()
layer_device.is_fused = lambda *sizes: True
calls = []
kernel = layer_device.attend
layer_device.attend = lambda *inputs: (calls.append(1), kernel(*inputs))[1]
found, of_found = alone()
assert len(calls) == 4
for one, other in zip([*found, *together()], [*expected, *expected]):
    assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)
for one, other in zip(of_found, slopes):
    for a, b in zip(one, other):
        assert a.stride() == b.stride() and torch.allclose(a, b, rtol=1e-3, atol=1e-5)
""")


@needs_triton
def test_the_kernels_take_bf16_and_keep_the_norm_in_fp32() -> None:
    interpreted("""
import torch
from finetune.fast import layer_device as device
joint = torch.randn(20, 96, generator=torch.Generator().manual_seed(0))
full, half = (device.attend(one, None, 2, 2) for one in (joint, joint.bfloat16()))
assert half.dtype == torch.bfloat16 and (full - half.float()).abs().max() < 0.03
slope = device.attend_backward(half, joint.bfloat16(), None, 2, 2)
assert slope.dtype == torch.bfloat16 and slope.isfinite().all()
tokens, ones = torch.randn(20, 32), torch.ones(1, 32)
normed, *saved = device.add_norm(tokens, tokens.bfloat16(), None, ones, ones, 1e-5)
assert normed.dtype == torch.float32
found = device.add_norm_backward(normed, tuple(saved), None, ones, torch.bfloat16)
assert [one.dtype for one in found] == [torch.float32, torch.bfloat16, torch.float32]
""")


# --- when they are used


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch):
    is_right.cache_clear()
    monkeypatch.setattr(layer_device, "kernels", lambda: object())
    monkeypatch.setattr(layer_device, "bf16_error", lambda device: CLOSE_BF16 / 2)
    yield monkeypatch
    is_right.cache_clear()


@pytest.mark.parametrize("error", [2 * CLOSE, float("nan"), float("inf")])
def test_kernels_that_say_something_else_are_not_used(
    there: pytest.MonkeyPatch, error: float, caplog: pytest.LogCaptureFixture
) -> None:
    there.setattr(layer_device, "largest_error", lambda device: error)

    assert not is_right(CPU)
    assert "off here" in caplog.text


def test_kernels_that_are_far_off_in_bf16_are_not_used(there: pytest.MonkeyPatch) -> None:
    there.setattr(layer_device, "largest_error", lambda device: 0.0)
    there.setattr(layer_device, "bf16_error", lambda device: 2 * CLOSE_BF16)

    assert not is_right(CPU)


def test_kernels_that_are_close_are_used(there: pytest.MonkeyPatch) -> None:
    there.setattr(layer_device, "largest_error", lambda device: CLOSE / 2)

    assert is_right(CPU)


class NoCompiler:
    """A kernel on a machine without a C compiler."""

    def __getitem__(self, grid: object) -> Any:
        raise RuntimeError("Failed to find C compiler.\nPlease specify via CC environment variable")


class Breaking:
    """A kernel that reads where nothing is."""

    def __getitem__(self, grid: object) -> Any:
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nmore")


@pytest.fixture
def tried_anew() -> Iterator[None]:
    tried = (is_right, philox_device.is_right, layer_device.kernels, philox_device.kernel)
    for one in tried:
        one.cache_clear()
    yield
    for one in tried:
        one.cache_clear()


@pytest.mark.usefixtures("tried_anew")
def test_a_compiler_that_is_not_there_leaves_torchs_operations(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    all_of_them = SimpleNamespace(add_norm=NoCompiler())
    monkeypatch.setattr(layer_device, "kernels", lambda: all_of_them)
    monkeypatch.setattr(philox_device, "kernel", NoCompiler)

    assert not is_right(CPU)
    assert not philox_device.is_right(CPU)
    assert [line.count("Failed to find C compiler. Please") for line in caplog.messages] == [1, 1]


@pytest.mark.usefixtures("tried_anew")
def test_a_kernel_that_breaks_the_device_says_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(philox_device, "kernel", Breaking)

    with pytest.raises(RuntimeError, match=f"{SWITCH}=0 does without") as caught:
        philox_device.is_right(CPU)

    assert is_lost(caught.value)


@needs_triton
@pytest.mark.usefixtures("tried_anew")
def test_they_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert layer_device.kernels() is not None
    layer_device.kernels.cache_clear()
    monkeypatch.setenv(SWITCH, "0")

    assert (layer_device.kernels(), philox_device.kernel()) == (None, None)


def test_without_triton_they_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    is_right.cache_clear()
    monkeypatch.setattr(layer_device, "kernels", lambda: None)

    assert not is_right(CPU)
    is_right.cache_clear()


def test_a_cpu_never_uses_them_and_large_tiles_neither() -> None:
    assert not is_fused(torch.zeros(1), 10, 16, 64)
    there = torch.zeros(1, device=META)
    assert is_fused(there, 10, 16, 64)
    assert not is_fused(there, 33, 16, 64)
    assert not is_fused(there, 10, 65, 64)
    assert not is_fused(there, 10, 16, 4097)
    assert not is_fused(there.double(), 10, 16, 64)


def test_without_them_a_step_is_one_of_torchs_operations(monkeypatch: pytest.MonkeyPatch) -> None:
    from launches import launches

    monkeypatch.setattr(layer_device, "is_fused", lambda *sizes: False)

    assert launches(plain_step()).total <= 210
    assert launches(stacked_step(8)).total <= 305


def test_gradients_have_the_strides_of_their_parameters() -> None:
    model = model_of(0).to(META)
    model(torch.empty(8, 1250, device=META)).sum().backward()

    assert all(one.grad is not None and one.grad.stride() == one.stride() for one in model.parameters())
