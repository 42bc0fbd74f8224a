"""Which device a call computes on."""

from __future__ import annotations

import torch

from finetune.errors import SettingError


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
