"""What other tools put into a study: trials of Optuna's book that none of our slots knows."""

from __future__ import annotations

import sqlalchemy as sa

from hpo.storage import reading
from hpo.storage.tables import slots

_THEIRS = sa.table("trials", sa.column("trial_id"), sa.column("study_id"))


def foreign_trials(engine: sa.Engine, study_id: int) -> int:
    """Return how many trials another tool put into a study: it ran, added or enqueued them.

    They count for nothing, and their numbers may be those of trials of ours.
    """
    counted = sa.select(sa.func.count()).select_from(_THEIRS).where(_THEIRS.c.study_id == study_id)
    # By the trials' own key: no index leads from a trial to its slot, and studies are large.
    ours = counted.join(slots, slots.c.trial_id == _THEIRS.c.trial_id).where(slots.c.study_id == study_id)
    query = sa.select(counted.scalar_subquery() - ours.scalar_subquery())
    with reading(engine) as connection:
        return int(connection.execute(query).scalar_one())
