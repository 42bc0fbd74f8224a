"""Checkpoints of runs: what is not as it was written, or does not fit, is nothing, and changes nothing."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from finetune.backbones.cmssl import CmsslArchitecture, CmsslEncoder
from finetune.engine.checkpoint import (
    BEST,
    LAST,
    Kept,
    Progress,
    State,
    load_best,
    load_last,
    save_best,
    save_state,
)
from finetune.engine.optim import AdamW, make_optimizer
from finetune.errors import CheckpointError
from finetune.model import FineTunedModel, Head
from finetune.spec import BackboneSpec, InputSpec, Recipe, RunSpec

SPEC = RunSpec(
    InputSpec("bidmc_hr"), BackboneSpec("cmssl"), "full_finetuning", Recipe(), 1e-3, 1e-4, "mse", 3
)


def fresh(seed: int) -> tuple[FineTunedModel, AdamW]:
    """Return a small model and its optimiser, both after three steps of noise."""
    generator = torch.Generator().manual_seed(seed)
    encoder = CmsslEncoder(CmsslArchitecture(patch=5, embedding=8, layers=1, heads=2, max_patches=4))
    model = FineTunedModel(encoder.initialise(generator), Head(8, 1, generator))
    optimizer = make_optimizer(model, SPEC)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(4, 20, generator=generator)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def whole(model: FineTunedModel, optimizer: AdamW) -> list[bytes]:
    """Return everything that a checkpoint may change, as bytes."""
    moments = [value for state in optimizer.state_dict()["state"].values() for value in state.values()]
    tensors = [*model.state_dict().values(), *moments]
    return [tensor.detach().numpy().tobytes() for tensor in tensors]


def saved_in(folder: Path) -> Path:
    """Return the folder with both checkpoints of one run in it."""
    model, optimizer = fresh(1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = State(Progress(4, 3, 1.5, {"mae": 1.5}, 9.0), weights, optimizer.state_dict())
    save_state(folder, SPEC, state, Kept(0, ""), weights)
    return folder


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Let no file grow beyond ``size`` bytes inside: to who writes it the disk is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
@pytest.mark.parametrize("name", [LAST, BEST])
def test_a_disk_that_is_full_is_the_users_to_mend(name: str, share: float, tmp_path: Path) -> None:
    size = (saved_in(tmp_path / "whole") / name).stat().st_size
    weights = dict(fresh(1)[0].state_dict())

    with room_for(int(share * size)), pytest.raises(CheckpointError, match="cannot write a checkpoint into"):
        saved_in(tmp_path / "full") if name == LAST else save_best(tmp_path / "full", weights)
    assert load_last(tmp_path / "full", SPEC, *fresh(2)).epoch == 0


def test_a_folder_that_cannot_be_made_is_the_users_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(CheckpointError, match=r"cannot write .* \(Not a directory\)"):
        saved_in(tmp_path / "file" / "slot")


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved_in(tmp_path_factory.mktemp("slot"))


def test_a_checkpoint_comes_back_whole(saved: Path) -> None:
    model, optimizer = fresh(2)

    progress = load_last(saved, SPEC, model, optimizer)

    assert (progress.epoch, progress.best_epoch, progress.best_metrics) == (4, 3, {"mae": 1.5})
    assert whole(model, optimizer) == whole(*fresh(1))


def test_a_flipped_bit_anywhere_is_the_same_state_or_none(saved: Path, tmp_path: Path) -> None:
    content, stored, untouched = (saved / LAST).read_bytes(), whole(*fresh(1)), whole(*fresh(2))
    taken = 0
    (tmp_path / BEST).write_bytes((saved / BEST).read_bytes())
    for place in np.random.default_rng(0).integers(8 * len(content), size=150):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << (place % 8)
        (tmp_path / LAST).write_bytes(damaged)
        model, optimizer = fresh(2)
        progress = load_last(tmp_path, SPEC, model, optimizer)

        taken += progress.epoch > 0
        assert whole(model, optimizer) == (stored if progress.epoch else untouched), place
        assert progress.epoch in (0, 4)
        if progress.epoch:
            assert progress.best_metrics == {"mae": 1.5}
            assert progress.best_validation_loss == 1.5
    assert taken < 75  # those that only touch padding and dates


def edited(saved: Path, folder: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    state = torch.load(saved / LAST, weights_only=True)
    edit(state)
    torch.save(state, folder / LAST)


EDITS: dict[str, Callable[[dict[str, Any]], object]] = {
    "another run": lambda state: state.update(spec="other"),
    "no spec": lambda state: state.pop("spec"),
    "a key more": lambda state: state.update(more=1),
    "a tensor less": lambda state: state["model"].pop("head.out.bias"),
    "a tensor more": lambda state: state["model"].update(more=torch.ones(1)),
    "another shape": lambda state: state["model"].update({"head.out.bias": torch.ones(3)}),
    "another type": lambda state: state["model"].update(
        {"head.out.bias": torch.ones(1, dtype=torch.float64)}
    ),
    "no tensor": lambda state: state["model"].update({"head.out.bias": 1.0}),
    "no model": lambda state: state.update(model=None),
    "no progress": lambda state: state.update(progress=None),
    "a field less": lambda state: state["progress"].pop("best_epoch"),
    "a best epoch to come": lambda state: state["progress"].update(best_epoch=5),
    "other best weights": lambda state: state["progress"].update(best_checksum="0"),
    "a loss that is none": lambda state: state["progress"].update(best_validation_loss=float("nan")),
    "a group less": lambda state: state["optimizer"]["param_groups"].pop(),
    "moments of another shape": lambda state: state["optimizer"]["state"][0].update(exp_avg=torch.ones(7)),
    "a parameter more": lambda state: state["optimizer"]["state"].update(
        {99: {}, 98: {"exp_avg": torch.ones(2)}}
    ),
    "no optimiser": lambda state: state.update(optimizer={}),
}


@pytest.mark.parametrize("edit", EDITS)
def test_a_sound_file_that_does_not_fit_is_nothing_and_changes_nothing(
    edit: str, saved: Path, tmp_path: Path
) -> None:
    (tmp_path / BEST).write_bytes((saved / BEST).read_bytes())
    edited(saved, tmp_path, EDITS[edit])
    model, optimizer = fresh(2)

    assert load_last(tmp_path, SPEC, model, optimizer) == Progress()
    assert whole(model, optimizer) == whole(*fresh(2))


@pytest.mark.parametrize("found", ["nothing", "damaged", "of another epoch"])
def test_a_state_without_the_best_weights_that_it_names_is_nothing(
    found: str, saved: Path, tmp_path: Path
) -> None:
    (tmp_path / LAST).write_bytes((saved / LAST).read_bytes())
    if found == "damaged":
        (tmp_path / BEST).write_bytes((saved / BEST).read_bytes()[:-1])
    if found == "of another epoch":
        save_best(tmp_path, fresh(5)[0].state_dict())
    model, optimizer = fresh(2)

    assert load_last(tmp_path, SPEC, model, optimizer) == Progress()
    assert whole(model, optimizer) == whole(*fresh(2))


@pytest.mark.parametrize("content", [b"", b"PK", b"text", b"<html>"])
def test_a_file_of_another_kind_is_nothing(content: bytes, tmp_path: Path) -> None:
    (tmp_path / LAST).write_bytes(content)

    assert load_last(tmp_path, SPEC, *fresh(2)) == Progress()
    assert load_last(tmp_path / "nowhere", SPEC, *fresh(2)) == Progress()
    assert load_last(None, replace(SPEC, seed=4), *fresh(2)) == Progress()


def test_best_weights_with_a_flipped_bit_are_refused(saved: Path, tmp_path: Path) -> None:
    content, stored = (saved / BEST).read_bytes(), fresh(1)[0].state_dict()
    load_best(saved / BEST, fresh(2)[0])
    refused = 0
    for place in np.random.default_rng(0).integers(8 * len(content), size=60):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << (place % 8)
        (tmp_path / BEST).write_bytes(damaged)
        model, _ = fresh(2)
        try:
            load_best(tmp_path / BEST, model)
        except CheckpointError:
            refused += 1
            continue
        assert all(torch.equal(value, stored[name]) for name, value in model.state_dict().items()), place
    assert refused > 40
