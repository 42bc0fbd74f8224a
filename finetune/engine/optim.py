"""AdamW with two groups, backbone and head: the reference's optimiser (CM-SSL)."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from finetune.engine.recipe import parameter_groups
from finetune.model import FineTunedModel
from finetune.spec import RunSpec

_add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
_state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
_load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)


def make_optimizer(model: FineTunedModel, spec: RunSpec) -> AdamW:
    """Return AdamW: the backbone's group or groups first (absent when frozen), then the head's.

    Betas and epsilon are torch's defaults, as in the reference; the learning rates stay constant unless the
    recipe says otherwise (the reference's cosine schedule counts batches but steps once an epoch, so it is
    constant too).
    """
    return AdamW(parameter_groups(model, spec), spec.recipe.weight_decay)


class AdamW(torch.optim.AdamW):
    """torch's fused AdamW, of which all parameters of a group share one count of steps.

    Bit for bit the same numbers. torch counts for each parameter, which takes as long as the arithmetic of
    a small model. Three of torch's methods are called without what hides them from its compiler: that
    imports the compiler first (torch 2.13: 1.5 s of CPU in every process).
    """

    def __init__(self, groups: list[dict[str, Any]], weight_decay: float) -> None:
        super().__init__(groups, weight_decay=weight_decay, fused=True)
        self._counts = [torch.zeros((), device=group["params"][0].device) for group in groups]
        self._rates = [float(group["lr"]) for group in groups]
        self._group_of = {
            parameter: number for number, group in enumerate(groups) for parameter in group["params"]
        }

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group, as torch does."""
        _add_param_group(self, param_group)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, as torch does."""
        state: dict[str, Any] = _state_dict(self)
        return state

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # without a closure
        """Take one step, of every parameter that has a gradient."""
        for group, count in zip(self.param_groups, self._counts, strict=True):
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not parameters:
                continue  # asleep, or a detached encoder: the fused call takes no empty list
            count += 1
            for dtype in dict.fromkeys(parameter.dtype for parameter in parameters):
                self._update([one for one in parameters if one.dtype == dtype], group, count)

    def _update(self, parameters: list[Tensor], group: dict[str, Any], count: Tensor) -> None:
        """Change parameters of one type; a complex number is two, as torch's own AdamW has it."""
        states = [self.opened(parameter) for parameter in parameters]
        torch._fused_adamw_(  # what torch.optim.AdamW calls behind its counting
            [_real(parameter) for parameter in parameters],
            [_real(parameter.grad) for parameter in parameters if parameter.grad is not None],
            [_real(state["exp_avg"]) for state in states],
            [_real(state["exp_avg_sq"]) for state in states],
            [],
            [count] * len(parameters),
            lr=group["lr"],
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            amsgrad=False,
            maximize=False,
        )

    def scale_rates(self, factor: float) -> None:
        """Set every group's rate to ``factor`` times that of its beginning."""
        for group, rate in zip(self.param_groups, self._rates, strict=True):
            group["lr"] = factor * rate

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def opened(self, parameter: Tensor) -> dict[str, Tensor]:
        """Return the state of a parameter, zeros before its first step; its ``step`` belongs to its group."""
        state: dict[str, Tensor] = self.state[parameter]
        if not state:
            state["step"] = self._counts[self._group_of[parameter]]
            state["exp_avg"] = torch.zeros_like(parameter)
            state["exp_avg_sq"] = torch.zeros_like(parameter)
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load what :meth:`state_dict` returned, here or of torch's own AdamW."""
        _load_state_dict(self, state_dict)
        for parameter, state in self.state.items():
            count = self._counts[self._group_of[parameter]]
            count.copy_(state["step"])
            state["step"] = count


def _real(tensor: Tensor) -> Tensor:
    return torch.view_as_real(tensor) if tensor.is_complex() else tensor


def check_contiguous(model: FineTunedModel) -> None:
    """Assert that all gradients are contiguous.

    Fused AdamW on the CPU gives wrong updates for gradients that are not, without a word (torch 2.13.0).
    """
    for name, parameter in model.named_parameters():
        if parameter.grad is not None and parameter.grad.stride() != parameter.stride():
            raise AssertionError(f"gradient of {name} has strides {parameter.grad.stride()}")
