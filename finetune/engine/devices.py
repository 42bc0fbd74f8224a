"""Which device a call computes on."""

from __future__ import annotations

import gc
import logging
import os
import platform
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from finetune.errors import DeviceLostError, NoDeviceError
from finetune.spec import Precision

DETERMINISTIC = "HPO_DETERMINISTIC"
"""Environment variable: 1 for the same bits of every run on this kind of machine. It changes no study."""
_log = logging.getLogger(__name__)
_LOST = ("cuda error", "cublas_status", "cudnn_status", "cudnn error", "nccl error", "device-side assert")
_NO_MEMORY = ("out of memory", "can't allocate memory", "status_alloc_failed")


def open_device(name: str) -> torch.device:
    """Return the device: ``cpu``, ``cuda``, ``cuda:N`` or ``auto``. One thread on the CPU.

    Raises :class:`NoDeviceError` for a GPU that is not there, or that CUDA cannot open.
    """
    is_there = torch.cuda.is_available()
    if name == "auto":
        name = "cuda" if is_there else "cpu"
        if not is_there and has_gpu():
            _log.warning("trained on the CPU: there is a GPU, but not for torch (%s)", why_no_gpu())
    if name.startswith("cuda") and not is_there:
        raise NoDeviceError(
            f"device {name!r} is not there ({why_no_gpu()})", "a CUDA GPU", "use --device cpu"
        )
    if name.startswith("cuda:") and int(name.removeprefix("cuda:")) >= torch.cuda.device_count():
        there = f"cuda:0 to cuda:{torch.cuda.device_count() - 1}"
        raise NoDeviceError(f"device {name!r} is not there", there, "use --device cuda")
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("highest")
    return torch.device(name) if name == "cpu" else _opened(name)


def _opened(name: str) -> torch.device:
    """Return the GPU, with this process's context on it, as the current one: Triton launches there."""
    try:
        chosen = torch.device(name).index
        device = torch.device("cuda", torch.cuda.current_device() if chosen is None else chosen)
        torch.cuda.set_device(device)
        torch.cuda.synchronize(device)
    except RuntimeError as error:
        raise NoDeviceError(
            f"device {name!r} cannot be opened ({_first_line(error)})",
            "a GPU that works, has memory left and is not another process's alone",
            "look at what nvidia-smi says, or use another --device",
        ) from error
    return device


def has_gpu(dev: Path = Path("/dev")) -> bool:
    """Return whether NVIDIA's driver shows a GPU that this process was not told to leave alone."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip()
    is_there = any(dev.glob("nvidia[0-9]*")) or (dev / "dxg").exists()
    return is_there and chosen not in ("", "-1", "NoDevFiles")


def why_no_gpu() -> str:
    """Return in CUDA's words why torch has no GPU: built without, no driver, a driver that is too old."""
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    except (RuntimeError, AssertionError) as error:
        return _first_line(error)
    return "CUDA finds none"


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0].strip().rstrip(".")


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
    """Say so when a device without instructions for bf16 is to train in it: that is slower than fp32."""
    if precision == "bf16" and not has_bf16(device):
        _log.warning("bf16 on a %s without instructions for it is slower: use precision fp32", device.type)


def has_bf16(device: torch.device) -> bool:
    """Return whether a device has instructions for bf16; True where it cannot be told."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu" or platform.machine().lower() not in ("x86_64", "amd64"):
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
            raise DeviceLostError(f"the device failed: {_first_line(error)}") from error
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
