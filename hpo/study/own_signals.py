"""The key ``data`` of a study: signals of a user's own, as its YAML says them. See docs/own_data.md."""

from __future__ import annotations

from pathlib import PurePath
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, model_validator

from finetune.api import Allowance, Filter, FilterKind, FinetuneError, Modality, OwnData, OwnKind, OwnSplit
from hpo.study.part import Part, file_fault


def _listed(value: Any) -> Any:
    """Take one name as a list of one."""
    return (value,) if isinstance(value, str) else value


def _named(value: Any) -> Any:
    """Take whole numbers as names of classes."""
    given = value if isinstance(value, list | tuple) else [value]
    return tuple(str(one) if type(one) is int else one for one in given)


Names = Annotated[tuple[str, ...], BeforeValidator(_listed)]


class SplitRule(Part):
    """Who trains, validates and tests: a rule with its seed, or (as a plain word) a column."""

    column: str | None = None
    grouped: tuple[float, float, float] | None = None
    records: tuple[float, float, float] | None = None
    folds: int | None = None
    seed: int = Field(default=42, ge=0, lt=2**32)


class SubjectRule(Part):
    """A regular expression over the paths of files, whose one group is the subject."""

    pattern: str


class WindowRule(Part):
    """How long records are cut."""

    seconds: float = Field(gt=0, le=1e6)
    stride: float | None = Field(default=None, gt=0, le=1e6)


def _split(value: Any) -> Any:
    return {"column": value} if isinstance(value, str) else value


def _window(value: Any) -> Any:
    return {"seconds": value} if isinstance(value, int | float) else value


def _filters(value: Any) -> Any:
    """Take one filter as a list of one, a name as a filter without frequencies, a number as one of them."""
    given = value if isinstance(value, list | tuple) else [value]
    filters: list[Any] = []
    for one in given:
        if isinstance(one, str):
            filters.append({one: []})
        elif isinstance(one, dict):
            filters.append({kind: hz if isinstance(hz, list | tuple) else [hz] for kind, hz in one.items()})
        else:
            filters.append(one)
    return filters


class OwnSignals(Part):
    """Where a user's signals are and what is what in them."""

    file: str = Field(min_length=1)
    name: str = Field(default="", pattern=r"^[A-Za-z0-9_.-]*$", max_length=60)
    kind: OwnKind
    split: Annotated[SplitRule, BeforeValidator(_split)] = SplitRule(grouped=(0.8, 0.1, 0.1))
    signal: Names = ()
    label: Names = ()
    subject: str | SubjectRule | None = None
    path: str | None = None
    rate_hz: float | None = Field(default=None, gt=0, le=1e6)
    unit: str = ""
    classes: Annotated[tuple[str, ...], BeforeValidator(_named)] = ()
    modality: Modality = "any"
    window: Annotated[WindowRule | None, BeforeValidator(_window)] = None
    label_rate_hz: float | None = Field(default=None, gt=0, le=1e6)
    resample_hz: float | None = Field(default=None, gt=0, le=1e6)
    filter: Annotated[tuple[dict[FilterKind, tuple[float, ...]], ...], BeforeValidator(_filters)] = ()
    range: tuple[float, float] | None = None
    channels: int = Field(default=0, ge=0, le=10_000)
    """0: not looked for yet."""
    allow: Annotated[tuple[Allowance, ...], BeforeValidator(_listed)] = ()

    @model_validator(mode="after")
    def _is_sound(self) -> Self:
        try:
            self.signals()
        except FinetuneError as error:
            raise file_fault(error.line) from error
        return self

    @property
    def is_settled(self) -> bool:
        """Whether all that only the files say stands here."""
        return bool(self.channels and self.window and (self.classes or self.kind == "regression"))

    @property
    def task_name(self) -> str:
        """What outputs call the task: ``name``, or the file's name without its suffix."""
        stem = PurePath(self.file).stem
        plain = "".join(letter if letter.isalnum() or letter in "_.-" else "_" for letter in stem)
        return self.name or plain or "own"

    def signals(self) -> OwnData:
        """Return the same as finetune takes it; raises :class:`FinetuneError` for a contradiction."""
        subject = self.subject
        return OwnData(
            name=self.task_name,
            file=self.file,
            kind=self.kind,
            split=OwnSplit(**self.split.model_dump()),
            signal=self.signal,
            label=self.label,
            subject=f"pattern:{subject.pattern}" if isinstance(subject, SubjectRule) else subject,
            path=self.path,
            rate_hz=self.rate_hz,
            unit=self.unit,
            classes=self.classes,
            modality=self.modality,
            window_s=self.window.seconds if self.window else None,
            stride_s=self.window.stride if self.window else None,
            label_rate_hz=self.label_rate_hz,
            resample_hz=self.resample_hz,
            filters=tuple(Filter(kind, hz) for one in self.filter for kind, hz in one.items()),
            range=self.range,
            allow=self.allow,
            channels=max(1, self.channels),
        )

    def settled(self, found: OwnData) -> Self:
        """Return this with what the files say: subjects, classes, the rate, the length of a window."""
        window = self.window or WindowRule(seconds=found.window_s or 1.0)
        return self.model_copy(
            update={
                "subject": self.subject or found.subject,
                "classes": found.classes,
                "rate_hz": found.rate_hz,
                "window": window,
                "channels": found.channels,
            }
        )
