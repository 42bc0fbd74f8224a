"""Files and folders that only their owner may read: weights and predictions are somebody's, on any machine.

The mode is given when they are made, so that there is no moment in which others could open them.
"""

from __future__ import annotations

import os
from pathlib import Path

FILE, FOLDER = 0o600, 0o700


def make_folder(folder: Path) -> None:
    """Make ``folder``, and what is missing above it, for its owner alone; leave what is there as it is."""
    for missing in reversed([one for one in (folder, *folder.parents) if not one.exists()]):
        missing.mkdir(FOLDER, exist_ok=True)


def make_file(file: Path) -> Path:
    """Make ``file`` empty, readable by its owner alone, and return it: who then writes it keeps the mode."""
    os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, FILE))
    return file
