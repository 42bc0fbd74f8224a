"""``hpo import``: hand-made runs beside a study's own, each row kept as what it is.

A validation metric makes a row a finished trial, marked ``imported``. A row with only test metrics was
chosen on the test split, or may have been: it becomes a configuration to try, never evidence.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import sqlalchemy as sa

from hpo.diary.file import Diary, DiaryRow, Habits, habits, read_diary
from hpo.errors import Said
from hpo.ledger.imported import HandMade, TestFigures, import_runs
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.reading.frames import trials_frame
from hpo.reading.standing import is_there
from hpo.search import own_seed, tuning_seed
from hpo.study import Configuration, StudySpec, load_spec
from hpo.study.choices import Choices, choice_words
from hpo.worker.opening import fixed_configurations, open_study
from hpo.worker.session import Settings, open_ledger

__all__ = ["Deed", "Habits", "Taken", "find_or_open", "habits", "import_diary"]

Did = Literal["imported", "to try", "already there"]


@dataclass(frozen=True)
class Deed:
    """What was done with one row."""

    line: int
    did: Did
    number: int
    """Of the trial."""
    text: str

    @property
    def said(self) -> Said:
        """All of it in words."""
        did, text = Said(self.did), Said.of(self.text)
        return Said(
            "line {line}: {did}, trial {number}: {text}",
            line=self.line,
            did=did,
            number=self.number,
            text=text,
        )


@dataclass(frozen=True)
class Taken:
    """What was done with a diary."""

    deeds: Sequence[Deed]
    diary: Diary


def find_or_open(url: str, name_or_file: str, settings: Settings) -> str:
    """Return the name of a study of the database, made with its first slots when it is not there yet."""
    if is_there(url):
        with open_ledger(url) as ledger:
            if name_or_file in {study.name for study in ledger.studies()}:
                return name_or_file
    spec = load_spec(name_or_file)
    return open_study(url, spec, settings, total=len(fixed_configurations(spec))).name


def import_diary(engine: sa.Engine, study: str, file: Path, given: Habits = Habits()) -> Taken:  # noqa: B008
    """Take the runs of ``file`` into ``study``, all or none, and say what was done with each.

    The same file again does nothing. Raises :class:`hpo.errors.UsageError` with every faulty row and
    :class:`hpo.errors.UnknownStudyError`.
    """
    row = Ledger(engine).study(study)
    spec = row.known_spec()
    diary = read_diary(file, spec, given)
    return Taken(_Import(engine, row, spec).take(diary.rows, file.name), diary)


class _Import:
    def __init__(self, engine: sa.Engine, row: StudyRow, spec: StudySpec) -> None:
        self._engine = engine
        self._row = row
        self._spec = spec
        self._yardstick = spec.what.yardstick
        trials = trials_frame(engine, row.study_id)
        self._next = len(trials)
        self._known: dict[tuple[object, ...], int] = {}
        """(lr, backbone_lr, loss, choices), and for imported trials (seed, value) too -> number."""
        for trial in trials.to_dict("records"):
            self._note(trial, int(trial["number"]))

    def _note(self, trial: dict[Any, Any], number: int) -> None:
        chosen = Choices({name: trial.get(name) for name in self._spec.space.choices})
        setting = (trial["lr"], trial["backbone_lr"], trial["loss"], chosen)
        if trial["origin"] == "imported":
            self._known.setdefault((*setting, trial["seed"], trial["value"]), number)
        elif trial["origin"] in {"known", "baseline"}:
            self._known.setdefault(setting, number)

    def take(self, rows: Sequence[DiaryRow], source: str) -> list[Deed]:
        """Import what is new."""
        deeds: list[Deed] = []
        new: list[HandMade] = []
        figures: list[TestFigures] = []
        for row in rows:
            value = self._evidence(row)
            setting = (row.lr, row.backbone_lr, row.loss, row.choices)
            key = (*setting, *(() if value is None else (row.seed, value)))
            known = self._known.get(key)
            if known is not None:
                if row.test and (known < self._next or value is None):
                    figures.append(TestFigures(known, f"{source}:{row.line}", row.test))
                deeds.append(Deed(row.line, "already there", known, _told(row)))
                continue
            number = self._known[key] = self._next + len(new)
            new.append(self._run(row, value, number, source))
            deeds.append(self._deed(row, value, number))
        import_runs(self._engine, self._row.study_id, new, self._spec.space, figures)
        return deeds

    def _evidence(self, row: DiaryRow) -> float | None:
        """Return the row's validation loss, if it was measured on the study's own validation subjects."""
        if self._spec.validation.kind != "reference":
            return None
        return row.validation.get(self._yardstick)

    def _run(self, row: DiaryRow, value: float | None, number: int, source: str) -> HandMade:
        seed = tuning_seed(self._spec, number)
        if value is not None:  # a seed that nobody wrote down is shared with no other trial
            seed = own_seed(self._spec, number) if row.seed is None else row.seed
        configuration = Configuration.at(row, seed)
        metrics = row.validation if value is not None else {}
        return HandMade(configuration, value, metrics, f"{source}:{row.line}", row.test)

    def _deed(self, row: DiaryRow, value: float | None, number: int) -> Deed:
        if value is not None:
            measured = Said("validation {metric} {value}", metric=self._yardstick, value=f"{value:g}")
            return Deed(row.line, "imported", number, _told(row, measured, ", "))
        if row.validation:
            folds = self._spec.validation.kind == "grouped_folds"
            none = Said("no validation {metric}", metric=self._yardstick)
            why = Said("validated on another split") if folds else none
        else:
            why = Said("only test metrics, which choose nothing here" if row.test else "no metric")
        return Deed(row.line, "to try", number, _told(row, why, "; "))


def _told(row: DiaryRow, more: str = "", between: str = "") -> Said:
    """Return what a row holds, what is said of it, and the test figures that are kept."""
    rates = [f"lr {row.lr:g}", f"backbone_lr {row.backbone_lr:g}", row.loss]
    held = ", ".join([*rates, *choice_words(row.choices)])
    figures = ", ".join(f"{name} {figure:g}" for name, figure in row.test.items())
    kept = Said(" (kept as test figures: {figures})", figures=figures) if figures else ""
    return Said.listed([Said.listed([held, more] if more else [held], between), kept], "")
