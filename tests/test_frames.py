"""Tidy rows of what a database holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import sqlalchemy as sa
from ledger_play import configuration, make_study, outcome, report, take

from hpo.ledger.ledger import Ledger
from hpo.reading.frames import attempts_frame, curves_frame, trials_frame


def test_a_trial_of_each_state_is_one_row_with_all_that_is_known(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger)
    ledger.add_slots(study.study_id, 6, [("baseline", configuration(0))])
    ledger.finish(take(ledger, study, fold=3), outcome(1.5, metrics={"mae": 1.5, "r2": 0.2}))
    ledger.finish(take(ledger, study), outcome(2.5, end="pruned", metrics={"mae": 2.5}))
    ledger.finish(take(ledger, study), outcome(None, end="diverged", best_epoch=0, metrics={}))
    for _ in range(3):
        failing = take(ledger, study)
        ledger.fail(failing, "error", "boom")
    running = take(ledger, study)

    frame = trials_frame(engine, study.study_id).set_index("number")
    assert list(frame["state"]) == ["complete", "pruned", "pruned", "failed", "running", "waiting"]
    assert list(frame["end"]) == ["finished", "pruned", "diverged", "error", None, None]
    assert list(frame["origin"]) == ["baseline", *["search"] * 5]
    assert list(frame["attempts"]) == [1, 1, 1, 3, 1, 0]
    first = frame.loc[0]
    assert (first["lr"], first["backbone_lr"], first["loss"], first["seed"]) == (1e-3, 1e-4, "mse", 17)
    assert first["ratio"] == pytest.approx(10.0)
    assert (first["value"], first["fold"], first["best_epoch"], first["epochs"]) == (1.5, 3, 2, 3)
    assert (first["metric_mae"], first["metric_r2"], first["device"]) == (1.5, 0.2, "cpu")
    assert frame.loc[running.slot, "seed"] == 17 + running.slot
    assert frame.loc[5, ["lr", "seed", "value", "fold", "metric_mae"]].isna().all()
    assert np.isnan(frame.loc[2, "value"])


def test_a_study_without_slots_or_epochs_gives_empty_frames_with_all_columns(
    ledger: Ledger, engine: sa.Engine
) -> None:
    study = make_study(ledger)

    trials, curves = trials_frame(engine, study.study_id), curves_frame(engine, study.study_id)
    assert len(trials) == len(curves) == len(attempts_frame(engine, study.study_id)) == 0
    assert {"number", "state", "lr", "ratio", "value", "fold"} <= set(trials.columns)
    assert list(curves.columns) == ["number", "epoch", "train_loss", "validation_loss"]


def test_curves_come_by_trial_and_epoch_with_what_is_not_finite_missing(
    ledger: Ledger, engine: sa.Engine
) -> None:
    study = make_study(ledger, 2)
    first, second = take(ledger, study), take(ledger, study)
    report(ledger, second, 1, float("inf"))
    report(ledger, first, 1, 3.0)
    report(ledger, first, 2, 2.0)

    curves = curves_frame(engine, study.study_id)
    assert curves["number"].tolist() == [0, 0, 1]
    assert curves["epoch"].tolist() == [1, 2, 1]
    assert curves["train_loss"].tolist()[:2] == [6.0, 4.0]
    np.testing.assert_array_equal(curves["validation_loss"], [3.0, 2.0, np.nan])


def test_every_attempt_is_a_row_with_its_times_and_why_it_ended(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 1)
    ledger.give_back(take(ledger, study))
    ledger.fail(take(ledger, study), "out_of_memory", "8 GiB wanted")
    take(ledger, study)

    frame = attempts_frame(engine, study.study_id)
    assert frame["attempt"].tolist() == [1, 2, 3]
    assert frame["end"].tolist() == ["interrupted", "out_of_memory", None]
    assert frame["message"].tolist() == [None, "8 GiB wanted", None]
    assert (frame["ended_at"] >= frame["started_at"]).tolist() == [True, True, False]
    assert abs(frame["started_at"].iloc[0] - pd.Timestamp.now("UTC")) < pd.Timedelta("1min")
