"""The report of a study as Markdown, in English or Chinese: the plain-language answer first."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hpo.confirm.confirmed import Confirmation
from hpo.ledger.choice import Arm
from hpo.numbers import about, percent, ratio, rounded, with_error
from hpo.reading.findings import Findings
from hpo.reading.standing import budget
from hpo.report.answer import answer_lines, run_command
from hpo.report.confirmed import (
    arm_name,
    basis_lines,
    gap_words,
    headline,
    interval,
    other_metrics,
    verdict_words,
)
from hpo.report.language import SPOKEN, Language, Words
from hpo.report.naming import constant, loss_words, metric_with_unit
from hpo.study import StudySpec
from hpo.study.choices import value_words

_FIRST = ("ratio", "zones")
_LATER = ("rates", "curves", "seeds", "importances")


def markdown(
    findings: Findings,
    pictures: Sequence[str] = ("ratio",),
    confirmation: Confirmation | None = None,
    language: Language = "en",
    *,
    is_served: bool = False,
    figures_in: Language | None = None,
) -> str:
    """Return the report as Markdown that shows ``pictures``, each as ``NAME.png``.

    ``is_served``: the page of a server, which has no tables beside it. ``figures_in``: the language of the
    figures, where that may be another one.
    """
    spec, words = findings.spec, SPOKEN[language]
    shown = {name: f"![{words.say(f'caption.{name}')}]({name}.png)" for name in pictures}
    parts = [
        f"# {spec.name}: {spec.title or spec.task}",
        *([spec.notes] if spec.notes else []),
        f"## {words.say('page.answer')}",
        _list(answer_lines(findings, language)),
        *(_pictured(name, shown[name], words) for name in _FIRST if name in shown),
        *([] if confirmation is None else _confirmed(confirmation, shown, words)),
        f"## {words.say('page.beside')}",
        _comparison(findings, words),
        f"## {words.say('page.trials')}",
        "\n".join(_trials_lines(findings, words, is_served=is_served)),
        *(_pictured(name, shown[name], words) for name in _LATER if name in shown),
        f"## {words.say('page.method')}",
        _list(_method(findings, confirmation, words)),
        *([words.say("figure.english")] if (figures_in or language) != language else []),
    ]
    return "\n\n".join(parts) + "\n"


def _list(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows, the heads first, as a Markdown table."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" * len(rows[0]) + "|", *lines[1:]])


def _pictured(name: str, shown: str, words: Words) -> str:
    return f"{words.say(f'caption.{name}')}\n\n{shown}"


def _confirmed(found: Confirmation, shown: dict[str, str], words: Words) -> list[str]:
    """Return what the test split showed: the arms in a table, what limits them, the pictures."""
    tests = [
        _pictured(name, picture, words) for name, picture in shown.items() if name not in (*_FIRST, *_LATER)
    ]
    return [
        f"## {words.say('page.confirmed')}",
        _list([headline(found, words), *basis_lines(found, words)]),
        _arms(found, words),
        *tests,
    ]


def _arms(found: Confirmation, words: Words) -> str:
    heads = ("arm", "test_loss", "metrics", "difference", "verdict")
    rows = [[words.say(f"table.{head}") for head in heads]]
    return _table([*rows, *(_arm(found, place, words) for place in range(len(found.arms)))])


def _arm_loss(arm: Arm, words: Words) -> str:
    return loss_words(arm.loss or "", arm.choices, words)


def _arm(found: Confirmation, place: int, words: Words) -> list[str]:
    one, name = found.arms[place], arm_name(found, place, words)
    if one.arm.ratio is not None:
        name = words.say(
            "table.arm.ratio", name=name, ratio=ratio(one.arm.ratio), loss=_arm_loss(one.arm, words)
        )
    if not one.metrics:
        return [name, words.say("table.failed"), "", "", ""]
    beside = ["", ""]
    if one.against_baseline is not None:
        beside = [gap_words(one.against_baseline, words), verdict_words(found, one, words)]
    return [name, interval(one.metrics[found.task.yardstick]), ", ".join(other_metrics(found, one)), *beside]


def _comparison(findings: Findings, words: Words) -> str:
    """Return a table of ours, the default, the constant and published numbers, and what limits these."""
    found, unknown = findings.answer, words.say("table.unknown")
    heads = [words.say(f"table.{head}") for head in ("what", "split")]
    rows = [[*heads, metric_with_unit(findings.task, words), words.say("table.metrics")]]
    ours, default = unknown, unknown
    if found.choice is not None and found.choice.expected_validation_loss is not None:
        ours = with_error(found.choice.expected_validation_loss, found.choice.standard_error)
    if found.baseline is not None:
        default = with_error(found.baseline.value, found.baseline.standard_error)
    guess = constant(findings, words)
    for name, value in (
        (words.say("table.ours"), ours),
        (words.say("table.default", name=words.name("configuration", findings.spec.baseline.name)), default),
        (guess, rounded(findings.trivial, found.noise.seed_sd)),
    ):
        rows.append([name, words.say("split.validation"), value, ""])
    for published in findings.spec.published:
        metrics = dict(published.metrics)
        measured = metrics.pop(findings.task.yardstick, None)
        others = ", ".join(f"{name} {number:g}" for name, number in metrics.items())
        given = "" if measured is None else f"{measured:g}"
        rows.append([published.name, words.say("split.test"), given, others])
    remarks = [
        words.say("table.remark", name=one.name, source=one.source, comparable=one.comparable)
        for one in findings.spec.published
    ]
    return "\n\n".join([_table(rows), *([_list(remarks)] if remarks else [])])


def _trials_lines(findings: Findings, words: Words, *, is_served: bool) -> list[str]:
    counts = findings.counts
    ends = Counter(findings.trials["end"].dropna())
    why = ", ".join(f"{words.name('word', end)} {number}" for end, number in ends.most_common())
    numbers = {"finished": counts.finished, "budget": budget(counts), "complete": counts.complete}
    diverged = ends.get("diverged", 0)
    numbers |= {"pruned": counts.pruned - diverged, "diverged": diverged}
    numbers |= {"failed": counts.failed, "running": counts.running}
    tables = words.say("page.tables", trials="[trials.csv](trials.csv)", curves="[curves.csv](curves.csv)")
    elsewhere = words.say("page.tables.elsewhere", command=f"`hpo report --study {findings.row.name}`")
    return [
        words.say("page.counts", **numbers),
        words.say("page.ends", ends=why) if why else words.say("page.no_end"),
        elsewhere if is_served else tables,
    ]


def _method(findings: Findings, confirmation: Confirmation | None, words: Words) -> list[str]:
    """Return what a reader needs to judge and repeat the study: n, seeds, spread, hardware, versions."""
    spec, data, unknown = findings.spec, findings.row.data, words.say("table.unknown")
    windows = ", ".join(
        f"{words.name('split', name)} {number}" for name, number in data.get("windows", {}).items()
    )
    versions = ", ".join(f"{name} {version}" for name, version in findings.row.versions.items())
    run = f"`{run_command(findings, budget(findings.counts))}`"
    looks = 0 if confirmation is None else confirmation.test_looks
    opened = words.count("page.opened", looks) if looks else words.say("page.closed")
    backbone, normalisation = spec.backbone, words.name("word", spec.inputs.normalisation)
    weights, mode = words.name("word", backbone.weights), words.name("word", spec.mode)
    split, report = words.name("word", spec.validation.kind), f"`hpo report --study {spec.name}`"
    fingerprint = findings.row.fingerprint[:16]
    return [
        words.say("page.data", task=spec.task, windows=windows, normalisation=normalisation),
        *(words.say("page.data_note", note=note) for note in data.get("notes", ())),
        words.say("page.model", backbone=backbone.name, weights=weights, mode=mode),
        words.say("page.search", **_searched(findings)),
        words.say("page.recipe", epochs=spec.recipe.epochs, **_recipe(spec, words)),
        *_noise(findings, words),
        words.say("page.figures", split=split, opened=opened),
        words.say("page.hardware", hardware=_hardware(findings, words) or unknown, versions=versions),
        words.say("page.made", python=platform.python_version(), numpy=np.__version__),
        words.say("page.again", fingerprint=fingerprint, run=run, report=report),
    ]


def _recipe(spec: StudySpec, words: Words) -> dict[str, str]:
    """Return what a run's recipe says of batch and patience: its own, or the values that are searched."""
    searched = spec.space.choices
    return {
        name: words.listed([value_words(one) for one in searched.get(key, (own,))], "or")
        for name, key, own in (
            ("batch", "batch_size", spec.recipe.batch_size),
            ("patience", "patience", spec.recipe.patience),
        )
    }


def _searched(findings: Findings) -> dict[str, object]:
    trials, spec = findings.trials, findings.spec
    columns = ["lr", "backbone_lr", "loss", *(name for name in spec.space.choices if name in trials)]
    begun = trials[columns].dropna(subset=["lr", "backbone_lr", "loss"])
    return {
        "trials": len(begun),
        "configurations": len(begun.drop_duplicates()),
        "seeds": trials["seed"].dropna().nunique(),
        "sampler": spec.sampler.kind,
        "pruner": spec.pruner.kind,
    }


def _noise(findings: Findings, words: Words) -> list[str]:
    """Return how much of what the trials show is the seed, and with folds how much is people."""
    noise = findings.answer.noise
    if noise.seed_sd is None:
        return [words.say("page.no_noise")]
    shares = [f"{words.name('word', name)} {percent(share)}" for name, share in noise.shares.items()]
    said = [
        words.say(
            "page.noise",
            sd=about(noise.seed_sd, findings.task.unit),
            source=words.say(f"source.{noise.source}"),
            degrees=noise.degrees_of_freedom,
            shares=", ".join(shares) or words.say("table.unknown"),
        )
    ]
    if "fold" in noise.shares:
        people, seeds = noise.shares["fold"], noise.shares["seed"]
        parts = {"people": people, "seeds": seeds}
        parts["configurations"] = sum(noise.shares.values()) - people - seeds
        said.append(words.say("page.groups", **{name: percent(part) for name, part in parts.items()}))
    return said


def _hardware(findings: Findings, words: Words) -> str:
    """Return the devices with the hours of training that each did."""
    trials = findings.trials
    hours = (
        trials.assign(device=trials["device"].astype("object")).groupby("device")["elapsed_s"].sum() / 3600
    )
    return ", ".join(
        words.say("page.hours", device=device, hours=about(hour)) for device, hour in hours.items()
    )
