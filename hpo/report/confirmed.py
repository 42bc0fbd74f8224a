"""A confirmation in words, the same on the command line and in the report."""

from __future__ import annotations

from datetime import UTC, datetime

from hpo.confirm.confirmed import ArmResult, Confirmation
from hpo.confirm.judging import Against
from hpo.confirm.unit_intervals import Estimate
from hpo.confirm.verdicts import Finding, Look
from hpo.numbers import about, percent, rate, ratio, within
from hpo.report.language import SPOKEN, Language, Words
from hpo.report.naming import full_name, loss_words, metric

_OURS = frozenset({"luckiest", "from_scratch", "linear_probing", "trivial"})
"""Roles of arms that no study file names."""


def confirmation_lines(found: Confirmation, language: Language = "en") -> list[str]:
    """Return the verdict, the arms, the published numbers and the looks at the test split."""
    words = SPOKEN[language]
    return [
        headline(found, words),
        *(_arm(found, place, words) for place in range(len(found.arms))),
        *_published(found, words),
        *basis_lines(found, words),
    ]


def headline(found: Confirmation, words: Words) -> str:
    """Return the first line: what the test split says of the answer's own choice."""
    name, given = full_name(found.study, found.labels, words), _numbers(found, found.arms[0], words)
    return words.say(f"confirmed.choice.{found.finding.value}", name=name, **given)


def verdict_words(found: Confirmation, result: ArmResult, words: Words) -> str:
    """Return what an arm is, beside the published default, and why it cannot be told where it cannot."""
    against, given = result.against_baseline, _numbers(found, result, words)
    if against is None:
        return words.say(f"verdict.{Finding.ALL_FAILED.value}", **given)
    said = words.say(f"verdict.{against.finding.value}", **given)
    if against.doubt is None:
        return said
    why = words.say(f"doubt.{against.doubt.value}", **given)
    return words.say("verdict.doubt", said=said, why=why)


def _numbers(found: Confirmation, result: ArmResult, words: Words) -> dict[str, object]:
    """Return the numbers that a verdict's words may name."""
    units = words.count(f"unit.{found.task.unit_of_independence}", result.subjects)
    against = result.against_baseline
    given: dict[str, object] = {"n": len(found.seeds), "units": units, "least": found.look.min_seeds}
    given["seeds"] = words.count("seeds", len(found.seeds))
    if against is None:
        return given
    return given | {
        "failed": against.failures.arm,
        "others": against.failures.baseline,
        "excluded": percent(against.failures.not_excluded),
        "undone": f"{100 * (against.break_even or 0.0):.2g} %",
    }


def arm_name(found: Confirmation, place: int, words: Words) -> str:
    """Return what an arm is called; the names of configurations are those of the study file."""
    arm = found.arms[place].arm
    if arm.role == "choice":
        earlier = [one for one in found.arms[:place] if one.arm.role == "choice"]
        return words.say("arm.choice", place=len(earlier) + 1)
    return words.name("arm", arm.role) if arm.role in _OURS else words.name("configuration", arm.name)


def _arm(found: Confirmation, place: int, words: Words) -> str:
    result = found.arms[place]
    what = _with_rates(result, arm_name(found, place, words), words)
    if not result.metrics:
        return words.say("confirmed.arm.failed", arm=what)
    if result.failed:
        failed, seeds = result.failed, words.count("seeds", len(found.seeds))
        what = words.say("confirmed.arm.some_failed", arm=what, failed=failed, seeds=seeds)
    value = interval(result.metrics[found.task.yardstick], found.task.unit)
    estimate = words.say("confirmed.estimate", metric=metric(found.task, words), value=value)
    given = {"arm": what, "estimate": estimate, "others": ", ".join(other_metrics(found, result))}
    against = result.against_baseline
    if against is None:
        return words.say("confirmed.arm", **given)
    gap, verdict = gap_words(against, words), verdict_words(found, result, words)
    return words.say("confirmed.arm.beside", **given, gap=gap, verdict=verdict)


def interval(measured: Estimate, unit: str = "") -> str:
    """Return an arm's metric with its interval."""
    return within(measured.mean, measured.low, measured.high, unit)


def other_metrics(found: Confirmation, result: ArmResult) -> list[str]:
    """Return an arm's metrics beside the yardstick, in as many digits as their intervals have any use for."""
    others = (pair for pair in result.metrics.items() if pair[0] != found.task.yardstick)
    return [f"{name} {interval(one).partition(' ')[0]}" for name, one in others]


def _with_rates(result: ArmResult, name: str, words: Words) -> str:
    arm = result.arm
    if arm.loss is None:
        return name
    rates = [
        words.say("confirmed.rate", name=key, value=rate(value))
        for key, value in (("lr", arm.lr), ("backbone_lr", arm.backbone_lr))
        if value
    ]
    if arm.ratio is not None:
        rates.append(words.say("confirmed.rate", name=words.say("word.ratio"), value=ratio(arm.ratio)))
    rates.append(loss_words(arm.loss, arm.choices, words))
    return words.say("confirmed.rates", name=name, rates=words.say("list.comma").join(rates))


def gap_words(against: Against, words: Words) -> str:
    """Return an arm's difference to the published default with its interval and p."""
    gap = within(against.difference, against.low, against.high, sign="+")
    return words.say("table.arm.gap", gap=gap, p=f"{against.p:.2g}")


def basis_lines(found: Confirmation, words: Words) -> list[str]:
    """Return what a verdict rests on and what limits it, and which look at the test split it was."""
    first, of = found.arms[0].against_baseline, words.say(f"plural.{found.task.unit_of_independence}")
    units = words.count(f"unit.{found.task.unit_of_independence}", found.arms[0].subjects)
    pairs = words.count("seeds", len(found.seeds) if first is None else first.pairs)
    lines = [words.say("confirmed.basis", seeds=pairs, first=found.seeds[0], units=units, of=of)]
    if first is not None:
        lines += _failures(found, first, words)
    if first is not None and first.detectable is not None:
        lines.append(words.say("confirmed.detectable", size=about(first.detectable, found.task.unit)))
    if len(found.seeds) < found.look.min_seeds:
        given = {"smallest": f"{2 / 2 ** len(found.seeds):.3g}", "least": found.look.min_seeds}
        seeds = words.count("seeds", len(found.seeds))
        lines.append(words.say("confirmed.few_seeds", seeds=seeds, look=found.look.number, **given))
    lines.append(_spent(found.look, found.test_looks, words))
    if found.task.unit_of_independence == "block":
        lines.append(words.say("confirmed.blocks"))
    at = datetime.fromtimestamp(found.frozen_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    looked = words.count("times", found.test_looks)
    frozen = {"hash": found.choice_hash[:16], "at": at, "look": found.look.number, "times": looked}
    return [*lines, words.say("confirmed.frozen", **frozen)]


def _failures(found: Confirmation, first: Against, words: Words) -> list[str]:
    if first.failures.any:
        return [words.say("confirmed.failed.counted")]
    rate = percent(first.failures.not_excluded)
    return [words.count("confirmed.failed.none", len(found.seeds), rate=rate)]


def _spent(look: Look, looks: int, words: Words) -> str:
    """Return what this look may spend, and what the next one needs."""
    following = Look(looks + 1)
    return words.say(
        "confirmed.spent",
        look=look.number,
        alpha=f"{100 * look.alpha:.2g} %",
        next=following.number,
        level=f"{following.level:.2g}",
        least=following.min_seeds,
    )


def _published(found: Confirmation, words: Words) -> list[str]:
    nothing = words.say("confirmed.published.nothing")
    return [
        words.say(
            "confirmed.published",
            name=one.name,
            metrics=", ".join(f"{name} {value:g}" for name, value in one.metrics.items()),
            source=one.source,
            comparable=one.comparable or nothing,
        )
        for one in found.published
    ]
