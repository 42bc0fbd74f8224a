"""The Optuna dashboard without work that it repeats at every poll."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial
from optuna_dashboard._app import create_app
from optuna_dashboard._inmemory_cache import _CachedExtraStudyProperty
from optuna_dashboard._storage import get_study, get_trials

from hpo.dashboard.kept_studies import KeptStudies, mark_of

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

    from optuna.artifacts._protocol import ArtifactStore
    from optuna.storages import BaseStorage


def quick_dashboard(storage: BaseStorage, artifacts: ArtifactStore | None) -> WSGIApplication:
    """Return the Optuna dashboard on a storage; polls and reloads of a large study are cheap."""
    app = create_app(storage, artifact_store=artifacts)
    app._inmemory_cache._cached_extra_study_property_cache = _Properties()

    def mark(study_id: int) -> str:
        trials = get_trials(app._inmemory_cache, storage, study_id)
        study = get_study(storage, study_id)
        if study is None:
            raise KeyError(study_id)
        return mark_of(trials, study.study_name, study.user_attrs, study.system_attrs)

    return KeptStudies(app, mark)


class _Properties(dict[int, "_Property"]):
    """What is known of the trials of each study, by its id."""

    def get(self, key: int, default: Any = None) -> _Property:
        """Return the study's entry, made at its first use."""
        return self.setdefault(key, _Property())


class _Property(_CachedExtraStudyProperty):  # type: ignore[misc]  # optuna-dashboard 0.21 has no types
    """Search space and attributes of a study's trials, looking at each finished trial once.

    optuna-dashboard 0.21 walks all trials at every poll when none is running, comparing every distribution.
    """

    def __init__(self) -> None:
        super().__init__()
        self._done: set[int] = set()
        self._spaces: dict[tuple[int, ...], Any] = {}

    def update(self, trials: list[FrozenTrial]) -> None:
        """Take in what is new."""
        fresh = [trial for trial in trials if trial.number not in self._done]
        self._cursor = -1
        super().update(fresh)
        self._done.update(trial.number for trial in fresh if trial.state.is_finished())

    def _update_search_space(self, trial: FrozenTrial) -> None:
        # Trials of one search share their distribution objects (hpo.quick_storage), which are kept here so
        # that no other object can get the same id.
        key = tuple(map(id, trial.distributions.values()))
        if key not in self._spaces:
            self._spaces[key] = trial.distributions
            super()._update_search_space(trial)
