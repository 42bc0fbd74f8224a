"""Frozen choices and what they scored on the test split, in the database.

A choice is written before its first run and never changed; its scores are written once, all together.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from hpo.ledger.choice import FrozenChoice
from hpo.ledger.optuna_rows import plain
from hpo.storage import writing
from hpo.storage.tables import choices, now_s, scores


@dataclass(frozen=True)
class Score:
    """One run on the test split."""

    arm: int
    """Place of the arm in the frozen choice."""
    seed: int
    metrics: Mapping[str, float]
    predictions: NDArray[np.float32] = field(repr=False)
    """(N, outputs): label units, or probabilities."""


@dataclass(frozen=True)
class Scores:
    """All runs of a choice on the same test windows."""

    labels: NDArray[np.float64] = field(repr=False)
    """(N, outputs) in label units; (N, 1) class index for classes."""
    groups: NDArray[np.str_] = field(repr=False)
    """(N,) independent unit of each window."""
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class StoredChoice:
    """A frozen choice as the database holds it."""

    choice: FrozenChoice
    frozen_at: float
    scored_at: float | None
    """None: the test split has not been scored for it."""


class ChoiceBook:
    """The choices of one database. Every method is one transaction and safe to repeat."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def freeze(self, study_id: int, choice: FrozenChoice, request: str) -> StoredChoice:
        """Store a choice unless ``request`` has one already; return the one that is stored.

        ``request`` names what was asked for: the same question always gets the choice of its first time.
        """
        known = self.find(study_id, request)
        if known is not None:
            return known
        row = {"study_id": study_id, "choice_hash": choice.choice_hash, "request": request}
        mine = (choices.c.study_id == study_id) & (choices.c.choice_hash == choice.choice_hash)
        with writing(self._engine) as connection:
            if connection.execute(sa.select(choices.c.request).where(mine)).first() is None:
                values = {**row, "choice": plain(choice.to_json()), "frozen_at": now_s()}
                connection.execute(sa.insert(choices).values(values))
        return next(stored for stored in self.all(study_id) if stored.choice == choice)

    def find(self, study_id: int, request: str) -> StoredChoice | None:
        """Return the choice that was frozen for ``request``."""
        rows = self._read((choices.c.study_id == study_id) & (choices.c.request == request))
        return rows[0] if rows else None

    def all(self, study_id: int) -> list[StoredChoice]:
        """Return every choice of a study, oldest first."""
        return self._read(choices.c.study_id == study_id)

    def _read(self, chosen: sa.ColumnElement[bool]) -> list[StoredChoice]:
        columns = (choices.c.choice, choices.c.frozen_at, choices.c.scored_at)
        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(*columns).where(chosen).order_by(choices.c.frozen_at)).all()
        return [StoredChoice(FrozenChoice.from_json(row[0]), row[1], row[2]) for row in rows]

    def store_scores(self, study_id: int, choice_hash: str, found: Scores) -> None:
        """Store what a choice scored, all of it or nothing; scores that are there already stay."""
        this = (choices.c.study_id == study_id) & (choices.c.choice_hash == choice_hash)
        labels = _packed(labels=found.labels, groups=found.groups)
        key = {"study_id": study_id, "choice_hash": choice_hash}
        rows = [
            {
                **key,
                "arm": score.arm,
                "seed": score.seed,
                "metrics": plain(score.metrics),
                "predictions": _packed(predictions=score.predictions),
            }
            for score in found.scores
        ]
        with writing(self._engine) as connection:
            free = sa.update(choices).where(this, choices.c.scored_at.is_(None))
            if connection.execute(free.values(scored_at=now_s(), labels=labels)).rowcount == 1:
                connection.execute(sa.insert(scores), rows)

    def scores(self, study_id: int, choice_hash: str) -> Scores:
        """Return what a choice scored; KeyError when it has not been scored."""
        this = (choices.c.study_id == study_id) & (choices.c.choice_hash == choice_hash)
        mine = (scores.c.study_id == study_id) & (scores.c.choice_hash == choice_hash)
        query = sa.select(scores.c.arm, scores.c.seed, scores.c.metrics, scores.c.predictions).where(mine)
        with self._engine.connect() as connection:
            packed = connection.execute(sa.select(choices.c.labels).where(this)).scalar_one_or_none()
            rows = connection.execute(query.order_by(scores.c.arm, scores.c.seed)).all()
        if packed is None:
            raise KeyError(choice_hash)
        common = _unpacked(packed)
        return Scores(common["labels"], common["groups"], tuple(map(_score_of, rows)))


def _score_of(row: sa.Row[int, int, dict[str, float], bytes]) -> Score:
    metrics = {name: np.nan if value is None else value for name, value in row.metrics.items()}
    return Score(row.arm, row.seed, metrics, _unpacked(row.predictions)["predictions"])


def _packed(**arrays: NDArray[Any]) -> bytes:
    """Return arrays as the bytes of a compressed ``.npz``: readable by anybody with NumPy."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def _unpacked(blob: bytes) -> dict[str, NDArray[Any]]:
    with np.load(io.BytesIO(blob), allow_pickle=False) as stored:
        return dict(stored)
