"""Which device a call computes on."""

from __future__ import annotations

import gc
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from finetune.errors import DeviceLostError, SettingError

_LOST = ("cuda error", "cublas_status", "cudnn_status", "cudnn error", "nccl error", "device-side assert")
_NO_MEMORY = ("out of memory", "can't allocate memory")


def open_device(name: str) -> torch.device:
    """Return the device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``. One thread on the CPU.

    Raises :class:`SettingError` for a GPU that is not there.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SettingError(f"device {name!r} is not there", "a CUDA GPU", "use --device cpu")
    if name.startswith("cuda:") and int(name.removeprefix("cuda:")) >= torch.cuda.device_count():
        there = f"cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        raise SettingError(f"device {name!r} is not there", there, "use --device cuda")
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    return torch.device(name)


def gpu_count() -> int:
    """Return how many GPUs torch can use here."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def is_out_of_memory(error: BaseException) -> bool:
    """Tell want of memory from other faults (torch: OutOfMemoryError on CUDA, RuntimeError on the CPU)."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in _NO_MEMORY)


def is_lost(error: BaseException) -> bool:
    """Return whether CUDA failed: every later call of this process would fail too (sticky errors)."""
    if is_out_of_memory(error) or not isinstance(error, RuntimeError):
        return False
    return isinstance(error, torch.AcceleratorError) or any(word in str(error).lower() for word in _LOST)


def release_memory() -> None:
    """Give back what nothing holds any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextmanager
def guarded() -> Iterator[None]:
    """Return the memory of what failed inside; turn a lost device into a :class:`DeviceLostError`.

    A traceback holds the local variables of every function on its way, and so a whole model.
    """
    try:
        yield
    except RuntimeError as error:
        _forget_variables(error)
        if is_lost(error):
            first = str(error).partition("\n")[0]
            raise DeviceLostError(f"the device failed: {first}") from error
        release_memory()
        raise
    except MemoryError as error:
        _forget_variables(error)
        release_memory()
        raise


def _forget_variables(error: BaseException | None) -> None:
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
