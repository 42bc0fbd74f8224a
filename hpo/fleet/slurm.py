"""Workers on Slurm: jobs of one worker each, which come back after a pre-emption or a time limit.

Slurm holds no state of ours: the database does. A job that is pre-empted (SIGTERM) or near its time limit
(SIGUSR2, 90 s before) gives its trials back and is queued again; one that is cancelled gives them back too
and stays away.
"""

from __future__ import annotations

import logging
import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hpo.errors import Said, UsageError
from hpo.storage import parse_url, sqlite_file
from hpo.worker import Event, Settings, work

if TYPE_CHECKING:
    from submitit.core.utils import DelayedSubmission

_log = logging.getLogger("submitit.hpo")
_REQUEUES = 1000
"""So often may a job reach its time limit; submitit's own default of 3 would end a long search."""


@dataclass(frozen=True)
class SlurmRequest:
    """What to ask Slurm for."""

    workers: int
    folder: Path
    """Of the jobs' logs, on a disk that all nodes see. Readable by its owner only: the URL is in it."""
    gpus_per_worker: int = 0
    cpus_per_worker: int = 1
    memory_gib: int = 8
    hours: float = 24.0
    partition: str | None = None
    account: str | None = None


def submit_workers(url: str, studies: Sequence[str], settings: Settings, request: SlurmRequest) -> list[str]:
    """Submit jobs of one worker each that serve ``studies`` (none named: all open ones); return their ids.

    Raises :class:`UsageError` without Slurm, without submitit, or for a database of one machine only.
    """
    if request.workers < 1:
        raise UsageError(Said("workers is {workers}", workers=request.workers), "at least 1")
    if sqlite_file(parse_url(url)) is not None:
        raise UsageError(
            "an SQLite file serves the workers of one machine",
            "a PostgreSQL database",
            "name it with --storage",
        )
    if shutil.which("sbatch") is None:
        raise UsageError(
            "sbatch is not here", "a login node of a Slurm cluster", "type: hpo run, without Slurm"
        )
    try:
        import submitit
    except ImportError as error:
        raise UsageError(
            "submitit is not installed", "hpo with Slurm", "type: pip install 'hpo[slurm]'"
        ) from error
    request.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    request.folder.chmod(0o700)
    executor = submitit.AutoExecutor(request.folder, cluster="slurm", slurm_max_num_timeout=_REQUEUES)
    executor.update_parameters(**_parameters(request))
    worker = SlurmWorker(url, tuple(studies), settings)
    with executor.batch():
        jobs = [executor.submit(worker) for _ in range(request.workers)]
    return [str(job.job_id) for job in jobs]


def _parameters(request: SlurmRequest) -> dict[str, object]:
    """Return the request in submitit's words."""
    parameters: dict[str, object] = {
        "name": "hpo-worker",
        "cpus_per_task": request.cpus_per_worker,
        "mem_gb": request.memory_gib,
        "timeout_min": max(1, round(60 * request.hours)),
        "slurm_setup": ["export OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1"],
    }
    if request.gpus_per_worker:
        parameters["gpus_per_node"] = request.gpus_per_worker
    for name in ("partition", "account"):
        if value := getattr(request, name):
            parameters[f"slurm_{name}"] = value
    return parameters


class SlurmWorker:
    """One worker on a node; submitit calls it, and ``checkpoint`` when the job is to be queued again."""

    def __init__(self, url: str, studies: tuple[str, ...], settings: Settings) -> None:
        self._url = url
        self._studies = studies
        self._settings = settings

    def __call__(self) -> dict[str, int]:
        """Work until there is none left; returns how many runs ended here, by why."""
        summary = work(self._url, self._studies, settings=self._settings, on_event=_log_event)
        if summary.ended == "interrupted" and _is_wanted():
            # submitit takes this signal, which it sends before a time limit, as: save, queue again, exit.
            signal.raise_signal(signal.SIGUSR2)
        return dict(summary.ends)

    def checkpoint(self) -> DelayedSubmission:
        """Return what the job is to do when it starts again: the same, the database knows the rest."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)


def _is_wanted() -> bool:
    """Return whether Slurm still counts our job as running: not cancelled, nor queued again by itself."""
    job = os.environ.get("SLURM_JOB_ID", "")
    found = subprocess.run(
        ["squeue", "--noheader", "--format=%T", f"--jobs={job}"], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() == "RUNNING"


def _log_event(event: Event) -> None:
    if event.kind != "epoch":
        _log.info("%s %s trial %s %s", event.kind, event.study, event.slot, event.text)
