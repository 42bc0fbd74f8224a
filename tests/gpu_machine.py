"""A machine with GPUs that are not there: nvidia-smi lists what it is told to."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest


def list_gpus(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: Sequence[str]) -> None:
    """Put an nvidia-smi before all others whose ``-L`` prints ``lines``, and forget what the shell chose."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n[ \"$1\" = -L ] && printf '%s\\n' {shlex.join(lines)}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
