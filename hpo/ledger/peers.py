"""The pruning query: the median of the other trials at one epoch, from one index in one statement.

Reading 10,000 peers into Python takes 4 ms of CPU; here the database walks its index instead.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import sqlalchemy as sa

from hpo.ledger.values import Claim, Peers
from hpo.storage.tables import NO_FOLD

_HERE = "study_id = :study AND epoch = :epoch AND fold = :fold AND best_so_far IS NOT NULL"
_MIDDLE = sa.text(
    f"WITH everyone AS (SELECT count(*) AS n FROM hpo_curve WHERE {_HERE}) "
    "SELECT (SELECT n FROM everyone) AS n, "
    f"(SELECT best_so_far FROM hpo_curve WHERE {_HERE} AND slot = :slot) AS own, slot, best_so_far "
    f"FROM hpo_curve WHERE {_HERE} ORDER BY best_so_far LIMIT 3 "
    "OFFSET (SELECT CASE WHEN n > 2 THEN (n - 2) / 2 ELSE 0 END FROM everyone)"
).columns(sa.column("n"), sa.column("own"), sa.column("slot"), sa.column("best_so_far"))  # looked up once


def peers_of(connection: sa.Connection, claim: Claim, epoch: int) -> Peers:
    """Return how many other trials of the claim's fold got to ``epoch``, and their median best loss."""
    fold = NO_FOLD if claim.fold is None else claim.fold
    where = {"study": claim.study_id, "epoch": epoch, "fold": fold, "slot": claim.slot}
    rows = connection.execute(_MIDDLE, where).all()
    if not rows:
        return Peers(0, math.nan)
    middle = [(row.slot, row.best_so_far) for row in rows]
    return without_own(rows[0].n, rows[0].own, claim.slot, middle)


def without_own(n: int, own: float | None, slot: int, middle: Sequence[tuple[int, float]]) -> Peers:
    """Return the peers of ``slot``, given the middle of the sorted values of all, its own included.

    ``n`` values in all; ``own`` is that of ``slot``, or None when it is not among them; ``middle`` holds
    the three (slot, value) from position (n - 2) // 2 on, or as many as there are.
    """
    others = n - (own is not None)
    if others == 0:
        return Peers(0, math.nan)
    first = max(0, (n - 2) // 2)
    values = [value for other, value in middle if other != slot]
    if own is not None and len(values) == len(middle) and own <= values[0]:
        values = values[1:]  # own lies before the window: every other is one place further up
    low, high = values[(others - 1) // 2 - first], values[others // 2 - first]
    return Peers(others, (low + high) / 2)
