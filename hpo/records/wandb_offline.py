"""A study as offline runs of Weights & Biases: a run a trial, sent with ``wandb sync`` when one likes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hpo.records.study import StudyRecord, TrialRecord


def write_wandb(study: StudyRecord, out: Path) -> list[Path]:
    """Write a run a trial below ``out``/wandb, without any network; returns their folders.

    A run's id is made of the study's fingerprint and the trial's number: sent twice it is there once.
    """
    (out / "wandb").mkdir(mode=0o700, parents=True, exist_ok=True)
    return [
        _write_trial(study.name, study.fingerprint, study.answer["answer"], trial, out)
        for trial in study.trials
    ]


class WandbOffline:
    """One study's runs, each written when its trial has ended."""

    def __init__(self, name: str, fingerprint: str, out: Path) -> None:
        import wandb  # noqa: F401 - fails here where it is not installed

        out.mkdir(parents=True, exist_ok=True)
        self._name, self._fingerprint, self._out = name, fingerprint, out

    def trial(self, trial: TrialRecord) -> None:
        """Write a trial that has ended, unless it is there."""
        of_this = f"wandb/offline-run-*-{_run_id(self._fingerprint, trial)}"
        if trial.state != "running" and not any(self._out.glob(of_this)):
            _write_trial(self._name, self._fingerprint, None, trial, self._out)


def _run_id(fingerprint: str, trial: TrialRecord) -> str:
    return f"{fingerprint[:12]}-{trial.number}"


def _write_trial(name: str, fingerprint: str, answer: Any, trial: TrialRecord, out: Path) -> Path:
    import wandb

    run = wandb.init(
        mode="offline",
        dir=out,
        project=name,
        name=f"trial {trial.number}",
        id=_run_id(fingerprint, trial),
        group=fingerprint[:12],
        config={**trial.parameters, "number": trial.number, "state": trial.state, "origin": trial.origin},
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
    )
    for epoch in trial.curve:
        run.log({**epoch.values, "epoch": epoch.epoch}, step=epoch.epoch)
    run.summary.update({**trial.results, **({} if answer is None else {"answer": answer})})
    folder = Path(run.dir).parent
    run.finish(exit_code=0 if trial.state != "failed" else 1)
    return folder
