"""One clock for all processes of a machine: the kernel's, in seconds since 1970.

SQLite has no clock of its own; each process would ask its own, and what a process believes can be wrong:
tools that change the time for one process, a container whose clock was faked. Linux tells in two files when
it was started and for how long it has been up; nothing that is loaded into a process stands in between.
"""

from __future__ import annotations

import time
from pathlib import Path

from hpo.storage.mounts import file_system

UPTIME, STAT = Path("/proc/uptime"), Path("/proc/stat")
_READ_AGAIN_S = 5.0
"""So long a start time is taken to hold: it changes when somebody sets the clock, and costs a long read."""
_EARLIEST = 1e9
"""2001: a kernel that says it was started before that does not know (sandboxes)."""


class KernelClock:
    """Tells the time as the kernel has it; as the process has it where there is no such kernel."""

    def __init__(self, uptime: Path = UPTIME, stat: Path = STAT) -> None:
        self._uptime, self._stat = uptime, stat
        self._started_at: float | None = None
        self._read_at = -_READ_AGAIN_S
        # LXC shows each container an uptime of its own, through a file system of its own.
        self._is_shared = file_system(uptime) != "fuse.lxcfs"

    def __call__(self) -> float:
        """Return seconds since 1970."""
        try:
            up_s = float(self._uptime.read_text(encoding="ascii").split()[0]) if self._is_shared else 0.0
            started_at = self._boot_time(up_s)
        except (OSError, ValueError, IndexError):
            return time.time()
        return started_at + up_s if started_at > _EARLIEST else time.time()

    def _boot_time(self, up_s: float) -> float:
        if self._started_at is None or not 0 <= up_s - self._read_at < _READ_AGAIN_S:
            lines = self._stat.read_text(encoding="ascii").splitlines() if self._is_shared else []
            rows = {row[0]: row[1] for row in map(str.split, lines) if len(row) > 1}
            self._started_at = float(rows.get("btime", "0"))
            self._read_at = up_s
        return self._started_at


now = KernelClock()
