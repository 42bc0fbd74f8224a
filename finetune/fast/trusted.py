"""Whether a GPU's Triton kernels are trusted: tried once a process beside torch's operations, which remain.

No GPU was at hand where they were written, and a machine may lack what Triton needs besides itself: a C
compiler, Python's headers, an assembler that its driver understands.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable

import torch

SWITCH = "HPO_TRITON"
"""Environment variable: 0 for torch's own operations in place of our Triton kernels."""
CLOSE = 1e-4
"""How far, over the largest value, kernels may be from torch's operations."""
_log = logging.getLogger(__name__)


def is_wanted() -> bool:
    """Return whether Triton's kernels may be used at all."""
    return os.environ.get(SWITCH) != "0"


def is_close(what: str, error_of: Callable[[], float]) -> bool:
    """Return whether ``error_of``, which runs kernels, returns :data:`CLOSE` at most; tells when not.

    Raises RuntimeError, which says how to do without them, where they broke the device: every later call of
    this process would fail.
    """
    try:
        error = error_of()
    except torch.AcceleratorError as fault:
        raise RuntimeError(f"CUDA error in Triton's {what} ({SWITCH}=0 does without): {fault}") from fault
    except Exception as fault:  # Triton promises no list of what a compiler or a driver raises
        told = " ".join(str(fault).split())[:200]
        _log.warning("Triton's %s failed here: torch's own operations instead (%s)", what, told)
        return False
    if not error <= CLOSE:
        _log.warning("Triton's %s is %.1e off here: torch's own operations instead", what, error)
    return error <= CLOSE
