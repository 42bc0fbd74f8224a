"""A GPU of its own for each worker that was started by itself, such as a container: one lock file a seat.

``docker compose up --scale worker=4`` shows all GPUs to all four; without a word from the others each would
take the first.
"""

from __future__ import annotations

import fcntl
import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hpo.fleet.machine import visible_gpus


@contextmanager
def own_device(device: str, folder: Path) -> Iterator[str]:
    """Give the device for one worker: of several GPUs that ``auto`` or ``cuda`` allow, the least taken.

    A seat is a lock on a file in ``folder``, which the workers of the machine share (the cache). It is free
    again when the block ends or the process dies, however it dies.
    """
    gpus = visible_gpus() if device in {"auto", "cuda"} else []
    if len(gpus) < 2:
        yield device
        return
    folder.mkdir(parents=True, exist_ok=True)
    for round_, (place, gpu) in itertools.product(range(1000), enumerate(gpus)):
        seat = _sit_down(folder / f"{gpu.replace('/', '_')}.{round_}.seat")
        if seat is not None:
            try:
                yield f"cuda:{place}"
            finally:
                os.close(seat)
            return
    raise RuntimeError(f"{len(gpus)} GPUs have 1000 workers each")


def _sit_down(file: Path) -> int | None:
    """Return the open, locked file; None when another process has it."""
    seat = os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(seat, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(seat)
        return None
    return seat
