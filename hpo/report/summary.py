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

from hpo.analysis.zones import Standing, Zone
from hpo.errors import Said, UnknownStudyError, UsageError
from hpo.ledger.choice_book import ChoiceBook
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.numbers import percent, quantity, ratio, with_error
from hpo.reading.findings import Findings, find_out
from hpo.reading.standing import known_task
from hpo.report.language import SPOKEN, Language, Words
from hpo.report.naming import label_words, metric

_HEADS = ("study", "data", "trials", "zones", "ratio", "expected", "trivial", "ours", "published")


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
    as_good: tuple[tuple[float, float], ...]
    """The pieces of the ratio axis that are as good as the best; empty where none is known to be."""
    likely_as_good: tuple[tuple[float, float], ...]
    """The same of what is at least likely so."""
    resolved: float | None
    """Share of the searched ratios, in decades, that is settled."""
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
    foreign_trials: int = 0
    """That another tool put into the study: they count for nothing."""


def summarise(engine: sa.Engine, language: Language = "en") -> list[Row]:
    """Return a row for every search in the database, by name; raises when there is none."""
    rows = sorted((row for row in Ledger(engine).studies() if row.kind == "search"), key=lambda row: row.name)
    if not rows:
        raise UnknownStudyError(
            "no study in the database", "one or more", "type: hpo run --study synthetic_rr"
        )
    words = SPOKEN[language]
    return [
        _unknown_row(engine, row, words)
        if known_task(row) is None
        else _row(engine, find_out(engine, row.name), words)
        for row in rows
    ]


def _unknown_row(engine: sa.Engine, row: StudyRow, words: Words) -> Row:
    """Return what can be said of a study whose task, encoder or loss this version does not know."""
    counts = Ledger(engine).counts(row.study_id)
    return Row(
        study=row.name,
        task=str(row.spec.get("task", "")),
        data=words.say("label.unknown"),
        finished=counts.finished,
        failed=counts.failed,
        yardstick="",
        unit="",
        ratio=None,
        ratio_interval=None,
        as_good=(),
        likely_as_good=(),
        resolved=None,
        expected=None,
        standard_error=None,
        trivial=math.nan,
        against_trivial="",
        ours={},
        ours_is="",
        published={},
        published_name="",
    )


def _row(engine: sa.Engine, findings: Findings, words: Words) -> Row:
    found, task = findings.answer, findings.task
    curve, choice, published = found.curve, found.choice, findings.spec.published
    is_known = curve is not None and curve.identified and curve.best is not None
    first = dict(published[0].metrics) if published else {}
    ours, ours_is = _ours(engine, findings, list(first) or [task.yardstick], words)
    zones = found.zones
    return Row(
        study=findings.row.name,
        task=task.name,
        data=", ".join(_remarks(findings, words)) or words.say("label.complete"),
        finished=findings.counts.finished,
        failed=findings.counts.failed,
        yardstick=metric(task, words),
        unit=task.unit,
        ratio=10**curve.best if is_known and curve is not None and curve.best is not None else None,
        ratio_interval=None if curve is None else (10 ** curve.interval[0], 10 ** curve.interval[1]),
        as_good=_good(zones.pieces) if zones else (),
        likely_as_good=_good(zones.likely) if zones else (),
        resolved=zones.resolved if zones else None,
        expected=choice.expected_validation_loss if choice else None,
        standard_error=choice.standard_error if choice else None,
        trivial=findings.trivial,
        against_trivial=found.against_trivial,
        ours=ours,
        ours_is=ours_is,
        published=first,
        published_name=published[0].name if published else "",
        foreign_trials=findings.foreign,
    )


def _remarks(findings: Findings, words: Words) -> list[str]:
    foreign = [words.count("status.foreign", findings.foreign)] if findings.foreign else []
    return [*label_words(findings.labels, words), *foreign]


def _ours(
    engine: sa.Engine, findings: Findings, names: Sequence[str], words: Words
) -> tuple[dict[str, float], str]:
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
        return means, words.count("all.source.test", len(scored))
    best = findings.answer.best
    if best is None:
        return {}, ""
    trial = findings.trials[findings.trials["number"] == best.number].iloc[0]
    metrics = {name: float(trial[f"metric_{name}"]) for name in names if f"metric_{name}" in trial.index}
    return metrics, words.say("all.source.validation")


def heads(language: Language = "en") -> tuple[str, ...]:
    """Return the heads of the columns."""
    return tuple(SPOKEN[language].say(f"all.{head}") for head in _HEADS)


def cells(row: Row, language: Language = "en") -> tuple[str, ...]:
    """Return a row as texts, one for each column."""
    words = SPOKEN[language]
    unknown = words.say("table.unknown")
    loss = unknown if row.expected is None else with_error(row.expected, row.standard_error, row.unit)
    trivial = "-" if math.isnan(row.trivial) else quantity(row.trivial)
    if row.expected is not None and row.against_trivial != "beats":
        trivial = words.say(f"all.against.{row.against_trivial}", value=trivial)
    failed = words.say("all.failed", finished=row.finished, failed=row.failed)
    published = words.say("all.published.of", metrics=_metrics(row.published), name=row.published_name)
    return (
        row.study,
        row.data,
        failed if row.failed else str(row.finished),
        _zones(row, words),
        _ratio(row, words),
        f"{row.yardstick} {loss}",
        trivial,
        words.say("all.of", metrics=_metrics(row.ours), source=row.ours_is) if row.ours else "-",
        published if row.published else words.say("all.nothing_published"),
    )


def _zones(row: Row, words: Words) -> str:
    if row.resolved is None:
        return words.say("all.zones.few")
    said = _spans(row.as_good, words)
    if not said and row.likely_as_good:
        said = words.say("zones.cell.likely", spans=_spans(row.likely_as_good, words))
    return words.say("all.zones.of", spans=said or words.say("table.unknown"), resolved=percent(row.resolved))


def _spans(pieces: Sequence[tuple[float, float]], words: Words) -> str:
    said = [words.say("span.between", low=ratio(low), high=ratio(high)) for low, high in pieces]
    return words.listed(said, "or")


def _good(pieces: Sequence[Zone]) -> tuple[tuple[float, float], ...]:
    good = [piece for piece in pieces if piece.standing is Standing.AS_GOOD]
    return tuple((10**piece.low, 10**piece.high) for piece in good)


def _ratio(row: Row, words: Words) -> str:
    if row.ratio is None or row.ratio_interval is None:
        return words.say("all.not_identified")
    best, low, high = (ratio(one) for one in (row.ratio, *row.ratio_interval))
    return words.say("all.interval", best=best, low=low, high=high)


def _metrics(metrics: dict[str, float]) -> str:
    return ", ".join(f"{name} {quantity(value)}" for name, value in metrics.items())


def markdown(rows: Sequence[Row], language: Language = "en") -> str:
    """Return the table as Markdown, with what cannot be compared said below it."""
    words, names = SPOKEN[language], heads(language)
    lines = [f"# {words.say('all.title')}", "", f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(cells(row, language))} |" for row in rows]
    return "\n".join([*lines, "", words.say("all.caution")]) + "\n"


def to_json(rows: Sequence[Row]) -> dict[str, Any]:
    """Return the table as plain values, NaN as None."""
    return {"studies": [_finite(asdict(row)) for row in rows]}


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(part) for key, part in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value


def write_summary(rows: Sequence[Row], out: Path, language: Language = "en") -> list[Path]:
    """Write ``summary.md`` and ``summary.json`` into ``out``; raises :class:`UsageError` when it cannot."""
    texts = {
        "summary.md": markdown(rows, language),
        "summary.json": json.dumps(to_json(rows), indent=2) + "\n",
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (out / name).write_text(text, encoding="utf-8")
    except OSError as error:
        what = Said("cannot write the report to {out!r} ({strerror})", out=str(out), strerror=error.strerror)
        raise UsageError(what, "a folder that can be written", "use --out DIR") from error
    return [out / name for name in texts]
