"""The spec's sampler and pruner: history -> the next configuration; curve and peers -> stop or go on.

A sampler is any of Optuna's, given a mirror of the study that lives in memory: one small record a trial
(parameters, end and value, no curve), refreshed by one query for what finished since the last look. So a
suggestion costs no more than the sampler itself, however long the history is.

The seed is noise (science of the report: the answer is the best *expected* loss): it is drawn from a hash
of (fingerprint, slot) and never modelled. Suggestions too are a pure function of the fingerprint, the slot
and the trials that have finished or are running.
"""

from __future__ import annotations

import hashlib
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.ledger.values import Peers
from hpo.spec import Configuration, Pruner, Sampler, Space, StudySpec
from hpo.storage.tables import slots

_FRESH = (
    sa.select(slots.c.slot, slots.c.state, slots.c.config, slots.c.end, slots.c.value, slots.c.epochs)
    .where(slots.c.study_id == sa.bindparam("study_id"), slots.c.slot >= sa.bindparam("first"))
    .where(slots.c.state.in_(("running", "done", "failed")))
    .order_by(slots.c.slot)
)
"""Slots are claimed in order, so those from the first unfinished one on are a small window."""


@dataclass(frozen=True)
class PastTrial:
    """What a sampler may know of a trial."""

    slot: int
    configuration: Configuration
    end: str | None
    """Why it ended; None while it runs."""
    value: float | None
    """Best validation loss, of a pruned trial so far; None when it runs or diverged."""
    epochs: int


class Suggester:
    """Suggests configurations for one study from what its trials have shown so far."""

    def __init__(self, spec: StudySpec, study_id: int, engine: sa.Engine) -> None:
        self._spec = spec
        self._study_id = study_id
        self._engine = engine
        self._ended: dict[int, PastTrial] = {}
        self._first = 0  # every slot below has ended for good and is known

    def suggest(self, slot: int) -> Configuration:
        """Return the configuration that ``slot`` should try; reads the database once."""
        past = [trial for trial in self._refresh() if trial.slot != slot]
        return suggest(self._spec, slot, past)

    def _refresh(self) -> list[PastTrial]:
        """Return ended and running trials in the order of their slots."""
        with self._engine.connect() as connection:
            rows = connection.execute(_FRESH, {"study_id": self._study_id, "first": self._first}).all()
        closed = {row.slot for row in rows if row.state != "running"}
        trials = [_past_trial(row) for row in rows if row.config is not None and row.state != "failed"]
        self._ended.update((trial.slot, trial) for trial in trials if trial.slot in closed)
        while self._first in closed:
            self._first += 1
        running = [trial for trial in trials if trial.slot not in closed]
        return sorted([*self._ended.values(), *running], key=lambda trial: trial.slot)


def _past_trial(row: sa.Row[*tuple[Any, ...]]) -> PastTrial:
    is_running = row.state == "running"
    return PastTrial(
        row.slot,
        Configuration(**row.config),
        None if is_running else row.end,
        None if is_running else row.value,
        row.epochs or 0,
    )


def suggest(spec: StudySpec, slot: int, past: Sequence[PastTrial]) -> Configuration:
    """Return what ``slot`` should try, given the ended and the running trials. Pure."""
    space = distributions(spec.space)
    sampler = make_sampler(spec.sampler, seed=_number_from(spec, slot, "sampler", 2**31))
    study = _mirror(space, sampler, past, pruned_as_complete=spec.sampler.kind == "gp")
    trial = _frozen(slot, TrialState.RUNNING, {}, {})
    sampler.before_trial(study, trial)
    joint = sampler.infer_relative_search_space(study, trial)
    found = sampler.sample_relative(study, trial, joint)
    for name, distribution in space.items():
        if distribution.single():
            found[name] = distribution.to_external_repr(_only_value(distribution))
        elif name not in found:
            found[name] = sampler.sample_independent(study, trial, name, distribution)
    return Configuration(
        float(found["lr"]), float(found["backbone_lr"]), str(found["loss"]), tuning_seed(spec, slot)
    )


def tuning_seed(spec: StudySpec, slot: int) -> int:
    """Draw the seed of a slot from the spec's range of tuning seeds."""
    seeds = spec.space.seed
    return seeds.low + _number_from(spec, slot, "seed", seeds.high - seeds.low + 1)


def seed_of_round(spec: StudySpec, number: int) -> int:
    """Draw the tuning seed of one round of replicates: the same for every configuration."""
    seeds = spec.space.seed
    return seeds.low + _number_from(spec, number, "replicate", seeds.high - seeds.low + 1)


def _number_from(spec: StudySpec, slot: int, purpose: str, below: int) -> int:
    digest = hashlib.sha256(f"{spec.fingerprint()}:{slot}:{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % below


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Return the modelled parameters (the seed is not) as Optuna's distributions."""
    return {
        "lr": FloatDistribution(space.lr.low, space.lr.high, log=True),
        "backbone_lr": FloatDistribution(space.backbone_lr.low, space.backbone_lr.high, log=True),
        "loss": CategoricalDistribution(space.loss),
    }


def make_sampler(sampler: Sampler, *, seed: int) -> BaseSampler:
    """Return the spec's sampler; TPE is multivariate and counts running trials as bad (Optuna's defaults)."""
    match sampler.kind:
        case "tpe":
            return TPESampler(n_startup_trials=sampler.startup_trials, seed=seed)
        case "gp":
            return GPSampler(n_startup_trials=sampler.startup_trials, seed=seed)
        case "random":
            return RandomSampler(seed=seed)
        case other:
            assert_never(other)


class _Mirror(InMemoryStorage):
    """Optuna's in-memory storage with one study of given trials, numbered by their slots; read only."""

    def __init__(self, trials: Sequence[FrozenTrial]) -> None:
        super().__init__()
        self._trials = trials

    def get_study_id_from_name(self, study_name: str) -> int:
        return 0

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return [StudyDirection.MINIMIZE]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return [trial for trial in self._trials if states is None or trial.state in states]

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Ignore the note that samplers leave for other processes: ours are told by the slot's row."""


def _mirror(
    space: dict[str, BaseDistribution],
    sampler: BaseSampler,
    past: Iterable[PastTrial],
    *,
    pruned_as_complete: bool,
) -> Study:
    """Return a study of the past trials.

    A diverged trial counts as the worst finite value seen, below every pruned one: left out, it would
    teach nothing, and most later trials would stay where the loss is not finite. Optuna's GPSampler
    learns from complete trials only, so with ``pruned_as_complete`` it is shown the others as complete:
    a pruned trial's best so far is an upper bound of what it would have reached.
    """
    past = list(past)
    worst = max((trial.value for trial in past if trial.value is not None), default=1.0)
    trials = [_seen(trial, space, worst, pruned_as_complete) for trial in past]
    return Study("mirror", _Mirror(trials), sampler)


def _seen(
    trial: PastTrial, space: dict[str, BaseDistribution], worst: float, pruned_as_complete: bool
) -> FrozenTrial:
    configuration = trial.configuration
    params = {"lr": configuration.lr, "backbone_lr": configuration.backbone_lr, "loss": configuration.loss}
    if trial.end is None:
        return _frozen(trial.slot, TrialState.RUNNING, params, space)
    # Step 0 puts a diverged trial behind all pruned ones: TPE ranks those by the step they reached.
    value, epochs = (worst, 0) if trial.value is None else (trial.value, trial.epochs)
    is_complete = pruned_as_complete or trial.end not in {"pruned", "diverged"}
    state = TrialState.COMPLETE if is_complete else TrialState.PRUNED
    return _frozen(trial.slot, state, params, space, value=value, step=epochs)


def _frozen(
    slot: int,
    state: TrialState,
    params: dict[str, Any],
    space: dict[str, BaseDistribution],
    *,
    value: float | None = None,
    step: int = 0,
) -> FrozenTrial:
    return FrozenTrial(
        number=slot,
        trial_id=slot,
        state=state,
        value=value,
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions=space,
        user_attrs={},
        system_attrs={},
        intermediate_values={} if value is None else {step: value},
    )


def _only_value(distribution: BaseDistribution) -> float:
    """Return the internal value of a distribution that holds one value."""
    return distribution.low if isinstance(distribution, FloatDistribution) else 0.0


def should_prune(pruner: Pruner, epoch: int, best: float | None, peers: Peers) -> bool:
    """Return whether a run whose ``best`` validation loss up to ``epoch`` is this should stop. Pure.

    ``best`` is None when no epoch was finite. The median rule (Golovin et al. 2017, Vizier, section 3.2; as
    Optuna's MedianPruner): stop when the best value so far is worse than the median of the peers' best
    values up to the same epoch, but never in the first ``warmup_epochs``, nor with fewer than
    ``startup_trials`` peers.
    """
    match pruner.kind:
        case "none":
            return False
        case "median":
            if epoch <= pruner.warmup_epochs or peers.count < max(1, pruner.startup_trials):
                return False
            return best is None or best > peers.median
        case other:
            assert_never(other)
