"""What a service meets: files that vanish, locks, deleted studies, other clocks, servers that fall silent."""

from __future__ import annotations

import gc
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from small_study import NAME, Place, small_spec

from hpo.cli.listing import status_lines
from hpo.errors import LostDatabaseError
from hpo.ledger.values import Counts
from hpo.reading.standing import overview
from hpo.storage import clock, open_engine, parse_url, patiently, writing
from hpo.storage.clock import KernelClock
from hpo.storage.tables import slots
from hpo.worker import Event, WorkSummary, open_study, work
from hpo.worker.session import open_ledger


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def any_place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A place on each kind of database in turn."""
    return Place(tmp_path, request.getfixturevalue(f"ready_{request.param}_url"))


def run(
    place: Place, total: int, on_event: Callable[[Event], None] = lambda event: None, **settings: object
) -> WorkSummary:
    return work(place.url, [NAME], below=total, settings=place.settings(**settings), on_event=on_event)


def once(act: Callable[[], object], *, at: int) -> Callable[[Event], None]:
    """Return a listener that acts once, at that epoch of slot 1."""
    done: list[int] = []

    def listen(event: Event) -> None:
        if event.kind == "epoch" and event.slot == 1 and event.epoch == at and not done:
            done.append(1)
            act()

    return listen


# --- a file that is gone, or is another


@pytest.mark.parametrize("epoch_s", [0.0, 1.2])
def test_a_database_that_was_deleted_ends_the_worker_and_is_not_made_again(
    place: Place, epoch_s: float
) -> None:
    place.behave(epoch_s=epoch_s)
    place.open(4)
    file = place.folder / "hpo.db"
    before = threading.active_count()
    if epoch_s:  # in the middle of an epoch: the thread that renews the leases sees it
        threading.Timer(0.6, file.unlink).start()

    with pytest.raises(LostDatabaseError, match="is gone"):
        run(place, 4, once(file.unlink, at=2) if not epoch_s else lambda event: None, lease_s=0.6)

    assert not file.exists()
    assert threading.active_count() <= before + 1


def test_a_database_that_was_replaced_ends_the_worker_and_is_left_alone(place: Place) -> None:
    place.open(4)
    file, other = place.folder / "hpo.db", place.folder / "other.db"
    other.write_bytes(b"somebody else's")

    with pytest.raises(LostDatabaseError, match="was replaced by another file"):
        run(place, 4, once(lambda: other.replace(file), at=2))

    assert file.read_bytes() == b"somebody else's"


def test_a_command_meets_a_lost_database_too(place: Place) -> None:
    place.open(2)
    engine = open_engine(place.url)
    (place.folder / "hpo.db").unlink()

    with pytest.raises(LostDatabaseError), engine.connect() as connection:
        connection.execute(sa.select(slots)).all()
    assert not (place.folder / "hpo.db").exists()
    engine.dispose()


# --- asked to end while the database does not answer


@pytest.fixture
def locked(any_place: Place) -> Iterator[Callable[[], None]]:
    """Locks all that the ledger writes to, until the test is over."""
    opened: list[Any] = []

    def lock() -> None:
        if any_place.url.startswith("sqlite"):
            path = parse_url(any_place.url).database or ""
            foreign = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            foreign.execute("BEGIN EXCLUSIVE")
            opened.append(foreign)
        else:
            engine = open_engine(any_place.url)
            connection = engine.connect()
            connection.execute(sa.text("LOCK TABLE hpo_slot, hpo_study, hpo_worker, hpo_curve, trials"))
            opened.extend([connection, engine])

    yield lock
    for one in opened:
        one.dispose() if isinstance(one, sa.Engine) else one.close()


@pytest.fixture
def leaves_threads() -> Iterator[None]:
    """Wait for what an ending worker left behind, which in life ends with the process."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its connection is not closed
        for thread in threading.enumerate():
            if thread.name == "last words":
                thread.join(timeout=20)
        gc.collect()


def test_a_signal_ends_a_worker_within_5_s_while_the_database_is_locked(
    any_place: Place, leaves_threads: None, locked: Callable[[], None]
) -> None:
    number = signal.SIGINT if any_place.url.startswith("sqlite") else signal.SIGTERM  # they go one way
    any_place.behave(epoch_s=0.05)
    any_place.open(3, recipe={"epochs": 1000, "patience": 1000}, pruner={"kind": "none"})
    asked: list[float] = []

    def ask() -> None:
        asked.append(time.monotonic())
        os.kill(os.getpid(), number)

    def listen(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            locked()
            threading.Timer(1.5, ask).start()

    assert run(any_place, 3, listen).ended == "interrupted"
    assert time.monotonic() - asked[0] < 5


@pytest.mark.postgres
@pytest.mark.usefixtures("leaves_threads")
def test_a_signal_ends_a_worker_within_5_s_whose_server_has_stopped_answering(
    ready_postgres_url: str, tmp_path: Path
) -> None:
    place = Place(tmp_path, ready_postgres_url)
    place.behave(epoch_s=0.05)
    place.open(3, recipe={"epochs": 1000, "patience": 1000}, pruner={"kind": "none"})
    frozen: list[int] = []
    asked: list[float] = []

    def freeze() -> None:
        backends = sa.table("pg_stat_activity", sa.column("pid"), sa.column("datname"))
        ours = backends.c.datname == sa.func.current_database()
        others = sa.select(backends.c.pid).where(ours, backends.c.pid != sa.func.pg_backend_pid())
        engine = open_engine(place.url)
        with engine.connect() as connection:
            frozen.extend(connection.execute(others).scalars())
        engine.dispose()
        for pid in frozen:
            os.kill(pid, signal.SIGSTOP)

    def ask() -> None:
        asked.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGTERM)

    def listen(event: Event) -> None:
        if event.kind == "epoch" and event.epoch == 2:
            freeze()
            threading.Timer(0.5, ask).start()

    try:
        assert run(place, 3, listen).ended == "interrupted"
        assert time.monotonic() - asked[0] < 5
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)


# --- time-outs of the server


@pytest.mark.postgres
@pytest.mark.parametrize(
    "setting", ["statement_timeout = 200", "lock_timeout = 200", "idle_in_transaction_session_timeout = 200"]
)
def test_the_servers_timeouts_are_waited_out(ready_postgres_url: str, setting: str) -> None:
    engine, foreign = open_engine(ready_postgres_url), open_engine(ready_postgres_url)
    tries: list[int] = []

    def write() -> str:
        tries.append(1)
        with writing(engine) as connection:
            connection.execute(sa.text(f"SET LOCAL {setting}"))
            if setting.startswith("idle") and len(tries) == 1:
                time.sleep(0.6)
            connection.execute(sa.text("LOCK TABLE hpo_slot"))
        return "written"

    blocker = foreign.connect()
    if not setting.startswith("idle"):
        blocker.execute(sa.text("LOCK TABLE hpo_slot"))

    assert patiently(write, wait=lambda _: blocker.rollback()) == "written"
    assert len(tries) == 2
    blocker.close()
    engine.dispose()
    foreign.dispose()


@pytest.mark.postgres
def test_a_serialization_failure_is_waited_out(ready_postgres_url: str, tmp_path: Path) -> None:
    place = Place(tmp_path, ready_postgres_url)
    place.open(2)
    engine = open_engine(place.url)
    tries: list[int] = []

    def write() -> str:
        with engine.connect().execution_options(isolation_level="SERIALIZABLE") as connection:
            connection.execute(sa.select(slots)).all()
            if not tries:
                tries.append(1)
                with engine.begin() as other:
                    other.execute(sa.update(slots).values(faults=1))
            connection.execute(sa.update(slots).values(faults=0))
            connection.commit()
        return "written"

    assert patiently(write, wait=lambda _: None) == "written"
    engine.dispose()


# --- what Optuna's tools do


def storage_of(place: Place) -> optuna.storages.RDBStorage:
    return optuna.storages.RDBStorage(parse_url(place.url).render_as_string(hide_password=False))


def delete_with_optuna(place: Place, name: str = NAME) -> None:
    storage = storage_of(place)
    optuna.delete_study(study_name=name, storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def test_a_study_deleted_with_optuna_is_gone_at_once_with_all_its_rows(any_place: Place) -> None:
    any_place.open(3)
    run(any_place, 3)
    delete_with_optuna(any_place)

    engine = open_engine(any_place.url)
    assert overview(engine, any_place.url) == []
    with engine.connect() as connection:
        for table in ("hpo_study", "hpo_slot", "hpo_attempt", "hpo_curve", "trials", "trial_values"):
            assert connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar() == 0, table
    engine.dispose()


def test_a_study_deleted_with_optuna_under_its_worker_ends_the_work_in_one_line(any_place: Place) -> None:
    any_place.open(4)
    told: list[str] = []
    delete = once(lambda: delete_with_optuna(any_place), at=2)

    def listen(event: Event) -> None:
        delete(event)
        if event.kind == "message":
            told.append(event.text)

    summary = run(any_place, 4, listen)

    assert summary.ended == "no_work"
    assert sum(summary.ends.values()) == 1
    assert told == [f"the study {NAME} was deleted with another tool: its trials end here"]


def test_what_follows_a_study_deleted_under_its_worker_inherits_nothing(any_place: Place) -> None:
    any_place.open(4)

    def replace() -> None:
        delete_with_optuna(any_place)
        open_study(any_place.url, small_spec(recipe={"epochs": 3}), any_place.settings(), total=3)

    run(any_place, 4, once(replace, at=2))

    counts = any_place.counts()
    assert (counts.finished, counts.failed, counts.running) == (3, 0, 0)
    assert [any_place.ends_of_attempts(slot) for slot in range(3)] == [[row.end] for row in any_place.slots()]
    assert all(max(any_place.epochs_of(slot)) <= 3 for slot in range(3))


def test_trials_that_optuna_ran_on_our_study_are_told_and_do_not_count(any_place: Place) -> None:
    any_place.open(4)
    run(any_place, 3)
    storage = storage_of(any_place)
    study = optuna.load_study(study_name=NAME, storage=storage)
    study.optimize(lambda trial: trial.suggest_float("lr", 1e-6, 1e-1, log=True), n_trials=2)
    storage.remove_session()
    storage.engine.dispose()
    run(any_place, 4)

    engine = open_engine(any_place.url)
    (found,) = overview(engine, any_place.url)
    engine.dispose()
    assert (found["finished"], found["budget"], found["foreign_trials"]) == (4, 4, 2)
    assert any("2 trials of another tool do not count" in line for line in status_lines([found]))


# --- clocks


def test_the_kernels_clock_is_the_time_for_who_has_not_changed_it() -> None:
    assert abs(clock.now() - time.time()) < 2
    readings = [clock.now() for _ in range(100)]
    assert readings == sorted(readings)


def test_a_kernel_that_does_not_know_when_it_was_started_leaves_it_to_the_process(tmp_path: Path) -> None:
    uptime, stat = tmp_path / "uptime", tmp_path / "stat"
    uptime.write_text("1000.25 10.0\n")
    stat.write_text("cpu 1 2\nbtime 1700000000\nprocesses 5\n")
    assert KernelClock(uptime, stat)() == 1700001000.25

    stat.write_text("cpu 1 2\nbtime 0\n")
    assert abs(KernelClock(uptime, stat)() - time.time()) < 2
    stat.write_text("cpu 1 2\n")
    assert abs(KernelClock(uptime, stat)() - time.time()) < 2
    assert abs(KernelClock(tmp_path / "none", stat)() - time.time()) < 2


def test_workers_whose_clocks_differ_by_an_hour_leave_each_others_trials_alone(place: Place) -> None:
    """The ahead one's database clock is an hour fast: it takes all leases for expired, and is taken so."""
    place.behave(epoch_s=0.25)
    place.open(4, pruner={"kind": "none"})
    ahead = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from pathlib import Path\n"
        "from hpo.storage import clock\n"
        "true = clock.KernelClock()\n"
        "clock.now = lambda: true() + 3600\n"
        "from small_study import NAME, Place\n"
        "from hpo.worker import work\n"
        f"place = Place(Path({str(place.folder)!r}))\n"
        "work(place.url, [NAME], settings=place.settings(lease_s=2.0))\n"
    )
    other = subprocess.Popen([sys.executable, "-c", ahead])
    run(place, 4, lease_s=2.0)
    assert other.wait(timeout=60) == 0

    for slot in range(4):
        assert place.ends_of_attempts(slot) in (["finished"], ["diverged"])


def test_a_machine_that_slept_loses_no_trial(place: Place) -> None:
    """All leases are over at once, as after a night; the holder renews before anybody takes them."""
    place.behave(epoch_s=0.3)
    place.open(2, pruner={"kind": "none"})
    with open_ledger(place.url) as ledger:
        engine = ledger._engine

        def sleep() -> None:
            with writing(engine) as connection:
                connection.execute(sa.update(slots).values(lease_until=1.0))

        other = threading.Thread(target=lambda: run(Place(place.folder), 2, lease_s=3.0))
        other.start()
        run(place, 2, once(sleep, at=2), lease_s=3.0)
        other.join()

    assert [place.ends_of_attempts(slot) for slot in range(2)] == [["finished"]] * 2
    assert place.counts() == Counts(2, 0, 0, 0, 0, 12)
