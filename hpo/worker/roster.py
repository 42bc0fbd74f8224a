"""The studies that one worker serves: those that it was told, or all open ones; urgent first, then oldest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from finetune.api import FinetuneError
from hpo.errors import HpoError
from hpo.ledger.values import Claim, Counts, StudyRow
from hpo.worker.opening import check_fits, check_is_same
from hpo.worker.session import Event, Session, Settings, checkpoints_of
from hpo.worker.source import Source

_Key = tuple[int, float]


class Roster:
    """Finds the next study with work, and speaks for all runs of the process."""

    def __init__(
        self,
        session: Session,
        url: str,
        settings: Settings,
        names: Sequence[str],
        below: int | None,
        fingerprint: str | None = None,
    ) -> None:
        """Serve the studies ``names`` (none: all), each up to its slot ``below`` (None: all slots).

        Of another ``fingerprint`` (None: any) none is served.

        Raises :class:`hpo.errors.UnknownStudyError` for a name that is not in the database.
        """
        self._session = session
        self._url = url
        self._settings = settings
        self._below = below
        self._fingerprint = fingerprint
        self._names = set(names)
        self._sources: dict[_Key, Source] = {}
        self._ends: dict[str, int] = {}
        self.refused: dict[int, HpoError | FinetuneError] = {}
        """Studies that this process cannot serve, and why."""
        for name in names:
            session.patiently(partial(session.ledger.study, name))

    @property
    def ends(self) -> Mapping[str, int]:
        """How many runs ended here, by why."""
        return self._ends

    def next_source(self) -> Source | None:
        """Return the source of the first study that has a run for us, already claimed; None without any."""
        self._drop_deleted()
        for study in self._studies():
            source = self._source(study)
            if source is not None and source.has_run():
                return source
        return None

    def _drop_deleted(self) -> None:
        """Serve studies no more that were deleted with another tool, and say so."""
        there = {_key(row) for row in self._all_studies()} if self._sources else set()
        for key in self._sources.keys() - there:
            study = self._sources.pop(key).study
            text = f"the study {study.name} was deleted with another tool: its trials end here"
            self._session.on_event(Event("message", self._session.worker, study.name, text=text))

    def is_over(self) -> bool:
        """Return whether no slot of our studies is free or running: nobody can die and leave us one."""
        return not any(self._is_unfinished(study) for study in self._studies())

    def why_idle(self) -> str:
        """Return in words why no study has a run for us now."""
        rows = [row for row in self._all_studies() if not self._names or row.name in self._names]
        if not rows:
            return "the database holds no study yet"
        reasons: dict[str, list[str]] = {}
        for row in rows:
            reasons.setdefault(self._why_not(row), []).append(row.name)
        return "; ".join(f"{reason}: {_some(names)}" for reason, names in reasons.items())

    def _why_not(self, study: StudyRow) -> str:
        if study.study_id in self.refused:
            return "not served here"
        counts = self._counts(study)
        if not counts.free + counts.running:
            return "all trials have ended"
        return study.state if study.state != "open" else "other workers run the last trials"

    def refuse(self, source: Source, error: HpoError | FinetuneError) -> None:
        """Serve a study no more, because of a fault that another attempt could not mend.

        Raises ``error`` when the study was asked for by its name.
        """
        self._refuse(source.study, error)

    # --- for the thread that renews the leases

    def claims(self) -> list[Claim]:
        """Return all claims that we hold. Thread-safe."""
        return [claim for source in list(self._sources.values()) for claim in source.claims()]

    def lose(self, claims: Sequence[Claim]) -> None:
        """Tell the sources of claims that another worker may have. Thread-safe."""
        for source in list(self._sources.values()):
            source.lose([claim for claim in claims if claim.study_id == source.study.study_id])

    def recall_stopped(self) -> None:
        """Have the runs of studies that were stopped given back at their next epoch. Thread-safe."""
        if any(source.claims() for source in list(self._sources.values())):
            for study in self._session.ledger.studies():
                if study.state == "stopped" and _key(study) in self._sources:
                    self._sources[_key(study)].is_recalled = True

    def give_back_all(self) -> None:
        """Free all slots that we hold."""
        for source in self._sources.values():
            source.give_back_all()

    # --- steps

    def _studies(self) -> list[StudyRow]:
        """Return the open studies that we may serve, in the order in which they are served."""
        return [
            row
            for row in self._all_studies()
            if row.state == "open"
            and row.study_id not in self.refused
            and (not self._names or row.name in self._names)
        ]

    def _all_studies(self) -> list[StudyRow]:
        return self._session.patiently(self._session.ledger.studies)

    def _is_unfinished(self, study: StudyRow) -> bool:
        counts = self._counts(study)
        return counts.free + counts.running > 0

    def _counts(self, study: StudyRow) -> Counts:
        return self._session.patiently(partial(self._session.ledger.counts, study.study_id, self._below))

    def _goes_first(self, study: StudyRow) -> bool:
        """Return whether ``study`` is still the first with a free slot."""
        if len(self._names) == 1:
            return True
        for other in self._studies():
            if other.study_id == study.study_id:
                return True
            if self._counts(other).free:
                return False
        return True  # paused or stopped: the ledger gives no slot

    def _source(self, study: StudyRow) -> Source | None:
        """Return the study's source, made at the first call; None for a study that is refused here."""
        key = _key(study)
        if key not in self._sources:
            try:
                spec = study.known_spec()
                check_is_same(study, self._fingerprint)
                check_fits(study, spec, self._settings)
            except (HpoError, FinetuneError) as error:
                self._refuse(study, error)
                return None
            kept = checkpoints_of(self._url, study, self._settings)
            self._sources[key] = Source(
                self._session, study, spec, kept, self._below, self._ends, partial(self._goes_first, study)
            )
        return self._sources[key]

    def _refuse(self, study: StudyRow, error: HpoError | FinetuneError) -> None:
        if study.name in self._names:
            raise error
        self.refused[study.study_id] = error
        text = f"{study.name} cannot be served here: {error}"
        self._session.on_event(Event("message", self._session.worker, study.name, text=text))


def _key(study: StudyRow) -> _Key:
    """Return what names a study for good: SQLite gives the number of a deleted one to the next."""
    return study.study_id, study.created_at


def _some(names: Sequence[str]) -> str:
    """Return a list in words that stays on a line."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
