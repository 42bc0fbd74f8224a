"""A study's answer in Chinese: line by line what :mod:`hpo.report.wording` says, with the same numbers."""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpo.confirm.confirmed import ArmResult, Confirmation
from hpo.confirm.verdicts import Doubt, Finding, Look
from hpo.reading.findings import Findings
from hpo.report.wording.confirmed import figures_of
from hpo.report.wording.notes import said
from hpo.report.wording.numbers import about, with_error

YARDSTICKS_ZH = {"mae": "MAE", "cross_entropy": "交叉熵", "bce": "二元交叉熵"}
_LABELS = {"synthetic signals": "模拟信号", "partial: ": "数据不完整：", "subjects not known": "受试者未知"}
_READY = (
    (r"all (\d+) trials were pruned", r"全部 \1 次试验都被提前终止"),
    (r"all (\d+) trials diverged", r"全部 \1 次试验都发散"),
    (
        r"(\d+) complete trials; a best ratio needs at least (\d+)",
        r"只有 \1 次完整试验；判断最佳比值至少需要 \2 次",
    ),
    (
        r"(\d+) ratios? tried; a best one needs at least (\d+)",
        r"只试过 \1 个比值；判断最佳比值至少需要 \2 个",
    ),
    (
        r"only the loss (\S+) has complete trials: losses are not compared",
        r"只有损失函数 \1 有完整试验：无法比较损失函数",
    ),
    (r"no baseline: nothing says whether the search was worth it", "没有基线：无法判断搜索是否值得"),
    (r"all (\d+) complete trials have the same validation loss", r"全部 \1 次完整试验的验证损失相同"),
    (
        r"with more than (\d+) trials the answer is worked out by: (.*)",
        r"试验超过 \1 次时，请用此命令计算结论：\2",
    ),
    (
        r"the model does not fit: only configurations that were tried are spoken of",
        "模型不符合这些试验：只谈试过的配置",
    ),
    (r"constant (\S+) (\S+) \(training median\)", r"常数 \1 \2，即训练集中位数"),
    (r"class prior of the training windows", "训练窗口的类别先验"),
    (
        r"constant (\S+) (\S+) \(training median\) in the first of (\d+) folds; scores are means over them",
        r"常数 \1 \2，即 \3 折中第一折的训练集中位数；分数为各折的均值",
    ),
    (
        r"class prior of the training windows in the first of (\d+) folds; scores are means over them",
        r"\1 折中第一折训练窗口的类别先验；分数为各折的均值",
    ),
)
"""Phrases that come ready-made (notes of the analysis, trivial predictors), as patterns."""


def ready_zh(sentence: str) -> str:
    """Return a ready-made sentence in Chinese; one that is not known stays as it is."""
    for pattern, chinese in _READY:
        found = re.fullmatch(pattern, sentence)
        if found:
            return found.expand(chinese)
    return sentence


_VERDICTS = {
    Finding.BETTER: "优于已发表的默认设置",
    Finding.BETTER_UNLESS_IT_FAILS: "只要训练不失败，优于已发表的默认设置（失败率达到 {undone} 即抵消）",
    Finding.WORSE: "劣于已发表的默认设置",
    Finding.CANNOT_BE_TOLD: "用 {seeds} 个随机种子和 {subjects} 个独立单位无法与默认设置区分",
    Finding.NO_BETTER_THAN_CONSTANT: "不优于常数预测",
    Finding.SEEDS_FAILED: "{seeds} 个种子中有 {failed} 个失败，默认设置有 {others} 个失败",
    Finding.ALL_FAILED: "无法判断：其运行或默认设置的运行全部失败",
}
_DOUBTS = {
    Doubt.FEW_SEEDS: "（至少需要 {least} 个随机种子）",
    Doubt.CHANCE: "（仅随机种子就可能造成）",
    Doubt.INTERVAL: "（换一批人可能没有差异）",
    Doubt.FIRST_ARM: "（先检验所选配置，而它未能区分）",
}


def arm_verdict_zh(found: Confirmation, result: ArmResult) -> str:
    """Return what an arm is beside the published default, in Chinese."""
    against = result.against_baseline
    given = figures_of(found, result) | {"subjects": result.subjects}
    said = _VERDICTS[Finding.ALL_FAILED if against is None else against.finding].format(**given)
    doubt = None if against is None else against.doubt
    return said if doubt is None else said + _DOUBTS[doubt].format(**given)


def confirmed_zh(found: Confirmation) -> list[str]:
    """Return the verdict of a confirmation and what limits it, in Chinese."""
    first, look = found.arms[0].against_baseline, found.look
    looked = (
        f"第 {look.number} 次查看此研究与数据的测试集，至今共 {found.test_looks} 次；"
        f"选择 {found.choice_hash[:16]} 在运行前已冻结"
    )
    pairs = len(found.seeds) if first is None else first.pairs
    many = f"{pairs} 个配对随机种子，{found.arms[0].subjects} 个独立测试单位"
    lines = [f"在测试集上，所选配置{arm_verdict_zh(found, found.arms[0])}（{many}；{looked}）"]
    if first is not None and first.failures.any:
        lines.append("失败的种子按该组中最差的种子计算")
    if first is not None and not first.failures.any:
        rate = f"{100 * first.failures.not_excluded:.0f} %"
        lines.append(f"没有种子失败；{len(found.seeds)} 个种子不能排除低于 {rate} 的失败率")
    if first is not None and first.detectable is not None:
        size = f"{first.detectable:.3g} {found.task.unit}".rstrip()
        lines.append(f"若真实差异为 {size}，五次中约有四次能被发现")
    if len(found.seeds) < look.min_seeds:
        smallest = f"{2 / 2 ** len(found.seeds):.3g}"
        lines.append(
            f"{len(found.seeds)} 个种子的 p 值不会低于 {smallest}：不下结论；"
            f"第 {look.number} 次查看至少需要 {look.min_seeds} 个种子"
        )
    following = Look(found.test_looks + 1)
    lines.append(
        f"第 {look.number} 次查看误称“优于”的概率至多 {100 * look.alpha:.2g} %，所有查看合计 5 %；"
        f"第 {following.number} 次要求 p 不超过 {following.level:.2g}，即至少 {following.min_seeds} 个种子"
    )
    if found.task.unit_of_independence == "block":
        lines.append("该数据集没有受试者编号：不同数据块可能来自同一人")
    return lines


def name_zh(findings: Findings) -> str:
    """Return the study's name with what every output must say of its data."""
    labels = []
    for label in findings.labels:
        for english, chinese in _LABELS.items():
            label = label.replace(english, chinese)
        labels.append(f"[{label}]")
    return " ".join([findings.row.name, *labels])


def answer_lines_zh(findings: Findings) -> list[str]:
    """Return the answer in Chinese, the verdict on the trivial predictor first."""
    return [
        verdict_zh(findings),
        *_choice(findings),
        *_ratio(findings),
        *_beside(findings),
        *_best_trial(findings),
        *_counted(findings),
        *(f"说明：{ready_zh(said(note))}" for note in findings.answer.notes),
    ]


def verdict_zh(findings: Findings) -> str:
    """Return the first line: is the chosen configuration better than the trivial predictor?"""
    found, name = findings.answer, name_zh(findings)
    trivial = f"平凡预测（{ready_zh(findings.trivial_name)}：{_loss(findings, findings.trivial)}）"
    if found.choice is None or found.choice.expected_validation_loss is None:
        counts = findings.counts
        have = f"{counts.complete} 次完整、{counts.pruned} 次提前终止、{counts.failed} 次失败的试验"
        return f"{name}：尚无结论：{have}不足以说明什么优于{trivial}。"
    expected = _with_error(findings, found.choice.expected_validation_loss, found.choice.standard_error)
    said = {
        "beats": f"最佳配置优于{trivial}，差距超过噪声",
        "does not beat": f"没有配置优于{trivial}",
        "cannot be told": f"最佳配置与{trivial}无法区分：差距在噪声之内",
    }[found.against_trivial]
    return f"{name}：{said}；期望验证 {YARDSTICKS_ZH[findings.task.yardstick]} 为 {expected}。"


def _choice(findings: Findings) -> list[str]:
    choice = findings.answer.choice
    if choice is None:
        return []
    return [
        f"最佳配置：lr {choice.lr:.3g}，backbone_lr {choice.backbone_lr:.3g}，损失函数 {choice.loss}，"
        f"比值 lr/backbone_lr {choice.ratio:.3g}"
    ]


def _ratio(findings: Findings) -> list[str]:
    curve = findings.answer.curve
    if curve is None:
        return ["最佳比值：这些试验无法确定"]
    low, high = (10**end for end in curve.interval)
    first, last = (10**end for end in curve.indistinguishable)
    tied = f"从 {first:.3g} 到 {last:.3g} 无法区分"
    if not curve.identified or curve.best is None:
        return [f"最佳比值：这些试验无法确定（95 % 区间 {low:.3g} 至 {high:.3g}；{tied}）"]
    return [f"最佳比值：{10**curve.best:.3g}（95 % 区间 {low:.3g} 至 {high:.3g}；{tied}）"]


def _own_runs(runs: Sequence[float]) -> str:
    if not runs:
        return "（仅由模型推断：自身没有完整运行）"
    if len(runs) == 1:
        return f"（自身运行：{runs[0]:.4g}）"
    return f"（自身 {len(runs)} 次运行：{min(runs):.4g} 至 {max(runs):.4g}）"


def _beside(findings: Findings) -> list[str]:
    baseline, spec = findings.answer.baseline, findings.spec.baseline
    known = _with_error(findings, baseline.value, baseline.standard_error) if baseline else "尚不知道"
    against = {
        "beats": "最佳配置更好，差距超过噪声",
        "does not beat": "最佳配置并不更好",
        "cannot be told": "与最佳配置无法区分",
    }[findings.answer.against_baseline]
    return [
        f"基线（{spec.name}：lr {spec.lr:g}，backbone_lr {spec.backbone_lr:g}，{spec.loss}）：{known}"
        + (f"{_own_runs(baseline.runs)}；{against}" if baseline else ""),
        f"平凡预测（{ready_zh(findings.trivial_name)}）：{_loss(findings, findings.trivial)}",
    ]


def _best_trial(findings: Findings) -> list[str]:
    best, optimism = findings.answer.best, findings.answer.optimism
    if best is None:
        return []
    value = _loss(findings, best.validation_loss)
    luck = "" if optimism is None else f"；约偏乐观 {about(optimism, findings.task.unit)}"
    return [f"最佳单次试验：第 {best.number} 号，{value}（随机种子 {best.seed}{luck}）"]


def _counted(findings: Findings) -> list[str]:
    """Return how many trials were imported, and how many failed."""
    imported, counts = findings.imported, findings.counts
    said = [f"{counts.finished} 次结束的试验中有 {imported} 次是导入的，并非在此测得"] if imported else []
    return said + (
        [f"{counts.failed} 次试验最终失败：原因见 hpo status --study {findings.row.name}"]
        if counts.failed
        else []
    )


def _loss(findings: Findings, value: float) -> str:
    return f"{value:.4g} {findings.task.unit}".rstrip()


def _with_error(findings: Findings, value: float, error: float | None) -> str:
    return with_error(value, error, findings.task.unit)
