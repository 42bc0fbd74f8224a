"""Pickles from the internet, read without letting them call anything: NumPy arrays and plain containers only.

A pickle is a program: its GLOBAL opcodes name what it wants to call. Here each name is looked up in a short
table and in nothing else (Python documentation, "Restricting globals"), so a pickle that asks for
``os.system`` ends at that name, before any call. Old Python 2 pickles are read with latin-1 strings.
"""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy._core import multiarray, numeric

from finetune.errors import DataError
from finetune.file_kinds import why_unreadable


class RefusedPickleError(pickle.UnpicklingError):
    """A pickle asks for something that is neither an array nor a plain container."""


class _Call:
    """A function that a pickle may call but not change: BUILD opcodes find nothing to set on it."""

    __slots__ = ("_function",)
    _function: Callable[..., Any]

    def __init__(self, function: Callable[..., Any]) -> None:
        object.__setattr__(self, "_function", function)

    def __setattr__(self, name: str, value: object) -> None:
        raise RefusedPickleError(f"it wants to set {name}")

    def __call__(self, *arguments: Any) -> Any:
        return self._function(*arguments)


def _scalar(dtype: np.dtype[Any], *value: bytes) -> Any:
    if dtype.hasobject:  # the one kind of scalar that could carry anything
        raise RefusedPickleError("it holds a NumPy scalar of type object")
    return multiarray.scalar(dtype, *value)


def _latin1(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise RefusedPickleError(f"it wants the codec {encoding!r}")
    return text.encode("latin-1")


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("multiarray", "_reconstruct"): _Call(multiarray._reconstruct),
    ("multiarray", "scalar"): _Call(_scalar),
    ("numeric", "_frombuffer"): _Call(numeric._frombuffer),  # type: ignore[attr-defined]  # private
    ("collections", "OrderedDict"): OrderedDict,
    ("_codecs", "encode"): _Call(_latin1),  # bytes in a Python 3 pickle of protocol 2
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset, complex, bytes, bytearray)
    },
}
"""(module, name) -> what it stands for. ``numpy.core.`` and ``numpy._core.`` are left off the module."""


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        short = module.removeprefix("numpy.core.").removeprefix("numpy._core.")
        if (short, name) not in _ADMITTED:
            raise RefusedPickleError(f"it asks for {module}.{name}")
        return _ADMITTED[short, name]


def load_arrays(stream: IO[bytes]) -> Any:
    """Return what a pickle holds, of any protocol; raises :class:`RefusedPickleError` at a foreign name.

    Broken bytes raise whatever :mod:`pickle` raises on them.
    """
    return _ArrayUnpickler(stream, encoding="latin1").load()


def read_arrays(path: Path, mend: str) -> Any:
    """Return what the pickle at ``path`` holds; raises :class:`DataError` when it is broken or refused."""
    try:
        with path.open("rb") as stream:
            return load_arrays(stream)
    except RefusedPickleError as error:
        what = f"{path} was refused, and nothing in it was run: {error}"
        raise DataError(what, "NumPy arrays and plain containers only", mend) from error
    except Exception as error:  # pickle's documentation promises no list of what broken bytes raise
        reason = why_unreadable(path, error, "pickle")
        raise DataError(f"{path} cannot be read ({reason})", "a complete pickle", mend) from error
