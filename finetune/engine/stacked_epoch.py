"""One training epoch of K members at once: what :func:`finetune.engine.loop.train_epoch` does, stacked.

Weights and moments are gathered from the members' own models and optimisers at the beginning and written
back at the end, so that between two epochs a member is an ordinary run: validation, checkpoints and results
are the plain loop's, and members can come and go. K slots, B batch, n trainable parameters of a model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.engine.loop import Member, epoch_order, precision, tensor_cores
from finetune.engine.stacked import Layout, StackedNoise, Weights, forward
from finetune.fast.sheet import Sheet, step_words
from finetune.losses import Loss
from finetune.random import Noise

BETAS, EPSILON = (0.9, 0.999), 1e-8
"""torch.optim.AdamW's defaults, as in :mod:`finetune.engine.optim`."""


def train_epoch_stacked(members: Sequence[Member], slots: int) -> list[float]:
    """Take one pass over each member's training windows; return their mean training losses.

    All members have the same backbone, mode and recipe; their learning rates, losses, seeds, folds and
    epochs differ freely. Slots without a member are dummies, so that K, and with it every bit of a
    member's numbers, does not hang on how many there are.
    """
    stack = Stack.of(members, slots)
    plan = Plan(members, slots)
    losses = group_losses(members, slots)
    recipe, device = members[0].run.spec.recipe, members[0].device
    total = torch.zeros(slots, device=device)
    with tensor_cores(recipe.precision):
        for index in range(plan.steps):
            batch = plan.batch(index)
            noise = plan.noise(index)
            weights = stack.leaves()
            with precision(recipe.precision, device):
                leaves = {**stack.frozen, **weights}
                outputs = forward(leaves, members[0].model, batch.x, noise)  # (K, B, outputs)
                rows = losses.of_rows(outputs.float(), batch.y)  # (K, B)
            values = (rows * batch.share).sum(dim=1)  # (K,)
            gradients = torch.autograd.grad(values.sum(), list(weights.values()))
            stack.step([gradient.flatten(1) for gradient in gradients], batch.active, recipe.max_grad_norm)
            total += values.detach() * batch.sizes
    stack.write_back(members)
    means = (total / plan.windows).tolist()  # the epoch's only sync
    return [float(mean) for mean in means[: len(members)]]


@dataclass(frozen=True)
class Batch:
    """One step's windows of all slots; rows beyond a member's own batch have no share in its loss."""

    x: Tensor
    """(K, B, T), or features (K, B, E)."""
    y: Tensor
    """(K, B, outputs), or classes (K, B)."""
    share: Tensor
    """(K, B): 1 / B of the member's own batch; 0 for padding and for slots that stand still."""
    sizes: Tensor
    """(K,) windows of each member in this step."""
    active: Tensor | None
    """(K, 1) whether a slot moves in this step; None when every member does."""


class Plan:
    """Which windows every slot sees in which step of the epoch; all of it on the device before the first."""

    def __init__(self, members: Sequence[Member], slots: int) -> None:
        """Draw the orders of the members' next epochs."""
        self._members, self._size = members, members[0].run.spec.recipe.batch_size
        self._device = members[0].device
        self._sources = [*range(len(members)), *[0] * (slots - len(members))]
        """Of each slot the member it shows: its own, or the first one's for a dummy."""
        lengths = [len(member.data.train_x) for member in members] + [0] * (slots - len(members))
        self.steps = -(-max(lengths) // self._size)
        """Of the member with the most windows."""
        orders = torch.zeros((slots, self.steps * self._size), dtype=torch.int64)
        for row, member, length in zip(orders, members, lengths, strict=False):
            row[:length] = epoch_order(member.run.spec, length, member.progress.epoch + 1)
        first = torch.arange(self.steps)[:, None] * self._size
        sizes = (torch.tensor(lengths) - first).clamp(0, self._size)  # (steps, K)
        share = (torch.arange(self._size) < sizes[..., None]) / sizes.clamp(min=1)[..., None]
        self._widths = sizes.max(dim=1).values.tolist()
        # What a dummy's weights become is nobody's: it moves with the others, and costs no copies.
        self._all_move = (sizes[:, : len(members)] > 0).all(dim=1).tolist()
        self._orders, self._sizes, self._share = (one.to(self._device) for one in (orders, sizes, share))
        self._moves = self._sizes > 0
        self.windows = torch.tensor(lengths).clamp(min=1).to(self._device)
        """(K,) windows in an epoch, at least 1."""
        self._first_steps = [
            member.progress.epoch * -(-length // self._size)
            for member, length in zip(members, lengths, strict=False)
        ]
        self._sheet: Sheet | None = None
        if self._device.type != "cpu":
            seeds = [members[source].run.spec.seed for source in self._sources]
            firsts = [self._first_steps[source] for source in self._sources]
            self._sheet = Sheet(seeds, self._device)
            self._words = step_words(firsts, self.steps, self._device)

    def noise(self, index: int) -> StackedNoise | Noise:
        """Return the dropout of each member's own step."""
        if self._sheet is not None:
            self._sheet.begin(self._words[index])
            return Noise(0, 0, self._sheet)
        noises = [
            Noise(member.run.spec.seed, first + index)
            for member, first in zip(self._members, self._first_steps, strict=True)
        ]
        return StackedNoise(noises, self._sources)

    def batch(self, index: int) -> Batch:
        """Gather the windows of one step."""
        start, width = index * self._size, self._widths[index]
        chosen = self._orders[:, start : start + width]  # (K, B)
        x = self._gather(chosen, [member.data.train_x for member in self._members])
        y = self._gather(chosen, [member.data.train_y for member in self._members])
        active = None if self._all_move[index] else self._moves[index][:, None]
        return Batch(x, y, self._share[index][:, :width], self._sizes[index], active)

    def _gather(self, chosen: Tensor, values: Sequence[Tensor]) -> Tensor:
        """Pick rows (K, B) of each slot's own tensor (N, ...): (K, B, ...)."""
        if all(value is values[0] for value in values):
            return values[0][chosen]
        return torch.stack([values[source][row] for source, row in zip(self._sources, chosen, strict=True)])


@dataclass(frozen=True)
class LossGroups:
    """Each different loss with its slots (m,), and how to put their parts in the order of the slots."""

    parts: Sequence[tuple[Loss, Tensor]]
    order: Tensor
    """(K,)"""

    def of_rows(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return (K, B) losses of outputs (K, B, outputs), each member's by its own loss."""
        batch = outputs.shape[1]
        if len(self.parts) == 1:
            return self.parts[0][0](outputs.flatten(0, 1), targets.flatten(0, 1)).view(-1, batch)
        found = [
            loss(outputs[slots].flatten(0, 1), targets[slots].flatten(0, 1)).view(-1, batch)
            for loss, slots in self.parts
        ]
        return torch.cat(found)[self.order]


def group_losses(members: Sequence[Member], slots: int) -> LossGroups:
    """Return each different loss with its slots; every slot is in exactly one group.

    Members share a group when loss and training labels are the same (balanced losses weigh by the labels).
    A loss sees its own members only: picked out of all losses by ``where``, the gradient of an unpicked one
    would leak NaN where it is infinite.
    """
    found: dict[tuple[str, int], tuple[Loss, list[int]]] = {}
    for slot in range(slots):
        member = members[slot if slot < len(members) else 0]
        key = (member.run.spec.loss, id(member.data.train_y))
        found.setdefault(key, (member.loss, []))[1].append(slot)
    device = members[0].device
    parts = [(loss, torch.tensor(chosen).to(device)) for loss, chosen in found.values()]
    order = torch.argsort(torch.cat([slots for _, slots in parts]))
    return LossGroups(parts, order)


class Stack:
    """The trainable parameters of all slots and their AdamW moments, each a matrix (K, n)."""

    def __init__(self, layout: Layout, slots: int, decay: float, frozen: Weights, rates: Tensor) -> None:
        self._layout, self._decay, self._rates = layout, decay, rates
        self.frozen = frozen
        """Weights that are not trained, as :func:`forward` takes them."""
        self._values, self._mean, self._square = (
            torch.zeros((slots, layout.offsets[-1]), device=rates.device) for _ in range(3)
        )
        self._steps = torch.zeros((slots, 1), dtype=torch.float64, device=rates.device)
        self._shrink = rates  # until the rates are known: `of`

    @classmethod
    @torch.no_grad()
    def of(cls, members: Sequence[Member], slots: int) -> Stack:
        """Gather weights, moments and learning rates; a dummy is a copy of the first member's weights."""
        first = members[0]
        trained, frozen = _parameters(first)
        layout = Layout.of(trained)
        rates = torch.zeros((slots, layout.offsets[-1]), device=first.device)
        held = _frozen(members, slots) if frozen else {}
        stack = cls(layout, slots, first.run.spec.recipe.weight_decay, held, rates)
        for slot in range(slots):
            member = members[slot if slot < len(members) else 0]
            stack._take(slot, member)
            for name, view in layout.views(rates[slot][None]).items():
                spec = member.run.spec
                view.fill_(spec.lr if name.startswith("head.") else spec.backbone_lr)
        stack._shrink = 1 - rates * stack._decay
        return stack

    def _take(self, slot: int, member: Member) -> None:
        parameters = [value for _, value in _parameters(member)[0]]
        self._layout.pack(self._values[slot], [value.detach() for value in parameters])
        states = [member.optimizer.state.get(parameter) for parameter in parameters]
        if states[0]:
            self._layout.pack(self._mean[slot], [state["exp_avg"] for state in states if state])
            self._layout.pack(self._square[slot], [state["exp_avg_sq"] for state in states if state])
            self._steps[slot] = float(states[0]["step"])

    def leaves(self) -> Weights:
        """Return the trainable weights as leaves that share their memory with the stack."""
        views = self._layout.views(self._values)
        return {name: view.detach().requires_grad_() for name, view in views.items()}

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], active: Tensor | None, max_grad_norm: float | None) -> None:
        """Take one step of AdamW (Loshchilov & Hutter 2019) in every active slot, each with its own rates.

        With ``max_grad_norm`` each slot's gradient is scaled to at most that norm, as
        torch.nn.utils.clip_grad_norm_ does.
        """
        gradient = torch.cat(list(gradients), dim=1)  # (K, n)
        if max_grad_norm is not None:
            norm = gradient.norm(dim=1, keepdim=True)
            gradient *= (max_grad_norm / (norm + 1e-6)).clamp(max=1.0)
        if active is None:
            self._move(gradient)
            self._steps += 1
            return
        kept = [matrix.clone() for matrix in (self._values, self._mean, self._square)]
        self._move(gradient)
        for matrix, before in zip((self._values, self._mean, self._square), kept, strict=True):
            torch.where(active, matrix, before, out=matrix)
        self._steps += active

    def _move(self, gradient: Tensor) -> None:
        number = self._steps + 1
        first, second = ((1 - beta**number).float() for beta in BETAS)  # bias corrections (K, 1)
        self._values.mul_(self._shrink)
        self._mean.lerp_(gradient, 1 - BETAS[0])
        self._square.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        spread = self._square.sqrt().div_(second.sqrt()).add_(EPSILON)
        self._values.addcdiv_(self._mean * self._rates, spread.mul_(first), value=-1.0)

    @torch.no_grad()
    def write_back(self, members: Sequence[Member]) -> None:
        """Give the members their weights, moments and step numbers."""
        steps = self._steps.flatten().tolist()
        for slot, member in enumerate(members):
            parameters = [value for _, value in _parameters(member)[0]]
            self._layout.unpack(self._values[slot], parameters)
            for parameter in parameters:
                member.optimizer.opened(parameter)["step"].fill_(steps[slot])
            for key, matrix in (("exp_avg", self._mean), ("exp_avg_sq", self._square)):
                self._layout.unpack(
                    matrix[slot], [member.optimizer.state[parameter][key] for parameter in parameters]
                )


def _frozen(members: Sequence[Member], slots: int) -> Weights:
    """Return the weights that are not trained, (K, ...) each: of one copy where all members share it."""
    first = members[0]
    layout = Layout.of(_parameters(first)[1])
    if all(member.model.backbone is first.model.backbone for member in members):
        sources = [first]
    else:
        sources = [members[slot if slot < len(members) else 0] for slot in range(slots)]
    rows = torch.empty((len(sources), layout.offsets[-1]), device=first.device)
    for row, member in zip(rows, sources, strict=True):
        layout.pack(row, [value for _, value in _parameters(member)[1]])
    return {name: view.expand(slots, *view.shape[1:]) for name, view in layout.views(rows).items()}


def _parameters(member: Member) -> tuple[list[tuple[str, Tensor]], list[tuple[str, Tensor]]]:
    """Return the named parameters that are trained, and the frozen ones that the forward pass reads."""
    is_cached = member.run.spec.mode == "linear_probing_cached"
    trained: list[tuple[str, Tensor]] = []
    frozen: list[tuple[str, Tensor]] = []
    for name, value in member.model.named_parameters():
        if value.requires_grad:
            trained.append((name, value))
        elif not is_cached:
            frozen.append((name, value))
    return trained, frozen
