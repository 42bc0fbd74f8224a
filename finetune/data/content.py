"""What is in the files of a data set, told by one hash, and remembered so that it is computed once.

The hash is of what a file holds, not of how it is packed: ``x.csv`` and ``x.csv.gz`` are the same data.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from finetune.errors import DataError

READ_BYTES = 1 << 20

Memo = dict[str, tuple[int, int, str]]
"""Absolute path -> (size, modification time in ns, sha256)."""


def content_hash(root: Path, paths: Sequence[Path], memo_path: Path) -> str:
    """Return one sha256 over the names (relative to ``root``) and contents of ``paths``.

    ``memo_path`` is a file of known hashes; a file whose size and modification time it knows is not read
    again. Processes that write it at the same time may lose each other's entries, never damage it.
    Raises :class:`DataError` for a file that cannot be read.
    """
    memo = _load_memo(memo_path)
    whole, fresh = hashlib.sha256(), False
    for path in paths:
        key = str(path.absolute())
        try:
            stat = path.stat()
            size, modified_ns, digest = memo.get(key, (-1, -1, ""))
            if (size, modified_ns) != (stat.st_size, stat.st_mtime_ns):
                digest, fresh = file_hash(path), True
                memo[key] = (stat.st_size, stat.st_mtime_ns, digest)
        except OSError as error:
            raise DataError(f"{path} cannot be read ({error.strerror})", "a readable file") from error
        name = path.relative_to(root).as_posix().removesuffix(".gz")
        whole.update(f"{name}\0{digest}\n".encode())
    if fresh:
        _save_memo(memo_path, memo)
    return whole.hexdigest()


def file_hash(path: Path) -> str:
    """Return the sha256 of the unpacked content; of the packed bytes when they cannot be unpacked.

    A broken archive is for its reader to report: only that one knows the column and the subject.
    """
    if path.suffix == ".gz":
        try:
            return _stream_hash(_unpacked(path))
        except (EOFError, gzip.BadGzipFile, zlib.error):
            pass  # hashed as it is, below
    return _stream_hash(_packed(path))


def _stream_hash(chunks: Iterator[bytes]) -> str:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()


def _packed(path: Path) -> Iterator[bytes]:
    with path.open("rb") as stream:
        yield from iter(lambda: stream.read(READ_BYTES), b"")


def _unpacked(path: Path) -> Iterator[bytes]:
    with gzip.open(path, "rb") as stream:
        yield from iter(lambda: stream.read(READ_BYTES), b"")


def _load_memo(memo_path: Path) -> Memo:
    try:
        stored = json.loads(memo_path.read_text())
        return {key: (int(size), int(modified), str(sha)) for key, (size, modified, sha) in stored.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}  # a memo only saves time: without it every file is read


def _save_memo(memo_path: Path, memo: Memo) -> None:
    memo_path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=memo_path.parent, prefix=f".{memo_path.name}-")
    with os.fdopen(handle, "w") as stream:
        json.dump(memo, stream)
    Path(temporary).replace(memo_path)
