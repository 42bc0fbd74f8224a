"""Counts what a GPU would be asked to do: every operation that is no view, on the meta device."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from torch.utils._python_dispatch import TorchDispatchMode

_NOTHING = (
    "_unsafe_view",
    "empty",
    "new_empty",
    "empty_like",
    "empty_strided",
    "detach",
    "lift_fresh",
    "alias",
    "unbind",
)
COPIES = ("_local_scalar_dense", "_to_copy", "copy_", "scalar_tensor", "lift_fresh")
"""What may bring something from the host, or wait for the device."""


class Launches(TorchDispatchMode):
    """Counts operations by name while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, and count it unless it is a view or takes memory only."""
        name = func._schema.name.partition("::")[2]
        is_view = any(one.alias_info and not one.alias_info.is_write for one in func._schema.returns)
        if not is_view and name not in _NOTHING:
            self.counts[name] += 1
        return func(*args, **(kwargs or {}))

    @property
    def total(self) -> int:
        """All of them."""
        return self.counts.total()


def launches(call: Callable[[], object]) -> Launches:
    """Return what a call launches."""
    with Launches() as found:
        call()
    return found
