"""Checksums of the files of one folder of the cache: what is not as it was written counts as not there.

A disk, a copy or a person may change a float or a label without a word, and every trial of a search would
then answer for other data than its hash says.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

SUMS = "sums.json"
READ_BYTES = 1 << 20


def seal(folder: Path) -> None:
    """Write the checksum of every file in ``folder`` beside them."""
    sums = {path.name: _checksum(path) for path in sorted(folder.iterdir()) if path.name != SUMS}
    (folder / SUMS).write_text(json.dumps(sums))


def is_sound(folder: Path) -> bool:
    """Return whether the folder holds just what :func:`seal` saw, byte for byte (about 1 s a GB)."""
    try:
        sums = json.loads((folder / SUMS).read_text())
        names = {path.name for path in folder.iterdir()} - {SUMS}
        return bool(sums) and sums == {name: _checksum(folder / name) for name in names}
    except (OSError, ValueError):
        return False


def _checksum(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as stream:
        while chunk := stream.read(READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()
