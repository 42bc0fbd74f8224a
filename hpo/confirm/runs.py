"""The runs of a frozen choice: every arm on every seed, by the same workers as a search.

A spec has one mode and one backbone, so the arms of each mode and weights are a study of the ledger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from rich.console import Console

from finetune.api import Mode, RunSpec
from hpo.checkpoints import Checkpoints
from hpo.errors import Said, UsageError
from hpo.fleet import run_local
from hpo.ledger.choice import FrozenChoice
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.reading.findings import Findings
from hpo.storage.tables import slots
from hpo.study import Configuration, StudySpec
from hpo.worker import Settings, checkpoints_of, reach
from hpo.worker.progress import Display, Progress, Says

T = TypeVar("T")


@dataclass(frozen=True)
class ArmRun:
    """One arm on one seed, ended."""

    arm: int
    """Place of the arm in the frozen choice."""
    seed: int
    spec: RunSpec
    slot: int
    validation_loss: float | None
    """None for a run that failed; one that diverged may have had finite epochs."""
    weights: Path | None
    """Of its best epoch; None for a run that diverged or failed, whatever it had learned before."""


@dataclass(frozen=True)
class Variant:
    """What the runs of one ledger study have in common."""

    mode: Mode
    weights: str | None
    """Of the backbone; None: the study's own."""


class ConfirmationRuns:
    """The runs of one frozen choice in one database."""

    def __init__(
        self, engine: sa.Engine, url: str, findings: Findings, choice: FrozenChoice, settings: Settings
    ) -> None:
        self._engine = engine
        self._url = url
        self._findings = findings
        self._choice = choice
        self._settings = settings
        self._ledger = Ledger(engine)

    def run(self, workers: int | None, console: Console, words: Says) -> None:
        """Run every arm on every seed that has not been run; raises when some could not be finished."""
        for variant in self._variants():
            row = self._study(variant)
            wanted = [("fixed", configuration) for _, _, configuration in self._wanted(variant)]
            total = max(self._ledger.append_slots(row.study_id, wanted)) + 1
            before = self._ledger.counts(row.study_id, total)
            counted = (before.complete, before.pruned, before.failed)
            progress = Progress(row.name, total, self._findings.task.unit, *counted, words=words)
            with Display(progress, console) as display:
                run_local(
                    self._url,
                    row.name,
                    total=total,
                    workers=workers,
                    settings=self._settings,
                    on_event=display.take,
                )
            self._refuse_unfinished(row, total)

    def ended(self, *, only_arm: int | None = None) -> list[ArmRun]:
        """Return every run (of one arm); raises :class:`UsageError` when weights are not on this machine."""
        found = []
        for variant in self._variants():
            spec, rows = self._spec(variant), self._rows(variant)
            for arm, seed, configuration in self._wanted(variant):
                if only_arm not in {None, arm}:
                    continue
                row = rows[configuration]
                has_weights = row.checkpoint is not None and row.end != "diverged"
                weights = self._weights(variant, row.slot, row.checkpoint) if has_weights else None
                run = spec.run_spec(configuration)
                found.append(ArmRun(arm, seed, run, row.slot, row.value, weights))
        return found

    def clear(self) -> None:
        """Delete all weights but those of the first arm, which ``hpo export`` takes."""
        for variant in self._variants():
            rows = self._rows(variant)
            kept = {rows[wanted].slot for arm, _, wanted in self._wanted(variant) if arm == 0}
            left = {row.slot for row in rows.values()} - kept
            self._reach(partial(self._checkpoints(variant).forget, left))

    def _variants(self) -> list[Variant]:
        arms = [arm for arm in self._choice.arms if arm.mode is not None]
        return list(dict.fromkeys(Variant(arm.mode, arm.weights) for arm in arms if arm.mode is not None))

    def _spec(self, variant: Variant) -> StudySpec:
        """Return the study's spec as the arms of ``variant`` run it."""
        spec = self._findings.spec
        changed: dict[str, Any] = {
            "name": self._choice.study_name(variant.mode, variant.weights, spec.mode),
            "title": f"Confirmation of {spec.name}",
            "mode": variant.mode,
            "replicate": None,
        }
        if variant.weights is not None:
            changed["backbone"] = spec.backbone.model_copy(update={"weights": variant.weights})
        return spec.model_copy(update=changed)

    def _study(self, variant: Variant) -> StudyRow:
        row = self._findings.row
        return self._ledger.create_study(
            self._spec(variant), kind="confirm", data=row.data, versions=row.versions, priority=row.priority
        )

    def _wanted(self, variant: Variant) -> Iterator[tuple[int, int, Configuration]]:
        """Give (place of the arm, seed, configuration), all arms of a seed before the next seed."""
        frozen_rate = self._findings.spec.baseline.backbone_lr
        for seed in self._choice.seeds:
            for place, arm in enumerate(self._choice.arms):
                if (arm.mode, arm.weights) == (variant.mode, variant.weights):
                    yield place, seed, arm.configuration(seed, frozen_rate)

    def _refuse_unfinished(self, row: StudyRow, total: int) -> None:
        counts = self._ledger.counts(row.study_id, total)
        if counts.finished + counts.failed < total:
            raise UsageError(
                Said(
                    "{name}: {finished} of {total} runs are finished",
                    name=row.name,
                    finished=counts.finished,
                    total=total,
                ),
                "all of them before the test split is opened",
                "type the same command again",
            )

    def _rows(self, variant: Variant) -> dict[Configuration, sa.Row[*tuple[Any, ...]]]:
        """Return the slots of one variant, by configuration."""
        query = sa.select(slots.c.config, slots.c.value, slots.c.checkpoint, slots.c.slot, slots.c.end)
        with self._engine.connect() as connection:
            rows = connection.execute(query.where(slots.c.study_id == self._study(variant).study_id)).all()
        return {Configuration.stored(row.config): row for row in rows}

    def _weights(self, variant: Variant, slot: int, stored: str) -> Path:
        """Return where the weights of a run lie: as its worker wrote them, or in this machine's folder."""
        found = self._reach(lambda: self._checkpoints(variant).find(slot, stored))
        if found is not None:
            return found
        raise UsageError(
            Said("the weights {stored} of a confirmation run are not on this machine", stored=stored),
            "a folder, or an object store in HPO_CHECKPOINTS, that all workers share",
            "type the command on the machine that ran it",
        )

    def _checkpoints(self, variant: Variant) -> Checkpoints:
        return checkpoints_of(self._url, self._study(variant), self._settings)

    def _reach(self, call: Callable[[], T]) -> T:
        return reach(call, self._settings.patience_s, lambda text: None)
