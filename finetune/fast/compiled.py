"""Loops over arrays as machine code: numba compiles a function when it is first called.

That takes about a second; the machine code is kept beside the function's file or in the user's cache, so a
machine does it once. This module costs the import of numba and belongs to CPUs: whoever may train on a GPU
imports it where it is needed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

Kernel = Callable[..., Any]

FAST = {"reassoc", "contract", "nsz", "arcp"}
"""Sums may be reordered, as SIMD needs; infinities and NaNs keep their meaning."""


def compiled(function: Kernel) -> Kernel:
    """Compile at the first call; keep the machine code where there is a folder to write to."""
    try:
        return numba.njit(cache=True, fastmath=FAST, error_model="numpy")(function)
    except RuntimeError:  # numba found no such folder
        return numba.njit(fastmath=FAST, error_model="numpy")(function)
