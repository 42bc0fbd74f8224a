"""Which file system a folder is on: SQLite's write-ahead log needs memory that all its processes share."""

from __future__ import annotations

import re
from pathlib import Path

from hpo.errors import Said, StorageError

_NETWORK = re.compile(
    r"^(nfs\d?|cifs|smb\w*|9p|afs|ceph|lustre|glusterfs|gpfs|beegfs|davfs|ncpfs|fuse\.\w+)$"
)
_LOCAL_FUSE = {"fuse.fuse-overlayfs", "fuse.lxcfs"}
MOUNTS = Path("/proc/mounts")


def refuse_network_folder(folder: Path, mounts: Path = MOUNTS) -> None:
    """Raise :class:`StorageError` when ``folder`` is on a network file system.

    ``mounts`` is the kernel's table (device, mount point, type, ...); where there is none, all is accepted.
    """
    kind = file_system(folder, mounts)
    if _NETWORK.match(kind) and kind not in _LOCAL_FUSE:
        raise StorageError(
            Said(
                "{folder!r} is on a network file system ({kind}), where SQLite loses data",
                folder=str(folder),
                kind=kind,
            ),
            "a folder on a disk of this machine",
            "for several machines use PostgreSQL: --storage postgresql://user@host/database",
        )


def file_system(folder: Path, mounts: Path = MOUNTS) -> str:
    """Return the type of the file system that ``folder`` is on, or an empty text when it cannot be told."""
    try:
        lines = mounts.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    points = [line.split()[1:3] for line in lines if len(line.split()) >= 3]
    around = {str(folder.resolve()), *map(str, folder.resolve().parents)}
    found = [(_unescaped(point), kind) for point, kind in points if _unescaped(point) in around]
    # The longest mount point is the innermost; of two on the same point the later hides the earlier.
    return max(enumerate(found), key=lambda item: (len(item[1][0]), item[0]))[1][1] if found else ""


def _unescaped(point: str) -> str:
    return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), point)
