"""A confirmation in words, the same on the command line and in the report."""

from __future__ import annotations

from datetime import UTC, datetime

from hpo.confirm.confirmed import Against, ArmResult, Confirmation
from hpo.confirm.paired import MIN_SEEDS
from hpo.report.language import SPOKEN, Language, Words
from hpo.report.naming import full_name, metric
from hpo.report.numbers import about, rate, ratio


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
    name, first = full_name(found.study, found.labels, words), found.arms[0].against_baseline
    finding = "diverged" if first is None else first.finding
    return words.say(f"confirmed.choice.{finding}", name=name)


def verdict_words(found: Confirmation, against: Against, words: Words) -> str:
    """Return what an arm is, beside the published default."""
    seeds, units = words.count("seeds", len(found.seeds)), _units(found, words)
    return words.say(f"verdict.{against.finding}", seeds=seeds, units=units)


def _units(found: Confirmation, words: Words) -> str:
    return words.count(f"unit.{found.task.unit_of_independence}", found.arms[0].subjects)


def arm_name(found: Confirmation, place: int, words: Words) -> str:
    """Return what an arm is called; the names of configurations are those of the study file."""
    arm = found.arms[place].arm
    if arm.role == "choice":
        earlier = [one for one in found.arms[:place] if one.arm.role == "choice"]
        return words.say("arm.choice", place=len(earlier) + 1)
    return words.name("arm", arm.role) if arm.role in {"linear_probing", "trivial"} else arm.name


def _arm(found: Confirmation, place: int, words: Words) -> str:
    result = found.arms[place]
    what = _with_rates(result, arm_name(found, place, words), words)
    if not result.metrics:
        return words.say("confirmed.arm.diverged", arm=what)
    yardstick, measured = found.task.yardstick, result.metrics[found.task.yardstick]
    others = [f"{name} {one.mean:.4g}" for name, one in result.metrics.items() if name != yardstick]
    ends = {name: f"{getattr(measured, name):.4g}" for name in ("mean", "low", "high")}
    estimate = words.say(
        "confirmed.estimate", metric=metric(found.task, words), unit=found.task.unit, **ends
    ).rstrip()
    given = {"arm": what, "estimate": estimate, "others": ", ".join(others)}
    against = result.against_baseline
    if against is None:
        return words.say("confirmed.arm", **given)
    gap, verdict = gap_words(against, words), verdict_words(found, against, words)
    return words.say("confirmed.arm.beside", **given, gap=gap, verdict=verdict)


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
    return words.say("confirmed.rates", name=name, rates=words.say("list.comma").join([*rates, arm.loss]))


def gap_words(against: Against, words: Words) -> str:
    """Return an arm's difference to the published default with its interval and p."""
    ends = {name: f"{getattr(against, name):+.3g}" for name in ("difference", "low", "high")}
    return words.say("table.arm.gap", **ends, p=f"{against.p:.2g}")


def basis_lines(found: Confirmation, words: Words) -> list[str]:
    """Return what a verdict rests on and what limits it."""
    units, of = _units(found, words), words.say(f"plural.{found.task.unit_of_independence}")
    seeds = words.count("seeds", len(found.seeds))
    lines = [words.say("confirmed.basis", seeds=seeds, first=found.seeds[0], units=units, of=of)]
    first = found.arms[0].against_baseline
    if first is not None and first.detectable is not None:
        lines.append(words.say("confirmed.detectable", size=about(first.detectable, found.task.unit)))
    if len(found.seeds) < MIN_SEEDS:
        smallest = f"{2 / 2 ** len(found.seeds):.3g}"
        lines.append(words.say("confirmed.few_seeds", seeds=seeds, smallest=smallest, least=MIN_SEEDS))
    if found.task.unit_of_independence == "block":
        lines.append(words.say("confirmed.blocks"))
    at = datetime.fromtimestamp(found.frozen_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    looked = words.count("times", found.test_looks)
    return [*lines, words.say("confirmed.frozen", hash=found.choice_hash[:16], at=at, times=looked)]


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
