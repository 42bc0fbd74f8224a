"""Workers as jobs of a real Slurm: served to the end, pre-empted and cancelled."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import slurm_cluster
from small_study import NAME, Place

from hpo.errors import UsageError
from hpo.fleet.slurm import SlurmRequest, submit_workers

needs_slurm = pytest.mark.skipif(not slurm_cluster.is_installed(), reason="needs slurm-wlm, munge and root")


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    with slurm_cluster.running_slurm() as conf:
        yield conf


@pytest.fixture
def place(tmp_path: Path, ready_postgres_url: str) -> Place:
    return Place(tmp_path, ready_postgres_url)


@pytest.fixture
def submit(place: Place, slurm: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """Submit workers to the cluster of the test."""
    monkeypatch.setenv("SLURM_CONF", str(slurm))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(entry for entry in sys.path if entry))
    request = SlurmRequest(1, place.folder / "jobs", memory_gib=1, hours=0.5, partition="normal")

    def begin(workers: int) -> list[str]:
        asked = SlurmRequest(**{**vars(request), "workers": workers})
        return submit_workers(place.url, [NAME], place.settings(), asked)

    return begin


def slurm_says(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def state_of(job: str) -> str:
    return slurm_says("squeue", "--noheader", "--format=%T", "--states=all", f"--jobs={job}")


def wait_until(claim: Callable[[], bool], seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < deadline, slurm_says("squeue", "--states=all")
        time.sleep(0.2)


@needs_slurm
@pytest.mark.postgres
def test_jobs_serve_a_study_to_its_end(place: Place, submit: Callable[[int], list[str]]) -> None:
    place.behave(epoch_s=0.02)
    place.open(8)
    jobs = submit(2)

    wait_until(lambda: all(state_of(job) == "COMPLETED" for job in jobs))
    assert place.counts().finished == 8
    assert (place.folder / "jobs").stat().st_mode & 0o077 == 0


@needs_slurm
@pytest.mark.postgres
def test_a_job_that_is_preempted_gives_back_comes_back_and_finishes(
    place: Place, submit: Callable[[int], list[str]]
) -> None:
    place.behave(epoch_s=30.0)
    place.open(2)
    (job,) = submit(1)
    wait_until(lambda: place.counts().running == 1)
    urgent = ["sbatch", "--partition=urgent", "--cpus-per-task=4", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(urgent, check=True)

    wait_until(lambda: place.counts().running == 0)
    wait_until(lambda: state_of(job) == "PENDING")
    assert place.ends_of_attempts(0) == ["interrupted"]
    place.behave()
    # Slurm makes a job that was queued again wait for two minutes; a test need not.
    wait_until(
        lambda: (
            slurm_says("scontrol", "update", f"job={job}", "StartTime=now") == ""
            and place.counts().finished == 2
        )
    )
    wait_until(lambda: state_of(job) == "COMPLETED")


@needs_slurm
@pytest.mark.postgres
def test_a_job_that_is_cancelled_gives_back_and_stays_away(
    place: Place, submit: Callable[[int], list[str]]
) -> None:
    place.behave(epoch_s=30.0)
    place.open(2)
    (job,) = submit(1)
    wait_until(lambda: place.counts().running == 1)
    subprocess.run(["scancel", job], check=True)

    wait_until(lambda: state_of(job) == "CANCELLED")
    wait_until(lambda: place.counts().running == 0)
    assert place.counts().free == 2
    assert state_of(job) == "CANCELLED"


@needs_slurm
@pytest.mark.postgres
def test_a_job_that_is_asked_to_end_while_it_is_wanted_is_queued_again(
    place: Place, submit: Callable[[int], list[str]]
) -> None:
    place.behave(epoch_s=30.0)
    place.open(2)
    (job,) = submit(1)
    wait_until(lambda: place.counts().running == 1)
    subprocess.run(["scancel", "--signal=TERM", job], check=True)

    wait_until(lambda: state_of(job) in {"PENDING", "CONFIGURING"})
    assert place.ends_of_attempts(0) == ["interrupted"]
    subprocess.run(["scancel", job], check=True)


def test_a_file_on_one_machine_is_refused(tmp_path: Path) -> None:
    request = SlurmRequest(2, tmp_path)

    with pytest.raises(UsageError, match="SQLite"):
        submit_workers(f"sqlite:///{tmp_path}/hpo.db", [], Place(tmp_path).settings(), request)


def test_a_machine_without_slurm_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UsageError, match="sbatch is not here"):
        submit_workers("postgresql://me@host/hpo", [], Place(tmp_path).settings(), SlurmRequest(2, tmp_path))
