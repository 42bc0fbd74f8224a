"""Which arms a confirmation compares: leaders, the luckiest trial, the published default, the diary's best,
the same encoder from scratch, a frozen backbone, and a constant.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from hpo.analysis.evidence import has_choices
from hpo.analysis.leaders import leaders
from hpo.errors import Said, UsageError
from hpo.ledger.choice import FIRST_CONFIRMATION_SEED, Arm, FrozenChoice, Role
from hpo.reading.findings import Findings
from hpo.study import NamedConfiguration, StudySpec
from hpo.study.choices import Choices
from hpo.study.setting import Setting, choices_of

PROBING_LR = 1e-3
"""Rate of the head on a frozen backbone, moved into the study's range: AdamW's default (Kingma and Ba 2015,
arXiv 1412.6980); chosen by us, because a head alone needs no slower rate than any network."""


@dataclass(frozen=True)
class Request:
    """What a person asks of a confirmation."""

    top: int = 3
    """Configurations of the search, the answer's own choice first."""
    seeds: int = 10
    first_seed: int = FIRST_CONFIRMATION_SEED

    def key(self, findings: Findings) -> str:
        """Return a hash of the request and of every trial that it can be answered from."""
        columns = ["number", "state", "lr", "backbone_lr", "loss", "seed", "value", "end"]
        columns += [name for name in findings.spec.space.choices if name in findings.trials]
        trials = findings.trials[columns].to_json(orient="values", double_precision=15)
        parts = json.dumps([asdict(self), findings.row.fingerprint, findings.row.data["data_hash"], trials])
        return hashlib.sha256(parts.encode()).hexdigest()

    @property
    def seed_range(self) -> range:
        """The confirmation's seeds."""
        return range(self.first_seed, self.first_seed + self.seeds)


def decide(findings: Findings, request: Request) -> FrozenChoice:
    """Return what is to be confirmed, from validation alone; raises :class:`UsageError` when nothing can be.

    The seeds must be fresh: none of them may have been a tuning seed (Eimer et al. 2023, arXiv 2306.01324).
    """
    refuse_used_seeds(findings, request)
    return FrozenChoice(
        findings.row.name,
        findings.row.fingerprint,
        str(findings.row.data["data_hash"]),
        tuple(arms(findings, request.top)),
        tuple(request.seed_range),
    )


def refuse_used_seeds(findings: Findings, request: Request) -> None:
    """Raise :class:`UsageError` when a seed is one of the search's, or could have been."""
    tuning = findings.spec.space.seed
    used = {int(seed) for seed in findings.trials["seed"].dropna()} | set(range(tuning.low, tuning.high + 1))
    overlap = sorted(used & set(request.seed_range))
    if overlap:
        raise UsageError(
            Said(
                "{n_overlap} confirmation seeds, such as {overlap}, belong to the search",
                n_overlap=len(overlap),
                overlap=overlap[0],
            ),
            "fresh seeds",
            Said(
                "type: --first-seed {first_confirmation_seed}",
                first_confirmation_seed=FIRST_CONFIRMATION_SEED,
            ),
        )


def arms(findings: Findings, top: int) -> list[Arm]:
    """Return the arms, the answer's choice first; raises :class:`UsageError` when there is no answer."""
    spec, chosen = findings.spec, _chosen(findings, top)
    named = [
        Arm(f"choice {place}", "choice", spec.mode, s.lr, s.backbone_lr, s.loss, choices=s.choices)
        for place, s in enumerate(chosen, start=1)
    ]
    luckiest = _luckiest(findings)
    if luckiest is not None and luckiest not in chosen:
        rates = luckiest.lr, luckiest.backbone_lr
        own = luckiest.choices
        named.append(Arm("luckiest trial", "luckiest", spec.mode, *rates, luckiest.loss, choices=own))
    named.append(_named("baseline", spec.baseline, spec))
    best_known = _best_known(findings)
    if best_known is not None:
        named.append(_named("diary", best_known, spec))
    if spec.mode == "full_finetuning":
        named += _without_the_backbones_knowledge(chosen[0], spec)
    return [*named, Arm(findings.trivial_name, "trivial", None)]


def _without_the_backbones_knowledge(choice: Setting, spec: StudySpec) -> list[Arm]:
    """Return the arms that ask what pretraining and fine-tuning are worth, with the choice's loss.

    From scratch all weights learn at the choice's ``lr``: nothing is there that a lower rate could keep. It
    is not tuned, so a worse result is no proof against training from scratch.
    """
    lr = min(max(PROBING_LR, spec.space.lr.low), spec.space.lr.high)
    probing = Arm(
        "linear probing", "linear_probing", "linear_probing", lr=lr, loss=choice.loss, choices=choice.choices
    )
    if spec.backbone.weights == "none":
        return [probing]
    rates, own = (choice.lr, choice.lr), choice.choices
    scratch = Arm("from scratch", "from_scratch", spec.mode, *rates, choice.loss, weights="none", choices=own)
    return [scratch, probing]


def _luckiest(findings: Findings) -> Setting | None:
    """Return the configuration of the complete trial with the lowest validation loss, lucky or not."""
    complete = findings.trials[findings.trials["state"] == "complete"].dropna(subset=["value"])
    if complete.empty:
        return None
    best = complete.iloc[int(complete["value"].argmin())]
    choices = Choices({name: best[name] for name in findings.spec.space.choices})
    return Setting(float(best["lr"]), float(best["backbone_lr"]), str(best["loss"]), choices)


def _chosen(findings: Findings, top: int) -> list[Setting]:
    """Return the answer's choice and the best configurations tried that are not close to it."""
    choice, spec = findings.answer.choice, findings.spec
    if choice is None:
        counts = findings.counts
        raise UsageError(
            Said(
                "{name} has {complete} complete trials: too few to choose from",
                name=findings.row.name,
                complete=counts.complete,
            ),
            "at least 4",
            Said("type: hpo run --study {name}", name=findings.row.name),
        )
    first = Setting.of(choice)
    rivals = [Setting.of(named) for named in (spec.baseline, _best_known(findings)) if named is not None]
    beside = [first, *rivals]
    others = leaders(findings.trials, findings.curves, spec.space, top - 1, beside=beside)
    return [first, *others][:top]


def _best_known(findings: Findings) -> NamedConfiguration | None:
    """Return the known configuration with the lowest validation loss here; test figures choose nothing."""
    trials, baseline = findings.trials, findings.spec.baseline
    measured = trials[(trials["origin"] == "known") & (trials["state"] == "complete")]
    losses = {}
    for known in findings.spec.known:
        mine = measured[
            (measured["lr"] == known.lr)
            & (measured["backbone_lr"] == known.backbone_lr)
            & (measured["loss"] == known.loss)
            & has_choices(measured, known.choices)
        ]
        if not mine.empty and Setting.of(known) != Setting.of(baseline):
            losses[known] = float(mine["value"].mean())
    return min(losses, key=losses.__getitem__, default=None)


def _named(role: Role, named: NamedConfiguration, spec: StudySpec) -> Arm:
    rates, own = (named.lr, named.backbone_lr), choices_of(named)
    return Arm(named.name, role, spec.mode, *rates, named.loss, choices=own)
