"""A study with its answer as one JSON object: the values, and the notes in English beside their keys."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpo.analysis.values import Answer
from hpo.reading.findings import Findings
from hpo.reading.standing import standing
from hpo.report.answer import note_words
from hpo.report.language import SPOKEN


def to_json(findings: Findings, url: str) -> dict[str, Any]:
    """Return the study as one JSON object; see docs/cli.md for its keys."""
    return {
        **standing(findings.row, findings.counts, url),
        "imported": findings.imported,
        "foreign_trials": findings.foreign,
        "trivial_name": findings.trivial_name,
        "published": [published.model_dump() for published in findings.spec.published],
        **_finite(answer_json(findings.answer)),
    }


def answer_json(answer: Answer) -> dict[str, Any]:
    """Return the answer's values with its notes as sentences."""
    return {**answer.to_json(), "notes": [note_words(note, SPOKEN["en"]) for note in answer.notes]}


def _finite(value: Any) -> Any:
    """Return ``value`` with None for what JSON has no number for."""
    if isinstance(value, Mapping):
        return {key: _finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
