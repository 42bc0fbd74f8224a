"""What a worker does beside its work, every few seconds; and the file that shows that its process lives."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpo.errors import Said, UsageError

EVERY_S = 10.0


@contextmanager
def repeating(call: Callable[[], float | None], first_s: float, name: str) -> Iterator[None]:
    """Call ``call`` from a thread of its own while the block runs, first after ``first_s`` seconds.

    It returns the seconds until the next time, or None for never again.
    """
    done = threading.Event()

    def repeat() -> None:
        pause_s: float | None = first_s
        while pause_s is not None and not done.wait(pause_s):
            pause_s = call()

    thread = threading.Thread(target=repeat, name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=1.0)


@contextmanager
def showing_alive(file: Path | None, every_s: float = EVERY_S) -> Iterator[None]:
    """Touch ``file``, for Kubernetes' probes, now and every few seconds, and delete it at the end.

    It says that the process runs and its threads take turns, not that an epoch gets on, which may take hours;
    nor does it hang on the database, for which a worker waits. Raises :class:`UsageError` for a file that
    cannot be made.
    """
    if file is None:
        yield
        return
    try:
        file.touch()
    except OSError as error:
        what = Said(
            "HPO_ALIVE is {file!r}, which cannot be made ({strerror})",
            file=str(file),
            strerror=error.strerror,
        )
        raise UsageError(what, "a file in a folder that can be written") from error

    def touch() -> float:
        with suppress(OSError):  # a full disk: the next time
            file.touch()
        return every_s

    try:
        with repeating(touch, every_s, "alive"):
            yield
    finally:
        with suppress(OSError):
            file.unlink()
