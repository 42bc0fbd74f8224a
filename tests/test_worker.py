"""The loop of one process: budgets, ends, failures, and what a trial leaves behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import analytic_trainer
import pytest
from optuna.trial import TrialState
from small_study import NAME, Place, small_spec

from finetune.api import DataError
from hpo.checkpoints import Checkpoints
from hpo.errors import MismatchError, UnknownStudyError
from hpo.study import Configuration
from hpo.worker import Event, WorkSummary, checkpoints_of, open_study, work
from hpo.worker.session import open_session
from hpo.worker.source import Source
from hpo.worker.stop import Stop


def run(
    place: Place, total: int, on_event: Callable[[Event], None] = lambda event: None, **settings: object
) -> WorkSummary:
    return work(place.url, [NAME], below=total, settings=place.settings(**settings), on_event=on_event)


def signal_later(seconds: float, number: signal.Signals) -> None:
    threading.Timer(seconds, os.kill, [os.getpid(), number]).start()


def test_a_budget_is_finished_exactly(place: Place) -> None:
    place.open(9)

    summary = run(place, 9)

    assert summary.ended == "no_work"
    assert sum(summary.ends.values()) == 9
    counts = place.counts()
    assert (counts.finished, counts.failed, counts.running, counts.free) == (9, 0, 0, 0)
    assert len(place.trials()) == 9


def test_the_same_command_again_does_nothing(place: Place) -> None:
    place.open(5)
    run(place, 5)
    before = place.trials()
    place.open(5)

    summary = run(place, 5)

    assert summary.ends == {}
    assert place.trials() == before


def test_a_larger_budget_continues(place: Place) -> None:
    place.open(4)
    run(place, 4)
    before = place.trials()
    place.open(7)
    run(place, 7)

    assert place.counts().finished == 7
    assert place.trials()[:4] == before


def test_the_baseline_and_the_known_configurations_come_first_and_are_complete(place: Place) -> None:
    bad = {"name": "bad", "lr": 1e-5, "backbone_lr": 1e-2, "loss": "mse"}
    place.open(12, known=[bad])
    run(place, 12)
    first, second = place.slots()[:2]

    assert (first.origin, second.origin) == ("baseline", "known")
    assert (first.config["lr"], first.config["backbone_lr"], first.config["loss"]) == (1e-4, 1e-5, "mse")
    assert (second.config["lr"], second.config["backbone_lr"]) == (1e-5, 1e-2)
    assert {first.end, second.end} <= {"finished", "patience"}


def test_a_trial_keeps_its_parameters_and_ratio_for_any_optuna_tool(place: Place) -> None:
    place.open(6)
    run(place, 6)

    for trial in place.trials():
        assert set(trial.params) == {"lr", "backbone_lr", "loss", "seed"}
        assert trial.user_attrs["ratio"] == pytest.approx(trial.params["lr"] / trial.params["backbone_lr"])
        assert trial.state in {TrialState.COMPLETE, TrialState.PRUNED}
        configuration = Configuration(**trial.params)
        expected = analytic_trainer.loss_at(small_spec().run_spec(configuration), 1)
        assert trial.intermediate_values[1] == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["median", "improvement"])
def test_bad_runs_are_pruned_and_the_search_goes_on(place: Place, kind: str) -> None:
    place.open(20, pruner={"kind": kind, "warmup_epochs": 1, "startup_trials": 3})
    summary = run(place, 20)

    assert summary.ends["pruned"] >= 3
    assert summary.ends["finished"] >= 3
    assert place.counts().pruned == summary.ends["pruned"] + summary.ends.get("diverged", 0)


def test_without_a_pruner_every_run_goes_on_to_its_end(place: Place) -> None:
    place.open(12, pruner={"kind": "none"})

    assert set(run(place, 12).ends) <= {"finished", "patience", "diverged"}


def test_divergence_is_a_result(place: Place) -> None:
    hot = {"name": "hot", "lr": 5e-2, "backbone_lr": 1e-5, "loss": "mse"}
    place.open(2, known=[hot])
    run(place, 2)

    assert place.ends_of_attempts(1) == ["diverged"]
    assert place.trials()[1].state is TrialState.PRUNED
    assert place.slots()[1].value is None, "the loss of its one finite epoch is no result"
    assert place.counts().finished == 2


@pytest.mark.parametrize("kind", ["memory", "cuda"])
def test_out_of_memory_is_tried_again(place: Place, kind: str) -> None:
    place.behave(faults={"1": [kind, 2]})
    place.open(4)
    run(place, 4)

    assert place.ends_of_attempts(1) == ["out_of_memory", "out_of_memory", "finished"]
    assert place.counts().finished == 4


def test_a_slot_that_fails_three_times_is_closed_and_told(place: Place) -> None:
    place.behave(faults={"1": ["error", 9]})
    place.open(4)
    events: list[Event] = []
    summary = run(place, 4, events.append)

    counts = place.counts()
    assert (summary.ended, counts.finished, counts.failed) == ("no_work", 3, 1)
    assert place.ends_of_attempts(1) == ["error"] * 3
    assert "ZeroDivisionError: a fault of ours" in place.attempts_of(1)[0].message
    assert [event.kind for event in events if "a fault of ours" in event.text] == [
        "retried",
        "retried",
        "failed",
    ]


def test_a_fault_that_the_user_must_mend_ends_the_work_and_costs_no_attempt(place: Place) -> None:
    place.behave(faults={"1": ["data", 1]})
    place.open(4)

    with pytest.raises(DataError, match="bidmc_01_Signals"):
        run(place, 4)

    counts = place.counts()
    assert (counts.finished, counts.failed, counts.running, counts.free) == (1, 0, 0, 3)
    assert run(place, 4).ended == "no_work"
    assert place.counts().finished == 4


@pytest.fixture
def hung_up() -> Iterator[None]:
    """Hear a closed terminal, also where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hung_up")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_work_in_the_middle_of_an_epoch(place: Place, number: signal.Signals) -> None:
    place.behave(epoch_s=3600.0)  # longer than a test may take
    place.open(4)
    before = signal.getsignal(signal.SIGINT)
    signal_later(0.5, number)

    def signal_again(event: Event) -> None:
        if event.kind == "given_back":
            os.kill(os.getpid(), number)

    summary = run(place, 4, signal_again)

    assert summary.ended == "interrupted"
    counts = place.counts()
    assert (counts.running, counts.free) == (0, 4)
    assert place.trials()[0].state is TrialState.WAITING
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupted_trial_goes_on_from_its_last_epoch(place: Place) -> None:
    place.behave(epoch_s=0.1)
    place.open(1)

    def end(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    run(place, 1, end)
    place.behave(epoch_s=0.0)
    epochs: list[int] = []
    run(place, 1, lambda event: epochs.append(event.epoch) if event.kind == "epoch" else None)

    assert 1 not in epochs
    assert epochs[-1] == 6
    assert place.epochs_of(0) == [1, 2, 3, 4, 5, 6]
    configuration = Configuration(**place.trials()[0].params)
    expected = [analytic_trainer.loss_at(small_spec().run_spec(configuration), e) for e in range(1, 7)]
    assert place.trials()[0].value == pytest.approx(min(expected))
    assert place.ends_of_attempts(0) == ["interrupted", "finished"]


def test_the_clock_ends_the_work_and_gives_back(place: Place) -> None:
    place.behave(epoch_s=3600.0)
    place.open(2)

    assert run(place, 2, timeout_s=0.5).ended == "timeout"
    assert place.counts().running == 0


def test_an_epoch_longer_than_the_lease_keeps_its_trial(place: Place) -> None:
    place.behave(epoch_s=0.8)
    place.open(1, recipe={"epochs": 2})
    run(place, 1, lease_s=0.5)

    assert place.ends_of_attempts(0) == ["finished"]


def test_a_run_whose_lease_was_lost_is_dropped_quietly(place: Place) -> None:
    place.open(3)
    ledger = place.ledger()

    def steal(event: Event) -> None:
        if event.kind == "epoch" and event.slot == 1 and event.attempt == 1 and event.epoch == 2:
            ledger.worker_died(event.worker)

    summary = run(place, 3, steal)

    assert summary.ended == "no_work"
    assert place.ends_of_attempts(1) == ["killed", "finished"]
    assert place.counts().finished == 3
    assert sum(summary.ends.values()) == 3


def test_a_worker_waits_for_a_trial_that_another_runs_and_takes_it_over(place: Place) -> None:
    place.open(1)
    ledger = place.ledger()
    dead = ledger.register_worker("elsewhere", 1, "cpu", {})
    assert ledger.claim(ledger.study(NAME).study_id, dead, lease_s=0.5) is not None

    run(place, 1)

    assert place.ends_of_attempts(0) == ["expired", "finished"]


def test_a_database_that_another_process_locks_is_waited_for_with_a_message(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hpo.worker.session.WORKER_BUSY_TIMEOUT_S", 0.3)
    place.open(3)
    told: list[str] = []
    foreign = sqlite3.connect(place.folder / "hpo.db", isolation_level=None, check_same_thread=False)
    foreign.execute("BEGIN IMMEDIATE")
    threading.Timer(1.5, foreign.rollback).start()
    began = time.monotonic()
    run(place, 3, lambda event: told.append(event.text) if event.kind == "waiting" else None)

    assert time.monotonic() - began > 1.0
    assert place.counts().finished == 3
    assert "database is locked" in told[0]
    assert "the database is back" in told[-1]
    foreign.close()


def test_checkpoints_are_deleted_when_a_trial_has_finished(place: Place) -> None:
    study = place.open(3)
    run(place, 3)
    folder = checkpoints_of(place.url, study, place.settings()).folder

    assert folder.parent == place.folder / "hpo.db.checkpoints"
    assert folder.name.startswith(f"{NAME}-")
    assert list(folder.iterdir()) == []


def test_checkpoints_lie_in_the_cache_when_the_database_is_a_server(place: Place) -> None:
    url, study = "postgresql+psycopg://somebody:secret@localhost/hpo", place.open(1)

    cached = checkpoints_of(url, study, place.settings()).folder
    shared = checkpoints_of(url, study, place.settings(checkpoints="/shared")).folder

    assert cached.parent == place.folder / "cache" / "checkpoints"
    assert shared == Path("/shared") / cached.name


def test_studies_of_one_name_never_share_checkpoints(tmp_path: Path) -> None:
    settings = Place(tmp_path).settings(checkpoints="/shared")
    folders = set()
    for name in ("a", "b", "b"):  # two databases, and one that was deleted and made again
        place = Place(tmp_path / name)
        place.folder.mkdir(exist_ok=True)
        (place.folder / "hpo.db").unlink(missing_ok=True)
        folders.add(checkpoints_of(place.url, place.open(1), settings).folder)

    assert len(folders) == 3


def test_a_first_attempt_takes_nothing_that_lies_in_its_folder(place: Place) -> None:
    study = place.open(1)
    slot = checkpoints_of(place.url, study, place.settings()).folder / "0"
    slot.mkdir(parents=True)
    (slot / "last.pt").write_text("of another run")
    found = []
    run(place, 1, lambda event: found.append((slot / "last.pt").exists()) if event.kind == "epoch" else None)

    assert found[0] is False  # later ones are its own


def test_other_data_are_refused(place: Place) -> None:
    place.open(2)
    run(place, 1)
    place.behave(data_hash="other")

    with pytest.raises(MismatchError, match="data: other here, analytic there"):
        run(place, 2)
    with pytest.raises(MismatchError):
        place.open(2)


def test_other_code_is_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.open(2)
    monkeypatch.setattr(analytic_trainer, "ENGINE_VERSION", "newer")

    with pytest.raises(MismatchError, match="engine: newer here, analytic there"):
        run(place, 2)


def test_a_paused_study_is_left_alone(place: Place) -> None:
    place.open(3)
    ledger = place.ledger()
    ledger.set_state(ledger.study(NAME).study_id, "paused")

    assert run(place, 3).ends == {}
    assert place.counts().free == 3


def open_studies(place: Place, *names: str, total: int = 3) -> None:
    for name in names:
        open_study(place.url, small_spec(name=name), place.settings(), total=total)


def order_of_runs(events: list[Event]) -> list[str]:
    return [event.study for event in events if event.kind == "started"]


def test_without_names_all_open_studies_are_served_urgent_first_then_oldest(place: Place) -> None:
    open_studies(place, "oldest", "paused", "urgent", "newest", total=2)
    ledger = place.ledger()
    ledger.set_priority(ledger.study("urgent").study_id, 5)
    ledger.set_state(ledger.study("paused").study_id, "paused")
    events: list[Event] = []
    work(place.url, settings=place.settings(), on_event=events.append)

    assert order_of_runs(events) == ["urgent"] * 2 + ["oldest"] * 2 + ["newest"] * 2
    assert ledger.counts(ledger.study("paused").study_id).free == 2


def test_an_urgent_study_takes_over_between_two_runs(place: Place) -> None:
    open_studies(place, "first")
    events: list[Event] = []

    def submit(event: Event) -> None:
        events.append(event)
        if event.kind == "started" and len(order_of_runs(events)) == 1:
            open_studies(place, "urgent", total=1)
            ledger = place.ledger()
            ledger.set_priority(ledger.study("urgent").study_id, 1)

    work(place.url, settings=place.settings(), on_event=submit)

    assert order_of_runs(events) == ["first", "urgent", "first", "first"]


def test_a_worker_that_stays_takes_studies_that_come_later(place: Place) -> None:
    open_studies(place, "first", total=1)
    threading.Timer(0.8, open_studies, [place, "later"]).start()

    def leave(event: Event) -> None:
        if event.study == "later" and event.kind in {"complete", "pruned"} and event.slot == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    summary = work(place.url, forever=True, settings=place.settings(), on_event=leave)

    assert summary.ended == "interrupted"
    assert sum(summary.ends.values()) == 4


def test_a_worker_says_once_why_it_has_no_run(place: Place) -> None:
    open_studies(place, "done", "paused", total=1)
    ledger = place.ledger()
    ledger.set_state(ledger.study("paused").study_id, "paused")
    told: list[str] = []

    def leave(event: Event) -> None:
        if event.kind == "idle":
            told.append(event.text)
            threading.Timer(0.5, os.kill, [os.getpid(), signal.SIGTERM]).start()

    work(place.url, forever=True, settings=place.settings(), on_event=leave)

    assert told == ["all trials have ended: done; paused: paused"]


def test_a_worker_waits_in_an_empty_database_and_says_so(place: Place) -> None:
    told: list[str] = []

    def leave(event: Event) -> None:
        if event.kind == "idle":
            told.append(event.text)
            os.kill(os.getpid(), signal.SIGTERM)

    summary = work(place.url, forever=True, settings=place.settings(), on_event=leave)

    assert (summary.ended, told) == ("interrupted", ["the database holds no study yet"])


def test_a_study_of_other_data_is_passed_over_and_told_in_the_end(place: Place) -> None:
    place.behave(data_hash="other")
    open_studies(place, "elsewhere")
    place.behave()
    open_studies(place, "here")
    events: list[Event] = []

    with pytest.raises(MismatchError, match=r"'elsewhere'.*data: analytic here, other there"):
        work(place.url, settings=place.settings(), on_event=events.append)

    assert order_of_runs(events) == ["here"] * 3
    assert any("elsewhere cannot be served here" in event.text for event in events)


def test_a_stopped_study_gives_its_running_trial_back(place: Place) -> None:
    place.behave(epoch_s=0.1)
    place.open(3, recipe={"epochs": 1000, "patience": 1000})
    ledger = place.ledger()

    def stop(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            ledger.set_state(ledger.study(NAME).study_id, "stopped")

    assert run(place, 3, stop, lease_s=0.6).ended == "no_work"
    counts = place.counts()
    assert (counts.running, counts.free, counts.finished) == (0, 3, 0)
    assert place.ends_of_attempts(0) == ["interrupted"]


def test_an_unknown_study_is_refused(place: Place) -> None:
    place.open(1)

    with pytest.raises(UnknownStudyError, match="no study 'smal'"):
        work(place.url, [NAME, "smal"], settings=place.settings())


def test_a_run_knows_how_many_trials_are_left_for_others(place: Place) -> None:
    """Of the slots that this worker may take: the first four of six, two of them taken."""
    study = place.open(6)
    with open_session(place.url, place.settings(), lambda event: None, Stop()) as session:
        kept = Checkpoints(place.folder / "kept")
        source = Source(session, study, small_spec(), kept, 4, {}, lambda: True)
        runs = [source.next_run() for _ in range(2)]
        left = [run.others() for run in runs if run is not None and run.others is not None]
        source.give_back_all()

    assert left == [2, 2]
