"""A study that lives in memory, for samplers of Optuna: its trials are what is known of ours. Read only."""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.search.history import PastTrial


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


def mirror(
    space: dict[str, BaseDistribution], sampler: BaseSampler, past: Iterable[PastTrial], kind: str
) -> Study:
    """Return a study of the past trials as a sampler of that kind learns most from them.

    For Optuna's samplers a diverged trial counts as the worst finite value seen, below every pruned one: left
    out, it would teach nothing, and most later trials would stay where the loss is not finite. GPSampler
    learns from complete trials only, so it is shown the others as complete: a pruned trial's best so far is
    an upper bound of what it would have reached. Our own sampler knows what pruned and diverged mean.
    """
    past = list(past)
    if kind == "ratio":
        return Study("mirror", _Mirror([_with_curve(trial, space) for trial in past]), sampler)
    worst = max((trial.value for trial in past if trial.value is not None), default=1.0)
    trials = [_seen(trial, space, worst, pruned_as_complete=kind == "gp") for trial in past]
    return Study("mirror", _Mirror(trials), sampler)


def _with_curve(trial: PastTrial, space: dict[str, BaseDistribution]) -> FrozenTrial:
    """Return the trial with all that is known of it; one that diverged has neither value nor curve."""
    if trial.end is None:
        return frozen(trial.slot, TrialState.RUNNING, _params(trial), space, blocks=_blocks(trial))
    state = TrialState.PRUNED if trial.end in {"pruned", "diverged"} else TrialState.COMPLETE
    curve = {} if trial.value is None else dict(enumerate(trial.curve, start=1))
    blocks = _blocks(trial)
    return frozen(trial.slot, state, _params(trial), space, value=trial.value, curve=curve, blocks=blocks)


def _blocks(trial: PastTrial) -> dict[str, int]:
    """Return what the trial may share with others beside its configuration."""
    return {"seed": trial.configuration.seed} | ({} if trial.fold is None else {"fold": trial.fold})


def _seen(
    trial: PastTrial, space: dict[str, BaseDistribution], worst: float, *, pruned_as_complete: bool
) -> FrozenTrial:
    if trial.end is None:
        return frozen(trial.slot, TrialState.RUNNING, _params(trial), space)
    # Step 0 puts a diverged trial behind all pruned ones: TPE ranks those by the step they reached.
    value, epochs = (worst, 0) if trial.value is None else (trial.value, trial.epochs)
    is_complete = pruned_as_complete or trial.end not in {"pruned", "diverged"}
    state = TrialState.COMPLETE if is_complete else TrialState.PRUNED
    return frozen(trial.slot, state, _params(trial), space, value=value, curve={epochs: value})


def _params(trial: PastTrial) -> dict[str, Any]:
    configuration = trial.configuration
    rates = {"lr": configuration.lr, "backbone_lr": configuration.backbone_lr}
    return {**rates, "loss": configuration.loss, **configuration.choices}


def frozen(
    slot: int,
    state: TrialState,
    params: dict[str, Any],
    space: dict[str, BaseDistribution],
    *,
    value: float | None = None,
    curve: dict[int, float] | None = None,
    blocks: dict[str, int] | None = None,
) -> FrozenTrial:
    """Return a trial of Optuna's; ``curve`` holds its losses by epoch."""
    return FrozenTrial(
        number=slot,
        trial_id=slot,
        state=state,
        value=value,
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions=space,
        user_attrs=blocks or {},
        system_attrs={},
        intermediate_values=curve or {},
    )
