"""All searches of a database in one table: a row a study, the published number beside ours."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import sqlalchemy as sa

from hpo.errors import UnknownStudyError, UsageError
from hpo.ledger.choice_book import ChoiceBook
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.reading.findings import Findings, find_out
from hpo.reading.standing import known_task
from hpo.report.wording import YARDSTICKS
from hpo.report.wording.numbers import with_error

HEADER = ("study", "data", "trials", "best ratio", "expected validation loss", "trivial", "ours", "published")

_CAUTION = (
    "Ratios are lr / backbone_lr. Expected loss and trivial predictor: validation split. Published numbers "
    "are of the test split and of other encoders: what cannot be compared stands in each study's report."
)


@dataclass(frozen=True)
class Row:
    """One study of the table; ``None`` stands for what its trials do not say."""

    study: str
    task: str
    data: str
    """``complete``, or ``partial: n of N records``, or ``synthetic signals``."""
    finished: int
    failed: int
    yardstick: str
    unit: str
    ratio: float | None
    """Only where it is identified."""
    ratio_interval: tuple[float, float] | None
    """95 %."""
    expected: float | None
    """Validation loss of the chosen configuration, by the model of the search."""
    standard_error: float | None
    trivial: float
    against_trivial: str
    ours: dict[str, float]
    """The metrics that were published, of ours; by :attr:`ours_is`."""
    ours_is: str
    published: dict[str, float]
    published_name: str


def summarise(engine: sa.Engine) -> list[Row]:
    """Return a row for every search in the database, by name; raises when there is none."""
    rows = sorted((row for row in Ledger(engine).studies() if row.kind == "search"), key=lambda row: row.name)
    if not rows:
        raise UnknownStudyError(
            "no study in the database", "one or more", "type: hpo run --study synthetic_rr"
        )
    return [
        _row(engine, find_out(engine, row.name)) if known_task(row) is not None else _unknown_row(engine, row)
        for row in rows
    ]


def _unknown_row(engine: sa.Engine, row: StudyRow) -> Row:
    """Return what can be said of a study whose task, encoder or loss this version does not know."""
    counts = Ledger(engine).counts(row.study_id)
    return Row(
        study=row.name,
        task=str(row.spec.get("task", "")),
        data="unknown to this version",
        finished=counts.finished,
        failed=counts.failed,
        yardstick="",
        unit="",
        ratio=None,
        ratio_interval=None,
        expected=None,
        standard_error=None,
        trivial=math.nan,
        against_trivial="",
        ours={},
        ours_is="",
        published={},
        published_name="",
    )


def _row(engine: sa.Engine, findings: Findings) -> Row:
    found, task = findings.answer, findings.task
    curve, choice, published = found.curve, found.choice, findings.spec.published
    is_known = curve is not None and curve.identified and curve.best is not None
    first = dict(published[0].metrics) if published else {}
    ours, ours_is = _ours(engine, findings, list(first) or [task.yardstick])
    return Row(
        study=findings.row.name,
        task=task.name,
        data=", ".join(findings.labels) or "complete",
        finished=findings.counts.finished,
        failed=findings.counts.failed,
        yardstick=YARDSTICKS[task.yardstick],
        unit=task.unit,
        ratio=10**curve.best if is_known and curve is not None and curve.best is not None else None,
        ratio_interval=None if curve is None else (10 ** curve.interval[0], 10 ** curve.interval[1]),
        expected=choice.expected_validation_loss if choice else None,
        standard_error=choice.standard_error if choice else None,
        trivial=findings.trivial,
        against_trivial=found.against_trivial,
        ours=ours,
        ours_is=ours_is,
        published=first,
        published_name=published[0].name if published else "",
    )


def _ours(engine: sa.Engine, findings: Findings, names: Sequence[str]) -> tuple[dict[str, float], str]:
    """Return our metrics of those names: of the confirmed choice on test, else of the best trial."""
    book, study_id = ChoiceBook(engine), findings.row.study_id
    confirmed = [stored.choice for stored in book.all(study_id) if stored.scored_at is not None]
    if confirmed:
        choice = confirmed[-1]
        arm = next(place for place, arm in enumerate(choice.arms) if arm.role == "choice")
        scored = [one for one in book.scores(study_id, choice.choice_hash).scores if one.arm == arm]
        if not scored:  # all of them failed
            return {}, ""
        means = {
            n: float(np.mean([one.metrics[n] for one in scored])) for n in names if n in scored[0].metrics
        }
        return means, f"test, mean of {len(scored)} seeds"
    best = findings.answer.best
    if best is None:
        return {}, ""
    trial = findings.trials[findings.trials["number"] == best.number].iloc[0]
    metrics = {name: float(trial[f"metric_{name}"]) for name in names if f"metric_{name}" in trial.index}
    return metrics, "validation, best trial (optimistic)"


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as texts, one for each column of ``HEADER``."""
    loss = "not known" if row.expected is None else with_error(row.expected, row.standard_error, row.unit)
    return (
        row.study,
        row.data,
        f"{row.finished} ({row.failed} failed)" if row.failed else str(row.finished),
        _ratio(row),
        f"{row.yardstick} {loss}",
        "-"
        if math.isnan(row.trivial)
        else f"{row.trivial:.4g}" + ("" if row.against_trivial == "beats" else f" ({row.against_trivial})"),
        f"{_metrics(row.ours)} ({row.ours_is})" if row.ours else "-",
        f"{_metrics(row.published)} (test, {row.published_name})" if row.published else "nothing published",
    )


def _ratio(row: Row) -> str:
    if row.ratio is None or row.ratio_interval is None:
        return "not identified"
    low, high = row.ratio_interval
    return f"{row.ratio:.3g} (95 %: {low:.2g} to {high:.2g})"


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())


def markdown(rows: Sequence[Row]) -> str:
    """Return the table as Markdown, with what cannot be compared said below it."""
    lines = ["# All studies", "", f"| {' | '.join(HEADER)} |", "|---" * len(HEADER) + "|"]
    lines += [f"| {' | '.join(cells(row))} |" for row in rows]
    return "\n".join([*lines, "", _CAUTION]) + "\n"


def to_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the table as plain values, NaN as None."""
    return {"studies": [_finite(asdict(row)) for row in rows]}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_summary(rows: Sequence[Row], out: Path) -> list[Path]:
    """Write ``summary.md`` and ``summary.json`` into ``out``; raises :class:`UsageError` when it cannot."""
    texts = {"summary.md": markdown(rows), "summary.json": json.dumps(to_json(rows), indent=2) + "\n"}
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        what = f"cannot write the report to {str(out)!r} ({error.strerror})"
        raise UsageError(what, "a folder that can be written", "use --out DIR") from error
    return [out / name for name in texts]
