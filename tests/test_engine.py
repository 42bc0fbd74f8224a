"""The engine: the same run gives the same numbers, wherever it runs and however often it was interrupted."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_runs import SPEC, ListSource

from finetune.api import (
    InputSpec,
    Recipe,
    Run,
    SettingError,
    train,
)
from finetune.engine.loop import Identity, tensor_cores
from finetune.model import build_model
from finetune.tasks import find_task
from finetune.test_split import score_test


@pytest.fixture
def run_all(shared_cache_dir: Path, tmp_path: Path):
    def call(source: ListSource) -> ListSource:
        train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu")
        return source

    return call


def test_a_run_gives_the_same_numbers_alone_and_beside_others(run_all):
    alone = run_all(ListSource(Run("a", SPEC)))
    beside = run_all(ListSource(Run("b", replace(SPEC, seed=8)), Run("a", SPEC)))

    assert alone.curve("a") == beside.curve("a")
    assert beside.curve("a") != beside.curve("b")
    assert alone.results[0].best_metrics == beside.results[1].best_metrics


def test_a_resumed_run_gives_the_numbers_of_an_uninterrupted_one(run_all, tmp_path):
    run = Run("a", SPEC, tmp_path / "run")
    with pytest.raises(ConnectionError):
        run_all(ListSource(run, raise_after=3))
    resumed = run_all(ListSource(run))
    whole = run_all(ListSource(Run("a", SPEC)))

    assert [report.epoch for report in resumed.reports] == [3]
    assert resumed.curve("a") == whole.curve("a")[2:]
    assert resumed.results[0].best_validation_loss == whole.results[0].best_validation_loss


@pytest.mark.parametrize("slots", [1, 2])
def test_weight_decay_pulls_the_weights_to_nothing(shared_cache_dir, tmp_path, slots):
    """Each step takes lr * weight_decay of every weight: with half of them gone a step, nothing is learnt."""
    ends = {}
    for weight_decay in (0.0, 500.0):
        recipe = replace(SPEC.recipe, weight_decay=weight_decay, epochs=8, patience=8)
        spec = replace(SPEC, recipe=recipe)
        runs = [
            Run(str(seed), replace(spec, seed=seed), tmp_path / f"{weight_decay}.{seed}") for seed in (7, 8)
        ]
        source = ListSource(*runs)
        train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu", slots=slots)
        ends[weight_decay] = [source.curve(run.run_id)[-1][0] for run in runs]

    assert all(decayed > 1.3 * free for free, decayed in zip(ends[0.0], ends[500.0], strict=True))


def test_training_moves_no_global_random_stream(run_all):
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    run_all(ListSource(Run("a", SPEC), prune_after=1))

    assert torch.equal(before[0], torch.random.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])


def test_training_learns(run_all):
    spec = replace(SPEC, recipe=Recipe(epochs=8, batch_size=8, patience=8))
    source = run_all(ListSource(Run("a", spec)))

    losses = [report.train_loss for report in source.reports]
    assert losses[-1] < 0.7 * losses[0]


def test_divergence_is_a_result_and_the_next_run_goes_on(run_all):
    wild = replace(SPEC, lr=1e30, backbone_lr=1e30)
    source = run_all(ListSource(Run("wild", wild), Run("a", SPEC)))

    assert [result.reason for result in source.results] == ["diverged", "finished"]
    assert source.results[0].best_epoch == 0
    assert math.isinf(source.results[0].best_validation_loss)
    assert not source.reports[0].is_finite


def test_a_run_that_the_source_stops_is_pruned_with_its_best_so_far(run_all):
    source = run_all(ListSource(Run("a", SPEC), prune_after=2))

    assert source.results[0].reason == "pruned"
    assert source.results[0].epochs == 2
    assert source.results[0].best_validation_loss == min(report.validation_loss for report in source.reports)


def test_a_run_without_progress_ends_by_patience(run_all):
    still = replace(SPEC, lr=1e-30, backbone_lr=1e-30, recipe=Recipe(epochs=9, batch_size=32, patience=2))
    source = run_all(ListSource(Run("a", still)))

    assert source.results[0].reason == "patience"
    assert source.results[0].epochs == 3


@pytest.mark.parametrize("mode", ["linear_probing", "linear_probing_cached"])
def test_linear_probing_trains_the_head_and_leaves_the_backbone(run_all, tmp_path, mode):
    spec = replace(SPEC, mode=mode)
    result = run_all(ListSource(Run("a", spec, tmp_path / "run"))).results[0]

    from safetensors.torch import load_file

    assert result.checkpoint is not None
    trained = load_file(result.checkpoint)
    fresh = build_model(spec, find_task("synthetic_hr")).state_dict()
    changed = {name.split(".")[0] for name in fresh if not torch.equal(fresh[name], trained[name])}
    assert changed == {"head"}


def test_cached_features_stand_in_for_a_backbone_without_dropout(run_all):
    spec = replace(SPEC, mode="linear_probing", recipe=replace(SPEC.recipe, dropout=0.0))
    plain = run_all(ListSource(Run("a", spec)))
    cached = run_all(ListSource(Run("a", replace(spec, mode="linear_probing_cached"))))

    assert np.allclose(plain.curve("a"), cached.curve("a"), rtol=1e-4)


def test_identity_keeps_every_weight_of_what_it_stands_for():
    backbone = build_model(SPEC, find_task("synthetic_hr")).backbone

    assert Identity(backbone).state_dict().keys() == backbone.state_dict().keys()


def test_bf16_gives_numbers_near_those_of_fp32(run_all):
    full = run_all(ListSource(Run("a", SPEC)))
    half = run_all(ListSource(Run("a", replace(SPEC, recipe=replace(SPEC.recipe, precision="bf16")))))

    assert full.curve("a") != half.curve("a")
    assert np.allclose(full.curve("a"), half.curve("a"), rtol=0.2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="on a GPU they differ")
def test_tf32_is_fp32_where_there_are_no_tensor_cores(run_all):
    full, tensor = (
        run_all(ListSource(Run("a", replace(SPEC, recipe=replace(SPEC.recipe, precision=kind)))))
        for kind in ("fp32", "tf32")
    )

    assert full.curve("a") == tensor.curve("a")


@pytest.mark.parametrize(("kind", "inside"), [("tf32", "high"), ("fp32", "highest"), ("bf16", "highest")])
def test_tensor_cores_are_used_for_tf32_only_and_the_setting_is_given_back(kind, inside):
    before, seen = torch.get_float32_matmul_precision(), []

    def fail() -> None:
        with tensor_cores(kind):
            seen.append(torch.get_float32_matmul_precision())
            raise RuntimeError("an epoch failed")

    with pytest.raises(RuntimeError, match="an epoch failed"):
        fail()
    assert seen == [inside]
    assert torch.get_float32_matmul_precision() == before


@pytest.mark.parametrize("loss", ["mse", "l1", "smooth_l1", "huber"])
def test_every_loss_reports_the_same_yardstick(run_all, loss):
    source = run_all(ListSource(Run("a", replace(SPEC, loss=loss)), prune_after=1))

    report = source.reports[0]
    assert report.validation_loss == report.metrics["mae"]
    assert report.metrics["rmse"] >= report.metrics["mae"]


def test_gradient_clipping_changes_the_run(run_all):
    clipped = replace(SPEC, recipe=replace(SPEC.recipe, max_grad_norm=1e-3))
    source = run_all(ListSource(Run("a", SPEC), Run("b", clipped), prune_after=1))

    assert source.curve("a") != source.curve("b")


def test_the_test_split_is_scored_from_the_best_checkpoint(run_all, tmp_path, shared_cache_dir):
    result = run_all(ListSource(Run("a", SPEC, tmp_path / "run"))).results[0]
    assert result.checkpoint is not None
    scores = score_test(SPEC, result.checkpoint, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu")

    errors = np.abs(np.array(scores.predictions) - np.array(scores.labels))
    assert scores.metrics["mae"] == pytest.approx(errors.mean(), rel=1e-5)
    assert len(set(scores.groups)) > 1


def test_folds_validate_on_other_subjects_for_other_seeds(run_all):
    folded = replace(
        SPEC, inputs=InputSpec("synthetic_hr", folds=2, every=7), recipe=Recipe(epochs=1, batch_size=64)
    )
    source = run_all(ListSource(Run("a", folded), Run("b", replace(folded, seed=8))))

    assert (folded.fold, replace(folded, seed=8).fold) == (1, 0)
    assert source.curve("a") != source.curve("b")


def test_a_checkpoint_of_another_configuration_is_passed_over(run_all, tmp_path):
    with pytest.raises(ConnectionError):
        run_all(ListSource(Run("a", SPEC, tmp_path), raise_after=2))
    other = replace(SPEC, lr=2e-3)
    after = run_all(ListSource(Run("a", other, tmp_path)))
    fresh = run_all(ListSource(Run("a", other)))

    assert after.curve("a") == fresh.curve("a")


def test_a_run_with_a_truncated_checkpoint_starts_anew_with_the_same_numbers(run_all, tmp_path):
    with pytest.raises(ConnectionError):
        run_all(ListSource(Run("a", SPEC, tmp_path), raise_after=2))
    path = tmp_path / "last.pt"
    path.write_bytes(path.read_bytes()[:1000])
    after = run_all(ListSource(Run("a", SPEC, tmp_path)))
    fresh = run_all(ListSource(Run("a", SPEC)))

    assert after.curve("a") == fresh.curve("a")


def test_a_device_that_is_not_there_is_the_users_fault(tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(SettingError, match="cuda"):
        train(ListSource(), data_dir=tmp_path, cache_dir=tmp_path, device="cuda")
