"""The report of a study as Markdown, in English or Chinese: the plain-language answer first."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Sequence

import numpy as np

from hpo.confirm.confirmed import ArmResult, Confirmation
from hpo.reading.findings import Findings
from hpo.reading.standing import budget
from hpo.report.page import Language
from hpo.report.texts import CAPTIONS, TEXTS, WORDS
from hpo.report.wording import YARDSTICKS, answer_lines, run_command
from hpo.report.wording.confirmed import basis_lines, frozen_line, headline, verdict_words
from hpo.report.wording.zh import (
    YARDSTICKS_ZH,
    answer_lines_zh,
    arm_verdict_zh,
    confirmed_zh,
    ready_zh,
)

_IN_SEARCH = ("ratio", "rates", "curves", "seeds", "importances")


def markdown(
    findings: Findings,
    pictures: Sequence[str] = ("ratio",),
    confirmation: Confirmation | None = None,
    language: Language = "en",
) -> str:
    """Return the report as Markdown that shows ``pictures``, each as ``NAME.png``."""
    spec, texts = findings.spec, TEXTS[language]
    lines = answer_lines(findings) if language == "en" else answer_lines_zh(findings)
    shown = {name: f"![{CAPTIONS[language][name]}]({name}.png)" for name in pictures}
    parts = [
        f"# {spec.name}: {spec.title or spec.task}",
        *([spec.notes] if spec.notes else []),
        f"## {texts['answer']}",
        "\n".join(f"- {line}" for line in lines),
        *([shown["ratio"]] if "ratio" in shown else []),
        *([] if confirmation is None else _confirmed(confirmation, shown, language)),
        f"## {texts['beside']}",
        _comparison(findings, language),
        f"## {texts['trials']}",
        _trials_words(findings, language),
        *(_pictured(name, shown[name], language) for name in _IN_SEARCH[1:] if name in shown),
        f"## {texts['method']}",
        _method(findings, confirmation, language),
    ]
    return "\n\n".join(parts) + "\n"


def _pictured(name: str, shown: str, language: Language) -> str:
    return f"{CAPTIONS[language][name]}\n\n{shown}"


def _confirmed(found: Confirmation, shown: dict[str, str], language: Language) -> list[str]:
    """Return what the test split showed: the arms in a table, what limits them, the pictures."""
    texts = TEXTS[language]
    english = [headline(found), *basis_lines(found), frozen_line(found)]
    said = english if language == "en" else confirmed_zh(found)
    tests = [_pictured(name, picture, language) for name, picture in shown.items() if name not in _IN_SEARCH]
    return [
        f"## {texts['confirmed']}",
        "\n".join(f"- {line}" for line in said),
        _arms(found, language),
        *tests,
    ]


def _arms(found: Confirmation, language: Language) -> str:
    texts = TEXTS[language]
    heads = ["arm", "test_loss", "metrics", "difference", "said"]
    rows = [f"| {' | '.join(texts[head] for head in heads)} |", "|---|---|---|---|---|"]
    return "\n".join([*rows, *(_arm(found, one, language) for one in found.arms)])


def _arm(found: Confirmation, one: ArmResult, language: Language) -> str:
    yardstick = found.task.yardstick
    ratio = "" if one.arm.ratio is None else f" (ratio {one.arm.ratio:.3g}, {one.arm.loss})"
    if not one.metrics:
        return f"| {one.arm.name}{ratio} | {TEXTS[language]['diverged']} | | | |"
    loss, against = one.metrics[yardstick], one.against_baseline
    others = ", ".join(f"{name} {m.mean:.4g}" for name, m in one.metrics.items() if name != yardstick)
    gap, said = "", ""
    if against is not None:
        gap = f"{against.difference:+.3g} [{against.low:+.3g}, {against.high:+.3g}], p {against.p:.2g}"
        said = verdict_words(found, one) if language == "en" else arm_verdict_zh(found, one)
    estimate = f"{loss.mean:.4g} [{loss.low:.4g}, {loss.high:.4g}]"
    return f"| {one.arm.name}{ratio} | {estimate} | {others} | {gap} | {said} |"


def _comparison(findings: Findings, language: Language) -> str:
    """Return the table of ours, the baseline, the trivial predictor and the published numbers."""
    found, texts = findings.answer, TEXTS[language]
    names = YARDSTICKS if language == "en" else YARDSTICKS_ZH
    unit = f" ({findings.task.unit})" if findings.task.unit else ""
    loss = f"{names[findings.task.yardstick]}{unit}"
    heads = [texts["what"], texts["split"], loss, texts["metrics"], texts["remarks"]]
    rows = [f"| {' | '.join(heads)} |", "|---|---|---|---|---|"]
    ours = found.choice.expected_validation_loss if found.choice else None
    baseline = found.baseline.value if found.baseline else None
    for name, value in (
        (texts["ours"], ours),
        (texts["baseline"].format(findings.spec.baseline.name), baseline),
        (texts["trivial"].format(_trivial(findings, language)), findings.trivial),
    ):
        known = texts["unknown"] if value is None else f"{value:.4g}"
        rows.append(f"| {name} | {texts['validation']} | {known} | | |")
    for published in findings.spec.published:
        metrics = dict(published.metrics)
        value = metrics.pop(findings.task.yardstick, None)
        others = ", ".join(f"{name} {number:g}" for name, number in metrics.items())
        given = "" if value is None else f"{value:g}"
        remark = f"{published.source}; {published.comparable}"
        rows.append(f"| {published.name} | {texts['test']} | {given} | {others} | {remark} |")
    return "\n".join(rows)


def _trials_words(findings: Findings, language: Language) -> str:
    counts, texts = findings.counts, TEXTS[language]
    ends = Counter(findings.trials["end"].dropna())
    why = ", ".join(f"{_said(end, language)} {number}" for end, number in ends.most_common())
    many = (counts.finished, budget(counts), counts.complete, counts.pruned, counts.failed, counts.running)
    return "\n".join(
        [
            texts["counts"].format(*many),
            texts["ends"].format(why) if why else texts["no_end"],
            texts["tables"].format("[trials.csv](trials.csv)", "[curves.csv](curves.csv)"),
        ]
    )


def _method(findings: Findings, confirmation: Confirmation | None, language: Language) -> str:
    """Return what a reader needs to judge and repeat the study: n, seeds, spread, hardware, versions."""
    spec, data, texts = findings.spec, findings.row.data, TEXTS[language]
    windows = ", ".join(f"{_said(name, language)} {number}" for name, number in data["windows"].items())
    versions = ", ".join(f"{name} {version}" for name, version in findings.row.versions.items())
    recipe, again = spec.recipe, f"`{run_command(findings, budget(findings.counts))}`"
    opened = texts["closed"] if confirmation is None else texts["opened"].format(confirmation.test_looks)
    given = [
        texts["data"].format(spec.task, windows, _said(spec.inputs.normalisation, language)),
        *(texts["data_note"].format(note) for note in data.get("notes", ())),
        texts["model"].format(
            spec.backbone.name, _said(spec.backbone.weights, language), _said(spec.mode, language)
        ),
        texts["search"].format(*_searched(findings)),
        texts["recipe"].format(recipe.epochs, recipe.batch_size, recipe.patience),
        *_noise(findings, language),
        texts["figures"].format(_said(spec.validation.kind, language), opened),
        texts["hardware"].format(_hardware(findings) or texts["unknown"], versions or texts["unknown"]),
        texts["made"].format(platform.python_version(), np.__version__),
        texts["again"].format(findings.row.fingerprint[:16], again, f"`hpo report --study {spec.name}`"),
    ]
    return "\n".join(f"- {line}" for line in given)


def _searched(findings: Findings) -> tuple[int, int, int, str, str]:
    trials, spec = findings.trials, findings.spec
    seeds = trials["seed"].dropna().nunique()
    begun = trials[["lr", "backbone_lr", "loss"]].dropna()
    return len(begun), len(begun.drop_duplicates()), seeds, spec.sampler.kind, spec.pruner.kind


def _noise(findings: Findings, language: Language) -> list[str]:
    """Return how much of what the trials show is the seed, and with folds how much is people."""
    noise, texts = findings.answer.noise, TEXTS[language]
    if noise.seed_sd is None:
        return [texts["no_noise"]]
    shares = ", ".join(f"{_said(name, language)} {share:.0%}" for name, share in noise.shares.items())
    shares = shares or texts["unknown"]
    spread = f"{noise.seed_sd:.3g} {findings.task.unit}".rstrip()
    said = [texts["noise"].format(spread, texts[f"from_{noise.source}"], noise.degrees_of_freedom, shares)]
    if "fold" in noise.shares:
        people, seeds = noise.shares["fold"], noise.shares["seed"]
        parts = (people, seeds, sum(noise.shares.values()) - people - seeds)
        said.append(texts["groups"].format(*(f"{part:.0%}" for part in parts)))
    return said


def _said(word: str, language: Language) -> str:
    return WORDS[language].get(word, word)


def _trivial(findings: Findings, language: Language) -> str:
    return findings.trivial_name if language == "en" else ready_zh(findings.trivial_name)


def _hardware(findings: Findings) -> str:
    """Return the devices with the hours of training that each did."""
    trials = findings.trials
    hours = (
        trials.assign(device=trials["device"].astype("object")).groupby("device")["elapsed_s"].sum() / 3600
    )
    return ", ".join(f"{device} ({hour:.2g} h)" for device, hour in hours.items())
