"""What a glance says of a study's task, noted when the study is made, so that a glance reads no spec.

Reading a spec as strictly as a worker does takes pydantic and all names of tasks, encoders and losses: more
CPU than the rest of a glance at 20,000 trials. A note holds for the sources that wrote it and for the spec
that it was made of; for any other the spec is read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.api import Task

KEY = "hpo_gist"
"""Of the system attribute of Optuna's study that holds the note."""


@dataclass(frozen=True)
class Gist:
    """What is told of a task that this version knows."""

    synthetic: bool
    subjects_known: bool
    yardstick: str
    unit: str

    @classmethod
    def of(cls, task: Task) -> Gist:
        """Return the gist of a task."""
        return cls(task.synthetic, task.knows_subjects, task.yardstick, task.unit)


def note_of(task: Task, stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the note on a spec, as it is ``stored``, that this version knows to be of ``task``."""
    return {"reader": reader(), "spec": _digest(stored), "task": asdict(Gist.of(task))}


def noted(note: object, stored: Mapping[str, Any]) -> Gist | None:
    """Return what a note says of a ``stored`` spec; None when it is of another spec or other sources."""
    if not isinstance(note, dict) or not reader() or note.get("reader") != reader():
        return None
    if note.get("spec") != _digest(stored):
        return None
    try:
        return Gist(**note["task"])
    except (KeyError, TypeError):
        return None


def _digest(stored: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()


@cache
def reader() -> str:
    """Return a hash of the sources that say which specs are known; empty where they cannot be read."""
    here = Path(__file__).resolve().parents[2]
    folders = (here / "hpo" / "study", here / "finetune", here / "finetune" / "backbones")
    found = hashlib.sha256()
    try:
        files = [file for folder in folders for file in sorted(folder.glob("*.py"))]
        for file in files:
            found.update(file.read_bytes())
    except OSError:
        return ""
    return found.hexdigest() if files else ""
