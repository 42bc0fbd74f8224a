"""The optimiser: torch's AdamW with one count of steps a group."""

from __future__ import annotations

import copy
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from finetune.engine.optim import AdamW

SHAPES = ((7, 5), (5,), (3, 3, 2), (1,))


def parameters_of(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in SHAPES]


def groups_of(parameters: list[Tensor]) -> list[dict[str, object]]:
    return [{"params": parameters[:3], "lr": 1e-2}, {"params": parameters[3:], "lr": 0.3}]


def give_gradients(parameters: list[Tensor], step: int) -> None:
    generator = torch.Generator().manual_seed(100 + step)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator)


def test_its_steps_are_those_of_torch_bit_for_bit() -> None:
    ours, theirs = parameters_of(0), parameters_of(0)
    our, their = AdamW(groups_of(ours), 0.01), torch.optim.AdamW(groups_of(theirs), fused=True)

    for step in range(20):
        give_gradients(ours, step)
        give_gradients(theirs, step)
        our.step()
        their.step()
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
        our.zero_grad()
        assert all(parameter.grad is None for parameter in ours)


@pytest.mark.parametrize("is_ours", [True, False], ids=["ours", "torch"])
def test_it_goes_on_from_its_state_and_from_torchs(is_ours: bool) -> None:
    whole, first = parameters_of(1), parameters_of(1)
    uninterrupted = AdamW(groups_of(whole), 0.01)
    groups = groups_of(first)
    before = AdamW(groups, 0.01) if is_ours else torch.optim.AdamW(groups, weight_decay=0.01, fused=True)
    for step in range(5):
        for parameters, optimizer in ((whole, uninterrupted), (first, before)):
            give_gradients(parameters, step)
            optimizer.step()

    resumed = AdamW(groups_of(first), 0.01)
    resumed.load_state_dict(copy.deepcopy(before.state_dict()))
    for step in range(5, 9):
        for parameters, optimizer in ((whole, uninterrupted), (first, resumed)):
            give_gradients(parameters, step)
            optimizer.step()

    assert all(torch.equal(one, other) for one, other in zip(whole, first, strict=True))
    counts = [state["step"] for state in resumed.state.values()]
    assert all(one is other for one, other in pairwise(counts[:3]))  # a group's
    assert counts[2] is not counts[3]
    assert [float(count) for count in counts] == [9, 9, 9, 9]


def test_a_parameter_without_a_gradient_stays_as_it_is() -> None:
    parameters = parameters_of(2)
    optimizer = AdamW(groups_of(parameters), 0.1)
    give_gradients(parameters, 0)
    parameters[1].grad = None
    before = parameters[1].detach().clone()

    optimizer.step()

    assert torch.equal(parameters[1], before)
    assert parameters[1] not in optimizer.state
