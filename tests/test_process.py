"""The process of the command line, as its memory allocator keeps books on it."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

# What glibc itself says it holds (mallinfo2): page faults and system calls are counted otherwise, or not at
# all, by other kernels. Both thresholds are set first: unasked, glibc moves them with what a process frees.
BOOKS = """
import ctypes, sys
from hpo.allocator import keep_freed_memory

libc = ctypes.CDLL(None)
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
libc.mallopt(M_TRIM_THRESHOLD, 128 * 1024)
libc.mallopt(M_MMAP_THRESHOLD, 128 * 1024)
if sys.argv[1] == "kept":
    keep_freed_memory()

class Mallinfo2(ctypes.Structure):
    NAMES = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    _fields_ = [(name, ctypes.c_size_t) for name in NAMES]

libc.mallinfo2.restype = Mallinfo2
libc.malloc.restype = ctypes.c_void_p
libc.free.argtypes = [ctypes.c_void_p]
held = lambda: (lambda info: info.arena + info.hblkhd)(libc.mallinfo2())

arrays = [libc.malloc(200_000) for _ in range(100)]
full = held()
for array in arrays:
    libc.free(array)
print(full - held())
"""


def bytes_given_back(memory: str) -> int:
    """Of 100 freed arrays of 200 kB each, how much went back to the system."""
    told = subprocess.run([sys.executable, "-c", BOOKS, memory], check=True, capture_output=True, text=True)
    return int(told.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="a C library without mallinfo2")
def test_arrays_of_the_models_size_are_not_returned_to_the_system_one_by_one() -> None:
    assert bytes_given_back("kept") == 0
    assert bytes_given_back("returned") > 19_000_000
