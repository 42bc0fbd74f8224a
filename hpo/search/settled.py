"""Whether a search may end before its budget: the best ratio is known as closely as was asked for.

The budget's ``known_within`` asks; the answer is that of the report. A worker looks when a trial of its own
has ended and a multiple of ``EVERY`` have: so workers do not all look at once, and a look that two trials
ending together miss comes with the next ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.study import StudySpec

EVERY = 5
"""Trials between two looks: an answer costs about 0.6 CPU seconds at 100 trials (docs/answer.md)."""


@dataclass(frozen=True)
class Settled:
    """A search ended early: its best ratio is known within ``factor`` after so many ``trials``."""

    factor: float
    trials: int
    dropped: int
    """Slots of the budget that are not run."""


class Settler:
    """Ends one study's search when its best ratio is known closely enough."""

    def __init__(self, spec: StudySpec, study: StudyRow, engine: sa.Engine) -> None:
        self._spec = spec
        self._study = study
        self._engine = engine

    def settle(self, ledger: Ledger) -> Settled | None:
        """Take the slots that are left out of the budget if the ratio is known; None while it is not."""
        within = self._spec.budget.known_within
        if within is None or self._study.kind != "search":
            return None
        counts = ledger.counts(self._study.study_id)
        ended = counts.finished + counts.failed
        if ended % EVERY or not self._is_known_within(within):
            return None
        dropped = ledger.drop_free_slots(self._study.study_id)
        return Settled(within, ended, dropped)

    def _is_known_within(self, factor: float) -> bool:
        from hpo.analysis import answer  # with SciPy and pandas, which most workers do not need
        from hpo.reading.frames import curves_frame, trials_frame

        trials = trials_frame(self._engine, self._study.study_id)
        curves = curves_frame(self._engine, self._study.study_id)
        trivial = float(self._study.data["trivial"]["validation_loss"])
        spec = self._spec
        found = answer(trials, curves, spec.space, spec.baseline, trivial, spec.worth)
        return found.curve is not None and found.curve.is_known_within(factor)
