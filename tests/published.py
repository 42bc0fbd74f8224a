"""The publishers' real files, each task of them read once in a session, by whichever process is first.

A process of its own reads, so that its memory and the files that it opened are those of the reading alone.
"""

from __future__ import annotations

import fcntl
import pickle
import resource
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from finetune.datasets import find_reader
from finetune.datasets.base import WindowSet
from finetune.tasks import TASKS


@dataclass(frozen=True)
class Published:
    """The windows of one task as its reader gives them, mapped read-only, and what their reading took."""

    windows: WindowSet
    peak_gb: float
    """Most memory that the reading process held."""
    opened: int
    """How often it opened a file of the data set."""


class Shelf:
    """A folder of what was read, for all processes of a session."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.folder, self.data_dir = folder, data_dir
        folder.mkdir(exist_ok=True)

    def root(self, task: str) -> Path:
        return self.data_dir / find_reader(TASKS[task].dataset).folder

    def get(self, task: str) -> Published:
        entry = self.folder / task
        with entry.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not entry.with_suffix(".pickle").exists():
                command = [sys.executable, __file__, task, str(self.root(task)), str(entry)]
                subprocess.run(command, check=True)
        found: Published = pickle.loads(entry.with_suffix(".pickle").read_bytes())
        signal = np.load(entry.with_suffix(".npy"), mmap_mode="r")
        return replace(found, windows=replace(found.windows, signal=signal))

    def windows(self, task: str) -> WindowSet:
        return self.get(task).windows


def read_into(entry: Path, root: Path, task: str) -> None:
    """Read a task's files, and write ``entry.npy`` and then ``entry.pickle``."""
    opened: list[str] = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
    windows = find_reader(TASKS[task].dataset).read(root, task)
    count = sum(Path(name).is_relative_to(root) for name in opened)
    peak_gb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    np.save(entry.with_suffix(".npy"), windows.signal)
    rest = Published(replace(windows, signal=windows.signal[:0]), peak_gb, count)
    entry.with_suffix(".pickle").write_bytes(pickle.dumps(rest))


if __name__ == "__main__":
    import published  # by the name under which the others load what this writes

    published.read_into(Path(sys.argv[3]), Path(sys.argv[2]), sys.argv[1])
