"""Which device a call computes on."""

from __future__ import annotations

import gc
import logging
import os
import platform
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from finetune.errors import DeviceLostError, SettingError
from finetune.spec import Precision

DETERMINISTIC = "HPO_DETERMINISTIC"
"""Environment variable: 1 for the same bits of every run on this kind of machine. It changes no study."""
_log = logging.getLogger(__name__)
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
    device = torch.device(name)
    if device.type == "cuda":
        device = torch.device("cuda", torch.cuda.current_device() if device.index is None else device.index)
        torch.cuda.set_device(device)  # Triton launches on the current device, not on that of its tensors
    return device


@contextmanager
def reproducible() -> Iterator[None]:
    """Take only algorithms of torch that give the same bits again inside, if that was asked for.

    An operation that has none raises there. Where it was not asked for, nothing is changed.
    """
    if os.environ.get(DETERMINISTIC, "").lower() not in ("1", "true", "yes", "on"):
        yield
        return
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when a process first uses cuBLAS
    before = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic  # a module that sets its class: torch leaves it untyped
    fills, picks = memory.fill_uninitialized_memory, torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False  # else a launch for each empty tensor
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
        memory.fill_uninitialized_memory = fills
        torch.backends.cudnn.benchmark = picks


def warn_of_slow_precision(precision: Precision, device: torch.device) -> None:
    """Say so when a processor without instructions for bf16 is to train in it: about 5 times slower."""
    if precision == "bf16" and device.type == "cpu" and not has_bf16():
        _log.warning(
            "bf16 on a processor without instructions for it is slower than fp32: use precision fp32"
        )


def has_bf16() -> bool:
    """Return whether this processor has instructions for bf16; True where it cannot be told."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


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
