"""A population: every member is the run it would be alone, whoever its mates are and wherever it began."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_runs import SPEC, ListSource

from finetune.api import BackboneSpec, InputSpec, Recipe, Run, SettingError, train
from finetune.backbones.cmssl import CmsslArchitecture, CmsslEncoder
from finetune.engine import loop, population
from finetune.engine.arms import simplest_near_best
from finetune.engine.loop import Member
from finetune.engine.stacked import Layout, StackedNoise, forward
from finetune.engine.stacked_epoch import _frozen
from finetune.model import FineTunedModel, Head
from finetune.random import Noise, Purpose, torch_generator

FOUR = [
    Run("a", SPEC),
    Run("b", replace(SPEC, seed=8, lr=3e-4, loss="mse")),
    Run("c", replace(SPEC, seed=9, backbone_lr=1e-4, loss="huber")),
    Run("d", replace(SPEC, seed=10, lr=1e-2, loss="smooth_l1")),
]


@pytest.fixture
def run_all(shared_cache_dir: Path, tmp_path: Path):
    def call(source: ListSource, slots: int = 1) -> ListSource:
        train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu", slots=slots)
        return source

    return call


def with_recipe(runs: Sequence[Run], **changes: object) -> list[Run]:
    return [replace(run, spec=replace(run.spec, recipe=replace(run.spec.recipe, **changes))) for run in runs]


def with_mode(runs: Sequence[Run], mode: str) -> list[Run]:
    return [replace(run, spec=replace(run.spec, mode=mode)) for run in runs]


@pytest.mark.parametrize("mode", ["full_finetuning", "linear_probing", "linear_probing_cached"])
def test_every_member_is_the_run_it_would_be_alone(run_all, mode):
    runs = with_mode(FOUR, mode)
    alone, together = run_all(ListSource(*runs)), run_all(ListSource(*runs), slots=4)

    for run in runs:
        assert np.allclose(alone.curve(run.run_id)[:1], together.curve(run.run_id)[:1], rtol=1e-5)
        assert np.allclose(alone.curve(run.run_id), together.curve(run.run_id), rtol=2e-3)
    assert len({result.run_id for result in together.results}) == 4


def test_a_member_has_the_same_bits_beside_whichever_mates(run_all):
    first = run_all(ListSource(*FOUR[:3]), slots=3)
    second = run_all(ListSource(FOUR[3], FOUR[0]), slots=3)

    assert first.curve("a") == second.curve("a")


def test_slots_are_refilled_when_a_run_ends(run_all):
    short, *others = FOUR
    source = ListSource(short, *others, prune_after={"a": 1})
    alone = run_all(ListSource(*others))
    together = run_all(source, slots=2)

    assert together.results[0].run_id == "a"
    assert together.curve("d")[0] == pytest.approx(alone.curve("d")[0], rel=1e-5)
    assert all(np.allclose(alone.curve(r.run_id), together.curve(r.run_id), rtol=2e-3) for r in others)


def test_clipping_is_each_members_own(run_all):
    runs = with_recipe(FOUR[:2], max_grad_norm=1e-2, epochs=1)
    alone, together = run_all(ListSource(*runs)), run_all(ListSource(*runs), slots=2)

    assert np.allclose(alone.curve("a"), together.curve("a"), rtol=1e-5)
    assert np.allclose(alone.curve("b"), together.curve("b"), rtol=1e-5)


def test_a_member_that_diverges_leaves_its_mates_alone(run_all):
    wild = Run("wild", replace(SPEC, lr=1e30, backbone_lr=1e30, seed=3))
    source = run_all(ListSource(wild, FOUR[0]), slots=2)
    mates = run_all(ListSource(FOUR[1], FOUR[0]), slots=2)

    assert {result.run_id: result.reason for result in source.results} == {
        "wild": "diverged",
        "a": "finished",
    }
    assert source.curve("a") == mates.curve("a")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1)])
def test_either_engine_goes_on_from_the_checkpoint_of_the_other(run_all, tmp_path, before, after):
    run = Run("a", SPEC, tmp_path / "run")
    with pytest.raises(ConnectionError):
        run_all(ListSource(run, raise_after=3), slots=before)
    resumed = run_all(ListSource(run), slots=after)
    whole = run_all(ListSource(Run("a", SPEC)))

    assert [report.epoch for report in resumed.reports] == [3]
    assert np.allclose(resumed.curve("a"), whole.curve("a")[2:], rtol=1e-3)


def test_members_may_have_folds_with_different_numbers_of_windows(run_all):
    folded = replace(
        SPEC, inputs=InputSpec("synthetic_hr", folds=7, every=7), recipe=Recipe(epochs=1, batch_size=64)
    )
    runs = [Run(str(seed), replace(folded, seed=seed)) for seed in (0, 1)]
    alone, together = run_all(ListSource(*runs)), run_all(ListSource(*runs), slots=2)

    for run in runs:
        assert np.allclose(alone.curve(run.run_id), together.curve(run.run_id), rtol=1e-4)


def test_a_run_of_another_shape_waits_until_the_members_have_ended(run_all):
    other = Run("other", replace(SPEC, recipe=replace(SPEC.recipe, batch_size=48)))
    source = run_all(ListSource(FOUR[0], other, FOUR[1]), slots=2)

    assert [result.run_id for result in source.results] == ["a", "other", "b"]


def test_a_run_whose_recipe_cannot_be_stacked_trains_alone_among_others(run_all):
    first, other, third = FOUR[:3]
    (cosine,) = with_recipe([other], schedule="cosine")

    together = run_all(ListSource(first, cosine, third), slots=2)

    assert {result.run_id for result in together.results} == {"a", "b", "c"}
    alone = run_all(ListSource(cosine))
    assert together.curve("b") == alone.curve("b")


def test_a_backbone_without_a_stacked_form_is_refused(run_all):
    from finetune.api import BackboneSpec

    spec = replace(SPEC, backbone=BackboneSpec("heartgpt_ppg", "none"))
    with pytest.raises(SettingError, match="slots 2"):
        run_all(ListSource(Run("a", spec)), slots=2)


def test_stacked_layers_have_the_gradients_of_the_models_they_stand_for():
    architecture = CmsslArchitecture(
        patch=25, embedding=24, layers=2, heads=3, dropout=0.3, stochastic_depth=0.2, max_patches=40
    )
    models = [model_of(architecture, seed) for seed in (0, 1, 2)]
    windows = torch.randn(3, 5, 250, generator=torch.Generator().manual_seed(1))
    layout = Layout.of(list(models[0].named_parameters()))
    flat = torch.zeros(3, layout.offsets[-1])
    for row, model in zip(flat, models, strict=True):
        layout.pack(row, [value.detach() for value in model.parameters()])
    flat.requires_grad_()

    noise = StackedNoise([Noise(seed, 4) for seed in range(3)], [0, 1, 2])
    outputs = forward(layout.views(flat), models[0], windows, noise)
    outputs.square().sum().backward()

    for index, model in enumerate(models):
        alone = model(windows[index], Noise(index, 4))
        alone.square().sum().backward()
        expected = torch.zeros(layout.offsets[-1])
        layout.pack(expected, [value.grad for value in model.parameters()])
        assert torch.allclose(outputs[index], alone, rtol=1e-4, atol=1e-6)
        assert torch.allclose(flat.grad[index], expected, rtol=1e-3, atol=1e-5)


def model_of(architecture: CmsslArchitecture, seed: int) -> FineTunedModel:
    encoder = CmsslEncoder(architecture).initialise(torch_generator(seed, Purpose.INIT))
    return FineTunedModel(encoder, Head(architecture.embedding, 2, torch_generator(seed, Purpose.HEAD)))


def test_the_simplest_way_that_is_nearly_the_best_is_chosen():
    assert simplest_near_best({1: 1.0, "graph": 0.6, 2: 0.6, 4: 0.52, 8: 0.5}) == 4
    assert simplest_near_best({1: 1.0, "graph": 0.5, 2: 0.6, 4: 0.48}) == "graph"
    assert simplest_near_best({1: 1.0, "graph": 0.95, 2: 0.99}) == 1


@pytest.mark.parametrize("slots", [0, -3])
def test_slots_that_are_no_number_of_runs_are_the_users_fault(run_all, slots):
    with pytest.raises(SettingError, match="at least 1"):
        run_all(ListSource(), slots=slots)


def test_a_search_of_cached_heads_takes_many_at_a_time(run_all, tmp_path):
    runs = [Run(str(seed), replace(SPEC, mode="linear_probing_cached", seed=seed)) for seed in range(20)]
    source = run_all(ListSource(*runs), slots="auto")

    assert max(len(batch) for batch in source.batches) > 8
    assert all(math.isfinite(result.best_validation_loss) for result in source.results)
    assert len(source.results) == 20


@pytest.mark.parametrize("mode", ["linear_probing", "linear_probing_cached"])
def test_members_with_the_same_frozen_weights_hold_them_once_and_have_the_same_numbers(
    run_all, monkeypatch, mode
):
    backbone = BackboneSpec("cmssl_tiny_ppg")
    runs = [
        replace(run, spec=replace(run.spec, mode=mode, backbone=backbone)) for run in [*FOUR[:2], FOUR[3]]
    ]
    held: list[int] = []
    real = population.train_epoch_stacked

    def counted(members: list[Member], slots: int) -> list[float]:
        backbones = [value for member in members for value in member.model.backbone.parameters()]
        packed = _frozen(members, slots).values() if mode == "linear_probing" else []
        held.append(len({id(value) for value in backbones}) * len(members) - len(backbones))
        held.extend({view.stride(0) for view in packed} - {0})
        return real(members, slots)

    monkeypatch.setattr(population, "train_epoch_stacked", counted)
    shared = run_all(ListSource(*runs, prune_after={"a": 1}), slots=2)  # the third joins the second
    assert set(held) == {0}
    monkeypatch.setattr(loop, "shares_backbone", lambda spec, other: False)
    monkeypatch.setattr(population, "train_epoch_stacked", real)
    apart = run_all(ListSource(*runs, prune_after={"a": 1}), slots=2)

    assert len(shared.results) == 3
    for run in runs:
        assert shared.curve(run.run_id) == apart.curve(run.run_id)


def test_backbones_that_differ_or_change_are_nobody_elses():
    frozen = replace(SPEC, mode="linear_probing", backbone=BackboneSpec("cmssl_tiny_ppg"))

    assert loop.shares_backbone(frozen, replace(frozen, seed=8, lr=1.0))
    for change in ({"mode": "full_finetuning"}, {"backbone": SPEC.backbone}):
        assert not loop.shares_backbone(replace(frozen, **change), frozen)
        both = replace(frozen, **change)
        assert not loop.shares_backbone(both, replace(both, seed=8))  # random weights are the seed's
