"""Schedules, layer-wise decay, the head alone first, gradual unfreezing, label smoothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_runs import SPEC, ListSource
from test_study_file import GOOD, only_fault_of

from finetune.api import Recipe, Run, RunSpec, SettingError, train
from finetune.data.prepared import prepare
from finetune.engine.device_data import place
from finetune.engine.loop import Member, open_member, train_epoch
from finetune.engine.optim import make_optimizer
from finetune.engine.recipe import awake_layers, is_plain, rate_factor
from finetune.losses import make_loss
from finetune.model import build_model
from finetune.tasks import TASKS
from hpo.study import StudySpec, load_spec, parse_spec, shipped_studies

STEPS = 7
"""An epoch."""
ALL_AT_ONCE = Recipe(
    epochs=5,
    batch_size=32,
    patience=5,
    schedule="cosine",
    warmup_epochs=0.5,
    head_epochs=1,
    unfreeze_epochs=1,
    layer_decay=0.7,
)


def rates(recipe: Recipe) -> list[float]:
    return [rate_factor(recipe, step, STEPS) for step in range(recipe.epochs * STEPS)]


def opened(shared_cache_dir: Path, recipe: Recipe, mode: str = "full_finetuning") -> Member:
    spec: RunSpec = replace(SPEC, recipe=recipe, mode=mode)  # type: ignore[arg-type]
    data = place(prepare(spec.inputs, Path(), shared_cache_dir), TASKS["synthetic_hr"], torch.device("cpu"))
    return open_member(Run("a", spec), data, torch.device("cpu"))


def next_epoch(member: Member) -> None:
    train_epoch(member)
    member.progress.epoch += 1


def weights(member: Member) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in member.model.named_parameters()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    return {name for name, value in after.items() if not torch.equal(value, before[name])}


def test_a_cosine_is_torchs() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4 * STEPS)
    wanted = []
    for _ in range(4 * STEPS):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()

    assert rates(Recipe(epochs=4, schedule="cosine")) == pytest.approx(wanted)


def test_one_cycle_is_torchs_but_for_how_its_rise_is_rounded() -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    total = 10 * STEPS
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total, cycle_momentum=False)
    wanted = []
    for _ in range(total):
        wanted.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        if len(wanted) < total:
            schedule.step()

    assert rates(Recipe(epochs=10, schedule="one_cycle")) == pytest.approx(wanted, abs=0.06)
    assert max(rates(Recipe(epochs=10, schedule="one_cycle"))) == 1


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one_cycle"])
def test_a_warm_up_rises_to_the_rate_and_not_above(schedule: str) -> None:
    found = rates(Recipe(epochs=4, schedule=schedule, warmup_epochs=1))  # type: ignore[arg-type]

    assert found[:STEPS] == sorted(found[:STEPS])
    assert 0 < found[0] < 0.2
    assert found[STEPS] == max(found) == 1


def test_layers_have_decaying_rates_from_the_head_down() -> None:
    spec = replace(SPEC, recipe=Recipe(layer_decay=0.5), backbone_lr=1e-3, lr=1e-2)
    optimizer = make_optimizer(build_model(spec, TASKS["synthetic_hr"]), spec)

    found = [group["lr"] for group in optimizer.param_groups]

    assert found == pytest.approx([1e-3 / 16, 1e-3 / 8, 1e-3 / 4, 1e-3 / 2, 1e-3, 1e-2])


def test_a_plain_recipe_has_two_groups() -> None:
    optimizer = make_optimizer(build_model(SPEC, TASKS["synthetic_hr"]), SPEC)

    assert len(optimizer.param_groups) == 2


def test_the_head_is_alone_for_its_epochs_as_in_linear_probing(shared_cache_dir: Path) -> None:
    alone = opened(shared_cache_dir, Recipe(epochs=4, batch_size=32, head_epochs=2))
    probe = opened(shared_cache_dir, Recipe(epochs=4, batch_size=32), "linear_probing")
    before = weights(alone)
    for _ in range(2):
        next_epoch(alone)
        next_epoch(probe)

    assert moved(before, weights(alone)) == {name for name in before if name.startswith("head.")}
    assert moved(weights(probe), weights(alone)) == set()

    next_epoch(alone)

    assert moved(before, weights(alone)) == set(before)


def test_a_layer_that_wakes_takes_first_steps_of_its_rate(shared_cache_dir: Path) -> None:
    recipe = Recipe(epochs=4, batch_size=100_000, head_epochs=2, weight_decay=0.0)  # one step an epoch
    member = opened(shared_cache_dir, recipe)
    for _ in range(2):
        next_epoch(member)
    before = weights(member)["backbone.linear_projection.weight"]

    next_epoch(member)

    step = (weights(member)["backbone.linear_projection.weight"] - before).abs().max()
    assert float(step) == pytest.approx(SPEC.backbone_lr, rel=1e-3)


def test_layers_wake_one_after_another_from_the_head_down(shared_cache_dir: Path) -> None:
    member = opened(shared_cache_dir, Recipe(epochs=6, batch_size=64, unfreeze_epochs=1))
    woken = []
    for _ in range(5):
        before = weights(member)
        next_epoch(member)
        backbone = {name for name in moved(before, weights(member)) if name.startswith("backbone.")}
        woken.append({name.split(".layers.")[-1].split(".")[0] for name in backbone})

    projection = "backbone"
    assert woken == [{"3"}, {"2", "3"}, {"1", "2", "3"}, {"0", "1", "2", "3"}, {projection, *"0123"}]


def test_how_many_layers_are_awake() -> None:
    recipe = Recipe(epochs=10, head_epochs=2, unfreeze_epochs=2)

    assert [awake_layers(recipe, epoch, 3) for epoch in range(1, 10)] == [0, 0, 1, 1, 2, 2, 3, 3, 3]
    assert [awake_layers(replace(recipe, unfreeze_epochs=0), epoch, 3) for epoch in (2, 3)] == [0, 3]


def test_a_run_with_all_of_it_resumes_as_if_uninterrupted(tmp_path: Path, shared_cache_dir: Path) -> None:
    spec = replace(SPEC, recipe=ALL_AT_ONCE)
    where = {"data_dir": tmp_path, "cache_dir": shared_cache_dir}
    whole = ListSource(Run("a", spec))
    train(whole, **where, device="cpu")
    for last in (2, 4):
        broken = ListSource(Run("a", spec, tmp_path / "a"), raise_after=last)
        with pytest.raises(ConnectionError):
            train(broken, **where, device="cpu")
    resumed = ListSource(Run("a", spec, tmp_path / "a"))

    train(resumed, **where, device="cpu")

    assert resumed.curve("a") == whole.curve("a")[3:]


def test_patience_begins_when_the_backbone_joins(tmp_path: Path, shared_cache_dir: Path) -> None:
    recipe = Recipe(epochs=6, batch_size=32, patience=1, head_epochs=4)
    source = ListSource(Run("a", replace(SPEC, recipe=recipe, lr=1e-12)))

    train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu")

    assert source.results[0].epochs >= 5


def test_several_slots_with_such_a_recipe_are_refused(tmp_path: Path, shared_cache_dir: Path) -> None:
    source = ListSource(Run("a", replace(SPEC, recipe=ALL_AT_ONCE)))

    with pytest.raises(SettingError, match="use --slots 1"):
        train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu", slots=2)


@pytest.mark.parametrize(
    ("recipe", "plain"),
    [
        (Recipe(), True),
        (Recipe(label_smoothing=0.1), True),
        (Recipe(schedule="cosine"), False),
        (Recipe(warmup_epochs=1), False),
        (Recipe(head_epochs=1), False),
        (Recipe(unfreeze_epochs=1), False),
        (Recipe(layer_decay=0.9), False),
        (Recipe(accumulate=2), False),
        (Recipe(checkpoint_activations=True), False),
    ],
)
def test_which_recipes_a_population_can_do(recipe: Recipe, plain: bool) -> None:
    assert is_plain(recipe) is plain


def test_smoothed_cross_entropy_is_torchs() -> None:
    logits, targets = torch.randn(6, 4), torch.tensor([0, 1, 2, 3, 1, 0])

    found = make_loss("cross_entropy", targets, smoothing=0.2, classes=4)(logits, targets)

    wanted = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.2)
    torch.testing.assert_close(found, wanted)


def test_smoothed_binary_targets_lie_between() -> None:
    logits, targets = torch.randn(6, 3), torch.randint(0, 2, (6, 3)).float()

    found = make_loss("bce", targets, smoothing=0.2, classes=3)(logits, targets)

    wanted = torch.nn.functional.binary_cross_entropy_with_logits(logits, 0.8 * targets + 0.1)
    torch.testing.assert_close(found, wanted)


def test_numbers_cannot_be_smoothed() -> None:
    with pytest.raises(SettingError, match="0 for regression"):
        make_loss("l1", torch.zeros(3, 1), smoothing=0.1)


# --- studies


def with_recipe(text: str) -> str:
    return f"{GOOD}recipe: {{{text}}}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("label_smoothing: 0.1", "label_smoothing 0.1 of a regression"),
        ("epochs: 5, head_epochs: 5", "head_epochs 5 of 5 epochs"),
        ("schedule: cosin", "did you mean cosine"),
        ("layer_decay: 1.5", "recipe.layer_decay is 1.5"),
    ],
)
def test_a_recipe_that_cannot_be_is_told(text: str, words: str) -> None:
    assert words in only_fault_of(with_recipe(text))


def test_a_recipe_reaches_the_run_and_the_fingerprint() -> None:
    spec, faults = parse_spec(with_recipe("schedule: cosine, layer_decay: 0.8, head_epochs: 2"))
    assert spec is not None, faults
    plain = parse_spec(GOOD)[0]
    assert plain is not None

    run = spec.run_spec(spec_configuration())

    assert (run.recipe.schedule, run.recipe.layer_decay, run.recipe.head_epochs) == ("cosine", 0.8, 2)
    assert spec.fingerprint() != plain.fingerprint()
    assert StudySpec.model_validate(spec.model_dump(mode="json")) == spec


def spec_configuration():  # type: ignore[no-untyped-def]
    from hpo.study import Configuration

    return Configuration(1e-4, 1e-5, "mse", 1)


@pytest.mark.parametrize("name", shipped_studies())
def test_new_keys_are_in_no_fingerprint_of_before(name: str) -> None:
    counts = load_spec(name).what_counts()

    assert set(counts["recipe"]) == {
        "epochs",
        "batch_size",
        "patience",
        "weight_decay",
        "dropout",
        "max_grad_norm",
        "precision",
    }
    assert "data" not in counts
    assert "leads" not in counts["inputs"]
