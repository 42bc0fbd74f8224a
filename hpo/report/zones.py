"""Which ratios are as good, which cost more, which are open, and what a decade off costs, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpo.analysis.matters import Cost, Mattering, Matters
from hpo.analysis.values import Note, NoteKind
from hpo.analysis.zones import Standing, Zone, Zones
from hpo.numbers import about, percent, rate, ratio
from hpo.reading.findings import Findings
from hpo.report.language import Words

SURE_OR_LIKELY = {
    Standing.AS_GOOD: ("zones.as_good", "zones.as_good.likely", "zones.as_good.both"),
    Standing.WORSE: ("zones.worse", "zones.worse.likely", "zones.worse.both"),
}
"""Keys of what is said of a standing: what is sure, what is only likely, and both."""


def zone_lines(findings: Findings, words: Words) -> list[str]:
    """Return which ratios are as good as the best, which cost more, and of which it is not known."""
    zones, good = findings.answer.zones, good_words(findings, words)
    lines = [] if good is None else [good]
    if zones is None or not (zones.resolved > 0 or zones.leaning):
        return lines
    worse = _sure_or_likely(Standing.WORSE, zones, words, "and")
    lines += [] if worse is None else [worse]
    if zones.unknown:
        lines.append(
            words.say("zones.open", spans=spans(zones, Standing.OPEN, words, "and", among=zones.unknown))
        )
    if zones.leaning:
        return [*lines, words.say("zones.condition.likely", share=percent(zones.resolved))]
    return [*lines, words.say("zones.condition")]


def _sure_or_likely(one: Standing, zones: Zones, words: Words, last: str, **given: object) -> str | None:
    """Return of which ratios something is sure, or likely, or both; None if of none."""
    sure, likely = spans(zones, one, words, last), _likely(zones, one, words, last)
    only_sure, only_likely, both = SURE_OR_LIKELY[one]
    if not likely:
        return words.say(only_sure, spans=sure, **given) if sure else None
    if not sure:
        return words.say(only_likely, spans=likely, **given)
    return words.say(both, spans=sure, likely=likely, **given)


def _likely(zones: Zones, one: Standing, words: Words, last: str) -> str:
    """Return the likely pieces of a standing that reach into what is open; empty without one."""
    reaching = [
        piece
        for piece in zones.likely
        if any(piece.low < open_.high and open_.low < piece.high for open_ in zones.leaning)
    ]
    return spans(zones, one, words, last, among=reaching)


def good_words(findings: Findings, words: Words) -> str | None:
    """Return which ratios are as good as the best, or that it is not known; None without an answer."""
    zones, complete = findings.answer.zones, findings.counts.complete
    if zones is None:
        few = [note for note in findings.answer.notes if note.kind is NoteKind.FEW_COMPLETE]
        is_answered = findings.answer.choice is not None
        return words.count("zones.few", few[0].count, needed=few[0].needed) if few and is_answered else None
    worth = about(zones.worth, findings.task.unit)
    if _is_all_good(zones):
        low, high = (ratio(10**end) for end in (zones.pieces[0].low, zones.pieces[-1].high))
        return words.say("zones.all_good", low=low, high=high, worth=worth)
    said = _sure_or_likely(Standing.AS_GOOD, zones, words, "or", worth=worth)
    return words.count("zones.none_good", complete) if said is None else said


def good_spans(zones: Zones, words: Words) -> str:
    """Return the ratios that are as good as the best, or those that are likely so; empty where none is."""
    if sure := spans(zones, Standing.AS_GOOD, words, "or"):
        return sure
    likely = spans(zones.with_likely, Standing.AS_GOOD, words, "or")
    return words.say("zones.cell.likely", spans=likely) if likely else ""


def is_settled_note(findings: Findings, note: Note) -> bool:
    """Return whether a note is said already, by the lines of the zones or of the headline."""
    if note.kind is NoteKind.FEW_COMPLETE:
        return findings.answer.zones is None
    return note.kind is NoteKind.TOO_MANY


def _is_all_good(zones: Zones) -> bool:
    return all(piece.standing is Standing.AS_GOOD for piece in zones.pieces)


def spans(
    zones: Zones,
    standing: Standing,
    words: Words,
    last: str,
    *,
    among: Sequence[Zone] | None = None,
    number: Callable[[float], str] = ratio,
) -> str:
    """Return the pieces of one standing, all or some: ``below 0.5 and from 90 to 400``."""
    pieces = [piece for piece in (zones.pieces if among is None else among) if piece.standing is standing]
    return words.listed([_span(zones, piece, words, number) for piece in pieces], last)


def _span(zones: Zones, piece: Zone, words: Words, number: Callable[[float], str]) -> str:
    low, high = number(10**piece.low), number(10**piece.high)
    first, last = zones.pieces[0].low, zones.pieces[-1].high
    if piece.standing is Standing.AS_GOOD or (piece.low == first and piece.high == last):
        # the ends of what is good are worth knowing where the search ends too
        return words.say("span.between", low=low, high=high)
    if piece.low == first:
        return words.say("span.below", high=high)
    if piece.high == last:
        return words.say("span.above", low=low)
    return words.say("span.between", low=low, high=high)


def costs_lines(findings: Findings, words: Words) -> list[str]:
    """Return what a decade off costs in each rate, or that it does not matter."""
    found = findings.answer.matters
    return [_mattering(name, found[name], findings, words) for name in ("backbone_lr", "lr") if name in found]


def _mattering(name: str, found: Matters, findings: Findings, words: Words) -> str:
    good = found.zones.as_good
    if found.standing is Mattering.DOES_NOT_MATTER and good is not None:
        low, high = (rate(10**end) for end in good)
        return words.say("matters.does_not_matter", name=name, low=low, high=high)
    if found.standing is not Mattering.MATTERS:
        likely = spans(found.zones.with_likely, Standing.AS_GOOD, words, "or", number=rate)
        key = "matters.open.likely" if likely else "matters.open"
        return words.say(key, name=name, spans=likely)
    given = {"name": name, "best": rate(10**found.best)}
    costs = [
        _cost(side, cost, findings, words)
        for side, cost in (("down", found.down), ("up", found.up))
        if cost is not None
    ]
    if not costs:
        return words.say("matters.alone", **given)
    return words.say("matters.matters", **given, costs=words.say("list.comma").join(costs))


def _cost(side: str, cost: Cost, findings: Findings, words: Words) -> str:
    if cost.low <= 0:
        return words.say(f"cost.{side}.perhaps")
    return words.say(f"cost.{side}", cost=about(cost.value, findings.task.unit))
