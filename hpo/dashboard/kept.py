"""The answers that the dashboard has worked out, kept for its pages. Safe for threads."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

import sqlalchemy as sa

from hpo.confirm.confirmed import Confirmation, confirmation_of, newest_scored
from hpo.reading.findings import Findings
from hpo.report.confirmed import confirmation_lines
from hpo.report.language import Words


@dataclass(frozen=True)
class _Kept:
    findings: Findings
    number: int
    pictures: dict[tuple[str, str], bytes] = field(default_factory=dict)


class AnswerStore:
    """The latest findings of each study, and the figures made of them."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine
        self._kept: dict[str, _Kept] = {}
        self._confirmed: dict[str, tuple[tuple[str, float], Confirmation]] = {}
        self._lock = threading.Lock()
        self._number = 0

    def keep(self, findings: Findings) -> None:
        """Take a study's new findings; figures of the old ones are forgotten."""
        with self._lock:
            self._number += 1
            self._kept[findings.row.name] = _Kept(findings, self._number)

    def get(self, study: str) -> Findings | None:
        """Return a study's latest findings; None where none were worked out yet."""
        kept = self._kept.get(study)
        return kept.findings if kept else None

    def mark(self, study: str) -> int:
        """Return a number that changes with the study's answer: 0 while there is none."""
        kept = self._kept.get(study)
        return kept.number if kept else 0

    def forget_others(self, studies: set[str]) -> None:
        """Forget the studies that are no longer there."""
        with self._lock:
            for name in self._kept.keys() - studies:
                del self._kept[name]

    def picture(self, study: str, name: str, words: Words) -> bytes | None:
        """Return a figure (``ratio``, ``rates``, ...) of the latest answer as SVG; None without one."""
        from hpo.report.figures.all import draw_figure, render  # matplotlib: at the first figure only

        kept = self._kept.get(study)
        if kept is None:
            return None
        key = name, words.language
        if key not in kept.pictures:
            kept.pictures[key] = render(draw_figure(name, kept.findings, language=words.language), "svg")
        return kept.pictures[key]

    def confirmed(self, study: str, words: Words) -> list[str]:
        """Return what the study's newest confirmation says; nothing without one."""
        stored = newest_scored(self._engine, study)
        if stored is None:
            return []
        key = stored.choice.choice_hash, stored.scored_at or 0.0
        known = self._confirmed.get(study)
        if known is None or known[0] != key:  # its intervals are resampled: not at every look of a page
            known = self._confirmed[study] = key, confirmation_of(self._engine, stored)
        return confirmation_lines(known[1], words.language)
