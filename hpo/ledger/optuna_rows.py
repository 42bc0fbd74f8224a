"""Optuna's own rows, written on Optuna's own table metadata inside the ledger's transactions.

Everything here is what plain Optuna 5.0 would have stored: ``optuna.load_study`` and the dashboard read it.
Param values are in Optuna's internal representation (a category's index, numbers as they are).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages._rdb import models
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.dialects import postgresql, sqlite

from hpo.study import Configuration, Space

INTERMEDIATE_VALUES = 20
"""At most so many points of a trial's curve go to Optuna's table; all of them are in ``hpo_curve``."""
_LARGEST_SEED = 2**31 - 1

studies: sa.Table = models.StudyModel.__table__
trials: sa.Table = models.TrialModel.__table__
_directions: sa.Table = models.StudyDirectionModel.__table__
_study_attributes: sa.Table = models.StudyUserAttributeModel.__table__
_study_system_attributes: sa.Table = models.StudySystemAttributeModel.__table__
_attributes: sa.Table = models.TrialUserAttributeModel.__table__
_params: sa.Table = models.TrialParamModel.__table__
_values: sa.Table = models.TrialValueModel.__table__
_intermediate: sa.Table = models.TrialIntermediateValueModel.__table__
OF_STUDY: tuple[sa.Table, ...] = (_directions, _study_attributes, _study_system_attributes)
OF_TRIALS: tuple[sa.Table, ...] = (
    _params,
    _values,
    _intermediate,
    _attributes,
    models.TrialSystemAttributeModel.__table__,
    models.TrialHeartbeatModel.__table__,
)
_FINITE = models.TrialValueModel.TrialValueType.FINITE
_IntermediateType = models.TrialIntermediateValueModel.TrialIntermediateValueType


@cache
def upsert(dialect: str, table: sa.Table, key: tuple[str, ...]) -> postgresql.Insert | sqlite.Insert:
    """Return the INSERT into ``table`` that overwrites a row of the same ``key``."""
    written = [column.name for column in table.columns if not column.primary_key and column.name not in key]
    elements = [table.c[name] for name in key]
    insert = postgresql.insert if dialect == "postgresql" else sqlite.insert
    statement = insert(table).inline()  # nobody asks for the new row's id
    return statement.on_conflict_do_update(
        index_elements=elements, set_={name: statement.excluded[name] for name in written}
    )


def plain(value: Any) -> Any:
    """Return ``value`` as JSON that every reader takes: what is not finite becomes null."""
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return finite(value) if isinstance(value, float) else value


def finite(value: float | None) -> float | None:
    """Return ``value``, or None when it is not a finite number."""
    return float(value) if value is not None and math.isfinite(value) else None


def create_study(connection: sa.Connection, name: str, attributes: Mapping[str, Any]) -> int:
    """Insert a study to be minimised and return its id."""
    study_id: int = connection.execute(
        sa.insert(studies).values(study_name=name).returning(studies.c.study_id)
    ).scalar_one()
    connection.execute(
        sa.insert(_directions).values(study_id=study_id, objective=0, direction=StudyDirection.MINIMIZE)
    )
    rows = [{"study_id": study_id, **row} for row in attribute_rows(attributes)]
    connection.execute(sa.insert(_study_attributes), rows)
    return study_id


def delete_study(connection: sa.Connection, study_id: int) -> None:
    """Delete a study and all that hangs on it; the database's trigger deletes ours."""
    of_this = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    for table in OF_TRIALS:
        connection.execute(sa.delete(table).where(table.c.trial_id.in_(of_this)))
    for table in (trials, *OF_STUDY, studies):
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))


def write_study_attribute(connection: sa.Connection, study_id: int, key: str, value: Any) -> None:
    """Write one user attribute of a study, over what is there."""
    row = {"study_id": study_id, **attribute_rows({key: value})[0]}
    connection.execute(_upsert(connection, _study_attributes, "study_id", "key"), row)


def create_trial(connection: sa.Connection, study_id: int, number: int, at: float) -> int:
    """Insert a running trial and return its id.

    Ids must grow with the commits of a study, since Optuna's cached storage (the dashboard's) never looks
    below the last finished id again: the caller holds the lock of the study's row.
    """
    row = {"study_id": study_id, "number": number, "state": TrialState.RUNNING, "datetime_start": _utc(at)}
    trial_id: int = connection.execute(
        sa.insert(trials).values(row).returning(trials.c.trial_id)
    ).scalar_one()
    return trial_id


_BY_ID = trials.c.trial_id == sa.bindparam("id")
_RESTART = sa.update(trials).where(_BY_ID).values(state=TrialState.RUNNING, datetime_start=sa.bindparam("at"))
_WAIT = sa.update(trials).where(_BY_ID).values(state=TrialState.WAITING)
_END = (
    sa.update(trials)
    .where(_BY_ID)
    .values(state=sa.bindparam("new_state"), datetime_complete=sa.bindparam("at"))
)


def restart_trial(connection: sa.Connection, trial_id: int, at: float) -> None:
    """Set a waiting trial running again."""
    connection.execute(_RESTART, {"id": trial_id, "at": _utc(at)})


def let_wait(connection: sa.Connection, trial_id: int) -> None:
    """Set a trial waiting for its next attempt."""
    connection.execute(_WAIT, {"id": trial_id})


def end_trial(connection: sa.Connection, trial_id: int, state: TrialState, at: float) -> None:
    """Close a trial for good."""
    connection.execute(_END, {"id": trial_id, "new_state": state, "at": _utc(at)})


def write_value(connection: sa.Connection, trial_id: int, value: float) -> None:
    """Store the value of a trial."""
    row = {"trial_id": trial_id, "objective": 0, "value": value, "value_type": _FINITE}
    connection.execute(_upsert(connection, _values, "trial_id", "objective"), row)


def write_params(
    connection: sa.Connection, trial_id: int, configuration: Configuration, space: Space
) -> None:
    """Store lr, backbone_lr, loss, seed and choices, each with its distribution."""
    rows = [{"trial_id": trial_id, **row} for row in param_rows(configuration, space)]
    connection.execute(_upsert(connection, _params, "trial_id", "param_name"), rows)


def param_rows(configuration: Configuration, space: Space) -> list[dict[str, Any]]:
    """Return the params of a trial as their table has them, without the trial's id."""
    return [
        {
            "param_name": name,
            "param_value": distribution.to_internal_repr(value),
            "distribution_json": distribution_to_json(distribution),
        }
        for name, (distribution, value) in _distributed(configuration, space).items()
    ]


def _distributed(configuration: Configuration, space: Space) -> dict[str, tuple[BaseDistribution, Any]]:
    """Return each parameter's distribution and value; seeds of a confirmation lie beyond the tuning range."""
    seeds, seed = space.seed, configuration.seed
    last = seeds.high if seed <= seeds.high else _LARGEST_SEED
    return {
        "lr": (FloatDistribution(space.lr.low, space.lr.high, log=True), configuration.lr),
        "backbone_lr": (
            FloatDistribution(space.backbone_lr.low, space.backbone_lr.high, log=True),
            configuration.backbone_lr,
        ),
        "loss": (CategoricalDistribution(space.loss), configuration.loss),
        "seed": (IntDistribution(seeds.low, last), seed),
        **{
            name: (CategoricalDistribution(space.choices[name]), value)
            for name, value in configuration.choices.items()
        },
    }


def write_attributes(connection: sa.Connection, trial_id: int, attributes: Mapping[str, Any]) -> None:
    """Store user attributes of a trial; one of the same key is overwritten."""
    rows = [{"trial_id": trial_id, **row} for row in attribute_rows(attributes)]
    if rows:
        connection.execute(_upsert(connection, _attributes, "trial_id", "key"), rows)


def system_attributes(connection: sa.Connection, study_id: int) -> dict[str, Any]:
    """Return the system attributes of a study: where the dashboard keeps notes and figures."""
    table = _study_system_attributes
    query = sa.select(table.c.key, table.c.value_json).where(table.c.study_id == study_id)
    return {row.key: json.loads(row.value_json) for row in connection.execute(query)}


def system_attribute(connection: sa.Connection, study_id: int, key: str) -> Any:
    """Return one system attribute of a study; None when it is not there, or no JSON."""
    table = _study_system_attributes
    query = sa.select(table.c.value_json).where(table.c.study_id == study_id, table.c.key == key)
    with suppress(ValueError):
        return json.loads(connection.execute(query).scalar_one_or_none() or "null")
    return None


def write_system_attributes(connection: sa.Connection, study_id: int, attributes: Mapping[str, Any]) -> None:
    """Store system attributes of a study; one of the same key is overwritten."""
    rows = [{"study_id": study_id, **row} for row in attribute_rows(attributes)]
    if rows:
        connection.execute(_upsert(connection, _study_system_attributes, "study_id", "key"), rows)


def attribute_rows(attributes: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return attributes as their tables have them, without the id of whose they are."""
    return [{"key": key, "value_json": json.dumps(plain(value))} for key, value in attributes.items()]


def is_kept(epoch: int, epochs: int) -> bool:
    """Return whether this of at most ``epochs`` epochs is among those that go to Optuna's table.

    An even stride from the first epoch on, so that a trial pruned early has a point too.
    """
    return (epoch - 1) % math.ceil(epochs / INTERMEDIATE_VALUES) == 0


def write_intermediate(connection: sa.Connection, rows: Sequence[tuple[int, int, float]]) -> None:
    """Store (trial id, epoch, validation loss) for the epochs that are kept."""
    values = [
        {
            "trial_id": trial_id,
            "step": epoch,
            "intermediate_value": finite(loss),
            "intermediate_value_type": intermediate_type(loss),
        }
        for trial_id, epoch, loss in rows
    ]
    if values:
        connection.execute(_upsert(connection, _intermediate, "trial_id", "step"), values)


def intermediate_type(value: float) -> Any:
    """Return how Optuna marks that value of a curve: finite, not a number, or infinite."""
    if math.isnan(value):
        return _IntermediateType.NAN
    if math.isinf(value):
        return _IntermediateType.INF_POS if value > 0 else _IntermediateType.INF_NEG
    return _IntermediateType.FINITE


def drop_intermediate_after(connection: sa.Connection, trial_id: int, epoch: int) -> None:
    """Delete the points of an earlier attempt that went further than ``epoch``."""
    later = (_intermediate.c.trial_id == trial_id) & (_intermediate.c.step > epoch)
    connection.execute(sa.delete(_intermediate).where(later))


def _upsert(connection: sa.Connection, table: sa.Table, *key: str) -> sa.Insert:
    return upsert(connection.dialect.name, table, key)


def _utc(at: float) -> datetime:
    """Return naive UTC, as Optuna's RDB storage keeps times."""
    return datetime.fromtimestamp(at, UTC).replace(tzinfo=None)
