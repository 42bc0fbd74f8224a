"""The ledger: one suite for every kind of database."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import ledger_play as play
import numpy as np
import optuna
import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_play import configuration, make_study, outcome, point, report, spec_of, take, worker
from optuna.trial import TrialState

from hpo.errors import MismatchError, UnknownStudyError
from hpo.ledger.ends import FAULTS, LOST_LEASES
from hpo.ledger.ledger import Ledger
from hpo.ledger.on_postgresql import PostgresqlLedger
from hpo.ledger.peers import without_own
from hpo.ledger.values import Claim, Counts, Lease, Peers, StudyRow
from hpo.storage import open_engine, optuna_storage, parse_url, writing
from hpo.storage.tables import attempts, curve, slots


@pytest.fixture
def load_plain() -> Iterator[Callable[[str, str], optuna.Study]]:
    """Loads the study of that URL and name with plain Optuna."""
    storages = []

    def load(database: str, name: str) -> optuna.Study:
        storage = optuna.storages.RDBStorage(parse_url(database).render_as_string(hide_password=False))
        storages.append(storage)
        return optuna.load_study(study_name=name, storage=storage)

    yield load
    for storage in storages:
        storage.remove_session()
        storage.engine.dispose()


@pytest.fixture
def plain_optuna(load_plain: Any, database_url: str) -> Callable[..., optuna.Study]:
    """The studies of the database as plain Optuna loads them; call it with a name."""
    return lambda name="study": load_plain(database_url, name)


def rows_of(engine: sa.Engine, table: sa.Table) -> list[Any]:
    with engine.connect() as connection:
        return list(connection.execute(sa.select(table).order_by(*table.primary_key)).all())


# --- the budget


def test_eight_processes_on_an_empty_database_run_exactly_the_budget(empty_url: str, load_plain: Any) -> None:
    budget = 40
    with play.processes(8) as processes:
        done = list(processes.map(play.work_until_none, [empty_url] * 8, [budget] * 8))

    assert sorted(slot for slots_of_one in done for slot in slots_of_one) == list(range(budget))
    trials = load_plain(empty_url, "study").trials
    assert [trial.number for trial in trials] == list(range(budget))
    assert [trial._trial_id for trial in trials] == sorted(trial._trial_id for trial in trials)
    assert {trial.state for trial in trials} == {TrialState.COMPLETE}
    assert [trial.value for trial in trials] == [1.0 + number for number in range(budget)]


def test_slots_are_claimed_lowest_first_and_only_below_the_bound(ledger: Ledger) -> None:
    study = make_study(ledger, 3)

    claimed = [ledger.claim(study.study_id, "w", lease_s=60, below=2) for _ in range(3)]

    assert [None if claim is None else claim.slot for claim in claimed] == [0, 1, None]


def test_adding_slots_again_adds_only_what_is_missing(ledger: Ledger) -> None:
    study = make_study(ledger)
    fixed = [("baseline", configuration(0)), ("known", configuration(1))]
    ledger.add_slots(study.study_id, 2, fixed)
    first = take(ledger, study)
    ledger.add_slots(study.study_id, 4, fixed)
    ledger.add_slots(study.study_id, 1, fixed)

    later = [ledger.claim(study.study_id, "w", lease_s=60) for _ in range(4)]
    assert (first.slot, first.origin, first.configuration) == (0, "baseline", configuration(0))
    assert [(claim.slot, claim.origin) for claim in later if claim] == [
        (1, "known"),
        (2, "search"),
        (3, "search"),
    ]


def test_a_budget_of_many_slots_takes_no_memory_here(ledger: Ledger) -> None:
    study = make_study(ledger)
    fixed = [("baseline", configuration(0))]
    ledger.add_slots(study.study_id, 2, fixed)
    tracemalloc.start()
    try:
        ledger.add_slots(study.study_id, 30_000, fixed)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert ledger.counts(study.study_id).free == 30_000
    assert peak < 4e6


def test_appending_the_same_configurations_twice_adds_them_once(ledger: Ledger) -> None:
    study = make_study(ledger, 2)
    wanted = [("replicate", configuration(5)), ("replicate", configuration(6))]

    assert ledger.append_slots(study.study_id, wanted) == [2, 3]
    assert ledger.append_slots(study.study_id, [wanted[1], ("fixed", configuration(5))]) == [3, 4]
    assert ledger.counts(study.study_id).free == 5


def test_only_slots_that_nobody_has_begun_are_taken_back_and_can_be_added_again(ledger: Ledger) -> None:
    study = make_study(ledger, 5)
    done, running, given_back = (take(ledger, study) for _ in range(3))
    ledger.finish(done, outcome())
    ledger.give_back(given_back)

    assert ledger.drop_free_slots(study.study_id) == 2
    assert ledger.drop_free_slots(study.study_id) == 0

    again = ledger.claim(study.study_id, "w", lease_s=60)
    assert again is not None
    assert again.slot == given_back.slot
    assert ledger.claim(study.study_id, "w", lease_s=60) is None
    assert ledger.report([point(running, 1, 2.0)], lease_s=60) == [True]
    ledger.add_slots(study.study_id, 5)
    assert [take(ledger, study).slot for _ in range(2)] == [3, 4]


def test_a_study_that_is_not_open_gives_out_no_slot(ledger: Ledger) -> None:
    study = make_study(ledger, 1)
    ledger.set_state(study.study_id, "paused")
    assert ledger.claim(study.study_id, "w", lease_s=60) is None
    ledger.set_state(study.study_id, "open")

    assert ledger.claim(study.study_id, "w", lease_s=60) is not None


# --- leases and late workers


def test_many_reapers_free_each_dead_trial_once(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 10)
    held = [take(ledger, study, lease_s=0.01) for _ in range(10)]
    time.sleep(0.05)

    with ThreadPoolExecutor(8) as threads:
        reaped = [claim for found in threads.map(lambda _: ledger.reap(), range(8)) for claim in found]

    assert sorted(claim.slot for claim in reaped) == [claim.slot for claim in held]
    assert [(row.attempt, row.end) for row in rows_of(engine, attempts)] == [(1, "expired")] * 10
    assert ledger.counts(study.study_id).free == 10


def test_a_lease_that_is_renewed_is_not_reaped(ledger: Ledger) -> None:
    study = make_study(ledger, 2)
    name = worker(ledger)
    kept, dead = take(ledger, study, lease_s=0.2), take(ledger, study, lease_s=0.2)
    assert ledger.renew(name, [kept], lease_s=60) == [True]
    time.sleep(0.3)

    assert [claim.slot for claim in ledger.reap()] == [dead.slot]
    assert ledger.renew(name, [kept, dead], lease_s=60) == [True, False]


def test_a_lease_of_before_lengths_were_noted_is_a_minute_long(ledger: Ledger, engine: sa.Engine) -> None:
    take(ledger, make_study(ledger, 1), lease_s=-1.0)
    with writing(engine) as connection:
        connection.execute(sa.update(slots).values(lease_s=None))
    seen: list[Lease] = []

    ledger.reap(lambda expired: seen.extend(expired) or [])

    assert [lease.length_s for lease in seen] == [60.0]


def test_a_report_renews_the_lease(ledger: Ledger) -> None:
    study = make_study(ledger, 1)
    claim = take(ledger, study, lease_s=0.05)
    report(ledger, claim, 1, 3.0)
    time.sleep(0.1)

    assert ledger.reap() == []


def test_what_a_late_worker_writes_is_dropped(ledger: Ledger, engine: sa.Engine, plain_optuna: Any) -> None:
    study = make_study(ledger, 1)
    late = take(ledger, study, lease_s=0.01)
    time.sleep(0.05)
    ledger.reap()
    assert not ledger.finish(late, outcome(0.1))  # freed, and nobody has it yet
    holder = take(ledger, study)
    report(ledger, holder, 1, 5.0)
    before = rows_of(engine, slots), rows_of(engine, curve), rows_of(engine, attempts)

    assert not report(ledger, late, 1, 0.1)
    assert not ledger.finish(late, outcome(0.1))
    assert not ledger.give_back(late)
    assert not ledger.fail(late, "error", "late")
    assert ledger.renew("worker", [late], lease_s=60) == [False]
    assert ledger.begin(late, configuration(3), spec_of().space, {}) is None
    assert (rows_of(engine, slots), rows_of(engine, curve), rows_of(engine, attempts)) == before
    assert ledger.finish(holder, outcome(5.0))
    assert plain_optuna().trials[0].value == 5.0


def test_a_claim_that_a_crash_of_the_server_forgot_is_lost_although_its_attempt_is_another_workers(
    ledger: Ledger, engine: sa.Engine
) -> None:
    study = make_study(ledger, 1)
    forgotten = ledger.claim(study.study_id, "first", lease_s=60)
    assert forgotten is not None
    with engine.begin() as connection:  # a claim on PostgreSQL does not wait for the disk
        connection.execute(sa.delete(attempts))
        free = {"state": "free", "attempt": 0, "worker_id": None, "trial_id": None, "lease_until": None}
        connection.execute(sa.update(slots).values(free))
    holder = ledger.claim(study.study_id, "second", lease_s=60)
    assert holder is not None
    assert holder.attempt == forgotten.attempt

    assert ledger.begin(forgotten, configuration(3), spec_of().space, {}) is None
    assert not report(ledger, forgotten, 1, 0.1)
    assert not ledger.finish(forgotten, outcome(0.1))
    assert not ledger.give_back(forgotten)
    assert not ledger.fail(forgotten, "error", "late")
    assert ledger.renew("first", [forgotten], lease_s=60) == [False]
    begun = ledger.begin(holder, configuration(1), spec_of().space, {})
    assert begun is not None
    assert ledger.finish(begun, outcome(2.0))
    assert not ledger.finish(forgotten, outcome(2.0))


def test_each_end_may_be_written_again_after_a_lost_answer(ledger: Ledger) -> None:
    study = make_study(ledger, 3)
    done, given_back, failed = take(ledger, study), take(ledger, study), take(ledger, study)

    assert [ledger.finish(done, outcome()) for _ in range(2)] == [True, True]
    assert [ledger.give_back(given_back) for _ in range(2)] == [True, True]
    assert [ledger.fail(failed, "error", "boom") for _ in range(2)] == [True, True]
    assert ledger.counts(study.study_id) == Counts(1, 0, 0, 0, 2, 3)


def test_what_a_worker_held_that_was_seen_dead_is_freed_at_once(ledger: Ledger) -> None:
    study = make_study(ledger, 2)
    name = worker(ledger)
    assert ledger.claim(study.study_id, name, lease_s=600) is not None
    alive = ledger.claim(study.study_id, worker(ledger), lease_s=600)

    assert [claim.slot for claim in ledger.worker_died(name)] == [0]
    assert ledger.worker_died(name) == []
    assert alive is not None
    assert ledger.finish(alive, outcome())


# --- how attempts end


def test_a_slot_is_closed_as_failed_after_its_third_fault(
    ledger: Ledger, engine: sa.Engine, plain_optuna: Any
) -> None:
    study = make_study(ledger, 1)
    states = []
    for end in ("error", "out_of_memory"):
        ledger.fail(take(ledger, study), end, f"a {end}")
        states.append(plain_optuna().trials[0].state)
    last = take(ledger, study, holder="dead")
    assert not ledger.is_failed(last)
    assert ledger.worker_died("dead") == [last]

    trial = plain_optuna().trials[0]
    assert ledger.is_failed(last)
    assert ledger.claim(study.study_id, "w", lease_s=60) is None
    assert ledger.counts(study.study_id) == Counts(0, 0, 1, 0, 0, 0)
    assert states == [TrialState.WAITING, TrialState.WAITING]
    assert (trial.state, trial.user_attrs["end"]) == (TrialState.FAIL, "killed")
    assert [(row.attempt, row.end, row.message) for row in rows_of(engine, attempts)] == [
        (1, "error", "a error"),
        (2, "out_of_memory", "a out_of_memory"),
        (3, "killed", "its worker died"),
    ]


def test_a_lost_lease_is_no_fault_but_very_many_close_the_slot(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 1)
    for _ in range(LOST_LEASES - 1):
        take(ledger, study, lease_s=0.01)
        time.sleep(0.03)
        ledger.reap()
    assert ledger.counts(study.study_id) == Counts(0, 0, 0, 0, 1, 0)
    assert rows_of(engine, slots)[0].faults == 0

    last = take(ledger, study, lease_s=0.01)
    time.sleep(0.03)
    ledger.reap()

    assert ledger.is_failed(last)
    assert {row.end for row in rows_of(engine, attempts)} == {"expired"}


def lose(ledger: Ledger, claim: Claim) -> None:
    """Let a claim's lease run out."""
    ledger.renew(claim.worker_id, [claim], lease_s=0.001)
    time.sleep(0.015)  # the kernel's clock goes in steps of 0.01
    assert [freed.slot for freed in ledger.reap()] == [claim.slot]


def test_a_trial_that_goes_on_is_never_failed_however_often_its_machine_sleeps(ledger: Ledger) -> None:
    study = make_study(ledger, 1)
    for epoch in range(1, 4):
        for _ in range(LOST_LEASES - 1):
            lose(ledger, take(ledger, study))
        claim = take(ledger, study)
        assert report(ledger, claim, epoch, 1.0)
        lose(ledger, claim)
    assert ledger.counts(study.study_id) == Counts(0, 0, 0, 0, 1, 3)

    for _ in range(LOST_LEASES - 1):
        claim = take(ledger, study)
        report(ledger, claim, 2, 1.0)  # again: nothing new
        lose(ledger, claim)
    assert not ledger.is_failed(claim)
    lose(ledger, take(ledger, study))

    assert ledger.is_failed(claim), "it takes every worker with it, and gets no further"


def test_a_trial_that_goes_on_is_never_failed_however_often_its_worker_is_killed(
    ledger: Ledger, engine: sa.Engine
) -> None:
    study = make_study(ledger, 1)
    for epoch in range(1, 6):
        for _ in range(FAULTS - 1):
            ledger.worker_died(take(ledger, study).worker_id)
        claim = take(ledger, study)
        assert report(ledger, claim, epoch, 1.0)
        ledger.worker_died(claim.worker_id)
        assert rows_of(engine, slots)[0].faults == 0
    ledger.fail(take(ledger, study), "error", "boom")
    for _ in range(FAULTS - 2):
        ledger.worker_died(take(ledger, study).worker_id)
    assert not ledger.is_failed(claim)
    ledger.worker_died(take(ledger, study).worker_id)

    assert ledger.is_failed(claim)


def test_an_error_counts_whatever_epochs_went_before(ledger: Ledger) -> None:
    study = make_study(ledger, 1)
    for epoch in range(1, FAULTS + 1):
        claim = take(ledger, study)
        report(ledger, claim, epoch, 1.0)
        ledger.fail(claim, "error", "boom")

    assert ledger.is_failed(claim)


def test_only_a_lease_that_is_over_is_reaped_and_only_if_its_holder_is_taken_for_dead(ledger: Ledger) -> None:
    study = make_study(ledger, 2)
    over, lasting = take(ledger, study, lease_s=0.01), take(ledger, study, lease_s=5.0)
    time.sleep(0.05)
    asked: list[list[int]] = []

    def nobody(leases: list[Lease]) -> list[Lease]:
        asked.append([lease.slot for lease in leases])
        return []

    assert ledger.reap(nobody) == []
    assert asked == [[over.slot]]
    assert (ledger.counts(study.study_id).running, ledger.counts(study.study_id).silent) == (2, 1)
    assert [claim.slot for claim in ledger.reap()] == [over.slot]
    assert report(ledger, lasting, 1, 1.0)


def test_a_lease_that_was_renewed_after_it_was_judged_is_kept(ledger: Ledger) -> None:
    study = make_study(ledger, 1)
    slow = take(ledger, study, lease_s=0.01)
    time.sleep(0.05)
    judged: list[Lease] = []
    ledger.reap(lambda leases: judged.extend(leases) or [])
    assert ledger.renew("worker", [slow], lease_s=0.01) == [True]
    time.sleep(0.05)

    assert ledger.reap(lambda _: judged) == []
    assert [claim.slot for claim in ledger.reap()] == [slow.slot]


def test_a_lease_that_reaches_further_than_its_length_is_of_a_clock_that_was_set(
    ledger: Ledger, engine: sa.Engine
) -> None:
    study = make_study(ledger, 2)
    of_before, today = take(ledger, study), take(ledger, study)
    with engine.begin() as connection:
        far = sa.update(slots).where(slots.c.slot == of_before.slot)
        connection.execute(far.values(lease_until=slots.c.lease_until + 3600))

    assert [claim.slot for claim in ledger.reap()] == [of_before.slot]
    assert report(ledger, today, 1, 1.0)


@pytest.mark.postgres
def test_postgresqls_own_steps_write_what_the_plain_steps_write(ready_postgres_url: str) -> None:
    engine = open_engine(ready_postgres_url)
    tables = {}
    for kind, name in ((Ledger, "plain"), (PostgresqlLedger, "own")):
        study = play_all_steps(kind(engine), name)
        tables[name] = all_rows_of(engine, study.study_id)
    engine.dispose()

    assert tables["own"] == tables["plain"]


def play_all_steps(ledger: Ledger, name: str) -> StudyRow:
    """Make every kind of trial: complete, pruned, diverged, failed, given back, of several members, too
    late."""
    study = make_study(ledger, 8, name=name, recipe={"epochs": 30})
    done, pruned, diverged = (take(ledger, study, fold=fold) for fold in (None, 0, 1))
    for epoch in (1, 2, 3):
        ledger.report([point(one, epoch, 4.0 - epoch) for one in (done, pruned)], lease_s=60)
    report(ledger, diverged, 1, float("inf"))
    ledger.finish(done, outcome(1.0, metrics={"mae": 1.0, "r2": float("nan")}))
    ledger.finish(pruned, outcome(2.5, end="pruned"))
    ledger.finish(diverged, outcome(None, end="diverged", best_epoch=0, epochs=1, metrics={}))
    ledger.give_back(take(ledger, study))
    again = take(ledger, study)
    report(ledger, again, 2, 3.0)
    ledger.fail(again, "error", "boom")
    last = take(ledger, study)
    ledger.finish(last, outcome(0.5, epochs=1, best_epoch=1))
    ledger.finish(again, outcome(0.1))
    report(ledger, again, 9, 0.1)
    return study


def all_rows_of(engine: sa.Engine, study_id: int) -> dict[str, list[Any]]:
    """Return what all tables hold of a study's trials, without the numbers of rows and the times."""
    of_trials = [
        "trial_params",
        "trial_values",
        "trial_intermediate_values",
        "trial_user_attributes",
    ]
    queries = {
        table: f"SELECT * FROM {table} WHERE study_id = {study_id}"
        for table in ("trials", "hpo_slot", "hpo_attempt", "hpo_curve")
    }
    queries |= {
        table: f"SELECT number, {table}.* FROM {table} JOIN trials USING (trial_id) "
        f"WHERE study_id = {study_id}"
        for table in of_trials
    }
    changing = ("_id", "_at", "datetime", "lease_until")
    with engine.connect() as connection:
        return {
            table: sorted(
                repr({key: value for key, value in row.items() if not any(part in key for part in changing)})
                for row in connection.execute(sa.text(query)).mappings()
            )
            for table, query in queries.items()
        }


def test_giving_back_does_not_count_as_a_fault(ledger: Ledger, plain_optuna: Any) -> None:
    study = make_study(ledger, 1)
    first = take(ledger, study)
    ledger.give_back(first)
    assert plain_optuna().trials[0].state == TrialState.WAITING
    for _ in range(4):
        ledger.give_back(take(ledger, study))

    again = take(ledger, study)
    assert (again.slot, again.trial_id, again.attempt) == (0, first.trial_id, 6)
    assert again.configuration == first.configuration
    assert plain_optuna().trials[0].state == TrialState.RUNNING


def test_a_second_attempt_goes_on_with_the_curve_and_leaves_no_older_epochs(
    ledger: Ledger, plain_optuna: Any
) -> None:
    study = make_study(ledger, 1, recipe={"epochs": 20})
    first = take(ledger, study)
    for epoch, loss in enumerate([5.0, 4.0, 4.5, 9.0], start=1):
        report(ledger, first, epoch, loss)
    ledger.fail(first, "error", "boom")
    second = take(ledger, study)
    assert ledger.curve(second) == [5.0, 4.0, 4.5, 9.0]
    report(ledger, second, 3, 3.5)
    ledger.finish(second, outcome(3.5, epochs=3))

    assert ledger.curve(second) == [5.0, 4.0, 3.5]
    assert plain_optuna().trials[0].intermediate_values == {1: 5.0, 2: 4.0, 3: 3.5}


def test_a_complete_trial_needs_a_value(ledger: Ledger) -> None:
    study = make_study(ledger, 1)
    claim = take(ledger, study)

    with pytest.raises(ValueError, match="finite value"):
        ledger.finish(claim, outcome(float("nan")))
    assert ledger.counts(study.study_id).running == 1


def test_a_transaction_that_breaks_in_the_middle_leaves_nothing(
    ledger: Ledger, engine: sa.Engine, plain_optuna: Any
) -> None:
    study = make_study(ledger, 1)
    claim = take(ledger, study)

    def break_off(connection: Any, cursor: Any, statement: str, *_: Any) -> None:
        if "INSERT INTO trial_values" in statement:
            raise RuntimeError("power cut")

    sa.event.listen(engine, "before_cursor_execute", break_off)
    with pytest.raises(RuntimeError, match="power cut"):
        ledger.finish(claim, outcome())
    sa.event.remove(engine, "before_cursor_execute", break_off)

    assert ledger.counts(study.study_id) == Counts(0, 0, 0, 1, 0, 0)
    assert plain_optuna().trials[0].state == TrialState.RUNNING
    assert ledger.finish(claim, outcome())


# --- what Optuna sees


def test_plain_optuna_reads_all_of_a_trial(ledger: Ledger, plain_optuna: Any) -> None:
    study = make_study(ledger, 1)
    claim = take(ledger, study, fold=2)
    for epoch in (1, 2, 3):
        report(ledger, claim, epoch, 4.0 - epoch)
    ledger.finish(claim, outcome(1.0, metrics={"mae": 1.0, "r2": float("nan")}))

    loaded = plain_optuna()
    trial = loaded.best_trial
    assert loaded.direction == optuna.study.StudyDirection.MINIMIZE
    assert loaded.user_attrs["task"] == "bidmc_rr"
    assert trial.params == {"lr": 1e-3, "backbone_lr": 1e-4, "loss": "mse", "seed": 17}
    assert trial.distributions == {
        "lr": optuna.distributions.FloatDistribution(1e-5, 1e-2, log=True),
        "backbone_lr": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True),
        "loss": optuna.distributions.CategoricalDistribution(("mse", "l1", "smooth_l1")),
        "seed": optuna.distributions.IntDistribution(0, 9999),
    }
    assert trial.value == 1.0
    assert trial.user_attrs["ratio"] == pytest.approx(10.0)
    assert trial.user_attrs["metrics"] == {"mae": 1.0, "r2": None}
    assert {key: trial.user_attrs[key] for key in ("end", "best_epoch", "epochs", "fold", "device")} == {
        "end": "finished",
        "best_epoch": 2,
        "epochs": 3,
        "fold": 2,
        "device": "cpu",
    }
    assert trial.duration is not None
    assert trial.duration.total_seconds() >= 0


def test_pruned_trials_have_a_value_and_diverged_ones_none(ledger: Ledger, plain_optuna: Any) -> None:
    study = make_study(ledger, 2)
    ledger.finish(take(ledger, study), outcome(2.5, end="pruned"))
    claim = take(ledger, study)
    report(ledger, claim, 1, float("inf"))
    report(ledger, claim, 2, float("nan"))
    ledger.finish(claim, outcome(None, end="diverged", best_epoch=0, epochs=2, metrics={}))

    pruned, diverged = plain_optuna().trials
    assert (pruned.state, pruned.value) == (TrialState.PRUNED, 2.5)
    assert (diverged.state, diverged.value) == (TrialState.PRUNED, None)
    assert diverged.intermediate_values[1] == float("inf")
    assert ledger.counts(study.study_id) == Counts(0, 2, 0, 0, 0, 5)
    assert np.isnan(ledger.curve(claim)).all()


def test_optuna_gets_at_most_20_points_of_a_curve_and_the_ledger_all(
    ledger: Ledger, plain_optuna: Any
) -> None:
    study = make_study(ledger, 1, recipe={"epochs": 50})
    claim = take(ledger, study)
    for epoch in range(1, 51):
        report(ledger, claim, epoch, 100.0 - epoch)

    steps = list(plain_optuna().trials[0].intermediate_values)
    assert steps == list(range(1, 51, 3))
    assert len(ledger.curve(claim)) == 50


def test_optunas_own_tools_work_on_the_study(ledger: Ledger, plain_optuna: Any, database_url: str) -> None:
    study = make_study(ledger, 12)
    for slot in range(12):
        ledger.finish(
            take(ledger, study), outcome(float(slot % 5), end="pruned" if slot % 4 == 3 else "finished")
        )

    loaded = plain_optuna()
    frame = loaded.trials_dataframe()
    importances = optuna.importance.get_param_importances(loaded)
    cached = optuna.load_study(study_name="study", storage=optuna_storage(database_url))
    assert set(importances) == {"lr", "backbone_lr", "loss", "seed"}
    assert list(frame["number"]) == list(range(12))
    assert {"value", "params_lr", "params_backbone_lr", "user_attrs_ratio"} <= set(frame.columns)
    assert cached.trials == loaded.trials
    cached._storage._backend.engine.dispose()


def test_a_study_of_ours_is_to_be_minimised_as_one_of_optunas(
    ledger: Ledger, engine: sa.Engine, plain_optuna: Any
) -> None:
    ours = make_study(ledger).study_id
    theirs = optuna.create_study(study_name="theirs", storage=plain_optuna()._storage)._study_id

    with engine.connect() as connection:
        rows = connection.execute(sa.text("SELECT study_id, direction, objective FROM study_directions"))
        assert {tuple(row) for row in rows} == {(study, "MINIMIZE", 0) for study in (ours, theirs)}


def test_confirmation_seeds_lie_within_their_own_distribution(ledger: Ledger, plain_optuna: Any) -> None:
    study = make_study(ledger)
    seeds = (1_000_000, 1_000_001)
    ledger.append_slots(
        study.study_id, [("fixed", type(configuration())(1e-3, 1e-4, "mse", seed)) for seed in seeds]
    )
    for _ in seeds:
        ledger.finish(take(ledger, study), outcome())

    assert [trial.params["seed"] for trial in plain_optuna().trials] == list(seeds)


# --- pruning


def test_peers_are_the_best_so_far_of_the_other_trials_of_the_same_fold(ledger: Ledger) -> None:
    study = make_study(ledger, 8)
    curves = {0: [5.0, 6.0], 1: [4.0, 3.0], 2: [9.0, 1.0]}
    claims = [take(ledger, study, fold=0) for _ in curves]
    for claim, losses in zip(claims, curves.values(), strict=True):
        for epoch, loss in enumerate(losses, start=1):
            report(ledger, claim, epoch, loss)
    elsewhere, diverged = take(ledger, study, fold=1), take(ledger, study, fold=0)
    report(ledger, elsewhere, 2, 0.1)
    report(ledger, diverged, 2, float("nan"))

    assert ledger.peers_at(claims[0], 2) == Peers(2, 2.0)
    assert ledger.peers_at(claims[1], 2) == Peers(2, 3.0)
    assert ledger.peers_at(diverged, 2) == Peers(3, 3.0)
    for nobody in (ledger.peers_at(elsewhere, 2), ledger.peers_at(claims[0], 3)):
        assert nobody.count == 0
        assert np.isnan(nobody.median)


@settings(deadline=None)
@given(
    values=st.lists(st.sampled_from([1.0, 2.0, 3.0, 4.0, 5.5]), min_size=1, max_size=12),
    own=st.none() | st.integers(0, 11),
)
def test_the_median_of_the_others_follows_from_three_values_in_the_middle(
    values: list[float], own: int | None
) -> None:
    own = None if own is None or own >= len(values) else own
    ranked = sorted(enumerate(values), key=lambda item: item[1])
    start = max(0, (len(values) - 2) // 2)
    others = [value for slot, value in enumerate(values) if slot != own]

    found = without_own(
        len(values), None if own is None else values[own], -1 if own is None else own, ranked[start:][:3]
    )

    assert found.count == len(others)
    assert not others or found.median == np.median(others)


def test_one_report_stores_the_epochs_of_all_members(ledger: Ledger) -> None:
    study = make_study(ledger, 3)
    members = [take(ledger, study) for _ in range(3)]
    ledger.give_back(members[1])

    held = ledger.report([point(claim, 1, 2.0) for claim in members], lease_s=60)
    assert held == [True, False, True]
    assert [ledger.curve(claim) for claim in members] == [[2.0], [], [2.0]]
    assert ledger.report([], lease_s=60) == []


# --- studies


def test_a_study_is_made_once_and_found_again(ledger: Ledger) -> None:
    first = make_study(ledger)
    second = make_study(ledger)

    assert first == second
    assert ledger.study("study") == first
    assert (first.kind, first.state, first.spec["task"]) == ("search", "open", "bidmc_rr")
    assert abs(first.created_at - time.time()) < 60
    with pytest.raises(UnknownStudyError, match="study"):
        ledger.study("stduy")


def test_many_workers_may_make_the_same_study_at_once(ledger: Ledger) -> None:
    with ThreadPoolExecutor(5) as threads:
        for name in ("first", "second", "third"):
            made = list(threads.map(lambda name: make_study(ledger, 7, name=name), [name] * 5))
            assert len({study.study_id for study in made}) == 1
            assert ledger.counts(made[0].study_id).free == 7


def test_a_study_of_another_spec_data_or_version_is_refused_with_what_differs(ledger: Ledger) -> None:
    ledger.finish(take(ledger, make_study(ledger, 2)), outcome())  # without a finished trial it gives way

    def refused(spec: Any = None, **changes: Any) -> str:
        given: dict[str, Any] = {"kind": "search", "data": play.DATA, "versions": play.VERSIONS}
        with pytest.raises(MismatchError) as caught:
            ledger.create_study(spec or spec_of(), **(given | changes))
        return str(caught.value)

    assert "recipe.epochs: 7 here, 50 there" in refused(spec_of(recipe={"epochs": 7}))
    assert "data: d1 here, d0 there" in refused(data={"data_hash": "d1"})
    assert "torch: 2.14.0 here, 2.13.0 there" in refused(versions=play.VERSIONS | {"torch": "2.14.0"})
    assert "kind: confirm here, search there" in refused(kind="confirm")
    assert ledger.create_study(
        spec_of(title="another text"), kind="search", data=play.DATA, versions=play.VERSIONS
    )


def test_a_plain_study_of_the_same_name_is_left_alone(ledger: Ledger, plain_optuna: Any) -> None:
    make_study(ledger, name="ours")
    storage = plain_optuna("ours")._storage
    theirs = optuna.create_study(study_name="theirs", storage=storage)
    theirs.add_trial(optuna.trial.create_trial(value=1.0))

    with pytest.raises(MismatchError, match="not made here"):
        make_study(ledger, name="theirs")
    assert plain_optuna("theirs").trials[0].value == 1.0
    assert [study.name for study in ledger.studies()] == ["ours"]


def test_a_study_deleted_with_optuna_can_be_made_again(ledger: Ledger, plain_optuna: Any) -> None:
    study = make_study(ledger, 2)
    ledger.finish(take(ledger, study), outcome())
    storage = plain_optuna()._storage
    optuna.delete_study(study_name="study", storage=storage)

    again = make_study(ledger, 3)
    assert ledger.counts(again.study_id) == Counts(0, 0, 0, 0, 3, 0)
    assert len(ledger.studies()) == 1


def test_studies_come_by_priority_and_then_by_age(ledger: Ledger) -> None:
    made = {name: make_study(ledger, name=name) for name in ("old", "urgent", "new")}
    ledger.set_priority(made["urgent"].study_id, 5)

    assert [study.name for study in ledger.studies()] == ["urgent", "old", "new"]


def test_every_look_at_the_test_split_is_counted(ledger: Ledger) -> None:
    study = make_study(ledger)
    other = make_study(ledger, name="other")
    ledger.record_test_look(other.study_id, "a" * 64, "w", {})

    assert study.fingerprint == other.fingerprint  # the same question, whatever it is called
    assert ledger.record_test_look(study.study_id, "b" * 64, "w", {"arm": "winner"}) == 2
    assert ledger.record_test_look(study.study_id, "b" * 64, "w", {"arm": "baseline"}) == 2
    assert ledger.record_test_look(study.study_id, "c" * 64, "w", {"arm": "winner"}) == 3
    assert [look.what for look in ledger.test_looks(study.study_id)] == [
        {"arm": "winner"},
        {"arm": "baseline"},
        {"arm": "winner"},
    ]


def test_counts_are_of_the_slots_below_the_bound_and_epochs_of_running_trials_count(ledger: Ledger) -> None:
    study = make_study(ledger, 5)
    ledger.finish(take(ledger, study), outcome(epochs=3))
    ledger.finish(take(ledger, study), outcome(end="pruned", epochs=2))
    running = take(ledger, study)
    for epoch in range(1, 5):
        report(ledger, running, epoch, 1.0)

    assert ledger.counts(study.study_id) == Counts(1, 1, 0, 1, 2, 9)
    assert ledger.counts(study.study_id).finished == 2
    assert ledger.counts(study.study_id, below=1) == Counts(1, 0, 0, 0, 0, 3)
