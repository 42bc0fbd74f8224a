"""The answer of a study in words, the same on the command line, on the page and in the dashboard."""

from __future__ import annotations

from hpo.analysis.evidence import MIN_MODEL
from hpo.analysis.values import Choice, Expected, Note, NoteKind
from hpo.ledger.values import StudyRow
from hpo.numbers import rate, ratio, rounded, with_error
from hpo.reading.findings import Findings
from hpo.report.language import SPOKEN, Language, Words
from hpo.report.naming import PUBLISHED, constant, full_name, loss_words, metric
from hpo.report.options import option_lines
from hpo.report.zones import costs_lines, is_settled_note, zone_lines


def answer_lines(findings: Findings, language: Language = "en") -> list[str]:
    """Return the answer, the news first: how the choice stands to the published default.

    The runs of a confirmation choose nothing: of them only that is said.
    """
    words = SPOKEN[language]
    if findings.row.confirms:
        return no_answer(findings.row, words)
    return [
        headline(findings, words),
        *_constant(findings, words),
        *zone_lines(findings, words),
        *_best_ratio(findings, words),
        *costs_lines(findings, words),
        *option_lines(findings, words),
        *_choice(findings, words),
        *_worth_trying(findings, words),
        *_lucky(findings, words),
        _default(findings, words),
        *_counted(findings, words),
        *([words.count("answer.foreign", findings.foreign)] if findings.foreign else []),
        *(
            words.say("answer.note", note=note_words(note, words))
            for note in findings.answer.notes
            if not is_settled_note(findings, note)
        ),
    ]


def no_answer(row: StudyRow, words: Words) -> list[str]:
    """Return what is said of the runs of a confirmation, in place of an answer."""
    return [words.say("answer.confirms", name=row.name, study=row.confirms)]


def note_words(note: Note, words: Words) -> str:
    """Return one thing that cannot be said, and why."""
    return words.count(f"note.{note.kind.value}", note.count, needed=note.needed, name=note.name)


def headline(findings: Findings, words: Words) -> str:
    """Return the first line: how the choice stands to the published default, or why there is no answer."""
    found, name = findings.answer, full_name(findings.row.name, findings.labels, words)
    expected = found.choice.expected_validation_loss if found.choice else None
    if found.choice is None or expected is None:
        return f"{words.say('answer.none', name=name, why=_why_none(findings, words))} " + words.say(
            "answer.to_beat",
            guess=constant(findings, words),
            metric=metric(findings.task, words),
            value=loss(findings, findings.trivial),
        )
    mine = with_error(expected, found.choice.standard_error, findings.task.unit)
    said = words.say(f"answer.{found.against_baseline}", name=name)
    given = {"said": said, "metric": metric(findings.task, words), "mine": mine}
    if found.baseline is None:
        return words.say("answer.expect.alone", **given)
    error = found.baseline.standard_error or found.noise.seed_sd  # as the default's own line has it
    default = rounded(found.baseline.value, error, findings.task.unit)
    return words.say("answer.expect", **given, default=default)


def _why_none(findings: Findings, words: Words) -> str:
    too_many = [note for note in findings.answer.notes if note.kind is NoteKind.TOO_MANY]
    if too_many:
        return note_words(too_many[0], words)
    counts = findings.counts
    if counts.finished or counts.failed:
        diverged = int((findings.trials["end"] == "diverged").sum())
        given = {"complete": counts.complete, "pruned": counts.pruned - diverged, "diverged": diverged}
        given |= {"failed": counts.failed}
        said = [words.count(f"count.{kind}", n) for kind, n in given.items() if n or kind == "complete"]
        return words.say("answer.none.few", counts=words.listed(said), least=MIN_MODEL)
    running = findings.trials[findings.trials["state"] == "running"]["number"]
    if running.empty:
        return words.say("answer.none.nothing")
    curves = findings.curves
    epochs = curves[curves["number"].isin(running)]["epoch"] if "epoch" in curves else running.iloc[:0]
    latest = 0 if epochs.empty else int(epochs.max())
    epoch = words.say("answer.none.epoch", epoch=latest, epochs=findings.spec.recipe.epochs)
    return words.count("answer.none.running", len(running), epoch=epoch)


def _constant(findings: Findings, words: Words) -> list[str]:
    """Say how the choice stands to a constant, where it fails or is in doubt."""
    against = findings.answer.against_trivial
    if findings.answer.choice is None or against == "beats":
        return []
    return [
        words.say(
            f"answer.constant.{against}",
            guess=constant(findings, words),
            metric=metric(findings.task, words),
            value=loss(findings, findings.trivial),
        )
    ]


def _best_ratio(findings: Findings, words: Words) -> list[str]:
    curve = findings.answer.curve
    if curve is None or curve.best is None or not curve.identified:
        return []
    low, high = (ratio(10**end) for end in curve.interval)
    return [words.say("ratio.best", best=ratio(10**curve.best), low=low, high=high)]


def _choice(findings: Findings, words: Words) -> list[str]:
    choice = findings.answer.choice
    if choice is None:
        return []
    return [
        words.say(
            "answer.choice.tried" if _better_place(findings) else "answer.choice",
            lr=rate(choice.lr),
            backbone_lr=rate(choice.backbone_lr),
            loss=loss_words(choice.loss, choice.choices, words),
            ratio=ratio(choice.ratio),
        )
    ]


def _worth_trying(findings: Findings, words: Words) -> list[str]:
    place = _better_place(findings)
    if place is None or place.expected_validation_loss is None:
        return []
    expected = with_error(place.expected_validation_loss, place.standard_error, findings.task.unit)
    rates = {"lr": rate(place.lr), "backbone_lr": rate(place.backbone_lr)}
    chosen = loss_words(place.loss, place.choices, words)
    return [words.say("answer.worth_trying", **rates, loss=chosen, expected=expected)]


def _better_place(findings: Findings) -> Choice | None:
    """Return the place worth trying, where the model expects more than a hair of it."""
    place, choice = findings.answer.worth_trying, findings.answer.choice
    if place is None or choice is None:
        return None
    theirs, ours = place.expected_validation_loss, choice.expected_validation_loss
    if theirs is None or ours is None or ours - theirs <= 0.5 * (choice.standard_error or 0.0):
        return None
    return place


def _lucky(findings: Findings, words: Words) -> list[str]:
    """Return the trial that a naive reader would report, and what to expect of it instead."""
    best, optimism = findings.answer.best, findings.answer.optimism
    if best is None:
        return []
    value = loss(findings, best.validation_loss)
    if optimism is None:
        return [words.say("answer.lucky", number=best.number, value=value)]
    sd = findings.answer.noise.seed_sd
    if optimism <= 0.1 * (sd or 0.0):
        return [words.say("answer.lucky.fair", number=best.number, value=value)]
    expected = rounded(best.validation_loss + optimism, sd, findings.task.unit)
    return [words.say("answer.lucky.optimism", number=best.number, value=value, expected=expected)]


def _default(findings: Findings, words: Words) -> str:
    baseline, given = findings.answer.baseline, findings.spec.baseline
    said = words.say("answer.default.unknown")
    if baseline is not None:
        said = _default_known(findings, baseline, words)
    rates = {"lr": rate(given.lr), "backbone_lr": rate(given.backbone_lr)}
    rates["loss"] = loss_words(given.loss, given.choices, words)
    if given.name == PUBLISHED:
        return words.say("answer.default.published", **rates, expected=said)
    return words.say("answer.default", name=given.name, **rates, expected=said)


def _default_known(findings: Findings, baseline: Expected, words: Words) -> str:
    """Say what the default's own trials showed, beside what the model expects of it, where there is one."""
    runs = baseline.runs
    expected = with_error(baseline.value, baseline.standard_error, findings.task.unit)
    if not runs:
        return words.say("answer.default.runs.none", expected=expected)
    sd = findings.answer.noise.seed_sd
    low, high = rounded(min(runs), sd), loss(findings, max(runs))  # the unit once
    values = high if len(runs) == 1 else words.say("answer.span", low=low, high=high)
    if baseline.standard_error is None:
        return words.count("answer.default.measured", len(runs), values=values)
    return words.count("answer.default.runs", len(runs), expected=expected, values=values)


def _counted(findings: Findings, words: Words) -> list[str]:
    """Return how many trials somebody brought (never shown as measurements of ours), how many failed."""
    imported, failed = findings.imported, findings.counts.failed
    said = []
    if imported:
        said.append(words.count("answer.imported", imported, finished=findings.counts.finished))
    if failed:
        said.append(words.count("answer.failed", failed, study=findings.row.name))
    return said


def loss(findings: Findings, value: float) -> str:
    """Return a measured loss with as many digits as the spread between seeds has any use for."""
    return rounded(value, findings.answer.noise.seed_sd, findings.task.unit)


def next_steps(
    findings: Findings, option: str = "", language: Language = "en", storage: str = ""
) -> list[str]:
    """Return what to type next; ``option``: as this search was run; ``storage``: what of it reports need."""
    words, counts, zones = SPOKEN[language], findings.counts, findings.answer.zones
    report = f"hpo report {findings.row.name}{storage}"
    if zones is None or zones.as_good is None:
        more = max(2 * counts.finished, findings.spec.budget.trials)
        command = run_command(findings, more, option)
        return [words.say("next.more", command=command), words.say("next.then", command=report)]
    return [words.say("next.report", command=report)]


def run_command(findings: Findings, trials: int, option: str = "") -> str:
    """Return what goes on with a study up to so many trials, on a part of its data where it began on one."""
    partial = " --allow-partial" if findings.row.data.get("partial") else ""
    return f"hpo run {findings.row.name} --trials {trials}{partial}{option}"
