"""When a run's checkpoints are written, and by whom: seldom enough, and beside the training.

    end of an epoch -> a copy on the host -> a thread writes it, at most one in :func:`every_s` seconds
    stopped, failed -> the copy of the last epoch that was not written yet is written now
    end of the run  -> the best weights, unless the file has them already

The thread is waited for before the next copy is taken, so that there is one of each at most; what it raised
is raised there. The best weights are a file of their own, written only where they changed.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from finetune.engine.checkpoint import BEST, LAST, Kept, Progress, State, save_best, save_state
from finetune.errors import SettingError
from finetune.spec import Run

EVERY = "HPO_CHECKPOINT_SECONDS"
"""Environment variable: seconds from one checkpoint of a run to its next; 0: one after every epoch."""
DEFAULT_EVERY_S = 10.0
"""Chosen by us: what a kill costs at most, beside an epoch or two."""
LARGE = 2**20
"""Bytes of a tensor that is copied by itself; smaller ones are one copy together."""
_log = logging.getLogger(__name__)


def every_s() -> float:
    """Return how many seconds lie between two checkpoints of a run at least."""
    text = os.environ.get(EVERY) or str(DEFAULT_EVERY_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise SettingError(f"{EVERY} is {text!r}", "seconds: a number of at least 0")
    return seconds


class Keeper:
    """The checkpoints of one run."""

    def __init__(
        self, run: Run, restored: Progress, *, epochs: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``restored`` is what its folder held; without ``epochs`` it keeps the best weights only."""
        self._run, self._epochs, self._clock = run, epochs and run.checkpoint is not None, clock
        self._every_s, self._written_at = every_s(), -float("inf")
        self._kept = Kept(restored.best_epoch, restored.best_checksum)
        self._best: tuple[int, Mapping[str, Tensor]] = (0, {})
        """The epoch and the weights of the best one, while they are in no file."""
        self._state: tuple[State, int, Mapping[str, Tensor]] | None = None
        """The end of the last epoch with the best one by then, while that is not written: an epoch that is
        only validated may have changed the best one meanwhile."""
        self._thread: threading.Thread | None = None
        self._raised: list[BaseException] = []

    def take_best(self, epoch: int, model: torch.nn.Module) -> None:
        """Copy the weights of an epoch that is better than all before."""
        if self._run.checkpoint is not None:
            self.wait()
            self._best = epoch, on_host(model.state_dict())

    def take(self, progress: Progress, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Copy a run at the end of an epoch, and have it written if it is time."""
        if not self._epochs:
            return
        self.wait()
        epoch, best = self._best
        weights = best if epoch == progress.epoch else on_host(model.state_dict())
        state = State(replace(progress), weights, _optimizer_on_host(optimizer.state_dict()))
        self._state = state, *self._best
        if self._clock() - self._written_at >= self._every_s:
            self._thread = threading.Thread(target=self._write_quietly, name="checkpoint", daemon=True)
            self._thread.start()

    def wait(self) -> None:
        """Wait for what is being written; raises what that raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._raised:
            raise self._raised.pop()

    def flush(self) -> None:
        """Write the last whole epoch if it is not written yet."""
        self.wait()
        if self._state is not None:
            self._write()

    def leave(self) -> None:
        """As :meth:`flush` while something else is raised, which must go on: a fault is only told."""
        try:
            self.flush()
        except Exception as error:
            _log.warning(
                "the last epoch of %s could not be kept: %s", self._run.run_id, " ".join(str(error).split())
            )

    def finish(self) -> None:
        """Write the best weights, unless the file has them."""
        self.wait()
        self._state = None
        folder, (epoch, weights) = self._run.checkpoint, self._best
        if folder is None or epoch <= self._kept.epoch:
            return
        self._kept = Kept(epoch, save_best(folder, weights))
        self._best = (0, {})
        self._tell(BEST)

    def _write_quietly(self) -> None:
        try:
            self._write()
        except BaseException as error:  # raised again where the run waits for this thread
            self._raised.append(error)

    def _write(self) -> None:
        folder = self._run.checkpoint
        assert self._state is not None
        assert folder is not None
        state, epoch, best = self._state
        self._written_at = self._clock()
        changed = best if epoch > self._kept.epoch else None
        self._kept = save_state(folder, self._run.spec, state, self._kept, changed)
        self._state = None
        if self._best[0] <= self._kept.epoch:
            self._best = (0, {})
        for name in ([BEST] if changed is not None else []) + [LAST]:
            self._tell(name)

    def _tell(self, name: str) -> None:
        if self._run.on_kept is not None and self._run.checkpoint is not None:
            self._run.on_kept(self._run.checkpoint / name)


@torch.no_grad()
def on_host(tensors: Mapping[Any, Tensor]) -> dict[Any, Tensor]:
    """Return copies on the CPU; small tensors of a kind travel as one, those that are the same stay one."""
    copies: dict[int, Tensor] = {}
    small: dict[tuple[torch.device, torch.dtype], dict[int, Tensor]] = {}
    for tensor in tensors.values():
        if tensor.nbytes >= LARGE:
            copies[id(tensor)] = tensor.detach().to("cpu", copy=True)
        else:
            small.setdefault((tensor.device, tensor.dtype), {})[id(tensor)] = tensor.detach()
    for group in small.values():
        row = torch.cat([tensor.reshape(-1) for tensor in group.values()]).cpu()
        parts = torch.split(row, [tensor.numel() for tensor in group.values()])
        copies |= {key: part.view(group[key].shape) for key, part in zip(group, parts, strict=True)}
    return {name: copies[id(tensor)] for name, tensor in tensors.items()}


def _optimizer_on_host(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of an optimiser's ``state_dict``, its tensors on the CPU."""
    flat = {(place, key): value for place, one in state["state"].items() for key, value in one.items()}
    copies = on_host(flat)
    found: dict[int, dict[str, Tensor]] = {place: {} for place in state["state"]}
    for (place, key), value in copies.items():
        found[place][key] = value
    return {"state": found, "param_groups": [dict(group) for group in state["param_groups"]]}
