"""A confirmation in words, the same on the command line and in the report."""

from __future__ import annotations

from datetime import UTC, datetime

from hpo.confirm.confirmed import ArmResult, Confirmation
from hpo.confirm.judging import Against
from hpo.confirm.unit_intervals import Estimate
from hpo.confirm.verdicts import Doubt, Finding, Look

_HEADLINES = {
    Finding.BETTER: "is better than the published default",
    Finding.BETTER_UNLESS_IT_FAILS: "is better than the published default in the seeds that train: of "
    "{seeds} none failed, which excludes failure rates over {excluded} only; failing in {undone} of seeds "
    "would undo it",
    Finding.WORSE: "is worse than the published default",
    Finding.CANNOT_BE_TOLD: "cannot be told apart from the published default with {seeds} seeds and {units}",
    Finding.NO_BETTER_THAN_CONSTANT: "is no better than a constant",
    Finding.SEEDS_FAILED: "failed in {failed} of {seeds} seeds, the published default in {others} of "
    "{seeds}; nothing else is called real",
    Finding.ALL_FAILED: "cannot be judged: all its runs, or all of the published default, failed",
}
_VERDICTS = {
    Finding.BETTER: "better than the published default",
    Finding.BETTER_UNLESS_IT_FAILS: "better than the published default, unless it fails in {undone} of seeds",
    Finding.WORSE: "worse than the published default",
    Finding.CANNOT_BE_TOLD: "cannot be told apart with {seeds} seeds and {units}",
    Finding.NO_BETTER_THAN_CONSTANT: "no better than a constant",
    Finding.SEEDS_FAILED: "{failed} of {seeds} seeds failed, of the default {others}",
    Finding.ALL_FAILED: "all runs failed",
}
_DOUBTS = {
    Doubt.FEW_SEEDS: "at least {least} seeds are needed to say more",
    Doubt.CHANCE: "seeds alone could do it",
    Doubt.INTERVAL: "other people might show nothing",
    Doubt.FIRST_ARM: "the choice comes first, and is not told apart",
}


def confirmation_lines(found: Confirmation) -> list[str]:
    """Return the verdict, the arms, the published numbers and the looks at the test split."""
    return [
        headline(found),
        *(_arm(found, arm) for arm in found.arms),
        *basis_lines(found),
        *(
            f"published: {one.name}: {', '.join(f'{name} {value:g}' for name, value in one.metrics.items())} "
            f"({one.source}); not comparable in: {one.comparable or 'nothing named'}"
            for one in found.published
        ),
        frozen_line(found),
    ]


def headline(found: Confirmation) -> str:
    """Return the first line: what the test split says of the answer's own choice."""
    name = " ".join([found.study, *(f"[{label}]" for label in found.labels)])
    said = _HEADLINES[found.finding].format(**figures_of(found, found.arms[0]))
    return f"{name}: on the test split the chosen configuration {said}"


def verdict_words(found: Confirmation, result: ArmResult) -> str:
    """Return what an arm is, beside the published default."""
    against = result.against_baseline
    finding = Finding.ALL_FAILED if against is None else against.finding
    given = figures_of(found, result)
    said = _VERDICTS[finding].format(**given)
    doubt = None if against is None else against.doubt
    return said if doubt is None else f"{said} ({_DOUBTS[doubt].format(**given)})"


def figures_of(found: Confirmation, result: ArmResult) -> dict[str, object]:
    """Return the numbers that a verdict's words may name."""
    against, units = result.against_baseline, f"{result.subjects} {found.task.unit_of_independence}s"
    given = {"seeds": len(found.seeds), "units": units, "least": found.look.min_seeds}
    if against is None:
        return given
    return given | {
        "failed": against.failures.arm,
        "others": against.failures.baseline,
        "excluded": f"{100 * against.failures.not_excluded:.0f} %",
        "undone": f"{100 * (against.break_even or 0.0):.2g} %",
    }


def frozen_line(found: Confirmation) -> str:
    """Return when the choice was frozen, and which look this was."""
    frozen = datetime.fromtimestamp(found.frozen_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return (
        f"choice {found.choice_hash[:16]}, frozen {frozen}, before its first run; look "
        f"{found.look.number} at the test split of this study and its data, which has been "
        f"looked at {times(found.test_looks)}"
    )


def times(count: int) -> str:
    """Return a count of looks in words."""
    return "once" if count == 1 else f"{count} times"


def _arm(found: Confirmation, result: ArmResult) -> str:
    arm, yardstick = result.arm, found.task.yardstick
    rates = [
        f"{name} {value:.3g}" for name, value in (("lr", arm.lr), ("backbone_lr", arm.backbone_lr)) if value
    ]
    if arm.ratio is not None:
        rates.append(f"ratio {arm.ratio:.3g}")
    what = f"{arm.name} ({', '.join([*rates, arm.loss or ''])})" if arm.loss else f"trivial: {arm.name}"
    if not result.metrics:
        return f"{what}: all runs failed"
    failed = f" ({result.failed} of {len(found.seeds)} seeds failed)" if result.failed else ""
    others = ", ".join(f"{name} {one.mean:.4g}" for name, one in result.metrics.items() if name != yardstick)
    said = f"{what}{failed}: {yardstick} {_estimate(result.metrics[yardstick])} {found.task.unit}".rstrip()
    against = result.against_baseline
    beside = "" if against is None else f"; {gap_words(against)}: {verdict_words(found, result)}"
    return f"{said}; {others}{beside}"


def gap_words(against: Against) -> str:
    """Return an arm's difference to the published default with its interval and p."""
    ends = f"[{against.low:+.3g}, {against.high:+.3g}]"
    return f"{against.difference:+.3g} {ends} beside the default, p {against.p:.2g}"


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.mean:.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"


def basis_lines(found: Confirmation) -> list[str]:
    """Return what a verdict rests on and what limits it."""
    units, first = f"{found.task.unit_of_independence}s", found.arms[0].against_baseline
    pairs = len(found.seeds) if first is None else first.pairs
    lines = [
        f"{pairs} paired seeds from {found.seeds[0]}, {found.arms[0].subjects} test {units}; "
        f"intervals 95 %: arms over {units}, differences over seeds and {units}; p: sign flips, "
        "the choice first, Holm over the others"
    ]
    if first is not None and first.failures.any:
        lines.append("a seed that failed counts as the worst of its arm's seeds")
    if first is not None and not first.failures.any:
        rate = f"{100 * first.failures.not_excluded:.0f} %"
        lines.append(f"no seed failed; {len(found.seeds)} seeds cannot exclude failure rates under {rate}")
    if first is not None and first.detectable is not None:
        lines.append(
            f"a true difference of {first.detectable:.3g} {found.task.unit}".rstrip()
            + " of the choice would be called real four times in five"
        )
    if len(found.seeds) < found.look.min_seeds:
        lines.append(
            f"with {len(found.seeds)} seeds no p can be under {2 / 2 ** len(found.seeds):.3g}: nothing is "
            f"called real; look {found.look.number} needs {found.look.min_seeds} seeds"
        )
    lines.append(_spent(found.look, found.test_looks))
    if found.task.unit_of_independence == "block":
        lines.append("subjects cannot be told apart in this data set: its blocks may share people")
    return lines


def _spent(look: Look, looks: int) -> str:
    """Return what this look may spend, and what the next one needs."""
    following = Look(looks + 1)
    return (
        f'look {look.number}: chance of a false "better" up to {100 * look.alpha:.2g} %, over all looks 5 %; '
        f"look {following.number} needs p at most {following.level:.2g}, so {following.min_seeds} seeds"
    )
