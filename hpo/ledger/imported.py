"""Hand-made runs into the ledger: finished trials that nobody measured here, and configurations to try."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from optuna.trial import TrialState

from hpo.ledger import claims as rows
from hpo.ledger import optuna_rows
from hpo.storage import writing
from hpo.storage.tables import NO_FOLD, now_s, slots
from hpo.study import Configuration, Space


@dataclass(frozen=True)
class HandMade:
    """One run of a diary."""

    configuration: Configuration
    value: float | None
    """Validation loss on the task's yardstick; None: a configuration to try."""
    metrics: Mapping[str, float]
    source: str
    """File and line."""
    test: Mapping[str, float] = field(default_factory=dict)
    """Test figures of the row: kept as such, and evidence of nothing."""


@dataclass(frozen=True)
class TestFigures:
    """What a row says of the test split about a trial that is there already."""

    number: int
    source: str
    """File and line."""
    test: Mapping[str, float]


def import_runs(
    engine: sa.Engine,
    study_id: int,
    runs: Sequence[HandMade],
    space: Space,
    figures: Sequence[TestFigures] = (),
) -> None:
    """Add ``runs`` behind the last slot, in one transaction.

    Those with a value become finished trials of origin ``imported``, in Optuna's tables too; others become
    slots of origin ``known``, which wait for a worker. Test figures are kept as the study's attribute
    ``imported_test:<number>``: beside the trial, out of reach of whatever ranks trials. Of trials that were
    there already they are kept as ``imported_test:<number>:<source>``.
    """
    with writing(engine) as connection:
        rows.lock_study(connection, study_id)
        first = rows.next_slot(connection, study_id)
        for number, run in enumerate(runs, start=first):
            if run.value is None:
                rows.insert_slots(connection, study_id, {number: ("known", run.configuration)})
            else:
                _insert_finished(connection, study_id, number, run, space)
            if run.test:
                kept = {"source": run.source, "test": dict(run.test)}
                optuna_rows.write_study_attribute(connection, study_id, f"imported_test:{number}", kept)
        for one in figures:
            key = f"imported_test:{one.number}:{one.source}"
            kept = {"source": one.source, "test": dict(one.test)}
            optuna_rows.write_study_attribute(connection, study_id, key, kept)


def _insert_finished(
    connection: sa.Connection, study_id: int, number: int, run: HandMade, space: Space
) -> None:
    at = float(connection.execute(sa.select(now_s())).scalar_one())
    trial_id = optuna_rows.create_trial(connection, study_id, number, at)
    optuna_rows.write_params(connection, trial_id, run.configuration, space)
    assert run.value is not None
    optuna_rows.write_value(connection, trial_id, run.value)
    attributes = {
        "ratio": run.configuration.ratio,
        "origin": "imported",
        "end": "finished",
        "metrics": run.metrics,
        "source": run.source,
    }
    optuna_rows.write_attributes(connection, trial_id, attributes)
    optuna_rows.end_trial(connection, trial_id, TrialState.COMPLETE, at)
    connection.execute(
        sa.insert(slots).values(
            study_id=study_id,
            slot=number,
            state="done",
            origin="imported",
            config=run.configuration.to_json(),
            fold=NO_FOLD,
            trial_id=trial_id,
            attempt=0,
            faults=0,
            started_at=at,
            ended_at=at,
            end="finished",
            value=run.value,
            best_epoch=0,
            epochs=0,
            metrics=optuna_rows.plain(run.metrics),
            elapsed_s=0.0,
        )
    )
