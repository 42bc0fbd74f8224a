"""What a study file says of a user's own signals: frozen values, checked when made. Free of torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from finetune.errors import SettingError

OwnKind = Literal["regression", "classes", "multilabel"]
Modality = Literal["ppg", "ecg", "any"]
FilterKind = Literal["bandpass", "lowpass", "highpass", "notch", "elgendi"]
Allowance = Literal["gaps", "duplicates", "implausible", "flat", "two_splits"]
"""Faults of a file that a user may know of and accept: they are then named in the notes of every output.
``gaps`` and ``flat``: such windows are left out; of the others they stay."""


PATTERN = "pattern:"
"""Begins a subject that is read out of paths."""


@dataclass(frozen=True)
class OwnSplit:
    """Who trains, validates and tests; exactly one of ``column``, ``grouped``, ``records`` and ``folds``."""

    column: str | None = None
    """Its values are train, validation (val, valid, dev) and test."""
    grouped: tuple[float, float, float] | None = None
    """Shares of the subjects, drawn with ``seed``; without known subjects, of the records."""
    records: tuple[float, float, float] | None = None
    """Shares of the records, whoever they are of: every output then says so."""
    folds: int | None = None
    """Grouped folds over all subjects but a tenth, which test."""
    seed: int = 42

    def __post_init__(self) -> None:
        """Refuse none and several, and shares that leave a split empty."""
        given = [
            name for name in ("column", "grouped", "records", "folds") if getattr(self, name) is not None
        ]
        if len(given) != 1:
            what = "data.split has no rule" if not given else f"data.split has {' and '.join(given)}"
            raise SettingError(what, "one of a column's name, grouped, records and folds")
        shares = self.grouped or self.records
        if shares is not None and (min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6):
            raise SettingError(f"data.split has shares {list(shares)}", "three above 0 that sum to 1")
        if self.folds is not None and self.folds < 2:
            raise SettingError(f"data.split has {self.folds} folds", "2 or more")

    @property
    def shares(self) -> tuple[float, float, float]:
        """Shares of train, validation and test where they are drawn."""
        return self.grouped or self.records or (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Filter:
    """One zero-phase filter over a whole record, before windows are cut."""

    kind: FilterKind
    hz: tuple[float, ...] = ()
    """Corner frequencies (bandpass: two), or what a notch takes out; ``elgendi`` has its own."""
    order: int = 3

    def __post_init__(self) -> None:
        """Refuse a wrong number of frequencies, and frequencies that are not ascending and above 0."""
        wanted = {"bandpass": 2, "elgendi": 0}.get(self.kind, 1)
        rising = all(low < high for low, high in zip((0.0, *self.hz), self.hz, strict=False))
        if len(self.hz) != wanted or not rising:
            raise SettingError(
                f"filter {self.kind} {list(self.hz)}", f"{wanted} frequencies in Hz, ascending, above 0"
            )


@dataclass(frozen=True)
class OwnData:
    """Signals of a user's own: where they are, what is what in them, and how they become windows."""

    name: str
    """Of the task, in every output."""
    file: str
    """A .npz, .parquet or .csv, or a folder: absolute, or below the data folder or the working folder."""
    kind: OwnKind
    split: OwnSplit
    signal: tuple[str, ...] = ()
    """Arrays, columns, files or leads, one a channel; empty: the layout's usual name."""
    label: tuple[str, ...] = ()
    """Arrays, columns or files; empty: the layout's usual name, or the folder's name for classes."""
    subject: str | None = None
    """Array or column, or ``pattern: ...`` over the paths of files; None: not known."""
    path: str | None = None
    """Column of a manifest that names the files; None: ``file``, ``path``, ``filename`` or ``record``."""
    rate_hz: float | None = None
    """None: what a WFDB record says."""
    unit: str = ""
    classes: tuple[str, ...] = ()
    """Names in the order of the outputs; empty: those that are found, sorted, once the data are there."""
    modality: Modality = "any"
    window_s: float | None = None
    """None: a record is a window."""
    stride_s: float | None = None
    label_rate_hz: float | None = None
    """Of labels that are a series beside the signal: a window takes the mean of those in it."""
    resample_hz: float | None = None
    filters: tuple[Filter, ...] = ()
    range: tuple[float, float] | None = None
    """Labels outside are refused; None: what the unit allows."""
    allow: tuple[Allowance, ...] = ()
    channels: int = 1
    """Of a window; found in the files."""

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        for name in ("rate_hz", "window_s", "stride_s", "label_rate_hz", "resample_hz"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingError(f"data.{name} is {value}", "a number above 0")
        if self.stride_s is not None and self.window_s is None:
            raise SettingError("data.window has a stride and no length", "window: {seconds: 10, stride: 2}")
        if self.range is not None and not self.range[0] < self.range[1]:
            raise SettingError(f"data.range is {list(self.range)}", "low, then high")
        if self.label_rate_hz is not None and (self.window_s is None or self.kind != "regression"):
            what = (
                "data.label_rate_hz without a window" if self.window_s is None else f"a mean of {self.kind}"
            )
            raise SettingError(what, "window: {seconds: 10}, and kind regression: a window takes the mean")
        for key, names in (("signal", self.signal), ("label", self.label), ("classes", self.classes)):
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise SettingError(f"data.{key} names {twice!r} {names.count(twice)} times", "once")
        if self.subject is not None and self.subject.startswith(PATTERN):
            _check_pattern(self.subject.removeprefix(PATTERN).strip())
        if self.kind == "regression" and self.classes:
            raise SettingError("data.classes with kind regression", "no classes, or kind classes")

    @classmethod
    def of_json(cls, stored: Mapping[str, Any]) -> OwnData:
        """Return what :func:`dataclasses.asdict` and JSON have made plain."""
        plain: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()
        }
        split: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in stored["split"].items()
        }
        plain["split"] = OwnSplit(**split)
        plain["filters"] = tuple(
            Filter(one["kind"], tuple(one["hz"]), one["order"]) for one in stored["filters"]
        )
        return cls(**plain)

    @property
    def knows_subjects(self) -> bool:
        """Whether windows of one person are known to be of one person."""
        return self.subject is not None and self.split.records is None

    def allows(self, fault: Allowance) -> bool:
        """Return whether the study accepts that fault."""
        return fault in self.allow


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groups
    except re.error as error:
        raise SettingError(f"data.subject.pattern {pattern!r} ({error})", "a regular expression") from error
    if not groups:
        raise SettingError(f"data.subject.pattern {pattern!r} has no group", "one, such as '(p[0-9]+)_'")
