"""The file of an SQLite database: whether it is there, may be written, and how SQLite is to open it.

A file that may only be read (its mode, its folder's, a read-only mount) can be looked at all the same: SQLite
would make the log's index beside it, so it is told that there is nothing to wait for (``immutable``) where no
log is there, and to take the index of who writes where one is.
"""

from __future__ import annotations

import os
from pathlib import Path

from hpo.errors import Said, StorageError
from hpo.storage.mounts import refuse_network_folder

_LONGEST_NAME = 255 - len("-journal")
"""Bytes of a name on the usual file systems, with what SQLite makes of it."""


def check_file(file: Path, *, create: bool) -> None:
    """Raise :class:`StorageError` for a file that cannot be the database; ``create``: or be made one."""
    if "\0" in str(file) or max(map(len, map(os.fsencode, file.parts))) > _LONGEST_NAME:
        raise StorageError(
            "the name of the database is none that a file can have", "a shorter name, in letters"
        )
    if not file.parent.is_dir():
        raise StorageError(
            Said("the folder {parent!r} does not exist", parent=str(file.parent)),
            "an existing folder for the database",
            Said("type: mkdir -p {parent}", parent=file.parent),
        )
    if not create and not file.exists():
        raise StorageError(
            Said("there is no database {file!r}", file=str(file)),
            "the database of a search",
            "type: hpo run NAME to begin one, or name another with --storage",
        )
    refuse_network_folder(file.parent)
    if create:
        refuse_read_only(file)


def way_in(file: Path) -> str:
    """Return how SQLite is to open a file that is there."""
    if not is_read_only(file):
        return "mode=rw"
    log, index = _beside(file)
    if not log.exists() or not log.stat().st_size:
        return "mode=ro&immutable=1"
    if not index.exists():
        what = Said(
            "the database {file!r} has a log that was not closed, and can only be read here", file=str(file)
        )
        raise StorageError(what, _WRITABLE, Said("type: cp {file}* FOLDER   (and name the copy)", file=file))
    return "mode=ro"


_WRITABLE = "a file and a folder that can be written"


def is_read_only(file: Path) -> bool:
    """Return whether this process may look at a database, but not write to it."""
    if not file.exists():
        return False
    beside = _beside(file)
    can_log = os.access(file.parent, os.W_OK) or all(os.access(one, os.W_OK) for one in beside)
    return not (os.access(file, os.W_OK) and can_log)


def refuse_read_only(file: Path) -> None:
    """Raise :class:`StorageError` for a database that this process may only look at."""
    if is_read_only(file):
        what = Said("the database {file!r} can only be read here", file=str(file))
        raise StorageError(what, _WRITABLE, "hpo status and hpo report read it")


def _beside(file: Path) -> tuple[Path, Path]:
    """Return SQLite's log and the index of it, which lie beside the file while it is in use."""
    return file.with_name(f"{file.name}-wal"), file.with_name(f"{file.name}-shm")
