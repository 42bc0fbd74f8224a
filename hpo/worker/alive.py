"""A file that shows to whoever looks after the machine (Kubernetes' probes) that this process still lives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hpo.errors import Said, UsageError

EVERY_S = 10.0


@contextmanager
def showing_alive(file: Path | None, every_s: float = EVERY_S) -> Iterator[None]:
    """Touch ``file`` now and every few seconds from a thread of its own, and delete it at the end.

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
    done = threading.Event()
    thread = threading.Thread(target=_touch, args=(file, every_s, done), name="alive", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=1.0)
        with suppress(OSError):
            file.unlink(missing_ok=True)


def _touch(file: Path, every_s: float, done: threading.Event) -> None:
    while not done.wait(every_s):
        with suppress(OSError):  # a full disk: the next time
            file.touch()
