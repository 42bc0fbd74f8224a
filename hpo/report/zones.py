"""Which ratios are as good, which cost more, which are open, and what a decade off costs, in words."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpo.analysis.matters import Cost, Mattering, Matters
from hpo.analysis.values import Note, NoteKind
from hpo.analysis.zones import Standing, Zone, Zones
from hpo.numbers import about, percent, rate, ratio
from hpo.reading.findings import Findings
from hpo.report.language import Words


def zone_lines(findings: Findings, words: Words) -> list[str]:
    """Return which ratios are as good as the best, which cost more, and of which it is not known."""
    zones, good = findings.answer.zones, good_words(findings, words)
    lines = [] if good is None else [good]
    if zones is None:
        return lines
    if zones.decades(Standing.WORSE):
        lines.append(words.say("zones.worse", spans=spans(zones, Standing.WORSE, words, "and")))
    if zones.decades(Standing.OPEN) and zones.resolved > 0:
        open_ = spans(zones, Standing.OPEN, words, "and")
        lines.append(words.say("zones.open", spans=open_, share=percent(1 - zones.resolved)))
    if zones.resolved > 0:
        lines.append(words.say("zones.condition"))
    return lines + [words.say(f"zones.likely.{one.value}", spans=said) for one, said in _likely(zones, words)]


def _likely(zones: Zones, words: Words) -> list[tuple[Standing, str]]:
    """Return the likely pieces that reach into what is open, by standing."""
    reaching = [
        piece
        for piece in zones.likely
        if any(piece.low < one.high and one.low < piece.high for one in zones.leaning)
    ]
    found = [(one, spans(zones.with_likely, one, words, "and", among=reaching)) for one in Standing]
    return [(one, said) for one, said in found if said and one is not Standing.OPEN]


def good_words(findings: Findings, words: Words) -> str | None:
    """Return which ratios are as good as the best, or that it is not known; None without an answer."""
    zones = findings.answer.zones
    if zones is None:
        few = [note for note in findings.answer.notes if note.kind is NoteKind.FEW_COMPLETE]
        is_answered = findings.answer.choice is not None
        return words.count("zones.few", few[0].count, needed=few[0].needed) if few and is_answered else None
    worth = about(zones.worth, findings.task.unit)
    if _is_all_good(zones):
        low, high = (ratio(10**end) for end in (zones.pieces[0].low, zones.pieces[-1].high))
        return words.say("zones.all_good", low=low, high=high, worth=worth)
    if zones.as_good is None:
        return words.count("zones.none_good", findings.counts.complete)
    return words.say("zones.as_good", spans=spans(zones, Standing.AS_GOOD, words, "or"), worth=worth)


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
    is_good = piece.standing is Standing.AS_GOOD  # its ends are worth knowing where the search ends too
    if piece is zones.pieces[0] and not is_good and len(zones.pieces) > 1:
        return words.say("span.below", high=high)
    if piece is zones.pieces[-1] and not is_good and len(zones.pieces) > 1:
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
