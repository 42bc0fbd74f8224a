"""Which value of each choice is best and what another costs, in words: of a study that searches choices."""

from __future__ import annotations

from hpo.analysis.matters import Mattering
from hpo.analysis.options import Option, Options
from hpo.analysis.zones import Standing
from hpo.numbers import about
from hpo.reading.findings import Findings
from hpo.report.language import Words
from hpo.report.naming import value_name


def option_lines(findings: Findings, words: Words) -> list[str]:
    """Return a line for each choice, the loss among them; nothing for a study without choices."""
    return [_line(name, found, findings, words) for name, found in findings.answer.options.items()]


def _line(name: str, found: Options, findings: Findings, words: Words) -> str:
    worth = about(findings.answer.zones.worth, findings.task.unit) if findings.answer.zones else ""
    called = words.name("word", name)
    if found.standing is Mattering.DOES_NOT_MATTER:
        values = words.listed([value_name(one.value, words) for one in found.values], "or")
        return words.say("options.does_not_matter", name=called, values=values, worth=worth)
    if found.standing is Mattering.OPEN:
        return words.say("options.open", name=called, best=value_name(found.best, words))
    others = [_other(one, findings, words) for one in found.values if one.value != found.best]
    said = words.say("list.comma").join(others)
    return words.say("options.matters", name=called, best=value_name(found.best, words), others=said)


def _other(one: Option, findings: Findings, words: Words) -> str:
    given = {"value": value_name(one.value, words), "cost": about(one.cost.value, findings.task.unit)}
    if one.standing is Standing.OPEN and one.cost.low <= 0:
        return words.say("option.perhaps", **given)
    return words.say(f"option.{one.standing.value}", **given)
