"""A study as an experiment of MLflow: a run a trial, and one for the study with its answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hpo.records.study import StudyRecord, TrialRecord

STATUS = {"complete": "FINISHED", "pruned": "KILLED", "failed": "FAILED", "running": "RUNNING"}


def write_mlflow(study: StudyRecord, out: Path) -> list[Path]:
    """Write the study into the MLflow database ``out``/mlflow.db; returns it. Trials already there stay.

    To look at it: ``mlflow ui --backend-store-uri sqlite:///OUT/mlflow.db``.
    """
    store = MlflowStore(study.name, out)
    for trial in study.trials:
        store.trial(trial)
    store.study(study)
    return [out.absolute() / "mlflow.db"]


class MlflowStore:
    """One study's experiment; a trial may be written again and again while it runs."""

    def __init__(self, name: str, out: Path, address: str | None = None) -> None:
        """Open the database in ``out``, or the server at ``address``."""
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient(tracking_uri=address or _database(out))
        found = self._client.get_experiment_by_name(name)
        self._experiment = found.experiment_id if found else self._new(name, None if address else out)
        self._there = {run.data.tags.get("hpo.run", ""): run for run in _runs(self._client, self._experiment)}
        parent = self._there.get("study") or self._client.create_run(
            self._experiment, tags={"hpo.run": "study"}, run_name=name
        )
        self._parent: str = parent.info.run_id
        self._open: dict[int, tuple[str, int, int]] = {}
        """Trial that runs -> its run, attempt, and how many epochs are written."""

    def _new(self, name: str, out: Path | None) -> str:
        artifacts = None if out is None else (out.absolute() / "artifacts").as_uri()
        return str(self._client.create_experiment(name, artifact_location=artifacts))

    def trial(self, trial: TrialRecord) -> None:
        """Write what is new of a trial; one that had ended when it was written stays as it is."""
        known = self._there.get(str(trial.number))
        if known is not None and known.info.status != "RUNNING":
            return
        if known is not None:
            self._client.delete_run(known.info.run_id)  # of a command before: it had not ended
            del self._there[str(trial.number)]
        run, attempt, written = self._open.get(trial.number, ("", 0, 0))
        if run and attempt != trial.attempt:
            self._client.delete_run(run)  # its later epochs may be others
            run = ""
        if not run:
            run, written = self._begin(trial), 0
        _log(self._client, run, trial, written)
        self._open[trial.number] = (run, trial.attempt, len(trial.curve))
        if trial.state != "running":
            self._client.set_terminated(run, STATUS[trial.state])
            self._there[str(trial.number)] = self._client.get_run(run)
            del self._open[trial.number]

    def _begin(self, trial: TrialRecord) -> str:
        tags = {"hpo.run": str(trial.number), "hpo.origin": trial.origin, "mlflow.parentRunId": self._parent}
        run = self._client.create_run(self._experiment, tags=tags, run_name=f"trial {trial.number}")
        from mlflow.entities import Param

        parameters = [
            Param(key, repr(value) if isinstance(value, float) else str(value))
            for key, value in trial.parameters.items()
        ]
        self._client.log_batch(run.info.run_id, params=parameters)
        return str(run.info.run_id)

    def study(self, study: StudyRecord) -> None:
        """Write what the study is and what it says now: the answer may have become another."""
        for key in ("task", "fingerprint"):
            self._client.set_tag(self._parent, f"hpo.{key}", getattr(study, key))
        self._client.set_tag(self._parent, "hpo.answer", json.dumps(study.answer["answer"]))
        self._client.log_dict(self._parent, dict(study.answer), "answer.json")
        self._client.log_dict(self._parent, dict(study.spec), "study.json")
        self._client.set_terminated(self._parent, "FINISHED")


def _database(out: Path) -> str:
    out.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{out.absolute() / 'mlflow.db'}"


def _log(client: Any, run: str, trial: TrialRecord, written: int) -> None:
    """Write the epochs behind the first ``written``, and the results of a trial that has ended."""
    from mlflow.entities import Metric, RunTag

    metrics = [
        Metric(key, value, timestamp=0, step=epoch.epoch)
        for epoch in trial.curve[written:]
        for key, value in epoch.values.items()
    ]
    if trial.state != "running":
        metrics += [Metric(key, value, timestamp=0, step=0) for key, value in trial.results.items()]
    for first in range(0, len(metrics), 1000):  # a batch holds at most 1,000
        client.log_batch(run, metrics=metrics[first : first + 1000])
    tags = [RunTag("hpo.state", trial.state), RunTag("hpo.epochs", str(len(trial.curve)))]
    client.log_batch(run, tags=tags)


def _runs(client: Any, experiment: str) -> list[Any]:
    """Return every run of an experiment, page by page."""
    found: list[Any] = []
    token = None
    while True:
        page = client.search_runs([experiment], max_results=1000, page_token=token)
        found += page
        token = page.token
        if not token:
            return found
