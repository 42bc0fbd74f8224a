"""Two studies side by side: what they found, and everything that differs between them."""

from __future__ import annotations

from typing import Any

from hpo.analysis.values import Answer
from hpo.ledger.optuna_rows import plain
from hpo.reading.findings import Findings
from hpo.report.told import answer_json
from hpo.report.wording import YARDSTICKS
from hpo.report.wording.numbers import with_error


def differences(first: Findings, second: Findings) -> list[str]:
    """Return one ``key: the first's | the second's`` for each thing that differs and can change a result.

    Spec, data and versions, and how many trials there are; [] for two searches of the very same question.
    """
    spec = first.spec.differences(second.spec)
    found = [line.replace(" here, ", " | ").removesuffix(" there") for line in spec]
    rows = first.row, second.row
    pairs: dict[str, tuple[Any, Any]] = {
        "data": (rows[0].data.get("data_hash", "")[:16], rows[1].data.get("data_hash", "")[:16]),
        "labels": (", ".join(first.labels) or "none", ", ".join(second.labels) or "none"),
        "finished trials": (first.counts.finished, second.counts.finished),
    }
    for name in dict.fromkeys([*rows[0].versions, *rows[1].versions]):
        pairs[name] = rows[0].versions.get(name, "nothing"), rows[1].versions.get(name, "nothing")
    return found + [f"{key}: {mine} | {theirs}" for key, (mine, theirs) in pairs.items() if mine != theirs]


def statement(first: Findings, second: Findings) -> str:
    """Return in one sentence what may be concluded from the two best ratios, and whether losses compare."""
    names, answers = (first.row.name, second.row.name), (first.answer, second.answer)
    unknown = [name for name, answer in zip(names, answers, strict=True) if not _is_identified(answer)]
    if unknown:
        ratios = f"the best ratio of {' and of '.join(unknown)} is not identified: ratios cannot be compared"
    else:
        (low, high), (other_low, other_high) = (answer.curve.interval for answer in answers if answer.curve)
        apart = high < other_low or other_high < low
        ratios = "the best ratios differ: their 95 % intervals do not meet"
        ratios = ratios if apart else "the best ratios cannot be told apart: their 95 % intervals overlap"
    return f"{ratios}; {_losses(first, second)}"


def _is_identified(answer: Answer) -> bool:
    return answer.curve is not None and answer.curve.identified


def _losses(first: Findings, second: Findings) -> str:
    yardsticks = {
        (one.task.name, one.spec.validation, one.row.data.get("data_hash")) for one in (first, second)
    }
    if len(yardsticks) > 1:
        return "losses are of different validation data and cannot be compared"
    if not (first.answer.choice and second.answer.choice):
        return "losses: not known for both"
    ours = first.answer.choice, second.answer.choice
    values = [one.expected_validation_loss for one in ours]
    errors = [one.standard_error for one in ours]
    if None in values or None in errors:
        return "losses: not known for both"
    gap, error = values[0] - values[1], (errors[0] ** 2 + errors[1] ** 2) ** 0.5  # type: ignore[operator]
    said = with_error(gap, error, first.task.unit, sign="+")
    more = "more" if abs(gap) > 1.96 * error else "not more"
    return f"expected loss of the first minus the second {said}: {more} than its error"


def table(first: Findings, second: Findings) -> list[tuple[str, str, str]]:
    """Return rows of (what, the first's, the second's), a heading first."""
    columns = [_column(first), _column(second)]
    names = list(columns[0])
    return [
        ("", first.row.name, second.row.name),
        *((name, columns[0][name], columns[1][name]) for name in names),
    ]


def _column(found: Findings) -> dict[str, str]:
    answer, unit = found.answer, found.task.unit
    curve, choice, noise = answer.curve, answer.choice, answer.noise
    interval = "" if curve is None else f" [{10 ** curve.interval[0]:.3g}, {10 ** curve.interval[1]:.3g}]"
    best = (
        f"{10**curve.best:.3g}" if curve and curve.identified and curve.best is not None else "not identified"
    )
    rates = "not known" if choice is None else f"{choice.lr:.3g}, {choice.backbone_lr:.3g}, {choice.loss}"
    return {
        "data": ", ".join(found.labels) or "complete",
        "yardstick": f"validation {YARDSTICKS[found.task.yardstick]} {unit}".rstrip(),
        "finished trials": str(found.counts.finished),
        "failed trials": str(found.counts.failed),
        "best ratio [95 %]": best + interval,
        "lr, backbone_lr, loss": rates,
        "expected loss": _loss(
            choice.expected_validation_loss if choice else None, choice.standard_error if choice else None
        ),
        "baseline": _loss(
            *((answer.baseline.value, answer.baseline.standard_error) if answer.baseline else (None, None))
        ),
        "trivial predictor": f"{found.trivial:.4g} ({answer.against_trivial})",
        "seed standard deviation": _loss(noise.seed_sd, None),
        "optimism of the best trial": _loss(answer.optimism, None),
    }


def _loss(value: float | None, error: float | None) -> str:
    if value is None:
        return "not known"
    return with_error(value, error)


def to_json(first: Findings, second: Findings) -> dict[str, Any]:
    """Return both answers, what differs and what may be concluded."""
    found: dict[str, Any] = plain(
        {
            "studies": [
                {"study": one.row.name, "labels": list(one.labels), **answer_json(one.answer)}
                for one in (first, second)
            ],
            "differences": differences(first, second),
            "statement": statement(first, second),
        }
    )
    return found
