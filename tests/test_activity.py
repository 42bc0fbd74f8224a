"""Who works on what, and how fast."""

from __future__ import annotations

import time

import numpy as np
import pytest
import sqlalchemy as sa
from ledger_play import make_study, outcome, report, take, worker

from hpo.ledger.ledger import Ledger
from hpo.reading.activity import FailedSlot, activities, failed_slots, throughput
from hpo.storage import writing
from hpo.storage.tables import now_s, workers


def test_workers_show_what_they_run_and_their_last_sign_of_life(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 2)
    busy, gone, old = worker(ledger), worker(ledger), worker(ledger)
    claims = [ledger.claim(study.study_id, busy, lease_s=60) for _ in range(2)]
    for epoch in (1, 2):
        assert claims[1] is not None
        report(ledger, claims[1], epoch, 1.0)
    ledger.worker_gone(gone)
    with writing(engine) as connection:
        an_hour_ago = sa.update(workers).where(workers.c.worker_id == old).values(last_seen=now_s() - 3600)
        connection.execute(an_hour_ago)

    found = activities(engine)
    lately = activities(engine, within_s=60)
    assert {(row.worker, row.state, row.study, row.number, row.epoch) for row in lately} == {
        (busy, "here", "study", 0, 0),
        (busy, "here", "study", 1, 2),
        (gone, "gone", None, None, None),
    }
    assert found[-1].worker == old
    assert found[-1].silent_s == pytest.approx(3600, abs=60)


def test_throughput_is_of_what_ended_lately(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 4)
    assert np.isnan(throughput(engine, study.study_id).remaining_s)
    for _ in range(2):
        ledger.finish(take(ledger, study), outcome(epochs=10))

    found = throughput(engine, study.study_id, window_s=1.0)
    assert found.epochs_per_hour == pytest.approx(10 * found.trials_per_hour)
    assert found.trials_per_hour == pytest.approx(2 * 3600)
    assert found.remaining_s == pytest.approx(1.0)


def test_a_study_that_lies_still_gets_no_slower(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 4)
    ledger.finish(take(ledger, study), outcome(epochs=10))
    before = throughput(engine, study.study_id, window_s=1.0)
    time.sleep(1.1)

    assert throughput(engine, study.study_id, window_s=1.0) == before
    take(ledger, study)
    assert throughput(engine, study.study_id, window_s=1.0).trials_per_hour == 0


def test_a_slot_that_failed_for_good_shows_its_last_traceback(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 2)
    for message in ("first", "second", "Traceback\nRuntimeError: boom"):
        ledger.fail(take(ledger, study), "error", message)
    ledger.fail(take(ledger, study), "out_of_memory", "once")

    assert failed_slots(engine, study.study_id) == [
        FailedSlot(0, 3, "worker", "error", "Traceback\nRuntimeError: boom")
    ]
