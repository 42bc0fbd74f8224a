"""Two studies side by side: what they found, and everything that differs between them."""

from __future__ import annotations

from typing import Any

from hpo.analysis.values import Answer, Expected
from hpo.analysis.zones import Standing, Zones
from hpo.ledger.optuna_rows import plain
from hpo.numbers import about, percent, rate, ratio, rounded, with_error
from hpo.reading.findings import Findings
from hpo.report.language import SPOKEN, Language, Words
from hpo.report.naming import label_words, loss_words, metric_with_unit
from hpo.report.told import answer_json
from hpo.report.zones import good_spans
from hpo.study import ABSENT


def differences(first: Findings, second: Findings, language: Language = "en") -> list[str]:
    """Return one line for each thing that differs and can change a result.

    Spec, data and versions, and how many trials there are; [] for two searches of the very same question.
    """
    words, rows = SPOKEN[language], (first.row, second.row)
    nothing, none = words.say("compare.nothing"), words.say("label.none")
    pairs: dict[str, tuple[Any, Any]] = {
        one.key: (one.here, one.there) for one in first.spec.differences(second.spec)
    }
    hashes, labels = (
        [str(row.data.get("data_hash", ""))[:16] for row in rows],
        [", ".join(label_words(one.labels, words)) or none for one in (first, second)],
    )
    pairs[words.say("compare.key.data")] = hashes[0], hashes[1]
    pairs[words.say("compare.key.labels")] = labels[0], labels[1]
    pairs[words.say("compare.key.finished")] = first.counts.finished, second.counts.finished
    for name in dict.fromkeys([*rows[0].versions, *rows[1].versions]):
        pairs[name] = rows[0].versions.get(name), rows[1].versions.get(name)
    shown = {
        key: [nothing if one is None or one is ABSENT else one for one in pair]
        for key, pair in pairs.items()
        if pair[0] != pair[1]
    }
    return [
        words.say("compare.difference", key=key, first=mine, second=theirs)
        for key, (mine, theirs) in shown.items()
    ]


def statements(first: Findings, second: Findings, language: Language = "en") -> list[str]:
    """Return what may be concluded from the ratios of the two, and whether losses compare."""
    words = SPOKEN[language]
    return [_zones(first, second, words), _ratios(first, second, words), _losses(first, second, words)]


def _zones(first: Findings, second: Findings, words: Words) -> str:
    """Say which ratios are as good in both: what may be taken from one study to the other."""
    mine, theirs = first.answer.zones, second.answer.zones
    if mine is None or theirs is None:
        return words.say("compare.zones.unknown")
    if sure := _good_in_both(mine, theirs, words):
        return words.say("compare.zones.both", spans=sure)
    if likely := _good_in_both(mine.with_likely, theirs.with_likely, words):
        return words.say("compare.zones.likely", spans=likely)
    is_known = mine.as_good and theirs.as_good
    return words.say("compare.zones.apart" if is_known else "compare.zones.unknown")


def _good_in_both(mine: Zones, theirs: Zones, words: Words) -> str:
    """Return the ratios that are as good as the best in both; empty where none is."""
    both = [
        (max(one.low, other.low), min(one.high, other.high))
        for one in mine.pieces
        for other in theirs.pieces
        if one.standing is other.standing is Standing.AS_GOOD
    ]
    shared = [(ratio(10**low), ratio(10**high)) for low, high in both if low < high]
    return words.listed([words.say("span.between", low=low, high=high) for low, high in shared], "or")


def _ratios(first: Findings, second: Findings, words: Words) -> str:
    found = first, second
    unknown = [one.row.name for one in found if not _is_identified(one.answer)]
    if unknown:
        return words.count("compare.unknown", len(unknown), names=words.listed(unknown))
    (low, high), (other_low, other_high) = (one.answer.curve.interval for one in found if one.answer.curve)
    return words.say("compare.apart" if high < other_low or other_high < low else "compare.overlap")


def _is_identified(answer: Answer) -> bool:
    return answer.curve is not None and answer.curve.identified


def _losses(first: Findings, second: Findings, words: Words) -> str:
    yardsticks = {
        (one.task.name, one.spec.validation, one.row.data.get("data_hash")) for one in (first, second)
    }
    if len(yardsticks) > 1:
        return words.say("compare.losses.other_data")
    ours, theirs = _expected(first.answer), _expected(second.answer)
    if ours is None or theirs is None or ours.standard_error is None or theirs.standard_error is None:
        return words.say("compare.losses.unknown")
    gap = ours.value - theirs.value
    error = float((ours.standard_error**2 + theirs.standard_error**2) ** 0.5)
    is_more = abs(gap) > 1.96 * error
    said = with_error(gap, error, first.task.unit, sign="+")
    return words.say("compare.losses.more" if is_more else "compare.losses.less", gap=said)


def _expected(answer: Answer) -> Expected | None:
    choice = answer.choice
    if choice is None or choice.expected_validation_loss is None:
        return None
    return Expected(choice.expected_validation_loss, choice.standard_error)


def table(first: Findings, second: Findings, language: Language = "en") -> list[tuple[str, str, str]]:
    """Return rows of (what, the first's, the second's), a heading first."""
    columns = [_column(one, SPOKEN[language]) for one in (first, second)]
    names = list(columns[0])
    return [
        ("", first.row.name, second.row.name),
        *((name, columns[0][name], columns[1][name]) for name in names),
    ]


def _column(found: Findings, words: Words) -> dict[str, str]:
    answer, unit, unknown = found.answer, found.task.unit, words.say("table.unknown")
    zones, choice, noise = answer.zones, answer.choice, answer.noise
    rates = unknown
    if choice is not None:
        chosen = loss_words(choice.loss, choice.choices, words)
        rates = f"{rate(choice.lr)}, {rate(choice.backbone_lr)}, {chosen}"
    resolved = unknown if zones is None else percent(zones.resolved)
    good = good_spans(zones, words) if zones else ""
    labels = ", ".join(label_words(found.labels, words))
    seed_sd = unknown if noise.seed_sd is None else about(noise.seed_sd, unit)
    optimism = unknown if answer.optimism is None else about(answer.optimism, unit)
    return {
        words.say("all.data"): labels or words.say("label.complete"),
        words.say("compare.yardstick"): metric_with_unit(found.task, words),
        words.say("compare.key.finished"): str(found.counts.finished),
        words.say("compare.failed"): str(found.counts.failed),
        words.say("all.zones"): good or unknown,
        words.say("compare.resolved"): resolved,
        words.say("compare.ratio"): _best_ratio(answer, words),
        words.say("compare.rates"): rates,
        words.say("all.expected"): _loss(_expected(answer), unknown),
        words.say("compare.default"): _loss(answer.baseline, unknown),
        words.say("compare.constant"): _constant(found, words),
        words.say("compare.seed_sd"): seed_sd,
        words.say("compare.optimism"): optimism,
    }


def _best_ratio(answer: Answer, words: Words) -> str:
    curve = answer.curve
    if curve is None or curve.best is None or not curve.identified:
        return words.say("all.not_identified")
    best, low, high = (ratio(10**one) for one in (curve.best, *curve.interval))
    return words.say("all.interval", best=best, low=low, high=high)


def _constant(found: Findings, words: Words) -> str:
    value, against = rounded(found.trivial, found.answer.noise.seed_sd), found.answer.against_trivial
    if found.answer.choice is None or against == "beats":
        return value
    return words.say(f"all.against.{against}", value=value)


def _loss(expected: Expected | None, unknown: str) -> str:
    return unknown if expected is None else with_error(expected.value, expected.standard_error)


def to_json(first: Findings, second: Findings) -> dict[str, Any]:
    """Return both answers, what differs and what may be concluded."""
    found: dict[str, Any] = plain(
        {
            "studies": [
                {"study": one.row.name, "labels": list(map(str, one.labels)), **answer_json(one.answer)}
                for one in (first, second)
            ],
            "differences": differences(first, second),
            "statement": " ".join(statements(first, second)),
        }
    )
    return found
