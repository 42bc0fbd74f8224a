"""What other tools put into a study: trials of Optuna's book that none of our slots knows."""

from __future__ import annotations

from hpo.storage.glance import Database, rows

# By the trials' own key: no index leads from a trial to its slot, and studies are large.
_FOREIGN = """
SELECT (SELECT COUNT(*) FROM trials WHERE study_id = :study)
     - (SELECT COUNT(*) FROM trials JOIN hpo_slot ON hpo_slot.trial_id = trials.trial_id
        WHERE trials.study_id = :study AND hpo_slot.study_id = :study)
"""


def foreign_trials(database: Database, study_id: int) -> int:
    """Return how many trials another tool put into a study: it ran, added or enqueued them.

    They count for nothing, and their numbers may be those of trials of ours.
    """
    return int(rows(database, _FOREIGN, study=study_id)[0][0])
