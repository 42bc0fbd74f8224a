"""Dropout on a device: the CPU's bytes, of a whole step at once, and few launches. Without a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from launches import launches
from torch import Tensor

from finetune.backbones.cmssl import CmsslArchitecture, CmsslEncoder
from finetune.engine.stacked import Layout as Rows
from finetune.engine.stacked import StackedNoise, forward
from finetune.engine.stacked_epoch import Stack
from finetune.fast.philox import random_bytes
from finetune.fast.philox_device import Layout, device_bytes, in_torch, words_of
from finetune.fast.sheet import Sheet, epoch_noise, step_words
from finetune.model import FineTunedModel, Head
from finetune.random import Mask, Noise, Purpose, torch_generator

CPU, META = torch.device("cpu"), torch.device("meta")
TINY = CmsslArchitecture(
    patch=125, embedding=64, layers=4, heads=4, dropout=0.3, stochastic_depth=0.0, max_patches=20
)
WORDS = st.integers(0, 2**64 - 1)


def model_of(seed: int, architecture: CmsslArchitecture = TINY) -> FineTunedModel:
    encoder = CmsslEncoder(architecture).initialise(torch_generator(seed, Purpose.INIT))
    return FineTunedModel(encoder, Head(architecture.embedding, 1, torch_generator(seed, Purpose.HEAD)))


# --- the bytes


@given(st.lists(WORDS, min_size=1, max_size=3), WORDS, st.lists(st.integers(1, 3000), min_size=1, max_size=4))
@settings(deadline=None, max_examples=30)
def test_every_device_draws_the_bytes_of_the_cpu(keys: list[int], step: int, counts: list[int]) -> None:
    layout = Layout.of(counts, CPU, len(keys))
    words = words_of(keys), words_of([step] * len(keys))
    drawn = in_torch(*words, layout.calls, layout.numbers, layout.places)

    for call, count in enumerate(counts):
        rows = drawn[layout.offsets[call] : layout.offsets[call + 1]].view(len(keys), -1)
        for row, key in zip(rows, keys, strict=True):
            assert np.array_equal(row[:count].numpy(), random_bytes(key, call, step, count))


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
def test_the_triton_kernel_draws_the_same_bytes(tmp_path: Path) -> None:
    code = """
import torch
from finetune.fast.philox_device import Layout, in_torch, in_triton, words_of
keys, steps = words_of([7, 2**63 + 5, 3]), words_of([0, 2**40 + 3, 9])
layout = Layout.of([1000, 5, 4096, 1025], torch.device("cpu"), 3)
arguments = keys, steps, layout.calls, layout.numbers, layout.places
assert torch.equal(in_torch(*arguments), in_triton(*arguments))
"""
    root = str(Path(__file__).resolve().parent.parent)
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([root, *sys.path])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


# --- a step's masks


def masks_of(draw: Callable[[], Noise | StackedNoise], shapes: list[tuple[int, ...]]) -> list[Tensor]:
    noise = draw()
    found = [
        noise.mask(shape, p, bits) for shape, p, bits in zip(shapes, (0.3, 0.3, 0.2), (8, 8, 16), strict=True)
    ]
    return [mask.values() for mask in found if isinstance(mask, Mask)]


SHAPES = [(5, 7), (40, 60), (9, 1)]


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_a_sheets_masks_are_those_of_the_cpu_in_every_step(steps: int) -> None:
    sheet, words = Sheet([11, 12], CPU), step_words([3, 100], steps, CPU)
    for step in range(steps):
        sheet.begin(words[step])
        together = masks_of(lambda: Noise(0, 0, sheet), SHAPES)
        alone = [
            masks_of(lambda s=seed, f=first: Noise(s, f), SHAPES)
            for seed, first in ((11, 3 + step), (12, 100 + step))
        ]  # type: ignore[misc]  # defaults bind the loop's variables

        for call, mask in enumerate(together):
            assert torch.equal(mask, torch.stack([alone[0][call], alone[1][call]]))


def test_a_smaller_last_batch_and_another_order_of_shapes_change_nothing() -> None:
    sheet, words = Sheet([5], CPU, is_stacked=False), step_words([0], 4, CPU)
    for step, shapes in enumerate([SHAPES, [(2, 7), (11, 60), (3, 1)], [(80, 60), (5, 7), (9, 1)], SHAPES]):
        sheet.begin(words[step])
        drawn = masks_of(lambda: Noise(0, 0, sheet), shapes)
        expected = masks_of(lambda at=step: Noise(5, at), shapes)  # type: ignore[misc]  # a default binds it

        assert all(torch.equal(one, other) for one, other in zip(drawn, expected, strict=True))


def test_large_sheets_make_masks_call_by_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sheet, "MOST_MADE", 0)

    test_a_sheets_masks_are_those_of_the_cpu_in_every_step(3)


def test_a_population_on_a_sheet_has_the_outputs_of_its_members_alone() -> None:
    models = [model_of(seed) for seed in (0, 1, 2)]
    windows = torch.randn(3, 6, 1250, generator=torch.Generator().manual_seed(1))
    layout = Rows.of(list(models[0].named_parameters()))
    flat = torch.zeros(3, layout.offsets[-1])
    for row, model in zip(flat, models, strict=True):
        layout.pack(row, [value.detach() for value in model.parameters()])
    sheet, words = Sheet([0, 1, 2], CPU), step_words([4, 4, 4], 2, CPU)
    for step in range(2):
        sheet.begin(words[step])
        outputs = forward(layout.views(flat), models[0], windows, Noise(0, 0, sheet))
        for index, model in enumerate(models):
            assert torch.allclose(
                outputs[index], model(windows[index], Noise(index, 4 + step)), rtol=1e-4, atol=1e-6
            )


# --- launches, on the meta device


def plain_step() -> Callable[[], object]:
    """One step of a plain run after the first, but for the optimiser (fused: two launches on CUDA)."""
    model = model_of(0).to(META)
    x, y = torch.empty(64, 1250, device=META), torch.empty(64, 1, device=META)
    noise = epoch_noise(0, 0, 3, META)

    def step(index: int = 2) -> None:
        value = torch.nn.functional.l1_loss(model(x, noise(index)), y)
        for parameter in model.parameters():
            parameter.grad = None
        value.backward()

    step(0)  # tells how many bytes a step takes
    step(1)  # lays them out
    return step


def stacked_step(members: int) -> Callable[[], object]:
    """One step of a population after the first, its optimiser included."""
    model = model_of(0).to(META)
    layout = Rows.of(list(model.named_parameters()))
    stack = Stack(layout, members, 1e-4, {}, torch.zeros((members, layout.offsets[-1]), device=META))
    x, y = torch.empty(members, 64, 1250, device=META), torch.empty(members, 64, 1, device=META)
    share = torch.empty(members, 64, device=META)
    sheet, words = Sheet(range(members), META), step_words([0] * members, 3, META)

    def step(index: int = 2) -> None:
        sheet.begin(words[index])
        weights = stack.leaves()
        outputs = forward(weights, model, x, Noise(0, 0, sheet))
        rows = (outputs - y).abs().mean(dim=2)
        gradients = torch.autograd.grad((rows * share).sum(), list(weights.values()))
        stack.step([gradient.flatten(1) for gradient in gradients], None, None)

    step(0)  # tells how many bytes a step takes
    step(1)  # lays them out
    return step


def test_a_plain_step_launches_no_more_than_it_did() -> None:
    assert launches(plain_step()).total <= 146


@pytest.mark.parametrize("members", [8, 32])
def test_a_populations_step_launches_as_much_whatever_its_size(members: int) -> None:
    found = launches(stacked_step(members))

    assert found.counts["dropout_bytes"] == 1
    assert found.total <= 185


def test_a_step_takes_nothing_from_the_host_and_waits_for_nothing() -> None:
    for step in (plain_step(), stacked_step(8)):
        assert not {"_local_scalar_dense", "scalar_tensor", "lift_fresh"} & set(launches(step).counts)


def test_a_sheet_draws_its_bytes_on_its_device() -> None:
    layout = Layout.of([10, 2000], META)

    drawn = device_bytes(words_of([1]).to(META), words_of([2]).to(META), layout)
    assert (drawn.device.type, tuple(drawn.shape)) == ("meta", (3 * 1024,))
