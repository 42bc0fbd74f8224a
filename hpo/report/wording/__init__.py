"""The answer of a study in words, the same on the command line and in the report."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.reading.findings import Findings
from hpo.report.wording.notes import said
from hpo.report.wording.numbers import about, with_error

YARDSTICKS = {"mae": "MAE", "cross_entropy": "cross-entropy", "bce": "binary cross-entropy"}


def answer_lines(findings: Findings) -> list[str]:
    """Return the answer, the verdict on the trivial predictor first."""
    found = findings.answer
    return [
        verdict(findings),
        *_choice(findings),
        *_ratio(findings),
        *_beside(findings),
        *_best_trial(findings),
        *_imported(findings),
        *_failures(findings),
        *(f"note: {said(note)}" for note in found.notes),
    ]


def verdict(findings: Findings) -> str:
    """Return the first line: is the chosen configuration better than the trivial predictor?"""
    found, name = findings.answer, _name(findings)
    trivial = f"the trivial predictor ({findings.trivial_name}: {_loss(findings, findings.trivial)})"
    if found.choice is None or found.choice.expected_validation_loss is None:
        counts = findings.counts
        have = f"{counts.complete} complete, {counts.pruned} pruned and {counts.failed} failed trials"
        return f"{name}: no answer: {have} cannot say what beats {trivial}."
    expected = _with_error(findings, found.choice.expected_validation_loss, found.choice.standard_error)
    said = {
        "beats": f"the best configuration beats {trivial} by more than its noise",
        "does not beat": f"no configuration beats {trivial}",
        "cannot be told": f"the best configuration cannot be told from {trivial}: the gap is within noise",
    }[found.against_trivial]
    return f"{name}: {said}; expected validation {YARDSTICKS[findings.task.yardstick]} {expected}."


def _name(findings: Findings) -> str:
    """Return the study's name, with what every output must say of its data."""
    return " ".join([findings.row.name, *(f"[{label}]" for label in findings.labels)])


def next_steps(findings: Findings, option: str = "") -> list[str]:
    """Return what to type next; ``option`` is the storage option that the person used, or nothing."""
    name, counts = findings.row.name, findings.counts
    report = f"hpo report --study {name}{option}"
    if findings.answer.choice is None or not (findings.answer.curve and findings.answer.curve.identified):
        more = max(2 * counts.finished, findings.spec.budget.trials)
        return [
            f"next: {run_command(findings, more, option)}   (more trials sharpen the answer)",
            f"      {report}",
        ]
    return [f"next: {report}"]


def run_command(findings: Findings, trials: int, option: str = "") -> str:
    """Return what goes on with a study up to so many trials, on a part of its data where it began on one."""
    partial = " --allow-partial" if findings.row.data.get("partial") else ""
    return f"hpo run --study {findings.row.name} --trials {trials}{partial}{option}"


def _choice(findings: Findings) -> list[str]:
    choice = findings.answer.choice
    if choice is None:
        return []
    return [
        f"best configuration: lr {choice.lr:.3g}, backbone_lr {choice.backbone_lr:.3g}, loss {choice.loss}, "
        f"ratio lr/backbone_lr {choice.ratio:.3g}"
    ]


def _ratio(findings: Findings) -> list[str]:
    curve = findings.answer.curve
    if curve is None:
        return ["best ratio: not identified by these trials"]
    low, high = (10**end for end in curve.interval)
    first, last = (10**end for end in curve.indistinguishable)
    tied = f"cannot be told from {first:.3g} to {last:.3g}"
    if not curve.identified or curve.best is None:
        return [f"best ratio: not identified by these trials (95 % interval {low:.3g} to {high:.3g}; {tied})"]
    return [f"best ratio: {10**curve.best:.3g} (95 % interval {low:.3g} to {high:.3g}; {tied})"]


def _own_runs(runs: Sequence[float]) -> str:
    """Say what an arm's own trials showed, beside what the model expects of it."""
    if not runs:
        return " (by the model alone: it has no complete run of its own)"
    if len(runs) == 1:
        return f" (its own run: {runs[0]:.4g})"
    return f" (its own {len(runs)} runs: {min(runs):.4g} to {max(runs):.4g})"


def _beside(findings: Findings) -> list[str]:
    baseline, spec = findings.answer.baseline, findings.spec.baseline
    known = _with_error(findings, baseline.value, baseline.standard_error) if baseline else "not known yet"
    against = {
        "beats": "the best configuration is better by more than noise",
        "does not beat": "the best configuration is not better",
        "cannot be told": "cannot be told apart from the best configuration",
    }[findings.answer.against_baseline]
    return [
        f"baseline ({spec.name}: lr {spec.lr:g}, backbone_lr {spec.backbone_lr:g}, {spec.loss}): {known}"
        + (f"{_own_runs(baseline.runs)}; {against}" if baseline else ""),
        f"trivial predictor ({findings.trivial_name}): {_loss(findings, findings.trivial)}",
    ]


def _best_trial(findings: Findings) -> list[str]:
    best, optimism = findings.answer.best, findings.answer.optimism
    if best is None:
        return []
    value = _loss(findings, best.validation_loss)
    luck = "" if optimism is None else f"; optimistic by about {about(optimism, findings.task.unit)}"
    return [f"best single trial: {best.number} at {value} (seed {best.seed}{luck})"]


def _imported(findings: Findings) -> list[str]:
    """Return how many trials somebody brought: they are never shown as measurements of ours."""
    count, finished = findings.imported, findings.counts.finished
    were = "was" if count == 1 else "were"
    return [f"{count} of {finished} finished trials {were} imported, not measured here"] if count else []


def _failures(findings: Findings) -> list[str]:
    failed = findings.counts.failed
    plural = "trial" if failed == 1 else "trials"
    return (
        [f"{failed} {plural} failed for good: hpo status --study {findings.row.name} says why"]
        if failed
        else []
    )


def _loss(findings: Findings, value: float) -> str:
    return f"{value:.4g} {findings.task.unit}".rstrip()


def _with_error(findings: Findings, value: float, error: float | None) -> str:
    return with_error(value, error, findings.task.unit)
