"""How rates move and parts wake during a run: schedules, layer-wise decay, the head alone first, unfreezing.

Everything is a function of the epoch and the step within it, so a resumed run need not remember it.
"""

from __future__ import annotations

import math
from typing import Any, assert_never

from torch import nn

from finetune.backbones.base import Backbone
from finetune.model import FineTunedModel
from finetune.spec import Recipe, RunSpec

ONE_CYCLE_RISE, ONE_CYCLE_START, ONE_CYCLE_END = 0.3, 1 / 25, 1 / 250_000
"""Share of the steps that rise, and the first and last factor: those of torch's OneCycleLR, after
Smith and Topin 2019, "Super-convergence" (arXiv 1708.07120); momentum is left alone."""


def is_plain(recipe: Recipe) -> bool:
    """Return whether a population can do it: rates stay, all parts train at once, and batches pass whole."""
    return (
        recipe.accumulate == 1
        and not recipe.checkpoint_activations
        and has_constant_rates(recipe)
        and not (recipe.head_epochs or recipe.unfreeze_epochs)
        and (recipe.layer_decay == 1)
    )


def has_constant_rates(recipe: Recipe) -> bool:
    """Return whether no rate moves."""
    return recipe.schedule == "constant" and recipe.warmup_epochs == 0


def rate_factor(recipe: Recipe, step: int, steps_an_epoch: int) -> float:
    """Return what the rates of ``step`` (from 0, over the whole run) are multiplied by.

    A linear rise over ``warmup_epochs``, then the schedule over the rest of ``epochs``; a cycle rises over
    ``warmup_epochs`` or, without them, over 0.3 of the run.
    """
    total = recipe.epochs * steps_an_epoch
    rise = round(recipe.warmup_epochs * steps_an_epoch)
    if recipe.schedule == "one_cycle":
        return _one_cycle(step, total, rise or round(ONE_CYCLE_RISE * total))
    if step < rise:
        return (step + 1) / (rise + 1)
    match recipe.schedule:
        case "constant":
            return 1.0
        case "cosine":
            return _falling(1.0, 0.0, (step - rise) / max(total - rise, 1))
        case _:
            assert_never(recipe.schedule)


def _one_cycle(step: int, total: int, rise: int) -> float:
    if step < rise:
        return _falling(ONE_CYCLE_START, 1.0, step / rise)
    return _falling(1.0, ONE_CYCLE_END, (step - rise) / max(total - 1 - rise, 1))


def _falling(first: float, last: float, share: float) -> float:
    """Return half a cosine from ``first`` to ``last``."""
    return last + (first - last) * (1 + math.cos(math.pi * min(share, 1.0))) / 2


def parameter_groups(model: FineTunedModel, spec: RunSpec) -> list[dict[str, Any]]:
    """Return the optimiser's groups: the backbone's (absent when frozen), from the input on, then the head's.

    One for the whole backbone, unless its layers differ in rate or wake one after another. The layer nearest
    to the head has ``backbone_lr``, each below ``layer_decay`` times the rate of the one above (Howard and
    Ruder 2018, arXiv 1801.06146; Clark et al. 2020, arXiv 2003.10555).
    """
    recipe = spec.recipe
    layers = trained_layers(model)
    if recipe.layer_decay == 1 and not recipe.unfreeze_epochs:
        layers = [[parameter for parameter in model.backbone.parameters() if parameter.requires_grad]]
    last = len(layers) - 1
    groups = [
        {"params": layer, "lr": spec.backbone_lr * recipe.layer_decay ** (last - depth)}
        for depth, layer in enumerate(layers)
        if layer
    ]
    return [*groups, {"params": list(model.head.parameters()), "lr": spec.lr}]


def trained_layers(model: FineTunedModel) -> list[list[nn.Parameter]]:
    """Return the backbone's parameters that this run trains, by layer from the input on."""
    backbone = model.backbone
    layers = backbone.layer_groups() if isinstance(backbone, Backbone) else [list(backbone.parameters())]
    return [kept for layer in layers if (kept := [one for one in layer if one.requires_grad])]


def awake_layers(recipe: Recipe, epoch: int, layers: int) -> int:
    """Return how many layers, from the head down, train in ``epoch`` (from 1): none while the head is alone.

    With ``unfreeze_epochs`` n another one joins every n epochs (Howard and Ruder 2018), without it all at
    once (Kumar et al. 2022, arXiv 2202.10054: linear probing, then fine-tuning).
    """
    if epoch <= recipe.head_epochs:
        return 0
    if not recipe.unfreeze_epochs:
        return layers
    return min(layers, 1 + (epoch - recipe.head_epochs - 1) // recipe.unfreeze_epochs)


def wake_layers(layers: list[list[nn.Parameter]], recipe: Recipe, epoch: int) -> None:
    """Let the layers that are awake in ``epoch`` get gradients, and no others."""
    if not (recipe.head_epochs or recipe.unfreeze_epochs):
        return
    asleep = len(layers) - awake_layers(recipe, epoch, len(layers))
    for depth, layer in enumerate(layers):
        for parameter in layer:
            parameter.requires_grad_(depth >= asleep)
