"""The training step of one run as a CUDA graph: recorded once, then one launch a step.

    the run's first steps      launched as ever: kernels are compiled, moments and workspaces made
    the next whole batch       recorded, which runs nothing, and replayed
    all other whole batches    replayed
    an odd last batch          launched as ever

A replay repeats the recorded kernels on the memory of the recording; no Python runs. So what differs from
step to step lies in tensors that the step itself moves on: the place in the epoch's order, the step number
that dropout is drawn by, the sum of the losses. Rates that move are Python's numbers, which a graph would
freeze: where they do, the optimiser's step stays outside.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from finetune.backbones.cmssl import CmsslEncoder
from finetune.backbones.each_channel import EachChannel
from finetune.backbones.heartgpt import HeartGpt
from finetune.engine.devices import release_memory
from finetune.engine.loop import Identity, Member, add_whole_gradient
from finetune.engine.recipe import has_constant_rates
from finetune.engine.room import admit
from finetune.errors import SettingError
from finetune.fast.philox_device import words_of
from finetune.fast.sheet import Sheet
from finetune.random import Noise

WARM_STEPS = 3
"""Launched before the recording: the first tells how many bytes dropout takes, the second lays them out."""
_log = logging.getLogger(__name__)


class Recorder(Protocol):
    """Records launches without running them."""

    is_broken: bool
    """Whether a recording failed: no more are tried."""

    def warm(self, call: Callable[[], None]) -> None:
        """Run what is going to be recorded."""
        ...

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return what repeats the launches of ``call``; raises RuntimeError for what cannot be recorded."""
        ...


class CudaRecorder:
    """Warms up and records on one stream beside the current one, as torch's notes on CUDA graphs ask."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self.is_broken = False

    def warm(self, call: Callable[[], None]) -> None:
        """Run ``call`` there, after what is under way and before what follows."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            call()
        current.wait_stream(self._stream)

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """Return the replay of a :class:`torch.cuda.CUDAGraph`."""
        graph = torch.cuda.CUDAGraph()
        # The outer context: torch 2.13 leaves its own stream the current one when a recording fails.
        with (
            torch.cuda.stream(torch.cuda.current_stream()),
            torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"),
        ):
            call()
        return graph.replay


class StepGraph:
    """The steps of one run on whole batches; for :func:`finetune.engine.loop.train_epoch`."""

    def __init__(self, member: Member, recorder: Recorder) -> None:
        spec, device = member.run.spec, member.device
        self._recorder, self._seed = recorder, spec.seed
        self.batch = spec.recipe.batch_size
        self._has_optimizer = has_constant_rates(spec.recipe)
        """Whether its step is recorded too."""
        self._order = torch.zeros(len(member.data.train_x), dtype=torch.int64, device=device)
        self._first_rows = torch.arange(self.batch, device=device)
        self._rows = self._first_rows.clone()
        """(B,) where this step's windows stand in the epoch's order."""
        self._words, self._next = (words_of([number]).to(device) for number in (0, 1))
        """(1, 2) the step number, and what makes it the next (below 2**32 in all)."""
        self._total = torch.zeros((), device=device)
        self._sheet: Sheet | None = Sheet([spec.seed], device, is_stacked=False)
        self._taken = 0
        self._replay: Callable[[], None] | None = None
        self._gradients: list[tuple[Tensor, Tensor]] = []
        """What a replay fills, for an optimiser outside: a step apart gives the parameters others."""

    @property
    def is_recorded(self) -> bool:
        """Whether steps are replayed by now."""
        return self._replay is not None

    def begin_epoch(self, order: Tensor, first_step: int) -> Tensor:
        """Take the order (N,) of the windows; return the sum of losses (), which every step adds to."""
        self._order.copy_(order)
        self._words.copy_(words_of([first_step]))
        self._rows.copy_(self._first_rows)
        return self._total.zero_()

    def step(self, member: Member) -> None:
        """Take the epoch's next step on a whole batch, its rates being set."""
        if self._replay is None and self._taken >= WARM_STEPS and not self._recorder.is_broken:
            self._record(member)
        if self._replay is None:
            self._recorder.warm(lambda: self._launch(member))
        else:
            self._replay()
        self._taken += 1
        if not self._has_optimizer:
            for parameter, gradient in self._gradients:
                parameter.grad = gradient
            member.optimizer.step()

    def _launch(self, member: Member) -> None:
        assert self._sheet is not None
        self._sheet.begin(self._words)
        batch = self._order[self._rows]
        value = add_whole_gradient(member, batch, Noise(self._seed, self._taken, self._sheet))
        if self._has_optimizer:
            member.optimizer.step()
        self._total += value * len(batch)
        self._rows += len(batch)
        self._words += self._next

    def _record(self, member: Member) -> None:
        try:
            self._replay = self._recorder.record(lambda: self._launch(member))
        except RuntimeError as error:  # nothing has run: this step is launched, and so are all others
            self._recorder.is_broken = True
            _log.warning("no CUDA graph, every step is launched: %s", " ".join(str(error).split())[:200])
        if self._replay is None:
            release_memory()
            return
        self._sheet = None  # its bytes of the recording lie in the graph's memory
        if not self._has_optimizer:
            self._gradients = [(one, one.grad) for one in member.model.parameters() if one.grad is not None]


def is_recordable(member: Member) -> bool:
    """Return whether a run's steps are all alike to a device: an encoder of ours, whose parts do not wake.

    A user's encoder draws from torch's generators, seeded anew each step by the host.
    """
    recipe, backbone = member.run.spec.recipe, member.model.backbone
    inner = backbone.encoder if isinstance(backbone, EachChannel) else backbone
    is_ours = isinstance(inner, CmsslEncoder | HeartGpt | Identity)
    return is_ours and not (recipe.head_epochs or recipe.unfreeze_epochs)


def graph_giver(device: torch.device) -> Callable[[Member], None]:
    """Return what admits a run, and gives it a CUDA graph if it can have one.

    It needs room for two: a graph keeps the memory of a step, and an odd last batch takes its own.
    """
    if device.type != "cuda":
        raise SettingError(
            f"slots graph on a {device.type} device",
            "a CUDA GPU: a graph is one of its launches",
            "use --slots 1",
        )
    recorder = CudaRecorder(device)

    def take_in(member: Member) -> None:
        admit(member, 1)
        if is_recordable(member) and not recorder.is_broken and admit(member, 2) == 2:
            member.graph = StepGraph(member, recorder)

    return take_in
