"""Randomness is a pure function of (seed, purpose, step) and leaves every global stream alone."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import SettingError
from finetune.random import Noise, Purpose, stream, torch_generator

SEEDS = st.integers(0, 2**64 - 1)
STEPS = st.integers(0, 2**64 - 1)


@given(SEEDS, st.sampled_from(list(Purpose)), STEPS)
def test_a_stream_draws_the_same_numbers_every_time(seed: int, purpose: Purpose, step: int) -> None:
    first = stream(seed, purpose, step).random(8)

    assert np.array_equal(first, stream(seed, purpose, step).random(8))


def test_streams_differ_in_seed_purpose_and_step() -> None:
    draws = [
        stream(seed, purpose, step).integers(0, 2**63)
        for seed in (0, 1, 2**40)
        for purpose in Purpose
        for step in (0, 1, 2**40)
    ]

    assert len(set(draws)) == len(draws)


def test_torch_generators_differ_in_purpose_and_repeat_themselves() -> None:
    draws = {purpose: torch.rand(4, generator=torch_generator(3, purpose)) for purpose in Purpose}

    assert len({tuple(draw.tolist()) for draw in draws.values()}) == len(Purpose)
    assert torch.equal(draws[Purpose.HEAD], torch.rand(4, generator=torch_generator(3, Purpose.HEAD)))


def test_the_nth_dropout_of_a_step_does_not_hang_on_the_shapes_before_it() -> None:
    x = torch.ones(7, 33)
    short, long = Noise(1, 5), Noise(1, 5)
    short.dropout(torch.ones(3), 0.5)
    long.dropout(torch.ones(100, 100), 0.5)

    assert torch.equal(short.dropout(x, 0.3), long.dropout(x, 0.3))


def test_dropouts_differ_between_calls_steps_and_seeds() -> None:
    x = torch.ones(64)
    noise = Noise(0, 0)
    masks = [
        noise.dropout(x, 0.5),
        noise.dropout(x, 0.5),
        Noise(0, 1).dropout(x, 0.5),
        Noise(1, 0).dropout(x, 0.5),
    ]

    assert len({tuple(mask.tolist()) for mask in masks}) == len(masks)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_dropout_zeroes_a_share_p_and_keeps_the_mean(p: float, bits: int) -> None:
    x = torch.ones(1000, 1001)

    dropped = Noise(2, 3).dropout(x, p, fraction_bits=bits)

    assert (dropped == 0).float().mean() == pytest.approx(p, abs=0.5 / 2**bits + 0.002)
    assert dropped.mean() == pytest.approx(1.0, abs=0.02)
    assert len(dropped.unique()) == 2


def test_dropping_rows_zeroes_whole_rows() -> None:
    rows = Noise(0, 0).drop_rows(torch.ones(500, 3, 4), 0.25).view(500, -1)

    assert ((rows == 0).all(dim=1) | (rows > 1).all(dim=1)).all()
    assert (rows[:, 0] == 0).float().mean() == pytest.approx(0.25, abs=0.06)


def test_dropout_keeps_the_precision_and_passes_gradients_through_its_mask() -> None:
    x = torch.ones(1000, dtype=torch.bfloat16, requires_grad=True)

    y = Noise(0, 0).dropout(x, 0.5)
    y.sum().backward()

    assert y.dtype == torch.bfloat16
    assert x.grad is not None
    assert torch.equal(x.grad, y.detach())


def test_no_dropout_is_the_identity() -> None:
    x = torch.randn(5, generator=torch.Generator().manual_seed(0))

    assert Noise(0, 0).dropout(x, 0.0) is x
    assert Noise(0, 0).drop_rows(x, 0.0) is x


@pytest.mark.parametrize("p", [-0.1, 1.0, 1.5])
def test_a_dropout_that_keeps_nothing_is_refused(p: float) -> None:
    with pytest.raises(SettingError, match="0 <= dropout < 1"):
        Noise(0, 0).dropout(torch.ones(2), p)


def test_no_global_stream_moves() -> None:
    before = random.getstate(), np.random.get_state()[1].tobytes(), torch.get_rng_state()

    stream(0, Purpose.ORDER, 1).permutation(10)
    torch.rand(2, generator=torch_generator(0, Purpose.INIT))
    Noise(0, 0).drop_rows(Noise(0, 0).dropout(torch.ones(9, 9), 0.5), 0.5)

    assert random.getstate() == before[0]
    assert np.random.get_state()[1].tobytes() == before[1]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_the_numbers_stay_the_same_from_release_to_release() -> None:
    kept = Noise(17, 3).dropout(torch.ones(16), 0.5) > 0

    assert stream(17, Purpose.ORDER, 3).permutation(10).tolist() == [6, 0, 1, 5, 9, 8, 4, 2, 7, 3]
    assert kept.int().tolist() == [0, 1, 0, 0, 1, 0, 0, 0, 0, 1, 0, 1, 0, 1, 0, 0]
