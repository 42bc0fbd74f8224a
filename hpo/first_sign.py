"""The first sign of life of a command, while Python loads what it needs.

A process promises one; whatever speaks to a person calls :func:`given`, and what is said soon is sign enough.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

SOON_S = 0.5
"""Loading takes longer: NumPy, SQLAlchemy and pandas take a second on a busy machine, PyTorch several."""
_timers: list[threading.Timer] = []


def promise(tell: Callable[[], None]) -> None:
    """Call ``tell`` soon, by a thread, unless a sign is given before."""
    timer = threading.Timer(SOON_S, tell)
    timer.daemon = True
    timer.start()
    _timers.append(timer)


def given() -> None:
    """Take back the promise: something is being said, or nothing more will be."""
    while _timers:
        _timers.pop().cancel()
