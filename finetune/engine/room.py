"""Whether runs fit into the memory, told before the first step.

What a step adds to the models that are there: gradients, the optimiser's moments, and what the backward pass
needs of the forward one. The last is counted in two small forward passes, of one and of two windows, and
grows evenly from there. Workspaces, masks and fragmentation are left out: a run that is refused would not
have fitted, one that is let in may still not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from finetune.engine.loop import Member, precision
from finetune.errors import SettingError

MIB = 2**20
_STACKED = 7
"""Of each trained value of a slot: weights, two moments, rates, their decay, the gradient and its pieces."""


@dataclass(frozen=True)
class Need:
    """Bytes that a step takes beside what is there already."""

    alone: int
    """Of one run by itself."""
    slot: int
    """Of each slot of a population, its member's model and moments included."""


def admit(member: Member, slots: int, root: Path = Path("/")) -> int:
    """Return how many runs like ``member``, which is there already, fit at a time: ``slots`` at most.

    Raises :class:`SettingError` where not even one does.
    """
    free = free_bytes(member.device, root)
    if free is None:
        return slots
    need = needed(member)
    if need.alone > free:
        spec = member.run.spec
        raise SettingError(
            f"a step of {spec.backbone.name} takes {need.alone // MIB} MiB or more, and {free // MIB} MiB of "
            f"memory are free ({member.device.type}; recipe.batch_size {spec.recipe.batch_size})",
            "a batch that fits",
            "set recipe.accumulate or recipe.checkpoint_activations, or take a smaller batch",
        )
    return max(1, min(slots, free // need.slot)) if slots > 1 else slots


def needed(member: Member) -> Need:
    """Return what a step of ``member`` takes."""
    trained = [value for value in member.model.parameters() if value.requires_grad]
    of_trained = sum(value.nbytes for value in trained)
    has_moments = any(value in member.optimizer.state for value in trained)
    kept = activation_bytes(member)
    models = sum(value.nbytes for value in member.model.head.parameters())
    if member.run.spec.mode == "full_finetuning":
        models = sum(value.nbytes for value in member.model.parameters())
    return Need(
        alone=of_trained * (1 if has_moments else 3) + kept,
        slot=of_trained * (_STACKED + 2) + models + kept,
    )


def activation_bytes(member: Member) -> int:
    """Return what the forward pass of a batch, or of one of its parts, keeps for the backward pass."""
    recipe, windows = member.run.spec.recipe, len(member.data.train_x)
    part = -(-min(recipe.batch_size, windows) // recipe.accumulate)
    if part < 3:
        return _kept(member, part)
    one, two = _kept(member, 1), _kept(member, 2)
    return max(0, one + (part - 1) * (two - one))


def _kept(member: Member, windows: int) -> int:
    """Return the bytes that a forward pass of so many windows keeps, without dropout, weights left out."""
    weights = {value.untyped_storage().data_ptr() for value in member.model.parameters()}
    held: dict[int, tuple[int, Tensor]] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            held[place] = (tensor.untyped_storage().nbytes(), tensor)  # held: so that no place is used twice
        return tensor

    with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        x = member.data.train_x[:windows].clone()
        with precision(member.run.spec.recipe.precision, member.device):
            outputs = member.model(x, None)
    del outputs
    return sum(size for size, _ in held.values())


def free_bytes(device: torch.device, root: Path = Path("/")) -> int | None:
    """Return the memory that is left on ``device``; None where it cannot be told.

    On a GPU with what torch holds unused. On a CPU the least of what the machine and the control groups of
    this process leave it, the page cache counted as free. ``root`` is where /proc and /sys are.
    """
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    if device.type != "cpu":
        return None
    left = [*_left_in_groups(root), *_left_on_machine(root)]
    return min(left) if left else None


def _left_on_machine(root: Path) -> Iterator[int]:
    found = _table(root / "proc/meminfo").get("MemAvailable:")
    if found is not None:
        yield found * 1024


def _left_in_groups(root: Path) -> Iterator[int]:
    """Yield what each control group of this process leaves, its own and those around it (cgroups(7))."""
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            mount, names = root / "sys/fs/cgroup", ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            mount = root / "sys/fs/cgroup/memory"
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        else:
            continue
        inside = Path(path.lstrip("/"))
        for folder in (inside, *inside.parents):
            yield from _left(mount / folder, *names)


def _left(folder: Path, limit: str, used: str, cache: str) -> Iterator[int]:
    try:
        most, taken = (int("".join(_lines(folder / name))) for name in (limit, used))
    except ValueError:
        return  # "max", or no such files
    yield max(0, most - taken + _table(folder / "memory.stat").get(cache, 0))


def _table(file: Path) -> dict[str, int]:
    """Return the first number of each line of a file of names and numbers."""
    words = [line.split() for line in _lines(file)]
    return {line[0]: int(line[1]) for line in words if len(line) > 1 and line[1].isdigit()}


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text().splitlines()
    except OSError:
        return []
