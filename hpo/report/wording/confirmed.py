"""A confirmation in words, the same on the command line and in the report."""

from __future__ import annotations

from datetime import UTC, datetime

from hpo.confirm.confirmed import ArmResult, Confirmation
from hpo.confirm.paired import MIN_SEEDS
from hpo.confirm.unit_intervals import Estimate


def confirmation_lines(found: Confirmation) -> list[str]:
    """Return the verdict, the arms, the published numbers and the looks at the test split."""
    frozen = datetime.fromtimestamp(found.frozen_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return [
        headline(found),
        *(_arm(found, arm) for arm in found.arms),
        *_cautions(found),
        *(
            f"published: {one.name}: {', '.join(f'{name} {value:g}' for name, value in one.metrics.items())} "
            f"({one.source}); not comparable in: {one.comparable or 'nothing named'}"
            for one in found.published
        ),
        f"choice {found.choice_hash[:16]}, frozen {frozen}, before its first run; the test split of this "
        f"study has been looked at {times(found.test_looks)}",
    ]


def headline(found: Confirmation) -> str:
    """Return the first line: what the test split says of the answer's own choice."""
    name = " ".join([found.study, *(f"[{label}]" for label in found.labels)])
    first = found.arms[0]
    if first.against_baseline is None:
        return f"{name}: nothing can be said: the chosen configuration's runs diverged"
    words = first.against_baseline.verdict
    if words.startswith("cannot"):
        words = words.replace("told apart", "told apart from the published default", 1)
    return f"{name}: on the test split the chosen configuration is {words}".replace("is cannot", "cannot")


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
        return f"{what}: all runs diverged"
    others = ", ".join(f"{name} {one.mean:.4g}" for name, one in result.metrics.items() if name != yardstick)
    said = f"{what}: {yardstick} {_estimate(result.metrics[yardstick])} {found.task.unit}".rstrip()
    against = result.against_baseline
    beside = ""
    if against is not None:
        beside = (
            f"; {against.difference:+.3g} [{against.low:+.3g}, {against.high:+.3g}] beside the default, "
            f"p {against.p:.2g}: {against.verdict}"
        )
    return f"{said}; {others}{beside}"


def _estimate(estimate: Estimate) -> str:
    return f"{estimate.mean:.4g} [{estimate.low:.4g}, {estimate.high:.4g}]"


def _cautions(found: Confirmation) -> list[str]:
    """Return what limits the verdict."""
    units = f"{found.task.unit_of_independence}s"
    lines = [
        f"{len(found.seeds)} paired seeds from {found.seeds[0]}, {found.arms[0].subjects} test {units}; "
        f"intervals 95 %: arms over {units}, differences over seeds and {units}; p: sign flips, "
        "the choice first, Holm over the others"
    ]
    first = found.arms[0].against_baseline
    if first is not None and first.detectable is not None:
        lines.append(
            f"a true difference of {first.detectable:.3g} {found.task.unit}".rstrip()
            + " of the choice would be called real four times in five"
        )
    if len(found.seeds) < MIN_SEEDS:
        smallest = 2 / 2 ** len(found.seeds)
        lines.append(
            f"with {len(found.seeds)} seeds no p can be under {smallest:.3g}: nothing is called real"
        )
    if found.task.unit_of_independence == "block":
        lines.append("subjects cannot be told apart in this data set: its blocks may share people")
    return lines
