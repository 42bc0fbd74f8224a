"""A study as offline runs of Weights & Biases: a run a trial, sent with ``wandb sync`` when one likes."""

from __future__ import annotations

from pathlib import Path

from hpo.records.study import StudyRecord, TrialRecord


def write_wandb(study: StudyRecord, out: Path) -> list[Path]:
    """Write a run a trial below ``out``/wandb, without any network; returns their folders.

    A run's id is made of the study's fingerprint and the trial's number: sent twice it is there once.
    """
    (out / "wandb").mkdir(mode=0o700, parents=True, exist_ok=True)
    return [_write_trial(study, trial, out) for trial in study.trials]


def _write_trial(study: StudyRecord, trial: TrialRecord, out: Path) -> Path:
    import wandb

    run = wandb.init(
        mode="offline",
        dir=out,
        project=study.name,
        name=f"trial {trial.number}",
        id=f"{study.fingerprint[:12]}-{trial.number}",
        group=study.fingerprint[:12],
        config={**trial.parameters, "number": trial.number, "state": trial.state, "origin": trial.origin},
        settings=wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True),
    )
    for epoch in trial.curve:
        run.log({**epoch.values, "epoch": epoch.epoch}, step=epoch.epoch)
    run.summary.update({**trial.results, "answer": study.answer["answer"]})
    folder = Path(run.dir).parent
    run.finish(exit_code=0 if trial.state != "failed" else 1)
    return folder
