"""The process of the command line, as the operating system sees it."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

FAULTS = """
import ctypes, resource, sys
import numpy as np
from hpo.allocator import keep_freed_memory
ctypes.CDLL(None).mallopt(-3, 64 * 1024)  # each array by itself: unasked it hangs on where the heap ends
if sys.argv[1] == "kept":
    keep_freed_memory()
a = np.ones((150, 150))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(1000):
    b = (a + a) * (a + a) - a * a
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(memory: str) -> int:
    told = subprocess.run([sys.executable, "-c", FAULTS, memory], check=True, capture_output=True, text=True)
    return int(told.stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="a C library without mallopt")
def test_arrays_of_the_models_size_are_not_returned_to_the_system_one_by_one() -> None:
    assert page_faults("kept") < 1000 < 10_000 < page_faults("returned")
