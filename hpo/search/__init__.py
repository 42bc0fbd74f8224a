"""The spec's sampler: history -> the next configuration. When a run is stopped: :mod:`hpo.search.pruning`.

A sampler is any of Optuna's, or our own, given a mirror of the study that lives in memory: one small record a
trial, refreshed by one query for what finished since the last look. So a suggestion costs no more than the
sampler itself, however long the history is.

The seed is noise (science of the report: the answer is the best *expected* loss): it is drawn from a hash
of (fingerprint, slot) and never chosen. Where trials take turns with a few seeds (``space.seed.count``), a
configuration meets each only once. Suggestions too are a pure function of the fingerprint, the slot and the
trials that have finished or are running.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, assert_never

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from hpo.search.history import Past, PastTrial
from hpo.search.mirror import frozen, mirror
from hpo.study import Configuration, Sampler, Space, StudySpec
from hpo.study.choices import Choices
from hpo.study.setting import Setting

if TYPE_CHECKING:
    from hpo.search.prospects import Prospects
    from hpo.search.sampler import Memory

__all__ = [
    "PastTrial",
    "Suggester",
    "distributions",
    "make_sampler",
    "own_seed",
    "seed_of_round",
    "suggest",
    "tuning_seed",
]


class Suggester:
    """Suggests configurations for one study from what its trials have shown so far."""

    def __init__(self, spec: StudySpec, study_id: int, engine: sa.Engine) -> None:
        self._spec = spec
        with_curves = spec.sampler.kind == "ratio" or spec.pruner.kind == "improvement"
        self._past = Past(study_id, engine, with_curves=with_curves)
        self._memory: Memory = {}
        self._prospects: dict[int | None, tuple[int, Prospects | None]] = {}

    def suggest(self, slot: int) -> Configuration:
        """Return the configuration that ``slot`` should try; reads the database once."""
        past = [trial for trial in self._past.refresh() if trial.slot != slot]
        return suggest(self._spec, slot, past, self._memory)

    def prospects(self, fold: int | None) -> Prospects | None:
        """Return what the ended trials of a fold teach about runs under way; None while too few are complete.

        For the pruner ``improvement``. Reads a few rows, and learns again only when a trial has ended.
        """
        self._past.look()
        known = self._prospects.get(fold)
        if known is None or known[0] != len(self._past.ended):
            from hpo.search.prospects import learned_from  # with SciPy, which the other pruners do not need

            ended = [self._past.ended[slot] for slot in sorted(self._past.ended)]
            same = [trial for trial in ended if trial.fold == fold]
            known = (len(ended), learned_from(same, self._spec.pruner.startup_trials))
            self._prospects[fold] = known
        return known[1]


def suggest(
    spec: StudySpec, slot: int, past: Sequence[PastTrial], memory: Memory | None = None
) -> Configuration:
    """Return what ``slot`` should try, given the ended and the running trials.

    Pure: what ``memory`` holds saves time and changes nothing.
    """
    space = distributions(spec.space)
    seed, choices = _sampler_seed(spec, slot), tuple(spec.space.choices)
    sampler = make_sampler(spec.sampler, seed=seed, memory=memory, choices=choices)
    study = mirror(space, sampler, past, spec.sampler.kind)
    trial = frozen(slot, TrialState.RUNNING, {}, {})
    sampler.before_trial(study, trial)
    joint = sampler.infer_relative_search_space(study, trial)
    found = sampler.sample_relative(study, trial, joint)
    for name, distribution in space.items():
        if distribution.single():
            found[name] = distribution.to_external_repr(_only_value(distribution))
        elif name not in found:
            found[name] = sampler.sample_independent(study, trial, name, distribution)
    rates = (spec.space.lr.nearest(found["lr"]), spec.space.backbone_lr.nearest(found["backbone_lr"]))
    setting = Setting(*rates, str(found["loss"]), Choices({name: found[name] for name in spec.space.choices}))
    taken = _seeds_met(setting, past) if spec.space.seed.count else ()
    return Configuration.at(setting, tuning_seed(spec, slot, taken))


def _seeds_met(setting: Setting, past: Sequence[PastTrial]) -> set[int]:
    """Return the seeds of the trials of a setting."""
    configurations = (trial.configuration for trial in past)
    return {one.seed for one in configurations if setting.is_close_to(Setting.of(one))}


def _sampler_seed(spec: StudySpec, slot: int) -> int:
    """Return the sampler's seed: one a slot, or for our own, which counts its trials itself, one a study."""
    return _number_from(spec, 0 if spec.sampler.kind == "ratio" else slot, "sampler", 2**31)


def tuning_seed(spec: StudySpec, slot: int, taken: Container[int] = ()) -> int:
    """Return the seed of a slot: one that the trials take turns with, and that is not ``taken``.

    Its own where there is none: the spec has no ``space.seed.count``, or it has grouped folds, which the seed
    draws, or the configuration has met them all.
    """
    width, count = _width(spec), spec.space.seed.count
    if count is None or spec.validation.kind == "grouped_folds":
        return own_seed(spec, slot)
    first = _number_from(spec, 0, "turns", width)
    for turn in range(slot, slot + count):
        seed = spec.space.seed.low + (first + turn % count) % width
        if seed not in taken:
            return seed
    return own_seed(spec, slot)


def own_seed(spec: StudySpec, slot: int) -> int:
    """Draw the seed that a slot has for itself from the spec's range of tuning seeds."""
    return spec.space.seed.low + _number_from(spec, slot, "seed", _width(spec))


def seed_of_round(spec: StudySpec, number: int) -> int:
    """Draw the tuning seed of one round of replicates: the same for every configuration."""
    return spec.space.seed.low + _number_from(spec, number, "replicate", _width(spec))


def _width(spec: StudySpec) -> int:
    """Return how many tuning seeds the spec's range holds."""
    return spec.space.seed.high - spec.space.seed.low + 1


def _number_from(spec: StudySpec, slot: int, purpose: str, below: int) -> int:
    digest = hashlib.sha256(f"{spec.fingerprint()}:{slot}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the modelled parameters (the seed is not) as Optuna's distributions."""
    return {
        "lr": FloatDistribution(*space.lr.searched, log=True),
        "backbone_lr": FloatDistribution(*space.backbone_lr.searched, log=True),
        "loss": CategoricalDistribution(space.loss),
        **{name: CategoricalDistribution(values) for name, values in space.choices.items()},
    }


def make_sampler(
    sampler: Sampler, *, seed: int, memory: Memory | None = None, choices: Sequence[str] = ()
) -> BaseSampler:
    """Return the spec's sampler; TPE with Optuna's defaults. ``memory`` and ``choices`` are our own's."""
    match sampler.kind:
        case "ratio":
            from hpo.search.sampler import RatioSampler  # with SciPy, which the others do not need

            return RatioSampler(
                choices=choices, n_startup_trials=sampler.startup_trials, seed=seed, memory=memory
            )
        case "tpe":
            return TPESampler(n_startup_trials=sampler.startup_trials, seed=seed)
        case "gp":
            return GPSampler(n_startup_trials=sampler.startup_trials, seed=seed)
        case "random":
            return RandomSampler(seed=seed)
        case other:
            assert_never(other)


def _only_value(distribution: BaseDistribution) -> float:
    """Return the internal value of a distribution that holds one value."""
    return distribution.low if isinstance(distribution, FloatDistribution) else 0.0
