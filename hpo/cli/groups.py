"""Names that stand for several shipped studies: ``all``, ``all-ppg``, ``all-ecg``."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.api import TASKS

GROUPS = {"all": ("ppg", "ecg"), "all-ppg": ("ppg",), "all-ecg": ("ecg",)}
"""Group -> signals of its tasks. Simulated signals are in none: their results are for demonstration."""


def expand(names: Sequence[str]) -> list[str]:
    """Return ``names`` with each group replaced by its tasks' own studies, every name once, in order.

    A task's own study is the shipped one that is named like it; variants of it are in no group.
    """
    found: dict[str, None] = {}
    for name in names:
        found.update(dict.fromkeys(_members(name) if name in GROUPS else [name]))
    return list(found)


def _members(group: str) -> list[str]:
    return [name for name, task in TASKS.items() if task.signal in GROUPS[group] and not task.synthetic]
