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
    from mlflow.tracking import MlflowClient

    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = out.absolute() / "mlflow.db"
    file.touch(mode=0o600)
    client = MlflowClient(tracking_uri=f"sqlite:///{file}")
    found = client.get_experiment_by_name(study.name)
    experiment = (
        client.create_experiment(study.name, artifact_location=(out.absolute() / "artifacts").as_uri())
        if found is None
        else found.experiment_id
    )
    there = {run.data.tags.get("hpo.run", ""): run for run in _runs(client, experiment)}
    parent = there.get("study") or client.create_run(
        experiment, tags={"hpo.run": "study"}, run_name=study.name
    )
    _write_study(client, parent.info.run_id, study)
    for trial in study.trials:
        known = there.get(str(trial.number))
        if known is None or known.info.status == "RUNNING":
            if known is not None:
                client.delete_run(known.info.run_id)  # it had not ended when it was written
            _write_trial(client, experiment, parent.info.run_id, trial)
    return [file]


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


def _write_study(client: Any, run: str, study: StudyRecord) -> None:
    """Write what the study is and what it says now: the answer may have become another."""
    for key in ("task", "fingerprint"):
        client.set_tag(run, f"hpo.{key}", getattr(study, key))
    client.set_tag(run, "hpo.answer", json.dumps(study.answer["answer"]))
    client.log_dict(run, dict(study.answer), "answer.json")
    client.log_dict(run, dict(study.spec), "study.json")
    client.set_terminated(run, "FINISHED")


def _write_trial(client: Any, experiment: str, parent: str, trial: TrialRecord) -> None:
    from mlflow.entities import Metric, Param, RunTag

    tags = {"hpo.run": str(trial.number), "hpo.state": trial.state, "hpo.origin": trial.origin}
    name = f"trial {trial.number}"
    run = client.create_run(
        experiment, tags={**tags, "mlflow.parentRunId": parent}, run_name=name
    ).info.run_id
    metrics = [
        Metric(key, value, timestamp=0, step=epoch.epoch)
        for epoch in trial.curve
        for key, value in epoch.values.items()
    ]
    metrics += [Metric(key, value, timestamp=0, step=0) for key, value in trial.results.items()]
    parameters = [
        Param(key, repr(value) if isinstance(value, float) else str(value))
        for key, value in trial.parameters.items()
    ]
    for first in range(0, max(1, len(metrics)), 1000):  # a batch holds at most 1,000
        client.log_batch(run, metrics=metrics[first : first + 1000], params=parameters if first == 0 else [])
    if trial.state != "running":
        client.set_terminated(run, STATUS[trial.state])
    client.log_batch(run, tags=[RunTag("hpo.epochs", str(len(trial.curve)))])
