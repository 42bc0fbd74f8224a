"""The findings of a study as far as a server may work them out while it serves."""

from __future__ import annotations

import sqlalchemy as sa

from hpo.analysis.values import Answer, Note, NoteKind
from hpo.ledger.ledger import Ledger
from hpo.reading.findings import Findings, find_out
from hpo.reading.foreign import foreign_trials
from hpo.reading.frames import trials_frame

MOST_TRIALS = 1000
"""The answer's model takes memory with the square of the trials and time with the cube: 6 GB at 10,000."""


def glance(engine: sa.Engine, study: str) -> Findings:
    """Return the findings of ``study``; above ``MOST_TRIALS`` trials a note instead of an answer.

    Raises :class:`hpo.errors.UnknownStudyError`.
    """
    ledger = Ledger(engine)
    row = ledger.study(study)
    spec = row.known_spec()
    counts = ledger.counts(row.study_id)
    if counts.finished <= MOST_TRIALS:
        return find_out(engine, study)
    trials = trials_frame(engine, row.study_id)
    trivial = float(row.data["trivial"]["validation_loss"])
    why = Note(NoteKind.TOO_MANY, MOST_TRIALS, name=study)
    states = {str(state): int(number) for state, number in trials["state"].value_counts().items()}
    bare = Answer(states, None, trivial, notes=(why,))
    foreign = foreign_trials(engine, row.study_id)
    return Findings(row, spec, counts, trials, trials.iloc[:0], bare, foreign)
