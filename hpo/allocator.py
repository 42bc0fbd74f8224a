"""The memory allocator of our processes."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_KEPT, _FROM_HEAP = 64 * 2**20, 4 * 2**20


def keep_freed_memory() -> None:
    """Have glibc keep freed memory for the next array (at most 64 MiB); elsewhere nothing is done.

    By default it gives arrays of the model's size (100 to 500 KB) back to the system one by one, and three
    quarters of the time of an operation on two of them are page faults (docs/search.md).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP)
