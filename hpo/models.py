"""``hpo export``: the best configuration as a model folder, with a card that says what is known of it."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa
from rich.console import Console

from finetune.api import Report, Run, RunResult, RunSpec, check_backbone, export_model
from hpo.confirm.runs import ArmRun, ConfirmationRuns
from hpo.errors import Said, UsageError
from hpo.ledger.choice_book import ChoiceBook, StoredChoice
from hpo.numbers import quantity
from hpo.reading.findings import Findings, find_out
from hpo.report.answer import answer_lines
from hpo.report.language import SPOKEN
from hpo.report.naming import label_words, loss_words
from hpo.study import Configuration
from hpo.worker import Settings, check_fits


@dataclass(frozen=True)
class Made:
    """A model folder."""

    files: Sequence[Path]
    origin: Literal["confirmed", "trained again"]
    run: RunSpec
    said: str
    """In words: which run it is."""

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "origin": self.origin,
            "lr": self.run.lr,
            "backbone_lr": self.run.backbone_lr,
            "ratio": self.run.lr / self.run.backbone_lr,
            "loss": self.run.loss,
            "seed": self.run.seed,
            "run": asdict(self.run),
            "files": [str(file) for file in self.files],
        }


def export_best(
    engine: sa.Engine, url: str, study: str, out: Path, settings: Settings, console: Console
) -> Made:
    """Write the model folder of a study's answer: its confirmed run if there is one, or one trained now.

    Of the confirmed runs of the chosen configuration the one with the median validation loss is taken: a
    typical one, picked without the test split. Raises :class:`UsageError` for a study without an answer,
    :class:`hpo.errors.MismatchError` when data or code are not the study's.
    """
    findings = find_out(engine, study)
    check_fits(findings.row, findings.spec, settings)
    found = _confirmed(engine, url, findings, settings)
    if found is not None:
        run, scored = found
        said = f"the run of seed {run.seed}, the median of {len(scored.choice.seeds)} confirmed ones"
        assert run.weights is not None
        card = model_card(findings, run.spec, said, _test_lines(engine, findings, scored, run))
        return Made(_write(run.spec, run.weights, out, card, settings), "confirmed", run.spec, said)
    spec = _answer_run(findings)
    with tempfile.TemporaryDirectory() as folder:
        said = f"trained again with seed {spec.seed}, never scored on the test split"
        console.print(f"{study}: no confirmed weights here; {said}", highlight=False)
        weights = _train(spec, Path(folder), settings, console)
        card = model_card(findings, spec, said, ["Not confirmed: the test split has not been opened for it."])
        return Made(_write(spec, weights, out, card, settings), "trained again", spec, said)


def _write(spec: RunSpec, weights: Path, out: Path, card: str, settings: Settings) -> list[Path]:
    where = {"data_dir": settings.data_dir, "cache_dir": settings.cache_dir}
    return export_model(spec, weights, out, card=card, **where)


def _confirmed(
    engine: sa.Engine, url: str, findings: Findings, settings: Settings
) -> tuple[ArmRun, StoredChoice] | None:
    """Return the median run of the newest scored confirmation; None where its weights are not at hand."""
    scored = [one for one in ChoiceBook(engine).all(findings.row.study_id) if one.scored_at is not None]
    if not scored:
        return None
    try:
        runs = ConfirmationRuns(engine, url, findings, scored[-1].choice, settings).ended(only_arm=0)
    except UsageError:
        return None
    trained = [run for run in runs if run.weights is not None]
    ranked = sorted((run.validation_loss, run.seed) for run in trained if run.validation_loss is not None)
    if not ranked:
        return None
    seed = ranked[(len(ranked) - 1) // 2][1]
    return next(run for run in runs if run.seed == seed), scored[-1]


def _answer_run(findings: Findings) -> RunSpec:
    choice = findings.answer.choice
    if choice is None:
        raise UsageError(
            Said(
                "{name} has {complete} complete trials: too few for an answer",
                name=findings.row.name,
                complete=findings.counts.complete,
            ),
            "at least 4",
            Said("type: hpo run --study {name}", name=findings.row.name),
        )
    seed = findings.spec.space.seed.low
    return findings.spec.run_spec(Configuration.at(choice, seed))


class _OneRun:
    """A source that holds one run and tells its epochs."""

    def __init__(self, run: Run, console: Console) -> None:
        self._runs = [run]
        self._console = console
        self.result: RunResult | None = None

    def next_run(self) -> Run | None:
        """Give the run once."""
        return self._runs.pop() if self._runs else None

    def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        """Tell of each epoch; nothing is pruned."""
        for report in reports:
            self._console.print(
                f"epoch {report.epoch}: validation loss {quantity(report.validation_loss)}", highlight=False
            )
        return [True] * len(reports)

    def finish(self, result: RunResult) -> None:
        """Keep the result."""
        self.result = result


def _train(spec: RunSpec, folder: Path, settings: Settings, console: Console) -> Path:
    source = _OneRun(Run("export", spec, folder), console)
    settings.open_trainer().train(
        source,
        data_dir=settings.data_dir,
        cache_dir=settings.cache_dir,
        device=settings.device,
        slots=1,
    )
    assert source.result is not None
    if source.result.checkpoint is None:
        raise UsageError(
            "the chosen configuration diverged", "a finite loss", "type: hpo run with more trials"
        )
    return source.result.checkpoint


def _test_lines(engine: sa.Engine, findings: Findings, scored: StoredChoice, run: ArmRun) -> list[str]:
    """Return what the test split said of this very run, and how often it has been looked at."""
    found = ChoiceBook(engine).scores(findings.row.study_id, scored.choice.choice_hash)
    metrics = next(score.metrics for score in found.scores if (score.arm, score.seed) == (0, run.seed))
    said = ", ".join(f"{name} {quantity(value)}" for name, value in metrics.items())
    units = len(set(found.groups.tolist()))
    return [
        f"This run on the test split ({units} {findings.task.unit_of_independence}s): {said}.",
        f"Frozen choice {scored.choice.choice_hash[:16]}; hpo confirm shows it with intervals and rivals.",
    ]


def model_card(findings: Findings, run: RunSpec, said: str, test_lines: Sequence[str]) -> str:
    """Return MODEL_CARD.md: what the model is, the answer it comes from, and its limits."""
    task, data, backbone = findings.task, findings.row.data, check_backbone(run.backbone, findings.task)
    subjects = {split: len(names) for split, names in data.get("subjects", {}).items()}
    units = f"{task.unit_of_independence}s"
    chosen = {name: getattr(run.recipe, name) for name in findings.spec.space.choices}
    loss = loss_words(run.loss, chosen, SPOKEN["en"])
    labels = [f"Trained on {label}." for label in label_words(findings.labels, SPOKEN["en"])]
    lines = [
        f"# {findings.row.name}: {findings.spec.title or task.name}",
        "",
        f"Predicts {task.name}{f' in {task.unit}' if task.unit else ''} from {task.window_s:g} s of "
        f"{task.signal.upper()}. {said[0].upper()}{said[1:]}.",
        "",
        f"- Configuration: lr {run.lr:.4g}, backbone_lr {run.backbone_lr:.4g} (ratio "
        f"{run.lr / run.backbone_lr:.3g}), loss {loss}, {run.mode}.",
        f"- Backbone: {backbone.name}; licence: {backbone.licence}; pretrained on "
        f"{'; '.join(backbone.pretrained_on)}. Leakage: {backbone.leakage}.",
        f"- Input: windows normalised by {run.inputs.normalisation}, {run.inputs.samples} samples.",
        "",
        "## The answer of the search",
        "",
        *(f"- {line}" for line in answer_lines(findings)),
        "",
        "## Test",
        "",
        *(f"- {line}" for line in test_lines),
        "",
        "## Limits",
        "",
        *(f"- {line}" for line in labels),
        f"- Trained on {subjects['train']}, validated on {subjects['validation']} {units} of one data set; "
        "people, sensors and recordings of other kinds were never seen.",
        "- Windows of one person are alike: figures vary more between people than within them.",
        "- Not a medical device; not for diagnosis or treatment.",
    ]
    return "\n".join(lines) + "\n"
