"""The compiled loops of the CPU's encoder layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest
import scipy.special
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finetune.backbones.cmssl import TINY, CmsslEncoder
from finetune.fast import kernels
from finetune.fast.compiled import compiled
from finetune.random import Noise

R, P, H, D = 3, 5, 2, 4
"""Windows, patches, heads, depth of a head: small and odd, so that SIMD has a rest to take care of."""


def drawn(shape: tuple[int, ...], seed: int, kind: str = "float32") -> NDArray[Any]:
    values = torch.from_numpy(np.random.default_rng(seed).normal(size=shape).astype(np.float32))
    return values.bfloat16().view(torch.uint16).numpy() if kind == "bfloat16" else values.numpy()


def mask_of(shape: tuple[int, ...], drops: bool) -> kernels.Mask | None:
    if not drops:
        return None
    return (
        np.random.default_rng(9).integers(0, 256, shape).astype(np.uint8),
        np.uint8(77),
        np.float32(256 / 179),
    )


def empty(shape: tuple[int, ...], kind: str = "float32") -> NDArray[Any]:
    return np.zeros(shape, np.uint16 if kind == "bfloat16" else np.float32)


def arguments_of(name: str, kind: str, drops: bool) -> list[Any]:
    """Arguments of a kernel; those that it writes to are among them."""
    tokens, width = R * P, H * D
    plane, attention = (tokens, width), (R, H, P, P)
    weight = drawn((width,), 1)
    return {
        "gelu_dropout": [drawn(plane, 2, kind), weight, mask_of(plane, drops), empty(plane)],
        "gelu_dropout_backward": [drawn(plane, 3, kind), drawn(plane, 4), drawn((width,), 5)],
        "add_norm": [
            *(drawn(plane, 6), drawn(plane, 7, kind), drawn((width,), 15), weight, weight, 1e-5),
            *(mask_of(plane, drops), empty(plane), empty(plane), empty((tokens,))),
        ],
        "add_norm_backward": [
            *(drawn(plane, 8), drawn(plane, 9), drawn((tokens,), 10), weight, mask_of(plane, drops)),
            *(empty(plane), empty(plane, kind), empty((3, width))),
        ],
        "attend": [
            *(drawn((R, P, 3, H, D), 11, kind), drawn((3 * H * D,), 16), mask_of(attention, drops)),
            *(empty(attention), empty((R, P, H, D), kind)),
        ],
        "attend_backward": [
            *(drawn((R, P, H, D), 12, kind), drawn((R, P, 3, H, D), 13, kind), mask_of(attention, drops)),
            *(abs(drawn(attention, 14)), empty((R, P, 3, H, D), kind), empty((3, H, D))),
        ],
    }[name]  # fmt: skip


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
@pytest.mark.parametrize("drops", [True, False], ids=["dropout", "none"])
@pytest.mark.parametrize(
    "name",
    ["gelu_dropout", "gelu_dropout_backward", "add_norm", "add_norm_backward", "attend", "attend_backward"],
)
def test_compiled_it_computes_what_its_python_says(name: str, kind: str, drops: bool) -> None:
    kernel: Any = getattr(kernels, name)
    ours, theirs = arguments_of(name, kind, drops), arguments_of(name, kind, drops)

    kernel(*ours)
    kernel.py_func(*theirs)

    for one, other in zip(ours, theirs, strict=True):
        if isinstance(one, np.ndarray):
            close = 2**-7 if one.dtype == np.uint16 else 1e-5
            np.testing.assert_allclose(as_floats(one), as_floats(other), rtol=close, atol=1e-6)


def as_floats(values: NDArray[Any]) -> NDArray[np.float32]:
    return (values.astype(np.uint32) << 16).view(np.float32) if values.dtype == np.uint16 else values


@given(st.floats(width=32))
@settings(max_examples=300, deadline=None)
def test_bfloat16_is_rounded_as_torch_rounds(x: float) -> None:
    theirs = torch.tensor(x, dtype=torch.float32).bfloat16()

    for call in (kernels.bfloat16, kernels.bfloat16.py_func):
        bits = np.array([call(np.float32(x))], np.uint16)
        assert np.array_equal(as_floats(bits), theirs.float().numpy()[None], equal_nan=True)


@pytest.mark.parametrize("kind", ["compiled", "python"])
def test_the_exponential_and_the_normal_distribution_are_those_of_scipy(kind: str) -> None:
    def called(kernel: Any) -> Callable[..., Any]:
        return kernel if kind == "compiled" else kernel.py_func  # type: ignore[no-any-return]  # numba's own

    x = np.linspace(-12, 12, 4001, dtype=np.float32)
    negative = np.linspace(-80, 0, 4001, dtype=np.float32)
    exp = np.array([called(kernels.exp_of_negative)(value) for value in negative])
    bell = np.exp(-0.5 * x.astype(np.float64) ** 2).astype(np.float32)
    cdf = np.array([called(kernels.normal_cdf)(*pair) for pair in zip(x, bell, strict=True)])

    np.testing.assert_allclose(exp, np.exp(negative.astype(np.float64)), rtol=3e-7)
    np.testing.assert_allclose(cdf, scipy.special.ndtr(x.astype(np.float64)), atol=2e-7)


def test_a_window_that_is_not_finite_spoils_no_other() -> None:
    encoder = CmsslEncoder(TINY).initialise(torch.Generator().manual_seed(0))
    windows = torch.randn(4, 1250, generator=torch.Generator().manual_seed(1))
    windows[2, 300] = torch.nan
    windows[3, 400] = torch.inf

    for kind in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == torch.bfloat16):
            features = encoder(windows, Noise(0, 0))

        assert torch.isfinite(features).all(dim=1).tolist() == [True, True, False, False]
        assert features[2:].isnan().all()


def test_it_compiles_where_no_folder_can_keep_the_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    njit = numba.njit

    def without_folder(*, cache: bool = False, **options: Any) -> Any:
        if cache:
            raise RuntimeError("cannot cache function 'double': no locator available for file 'x.py'")
        return njit(**options)

    monkeypatch.setattr(numba, "njit", without_folder)

    assert compiled(lambda x: x + x)(2.0) == 4.0
