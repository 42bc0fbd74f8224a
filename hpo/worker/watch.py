"""Whose lease has run out because he is dead, and whose because he slept, was cut off, or has another clock.

A lease that ran out is no proof. A machine that wakes finds all its workers' leases over, and so does
everybody when a database comes back that nobody could write to; each holder renews a third of a lease later
at most. So a holder is taken for dead only when this process has seen his lease over, unchanged, for half a
lease of its own time, in which it was itself awake and the database could be written to.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from hpo.ledger.values import Lease

PATIENCE = 0.5
"""Share of a lease that a holder gets after it ran out: more than the third after which he renews it."""


class Watch:
    """What one process has seen of leases that ran out. Safe from several threads."""

    def __init__(self, unbroken_s: float, now: Callable[[], float] = time.monotonic) -> None:
        """Looks that are further apart than ``unbroken_s`` are no watch: it begins anew."""
        self._unbroken_s = unbroken_s
        self._now = now
        self._since: dict[Lease, float] = {}
        self._looked_at = -unbroken_s
        self._lock = threading.Lock()

    def dead(self, expired: Sequence[Lease]) -> list[Lease]:
        """Return those of the leases that ran out whose holders have had time enough to renew them."""
        with self._lock:
            at = self._now()
            is_unbroken = at - self._looked_at <= self._unbroken_s
            before = self._since if is_unbroken else {}
            self._since = {lease: before.get(lease, at) for lease in expired}
            self._looked_at = at
            return [lease for lease, since in self._since.items() if at - since >= PATIENCE * lease.length_s]
