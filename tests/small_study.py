"""A study on the analytic trainer, small enough to run in a second, and ways to look at what it left."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import analytic_trainer
import optuna
import sqlalchemy as sa
from empty_database import make_ready
from optuna.trial import FrozenTrial

from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Counts, StudyRow
from hpo.storage import open_engine
from hpo.storage.tables import attempts, curve, slots
from hpo.study import StudySpec
from hpo.worker import Settings, open_study, work
from hpo.worker.session import open_ledger

NAME = "small"


def small_spec(**parts: object) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": NAME,
            "task": "synthetic_rr",
            "backbone": {"name": "cmssl_tiny_ppg"},
            "recipe": {"epochs": 6},
            "space": {
                "lr": {"low": 1e-6, "high": 1e-1},
                "backbone_lr": {"low": 1e-7, "high": 1e-2},
                "loss": ["mse", "l1"],
            },
            "sampler": {"kind": "random"},
            "pruner": {"kind": "median", "warmup_epochs": 1, "startup_trials": 3},
            "baseline": {"name": "default", "lr": 1e-4, "backbone_lr": 1e-5, "loss": "mse"},
            "known": [{"name": "diary", "lr": 1e-4, "backbone_lr": 2e-5, "loss": "l1"}],
            **parts,
        }
    )


@dataclass(frozen=True)
class Place:
    """A database and a data folder of a test's own."""

    folder: Path
    database: str = ""
    """A URL; an SQLite file in the folder when it is empty."""

    @property
    def url(self) -> str:
        return self.database or f"sqlite:///{self.folder / 'hpo.db'}"

    def settings(self, **changes: Any) -> Settings:
        return Settings(
            **{
                "data_dir": self.folder,
                "cache_dir": self.folder / "cache",
                "device": "cpu",
                "poll_s": 0.05,
                "doorway": analytic_trainer.__name__,
                **changes,
            }
        )

    def behave(self, **behaviour: Any) -> None:
        """Tell the analytic trainer what to do; see there."""
        (self.folder / "behaviour.json").write_text(json.dumps(behaviour))

    def open(self, total: int, **parts: object) -> StudyRow:
        make_ready(self.url)
        return open_study(self.url, small_spec(**parts), self.settings(), total=total)

    def counts(self, below: int | None = None) -> Counts:
        with open_ledger(self.url) as ledger:
            return ledger.counts(ledger.study(NAME).study_id, below)

    def ledger(self) -> Ledger:
        """Return the ledger on an engine that stays open: SQLite only."""
        return Ledger(open_engine(self.url))

    def trials(self) -> list[FrozenTrial]:
        """Return what plain Optuna reads."""
        return optuna.load_study(study_name=NAME, storage=self.url).trials

    def ends_of_attempts(self, slot: int) -> list[str | None]:
        query = sa.select(attempts.c.end).where(attempts.c.slot == slot).order_by(attempts.c.attempt)
        return [row.end for row in self._rows(query)]

    def attempts_of(self, slot: int) -> list[sa.Row[Any]]:
        return self._rows(sa.select(attempts).where(attempts.c.slot == slot).order_by(attempts.c.attempt))

    def epochs_of(self, slot: int) -> list[int]:
        query = sa.select(curve.c.epoch).where(curve.c.slot == slot).order_by(curve.c.epoch)
        return [row.epoch for row in self._rows(query)]

    def slots(self) -> list[sa.Row[Any]]:
        return self._rows(sa.select(slots).order_by(slots.c.slot))

    def _rows(self, query: sa.Select[Any]) -> list[sa.Row[Any]]:
        engine = open_engine(self.url)
        with engine.connect() as connection:
            rows = list(connection.execute(query).all())
        engine.dispose()
        return rows


def finished_study(folder: Path, total: int = 12, *, below: int | None = None, **parts: object) -> Place:
    """Return a database with one study, its first ``below`` trials (None: all) finished."""
    place = Place(folder)
    place.open(total, **parts)
    work(place.url, [NAME], below=total if below is None else below, settings=place.settings())
    return place
