"""Optuna's storage with a reader of trials that does not go through the object mapper.

Optuna 5.0 loads a study of 10,000 trials by way of one mapped object a row. Reading the same rows as tuples
gives equal trials for a fraction of the time, which is what a first view of the dashboard waits for.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Container, Iterable
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState

_trials: sa.Table = models.TrialModel.__table__
_params: sa.Table = models.TrialParamModel.__table__
_values: sa.Table = models.TrialValueModel.__table__
_points: sa.Table = models.TrialIntermediateValueModel.__table__
_user_attributes: sa.Table = models.TrialUserAttributeModel.__table__
_system_attributes: sa.Table = models.TrialSystemAttributeModel.__table__
_to_value = models.TrialValueModel.stored_repr_to_value
_to_point = models.TrialIntermediateValueModel.stored_repr_to_intermediate_value

_Rows = dict[int, list[tuple[Any, ...]]]


class QuickStorage(RDBStorage):
    """An :class:`optuna.storages.RDBStorage` that reads trials in six plain queries."""

    def _get_trials(
        self,
        study_id: int,
        states: Container[TrialState] | None,
        included_trial_ids: set[int],
        trial_id_greater_than: int,
    ) -> list[FrozenTrial]:
        """Return the trials above that id, and those of the given ids, by id.

        States are read before all else: what a finished trial has was committed before or with its state.
        """
        is_asked = _trials.c.trial_id > trial_id_greater_than
        if included_trial_ids:
            is_asked |= _trials.c.trial_id.in_(included_trial_ids)
        if states is not None:
            assert isinstance(states, Iterable)
            is_asked &= _trials.c.state.in_(list(states))
        with self.engine.connect() as connection:
            _find_study(connection, study_id)
            return _read_trials(connection, (_trials.c.study_id == study_id) & is_asked)


def _find_study(connection: sa.Connection, study_id: int) -> None:
    ids = models.StudyModel.__table__.c.study_id
    if connection.execute(sa.select(ids).where(ids == study_id)).first() is None:
        raise KeyError(models.NOT_FOUND_MSG)


def _read_trials(connection: sa.Connection, is_asked: sa.ColumnElement[bool]) -> list[FrozenTrial]:
    query = sa.select(
        _trials.c.trial_id,
        _trials.c.number,
        _trials.c.state,
        _trials.c.datetime_start,
        _trials.c.datetime_complete,
    ).where(is_asked)
    trials = connection.execute(query.order_by(_trials.c.trial_id)).all()
    if not trials:
        return []
    values = _of_trials(
        connection,
        is_asked,
        _values.c.objective,
        _values.c.value,
        _values.c.value_type,
        by=_values.c.objective,
    )
    params = _of_trials(
        connection,
        is_asked,
        _params.c.param_name,
        _params.c.param_value,
        _params.c.distribution_json,
        by=_params.c.param_id,
    )
    points = _of_trials(
        connection, is_asked, _points.c.step, _points.c.intermediate_value, _points.c.intermediate_value_type
    )
    user, system = (
        _of_trials(connection, is_asked, table.c.key, table.c.value_json)
        for table in (_user_attributes, _system_attributes)
    )
    return [
        FrozenTrial(
            number=number,
            state=state,
            value=None,
            values=[_to_value(value, kind) for _, value, kind in values[id_]] or None,
            datetime_start=start,
            datetime_complete=complete,
            params={name: _distribution(text).to_external_repr(value) for name, value, text in params[id_]},
            distributions={name: _distribution(text) for name, _, text in params[id_]},
            user_attrs={key: json.loads(text) for key, text in user[id_]},
            system_attrs={key: json.loads(text) for key, text in system[id_]},
            intermediate_values={step: _to_point(value, kind) for step, value, kind in points[id_]},
            trial_id=id_,
        )
        for id_, number, state, start, complete in trials
    ]


def _of_trials(
    connection: sa.Connection,
    is_asked: sa.ColumnElement[bool],
    *columns: sa.Column[Any],
    by: sa.Column[Any] | None = None,
) -> _Rows:
    """Return the rows of one table that belong to the trials, by trial id."""
    table = columns[0].table
    query = sa.select(table.c.trial_id, *columns).join_from(
        table, _trials, _trials.c.trial_id == table.c.trial_id
    )
    rows: _Rows = defaultdict(list)
    for id_, *row in connection.execute(query.where(is_asked).order_by(*([] if by is None else [by]))):
        rows[id_].append(tuple(row))
    return rows


@lru_cache(maxsize=1024)
def _distribution(text: str) -> BaseDistribution:
    """Return the distribution; one object for all trials that have it, which nobody changes."""
    return json_to_distribution(text)
