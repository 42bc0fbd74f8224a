"""Workers as processes: exact budgets, deaths of children and of the parent, one orderly end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import analytic_trainer
import pytest
from fixtures_db import PostgresServer
from gpu_machine import list_gpus
from optuna.trial import TrialState
from small_study import NAME, Place, small_spec

from finetune.api import DataError, NoDeviceError
from hpo import fleet
from hpo.errors import MismatchError, UsageError
from hpo.fleet import run_local
from hpo.fleet.child import Child, Job
from hpo.fleet.seats import own_device
from hpo.study import Configuration
from hpo.worker import Event, WorkSummary

SCRIPT = """
import sys
from pathlib import Path
from hpo.__main__ import leave
from hpo.errors import Interrupted
from hpo.fleet import run_local
from hpo.fleet.child import Child, Job
from small_study import NAME, Place
place, workers = Place(Path(sys.argv[1])), int(sys.argv[2])
tell = lambda event: print(event.kind, event.slot, event.worker, flush=True)
try:
    run_local(place.url, NAME, total=8, workers=workers, settings=place.settings(), on_event=tell)
except Interrupted as error:
    print(error)
    leave(130)
"""


@pytest.fixture
def any_place(tmp_path: Path, database_url: str) -> Place:
    """On each kind of database in turn."""
    return Place(tmp_path, database_url)


def run(
    place: Place,
    total: int,
    workers: int,
    on_event: Callable[[Event], None] = lambda event: None,
    **settings: object,
) -> WorkSummary:
    return run_local(
        place.url, NAME, total=total, workers=workers, settings=place.settings(**settings), on_event=on_event
    )


@pytest.fixture
def start(place: Place) -> Iterator[Callable[[int], subprocess.Popen[str]]]:
    """Start ``run_local`` in a process group of its own, as a terminal does."""
    started: list[subprocess.Popen[str]] = []

    def begin(workers: int) -> subprocess.Popen[str]:
        path = os.pathsep.join(entry for entry in sys.path if entry)
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(place.folder), str(workers)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
            start_new_session=True,
        )
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def wait_for(process: subprocess.Popen[str], kind: str, times: int = 1) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        times -= line.startswith(kind)
        if times == 0:
            return
    raise AssertionError(f"the process ended before it told of {kind}")


def wait_until(claim: Callable[[], bool], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.05)


def pid_of(event: Event) -> int:
    """Return the process of a worker, which is in the middle of its id: host-pid-suffix."""
    return int(event.worker.rsplit("-", 2)[1])


@pytest.mark.parametrize("workers", [1, 4])
def test_a_budget_is_exact_whatever_the_number_of_workers(any_place: Place, workers: int) -> None:
    place = any_place
    place.behave(epoch_s=0.005)
    place.open(12)
    events: list[Event] = []
    summary = run(place, 12, workers, events.append)

    counts = place.counts()
    assert (counts.finished, counts.failed, counts.running, counts.free) == (12, 0, 0, 0)
    assert summary.ended == "no_work"
    assert sum(summary.ends.values()) == 12
    assert [len(place.ends_of_attempts(slot)) for slot in range(12)] == [1] * 12
    assert sorted(event.slot or 0 for event in events if event.kind in {"complete", "pruned"}) == list(
        range(12)
    )
    assert len({event.worker for event in events}) <= workers


def test_a_finished_budget_starts_no_process(place: Place) -> None:
    place.open(2)
    run(place, 2, 1)
    events: list[Event] = []

    assert run(place, 2, 4, events.append).ends == {}
    assert events == []


def test_results_do_not_depend_on_the_number_of_workers(place: Place) -> None:
    place.open(8, pruner={"kind": "none"})
    run(place, 8, 4)

    for trial in place.trials():
        run_spec = small_spec().run_spec(Configuration(**trial.params))
        expected = [analytic_trainer.loss_at(run_spec, epoch) for epoch in range(1, 7)]
        if trial.state is TrialState.COMPLETE:
            assert trial.value == pytest.approx(min(expected))


def test_a_worker_that_is_killed_is_replaced_and_its_trial_finished(any_place: Place) -> None:
    place = any_place
    place.behave(epoch_s=0.05)
    place.open(6, pruner={"kind": "none"})
    events: list[Event] = []

    def kill_once(event: Event) -> None:
        events.append(event)
        if event.kind == "epoch" and event.slot == 1 and event.attempt == 1 and event.epoch == 3:
            os.kill(pid_of(event), signal.SIGKILL)

    run(place, 6, 2, kill_once, lease_s=3600.0)  # nobody waits for it to expire

    assert place.ends_of_attempts(1) == ["killed", "finished"]
    assert place.counts().finished == 6
    assert place.epochs_of(1) == [1, 2, 3, 4, 5, 6]
    assert any("SIGKILL" in event.text for event in events if event.kind == "message")
    assert ("retried", 1) in [(event.kind, event.slot) for event in events]


def test_a_worker_that_was_frozen_past_its_lease_drops_its_result(place: Place) -> None:
    place.behave(epoch_s=0.05)
    place.open(4, pruner={"kind": "none"})

    def freeze_once(event: Event) -> None:
        if event.kind == "epoch" and event.slot == 1 and event.attempt == 1 and event.epoch == 2:
            pid = pid_of(event)
            os.kill(pid, signal.SIGSTOP)
            threading.Timer(2.5, os.kill, [pid, signal.SIGCONT]).start()

    run(place, 4, 2, freeze_once, lease_s=0.8)

    assert place.ends_of_attempts(1) == ["expired", "finished"]
    assert place.counts().finished == 4


def test_a_worker_that_keeps_dying_at_one_trial_closes_its_slot(place: Place) -> None:
    place.behave(epoch_s=0.02)
    place.open(3, pruner={"kind": "none"})

    def kill_always(event: Event) -> None:
        if event.kind == "started" and event.slot == 1:
            os.kill(pid_of(event), signal.SIGKILL)

    run(place, 3, 1, kill_always)

    ends = place.ends_of_attempts(1)
    assert set(ends) == {"killed"}
    assert len(ends) >= 3, "three without a new epoch; a kill may come after one"
    assert (place.counts().finished, place.counts().failed) == (2, 1)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything_and_gives_everything_back(
    place: Place, start: Callable[[int], subprocess.Popen[str]], workers: int, number: signal.Signals
) -> None:
    place.behave(epoch_s=3600.0)
    place.open(8)
    process = start(workers)
    wait_for(process, "started", workers)
    os.killpg(process.pid, number)
    time.sleep(0.1)
    os.killpg(process.pid, number)
    told, _ = process.communicate(timeout=120)

    assert process.returncode == 130
    assert "has been given back" in told
    counts = place.counts()
    assert (counts.running, counts.free, counts.failed) == (0, 8, 0)
    assert all(trial.state is TrialState.WAITING for trial in place.trials())
    place.behave(epoch_s=0.0)
    run(place, 8, workers)
    assert place.counts().finished == 8
    assert len(place.trials()) == 8


def test_workers_give_back_when_their_parent_is_killed(
    place: Place, start: Callable[[int], subprocess.Popen[str]]
) -> None:
    place.behave(epoch_s=30.0)
    place.open(8)
    process = start(2)
    wait_for(process, "started", 2)
    process.kill()

    wait_until(lambda: place.counts().running == 0)
    assert place.counts().free == 8


def test_the_clock_ends_all_workers(place: Place) -> None:
    place.behave(epoch_s=30.0)
    place.open(4)

    assert run(place, 4, 2, timeout_s=3.0).ended == "timeout"
    assert place.counts().free == 4


def test_what_the_user_must_mend_reaches_the_parent_as_it_was_raised(place: Place) -> None:
    place.behave(faults={"1": ["data", 9]}, epoch_s=0.01)
    place.open(4)

    with pytest.raises(DataError) as raised:
        run(place, 4, 2)

    assert raised.value.next_step == "download it again"
    assert place.counts().running == 0
    assert place.counts().failed == 0


def test_a_mismatch_reaches_the_parent(place: Place) -> None:
    place.open(2)
    place.behave(data_hash="other")

    with pytest.raises(MismatchError, match="data: other here"):
        run(place, 2, 1)


def test_a_fault_of_ours_ends_the_search_with_its_traceback(place: Place) -> None:
    place.open(2)

    with pytest.raises(RuntimeError, match="ModuleNotFoundError: No module named 'no_such_trainer'"):
        run(place, 2, 1, doorway="no_such_trainer")


@pytest.mark.postgres
def test_no_worker_is_lost_when_the_server_restarts(
    tmp_path: Path, ready_postgres_url: str, postgres_server: PostgresServer
) -> None:
    if postgres_server.restart is None:
        pytest.skip("the server is not ours to restart")
    place = Place(tmp_path, ready_postgres_url)
    place.behave(epoch_s=0.3)
    place.open(4, pruner={"kind": "none"})
    restart, events = postgres_server.restart, list[Event]()

    def restart_now_and_then(event: Event) -> None:
        events.append(event)
        if event.kind == "epoch" and event.epoch == 2 and event.slot in {0, 2}:
            restart()

    run(place, 4, 2, restart_now_and_then)

    assert place.counts().finished == 4
    assert [len(place.ends_of_attempts(slot)) for slot in range(4)] == [1] * 4
    assert "waiting" in {event.kind for event in events}
    assert "message" not in {event.kind for event in events}


def test_a_url_with_a_password_is_on_no_command_line(place: Place) -> None:
    place.behave(epoch_s=0.05)
    place.open(2)
    lines: list[bytes] = []

    def look(event: Event) -> None:
        if event.kind == "started":
            lines.append(Path(f"/proc/{pid_of(event)}/cmdline").read_bytes())

    run(place, 2, 1, look)

    assert lines
    assert not any(b"hpo.db" in line for line in lines)


def test_a_worker_has_one_thread_for_arithmetic(place: Place) -> None:
    place.behave(epoch_s=0.05)
    place.open(1)
    environments: list[bytes] = []

    def look(event: Event) -> None:
        if event.kind == "started":
            environments.append(Path(f"/proc/{pid_of(event)}/environ").read_bytes())

    run(place, 1, 1, look)

    assert b"OMP_NUM_THREADS=1\0" in environments[0]


def test_no_workers_is_a_fault_of_the_user(place: Place) -> None:
    place.open(1)

    with pytest.raises(UsageError, match="workers is 0"):
        run(place, 1, 0)


@pytest.fixture
def three_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nvidia-smi lists three GPUs, and a folder for seats."""
    list_gpus(
        tmp_path, monkeypatch, [f"GPU {n}: NVIDIA H100 (UUID: GPU-{2 * c})" for n, c in enumerate("abc")]
    )
    return tmp_path / "seats"


def test_workers_that_were_started_one_by_one_spread_over_the_gpus(three_gpus: Path) -> None:
    with ExitStack() as seats:
        taken = [seats.enter_context(own_device("auto", three_gpus)) for _ in range(4)]
    with own_device("cuda", three_gpus) as again:
        pass

    assert taken == ["cuda:0", "cuda:1", "cuda:2", "cuda:0"]
    assert again == "cuda:0"


def test_the_seat_of_a_worker_that_was_killed_is_free_again(three_gpus: Path) -> None:
    code = "import sys, time; from hpo.fleet.seats import own_device; from pathlib import Path\n"
    code += "with own_device('auto', Path(sys.argv[1])) as device: print(device, flush=True); time.sleep(60)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", code, str(three_gpus)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "cuda:0\n"
        with own_device("auto", three_gpus) as beside:
            other.kill()
    with own_device("auto", three_gpus) as after:
        pass

    assert (beside, after) == ("cuda:1", "cuda:0")


def test_a_device_that_was_named_or_is_the_only_one_is_taken_as_it_is(
    three_gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    with own_device("auto", three_gpus) as first, own_device("auto", three_gpus) as second:
        assert (first, second) == ("cuda:0", "cuda:1")
    assert sorted(file.name for file in three_gpus.iterdir()) == ["GPU-aa.0.seat", "GPU-cc.0.seat"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    for device in ("auto", "cuda:2", "cpu"):
        with own_device(device, three_gpus) as mine:
            assert mine == device


def test_a_worker_whose_gpu_failed_is_replaced_and_counts_one_attempt(place: Place) -> None:
    place.open(6)
    place.behave(faults={"1": ["lost", 1]}, epoch_s=0.001)
    told: list[Event] = []

    summary = run(place, 6, 1, told.append)

    assert place.counts().finished == 6
    assert summary.ended == "no_work"
    assert any("a worker lost its GPU; another takes its place" in event.text for event in told)
    assert [event.slot for event in told if event.kind == "retried"] == [1]


def test_a_worker_without_a_device_is_missed_while_there_are_others(place: Place) -> None:
    place.open(6)
    place.behave(faults={"1": ["no_device", 1]}, epoch_s=0.02)
    told: list[Event] = []

    run(place, 6, 2, told.append)

    assert place.counts().finished == 6
    assert [event.text for event in told if "cannot be opened" in event.text] == [
        "a worker less, 1 go on: device 'cuda' cannot be opened (busy); expected one that works"
    ]
    assert not [event for event in told if event.kind in ("retried", "failed")]


def test_the_only_worker_without_a_device_ends_the_search(place: Place) -> None:
    place.open(2)
    place.behave(faults={"0": ["no_device", 1]})

    with pytest.raises(NoDeviceError, match="cannot be opened"):
        run(place, 2, 1)

    counts = place.counts()
    assert (counts.free, counts.failed) == (2, 0)


def test_a_worker_after_a_lost_gpu_does_not_take_to_the_cpu(
    place: Place, three_gpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.open(3)
    place.behave(faults={"1": ["lost", 1]}, epoch_s=0.001)
    devices: list[str] = []

    class Noted(Child):
        def __init__(self, job: Job, environment: Mapping[str, str]) -> None:
            devices.append(job.settings.device)
            super().__init__(job, environment)

    monkeypatch.setattr(fleet, "Child", Noted)
    run(place, 3, 1, device="auto")

    assert devices == ["auto", "cuda"]


def test_what_a_trainer_warns_of_is_told(place: Place) -> None:
    place.open(1)
    place.behave(faults={"0": ["warns", 1]})
    told: list[Event] = []

    run(place, 1, 1, told.append)

    assert [event.text for event in told if event.kind == "message"] == ["every step is launched"]


def test_a_run_that_always_breaks_the_gpu_fails_alone(place: Place) -> None:
    place.open(5)
    place.behave(faults={"2": ["lost", 99]}, epoch_s=0.001)

    run(place, 5, 1)

    counts = place.counts()
    assert (counts.finished, counts.failed) == (4, 1)
