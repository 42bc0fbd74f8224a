"""The frozen values that the ledger takes and gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Literal

from hpo.errors import MismatchError, Said

if TYPE_CHECKING:
    from hpo.study import Configuration, StudySpec


Kind = Literal["search", "confirm", "grid"]
StudyState = Literal["open", "paused", "stopped"]
WorkerState = Literal["here", "gone", "died"]
Origin = Literal["search", "known", "baseline", "replicate", "fixed", "imported", "transferred"]
"""``imported``: a hand-made run that somebody brought, never measured here;
``transferred``: a leader of another study, tried first."""
Result = Literal["finished", "patience", "pruned", "diverged"]
"""Ends of an attempt that are results: the slot is done."""
Fault = Literal["killed", "out_of_memory", "error"]
"""Ends of an attempt that are none: the slot is free again until its third fault, then failed.
``killed``: its worker was seen dead. (A lease that ran out is ``expired``, and no fault.)"""

COMPLETE: tuple[Result, ...] = ("finished", "patience")
"""Ends that are complete trials; the other results, pruned and diverged, count as pruned."""

CONFIRMS = ".confirm-"
"""Stands in the name of a study that runs a confirmation, behind the name of the search."""

LEASE_S = 60.0
"""Length of a lease that was given before lengths were noted."""


@dataclass(frozen=True)
class StudyRow:
    """A study as the database holds it."""

    study_id: int
    name: str
    kind: Kind
    spec: Mapping[str, Any] = field(repr=False)
    fingerprint: str
    data: Mapping[str, Any] = field(repr=False)
    versions: Mapping[str, str] = field(repr=False)
    priority: int
    state: StudyState
    created_at: float

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> StudyRow:
        """Return a row as the database gives it; where no object stands that should be one, an empty one."""
        read = {key: row[key] if isinstance(row[key], dict) else {} for key in ("spec", "data", "versions")}
        return cls(**{**row, **read})

    def known_spec(self) -> StudySpec:
        """Return the spec; raises :class:`MismatchError` for a study that is not known here.

        Another version, or another program, made it, or only half of it is there.
        """
        from hpo.study import stored_spec

        spec = stored_spec(self.name, self.spec)
        if not self.is_whole:
            raise MismatchError(
                Said("of study {name!r} the database does not hold what its data are", name=self.name),
                "a study as this program writes it",
                "copy it anew from where it was made",
            )
        return spec

    @property
    def confirms(self) -> str:
        """The search whose choice is confirmed here (its first 60 characters); empty for a search."""
        return self.name.rpartition(CONFIRMS)[0] if self.kind == "confirm" else ""

    @property
    def is_whole(self) -> bool:
        """Whether it says of its data what every look at a study needs."""
        trivial = self.data.get("trivial")
        loss = trivial.get("validation_loss") if isinstance(trivial, dict) else None
        texts = (self.data.get("data_hash"), self.data.get("trivial_name"))
        windows, notes = self.data.get("windows", {}), self.data.get("notes", [])
        are_told = isinstance(windows, dict) and isinstance(notes, list | tuple)
        return are_told and isinstance(loss, int | float) and all(isinstance(text, str) for text in texts)


def tried(config: object) -> dict[str, Any] | None:
    """Return the configuration that a slot holds as JSON; None where there is none, or no whole one."""
    if not isinstance(config, dict):
        return None
    rates = (config.get("lr"), config.get("backbone_lr"))
    are_rates = all(isinstance(one, int | float) and 0 < one < math.inf for one in rates)
    is_whole = are_rates and isinstance(config.get("loss"), str) and isinstance(config.get("seed"), int)
    return config if is_whole and isinstance(config.get("choices", {}), dict) else None


@dataclass(frozen=True)
class Claim:
    """The right to run one slot, until its lease ends. ``attempt`` is also the fencing token: it grows
    with every claim, so what a late holder of an older attempt writes is recognised and dropped."""

    study_id: int
    slot: int
    """Also the number of the trial in Optuna's tables."""
    attempt: int
    """From 1."""
    worker_id: str
    origin: Origin
    trial_id: int
    """Optuna's primary key."""
    epochs: int
    """Of the study's recipe."""
    configuration: Configuration | None = None
    """None: to be suggested. Given for fixed slots, and for every attempt after the first ``begin``."""
    fold: int | None = None


class NotBegun(Enum):
    """Why a claimed trial was not begun."""

    LOST = "lost"
    """Another worker may have the slot."""
    NOTHING_TO_REPEAT = "nothing to repeat"
    """It is no replicate: the claim still holds."""


@dataclass(frozen=True)
class Lease:
    """A claim that seems to have run out: its holder may be dead, slow, or have slept with the machine."""

    study_id: int
    slot: int
    attempt: int
    until: float
    """By the database's clock. Another number with every renewal."""
    length_s: float


@dataclass(frozen=True)
class Point:
    """One epoch of a claimed trial."""

    claim: Claim
    epoch: int
    """From 1."""
    train_loss: float
    validation_loss: float
    metrics: Mapping[str, float]
    elapsed_s: float


@dataclass(frozen=True)
class Outcome:
    """How a claimed trial ended, as a result."""

    end: Result
    value: float | None
    """Best validation loss (of a pruned trial: so far); None for a diverged one."""
    best_epoch: int
    epochs: int
    metrics: Mapping[str, float]
    """Validation metrics of the best epoch."""
    elapsed_s: float
    device: str
    checkpoint: str | None = None


@dataclass(frozen=True)
class Peers:
    """The other trials of a study (and fold) at one epoch: all that the median rule needs."""

    count: int
    """Trials that reached the epoch with a finite loss."""
    median: float
    """Of their best validation losses up to it; NaN when there is none."""


@dataclass(frozen=True)
class Counts:
    """How far the budget of a study is."""

    complete: int
    pruned: int
    """Diverged trials too."""
    failed: int
    """Slots closed after three faults."""
    running: int
    free: int
    epochs: int
    """All epochs done, those of running trials too."""
    silent: int = 0
    """Of those that run, how many have a lease that ran out: the next worker takes them."""

    @classmethod
    def of(cls, groups: Sequence[Sequence[Any]]) -> Counts:
        """Return the sums of groups of slots: state, end, how many, their epochs, how many are silent."""

        def total(state: str, is_counted: Callable[[str | None], bool] = lambda _: True) -> int:
            return sum(n for slot_state, end, n, *_ in groups if slot_state == state and is_counted(end))

        return cls(
            complete=total("done", lambda end: end in COMPLETE),
            pruned=total("done", lambda end: end not in COMPLETE),
            failed=total("failed"),
            running=total("running"),
            free=total("free"),
            epochs=sum(int(group[3] or 0) for group in groups),
            silent=sum(int(group[4]) for group in groups),
        )

    @property
    def finished(self) -> int:
        """Complete and pruned: what a budget counts."""
        return self.complete + self.pruned


@dataclass(frozen=True)
class TestLook:
    """One look at the test split."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    choice_hash: str
    at: float
    worker_id: str
    what: Mapping[str, Any]
