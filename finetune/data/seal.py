"""The seal on the test split: while a search works in a process, nothing in that process can read it.

A worker puts the seal on before it takes its first run and takes it off after its last; a confirmation scores
after its workers have ended. The state is the process's, not a thread's: what a search starts is sealed too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from finetune.errors import SealedError


class Seal:
    """A seal that is on while at least one holder wants it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._holders = 0

    @contextmanager
    def on(self) -> Iterator[None]:
        """Seal the test split for the length of a block; blocks may lie in one another."""
        with self._lock:
            self._holders += 1
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1

    def refuse(self) -> None:
        """Raise :class:`SealedError` while the seal is on."""
        if self._holders:
            raise SealedError("the test split is sealed while a search works in this process")


_SEAL = Seal()


def sealed_test_split() -> AbstractContextManager[None]:
    """Seal the test split of this process for the length of a block."""
    return _SEAL.on()


def refuse_when_sealed() -> None:
    """Raise :class:`SealedError` while a search works in this process."""
    _SEAL.refuse()
