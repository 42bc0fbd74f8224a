"""What a database holds of a study, as tidy rows: one query a table, read only, free of Optuna."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import sqlalchemy as sa
from numpy.typing import NDArray

from hpo.ledger.values import COMPLETE, tried
from hpo.storage.tables import NO_FOLD, attempts, curve, slots

_WHOLE = ("seed", "fold", "best_epoch", "epochs")
"""Columns of whole numbers that may be missing."""
_TRIALS = sa.select(
    slots.c.slot.label("number"),
    slots.c.state,
    slots.c.origin,
    slots.c.config,
    slots.c.fold,
    slots.c.value,
    slots.c.end,
    slots.c.best_epoch,
    slots.c.epochs,
    slots.c.elapsed_s,
    slots.c.device,
    slots.c.worker_id.label("worker"),
    slots.c.attempt.label("attempts"),
    slots.c.metrics,
).order_by(slots.c.slot)
_STATES = {"free": "waiting", "running": "running", "failed": "failed"}


def trials_frame(engine: sa.Engine, study_id: int) -> pd.DataFrame:
    """Return one row a slot, by number.

    Columns: number, state (complete, pruned, failed, running, waiting), origin, lr, backbone_lr, ratio, loss,
    seed, one for each choice of the study (``layer_decay``; once a trial has begun), fold (missing on the
    reference split), value (best validation loss, of a pruned trial so far),
    end, best_epoch, epochs, elapsed_s, device, worker, attempts, and ``metric_<name>`` of the best epoch.
    What is not known (yet) is missing; lr and so on are, until a worker has begun the trial.
    """
    frame = _read(engine, _TRIALS.where(slots.c.study_id == study_id))
    configs = _expanded(frame.pop("config").map(tried))
    metrics = _expanded(frame.pop("metrics").map(_numbers))
    for place, (name, values) in enumerate(_configurations(configs).items(), start=3):
        frame.insert(place, str(name), values)
    frame["state"] = [_state(state, end) for state, end in zip(frame["state"], frame["end"], strict=True)]
    frame["fold"] = frame["fold"].where(frame["fold"] != NO_FOLD)
    frame[["value", "elapsed_s"]] = frame[["value", "elapsed_s"]].astype(float)
    frame[[*_WHOLE]] = frame[[*_WHOLE]].astype("Int64")
    return frame.join(metrics.add_prefix("metric_").astype(float))


def _configurations(configs: pd.DataFrame) -> pd.DataFrame:
    frame = configs.reindex(columns=["lr", "backbone_lr", "loss", "seed"])
    frame[["lr", "backbone_lr"]] = frame[["lr", "backbone_lr"]].astype(float)
    frame.insert(2, "ratio", frame["lr"] / frame["backbone_lr"])
    chosen = configs.get("choices", pd.Series(dtype=object)).dropna()
    for name in dict.fromkeys(name for choices in chosen for name in choices):
        values = [choices.get(name) for choices in chosen]  # as they are: null is a value of some keys
        frame[name] = pd.Series(values, index=chosen.index, dtype=object)
    return frame


def _read(engine: sa.Engine, query: sa.Select[Any]) -> pd.DataFrame:
    with engine.connect() as connection:
        rows = connection.execute(query).all()
    frame = pd.DataFrame.from_records(rows, columns=list(query.selected_columns.keys()))
    for name, kind in frame.dtypes.items():
        if isinstance(kind, pd.StringDtype):  # pandas 3 has texts of their own, where None becomes NaN
            frame[name] = frame[name].astype(object).where(frame[name].notna(), None)
    return frame


def _state(state: str, end: str | None) -> str:
    if state == "done":
        return "complete" if end in COMPLETE else "pruned"
    return _STATES.get(state, "waiting")  # a word of another program: nothing of ours


def _numbers(metrics: object) -> dict[str, float]:
    """Return the numbers of the metrics of a trial; whatever else stands there is none."""
    named = metrics.items() if isinstance(metrics, dict) else ()
    return {name: value for name, value in named if isinstance(value, int | float)}


def _expanded(column: pd.Series) -> pd.DataFrame:
    """Return a column of JSON objects (or None) as a frame with one column a key."""
    return pd.DataFrame([value or {} for value in column], index=column.index)


def curves_frame(engine: sa.Engine, study_id: int, numbers: Sequence[int] | None = None) -> pd.DataFrame:
    """Return one row an epoch, of all trials or some: number, epoch, train_loss, validation_loss (missing
    where not finite).
    """
    number = curve.c.slot.label("number")
    query = sa.select(number, curve.c.epoch, curve.c.train_loss, curve.c.validation_loss)
    mine = query.where(curve.c.study_id == study_id).order_by(curve.c.slot, curve.c.epoch)
    found = _numbers_of(engine, mine if numbers is None else mine.where(curve.c.slot.in_(numbers)))
    frame = pd.DataFrame(found, columns=["number", "epoch", "train_loss", "validation_loss"])
    return frame.astype({"number": int, "epoch": int})


def _numbers_of(engine: sa.Engine, query: sa.Select[Any]) -> NDArray[np.float64]:
    """Return the rows of a query of numbers (n, columns), straight from the driver: curves have many."""
    text = query.compile(engine, compile_kwargs={"literal_binds": True})
    with engine.connect() as connection, closing(connection.connection.cursor()) as cursor:
        cursor.execute(str(text))
        return np.array(cursor.fetchall(), dtype=np.float64).reshape(-1, len(query.selected_columns))


def attempts_frame(engine: sa.Engine, study_id: int) -> pd.DataFrame:
    """Return one row an attempt: number, attempt, worker, started_at and ended_at (UTC), end, message."""
    query = (
        sa.select(
            attempts.c.slot.label("number"),
            attempts.c.attempt,
            attempts.c.worker_id.label("worker"),
            attempts.c.started_at,
            attempts.c.ended_at,
            attempts.c.end,
            attempts.c.message,
        )
        .where(attempts.c.study_id == study_id)
        .order_by(attempts.c.slot, attempts.c.attempt)
    )
    frame = _read(engine, query)
    for name in ("started_at", "ended_at"):
        frame[name] = pd.to_datetime(frame[name].astype(float), unit="s", utc=True)
    return frame
