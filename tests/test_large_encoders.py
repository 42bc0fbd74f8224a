"""Batches in parts, and activations computed again: less memory, the same steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_runs import SPEC
from test_sheet import CPU, SHAPES, masks_of, model_of
from test_study_file import GOOD

from finetune.api import BackboneSpec, Run, SettingError
from finetune.backbones.each_channel import EachChannel
from finetune.backbones.foreign import ForeignBackbone
from finetune.data.prepared import prepare
from finetune.engine.checkpoint import spec_hash
from finetune.engine.device_data import place
from finetune.engine.loop import add_gradient, open_member
from finetune.fast.sheet import Sheet, step_words
from finetune.random import Noise
from finetune.tasks import TASKS
from hpo.study import parse_spec


def gradient_of(
    shared_cache_dir: Path,
    noise: Noise,
    windows: int = 31,
    backbone: str = "cmssl_tiny_ppg",
    **changes: object,
) -> tuple[float, list[torch.Tensor]]:
    recipe = replace(SPEC.recipe, **changes)  # type: ignore[arg-type]  # by name
    spec = replace(SPEC, backbone=BackboneSpec(backbone, "none"), recipe=recipe)
    data = place(prepare(spec.inputs, Path(), shared_cache_dir), TASKS["synthetic_hr"], CPU)
    member = open_member(Run("a", spec), data, CPU)
    value = add_gradient(member, torch.arange(windows), noise)
    return float(value), [one.grad for one in member.model.parameters() if one.grad is not None]


@pytest.mark.parametrize("parts", [2, 4, 31, 99])
def test_the_gradient_of_a_batch_in_parts_is_that_of_the_whole(shared_cache_dir: Path, parts: int) -> None:
    whole = gradient_of(shared_cache_dir, Noise(7, 0), dropout=0.0)
    found = gradient_of(shared_cache_dir, Noise(7, 0), dropout=0.0, accumulate=parts)

    assert found[0] == pytest.approx(whole[0], rel=1e-5)
    for one, other in zip(found[1], whole[1], strict=True):
        assert float((one - other).abs().max()) <= 1e-5 * float(other.abs().max()) + 1e-8


def test_parts_draw_other_masks_than_each_other_and_the_same_every_time(shared_cache_dir: Path) -> None:
    first, again = (gradient_of(shared_cache_dir, Noise(7, 0), accumulate=2) for _ in range(2))

    assert first[0] == again[0]
    drawn = Noise(7, 0)
    assert not torch.equal(drawn.mask((9, 64), 0.5).draws, drawn.mask((9, 64), 0.5).draws)  # type: ignore[union-attr]


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("backbone", ["cmssl_tiny_ppg", "heartgpt_ppg"])
def test_activations_computed_again_change_no_bit(shared_cache_dir: Path, backbone: str, parts: int) -> None:
    kept, again = (
        gradient_of(
            shared_cache_dir,
            Noise(7, 0),
            windows=3,
            backbone=backbone,
            dropout=0.3,
            accumulate=parts,
            checkpoint_activations=one,
        )
        for one in (False, True)
    )

    assert kept[0] == again[0]
    assert all(torch.equal(one, other) for one, other in zip(kept[1], again[1], strict=True))


def test_layers_are_really_computed_again() -> None:
    calls = []
    model = model_of(0)
    model.backbone.recompute_layers()  # type: ignore[operator]  # a backbone's
    for layer in model.backbone.layers:  # type: ignore[union-attr]  # as above
        layer.register_forward_hook(lambda *given: calls.append(1))

    model(torch.randn(2, 1250), Noise(0, 0)).sum().backward()
    assert len(calls) == 2 * 4


def test_a_sheet_gives_the_same_masks_again_from_where_it_is_set_back_to() -> None:
    sheet = Sheet([5], CPU, is_stacked=False)
    sheet.begin(step_words([0], 1, CPU)[0])
    noise = Noise(5, 0, sheet)
    begin = noise.position
    first = masks_of(lambda: noise, SHAPES)
    noise.position = begin

    again = masks_of(lambda: noise, SHAPES)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))


def test_an_encoder_that_cannot_is_refused() -> None:
    made = ForeignBackbone(torch.nn.Linear(4, 4), lambda x: x, None, "a.py:b")

    with pytest.raises(SettingError, match="checkpoint_activations"):
        made.recompute_layers()
    with pytest.raises(SettingError, match="checkpoint_activations"):
        EachChannel(made_with_width(made), 2).recompute_layers()


def made_with_width(made: ForeignBackbone) -> ForeignBackbone:
    made.embedding = 4
    return made


def test_a_study_says_both_and_one_that_does_not_is_as_it_was() -> None:
    plain, told = (
        parse_spec(GOOD)[0],
        parse_spec(f"{GOOD}recipe: {{accumulate: 4, checkpoint_activations: true}}\n")[0],
    )
    assert plain is not None
    assert told is not None

    assert (told.recipe.accumulate, told.recipe.checkpoint_activations) == (4, True)
    assert told.fingerprint() != plain.fingerprint()
    assert spec_hash(SPEC) == "7aa89dae0d4308d26b88995826130674ef421e1c03ce72c51d80b16a2e77a9ab"
