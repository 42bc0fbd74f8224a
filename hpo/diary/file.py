"""A diary of hand-made runs as a CSV file: every row checked, every fault told with its line and column."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.api import METRIC_RANGES
from hpo.errors import Said, UsageError, at
from hpo.study import Range, StudySpec
from hpo.study.choices import NONE, Choices, Value, value_words
from hpo.study.recipe import default_of
from hpo.study.yaml_lines import nearest

REQUIRED = ("lr", "loss")
SEPARATORS = {";": Said("semicolons"), "\t": Said("tabs")}
NOTHING = Said("nothing")
TYPED = {"tab": "\t", "\\t": "\t"}
"""What a person types for a separator that a shell hides."""
VALIDATION, TEST = ("validation_", "val_"), "test_"
ROUNDING = 0.01
"""Share by which written metrics may be off."""
AMBIGUOUS = ("val_loss",)
"""May be the training criterion, which cannot be compared between losses."""


@dataclass(frozen=True)
class DiaryRow:
    """One run of the diary."""

    line: int
    lr: float
    backbone_lr: float
    loss: str
    seed: int | None
    validation: Mapping[str, float] = field(default_factory=dict)
    """Metric -> value on the validation split, without the prefix; the yardstick's decides."""
    test: Mapping[str, float] = field(default_factory=dict)
    choices: Choices = NONE
    """Of the keys that the study searches; a key without a column is as a recipe has it."""


@dataclass(frozen=True)
class Habits:
    """What a diary does not say of itself."""

    separator: str = ","
    """Between fields; with another than a comma, a comma in a number is its decimal sign."""
    seed: int | None = None
    """Of rows that name none."""


def habits(separator: str = ",", seed: int | None = None) -> Habits:
    """Return the habits that were typed; raises :class:`UsageError`."""
    sign = TYPED.get(separator, separator)
    if len(sign) != 1 or sign.isalnum() or sign in '._-+"\n\r':
        raise UsageError(
            Said("--separator is {separator!r}", separator=separator),
            "one sign, such as ';' or tab",
            "type: --separator ';'",
        )
    return Habits(sign, seed)


@dataclass(frozen=True)
class Diary:
    """A diary as it was read."""

    rows: Sequence[DiaryRow]
    passed_over: Sequence[str]
    """Names of columns that mean nothing here, and hold something."""
    figures: Sequence[str]
    """Columns with a metric's bare name: taken as test figures."""


def read_diary(file: Path, spec: StudySpec, given: Habits = Habits()) -> Diary:
    """Return the rows of a diary; raises :class:`UsageError` with every fault, each as ``file:line: ...``.

    Columns: lr, backbone_lr (or ratio), loss, seed, the keys that the study searches;
    ``validation_<metric>`` (or ``val_<metric>``,
    ``validation_loss`` for the yardstick); ``test_<metric>``, or a metric's bare name, is a test metric. Any
    other column is passed over, and named.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else Said("it is not UTF-8")
        raise UsageError(
            Said("cannot read {file!r} ({reason})", file=str(file), reason=reason), "a CSV file of runs"
        ) from error
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=given.separator, strict=True)
    faults: list[str] = []
    found: list[DiaryRow] = []
    used: set[str] = set()
    try:
        header = _without_end([name.strip().lower() for name in next(lines, [])])
        faults += [at(file, 1, fault) for fault in _header_faults(header, spec, given)]
        for fields in () if faults else lines:
            if any(cell.strip() for cell in fields):
                reading = _Reading(spec, header, fields, given)
                used |= reading.filled
                found.append(reading.row(lines.line_num))
                faults += [at(file, lines.line_num, fault) for fault in reading.faults]
    except csv.Error as error:
        table = "{error}; expected a table, its fields parted by {separator!r}"
        faults.append(at(file, lines.line_num, Said(table, error=error, separator=given.separator)))
    if not faults and not found:
        faults = [at(file, 1, "no row; expected a run a line")]
    if faults:
        raise UsageError(Said.listed(faults, "\n"))
    metrics = spec.what.metrics
    known = {"lr", "backbone_lr", "ratio", "loss", "seed", *spec.space.choices, *metrics}
    passed_over = [
        name for name in header if name in used - known and not name.startswith((*VALIDATION, TEST))
    ]
    return Diary(found, passed_over, [name for name in header if name in used & set(metrics)])


def _is_meant(cell: str, value: Value) -> bool:
    """Return whether a cell means a value: by its name, or as a number."""
    if isinstance(value, str) or value is None:
        return cell.lower() in {value_words(value), "none" if value is None else ""}
    try:
        return float(cell) == value
    except ValueError:
        return False


def _without_end(cells: Sequence[str]) -> list[str]:
    """Return cells without the empty ones at their end, which a comma at the end of a line makes."""
    kept = list(cells)
    while kept and not kept[-1].strip():
        kept.pop()
    return kept


def _header_faults(header: Sequence[str], spec: StudySpec, given: Habits) -> Iterator[str]:
    others = {sign: name for sign, name in SEPARATORS.items() if sign != given.separator}
    sign = next((sign for sign in others if any(sign in cell for cell in header)), "")
    separator = others.get(sign, "")
    if separator:
        typed = "tab" if sign == "\t" else f"'{sign}'"
        yield Said(
            "fields are parted by {separator}; type: --separator {typed}", separator=separator, typed=typed
        )
    for name in REQUIRED:
        if name not in header and not separator:
            yield Said(
                "column {name} is missing; expected it among {header}",
                name=name,
                header=", ".join(header) or Said("none"),
            )
    if "backbone_lr" not in header and "ratio" not in header and not separator:
        yield "column backbone_lr is missing; expected it, or ratio"
    for name in sorted({name for name in header if name and header.count(name) > 1}):
        yield Said("column {name} is there {count} times; expected once", name=name, count=header.count(name))
    for name in AMBIGUOUS:
        if name in header:
            yardstick = spec.what.yardstick
            yield Said(
                "column {name} does not say which loss; expected validation_{yardstick}",
                name=name,
                yardstick=yardstick,
            )


class _Reading:
    """One row under way: its cells by column, and its faults."""

    def __init__(self, spec: StudySpec, header: Sequence[str], fields: Sequence[str], given: Habits) -> None:
        self.faults: list[str] = []
        self._given = given
        self._spec = spec
        self._cells = {name: cell.strip() for name, cell in zip(header, fields, strict=False)}
        self.filled = {name for name, cell in self._cells.items() if name and cell}
        """Columns in which the row says something."""
        if len(fields) < len(header) or len(_without_end(fields)) > len(header):
            hint = Said(" (are there decimal commas?)") if len(fields) > len(header) else ""
            self.faults.append(
                Said(
                    "{n_fields} cells; expected {n_header}, as in the header{hint}",
                    n_fields=len(fields),
                    n_header=len(header),
                    hint=hint,
                )
            )

    def row(self, line: int) -> DiaryRow:
        """Return the row; what was wrong with it is in :attr:`faults`."""
        space, metrics = self._spec.space, self._spec.what.metrics
        lr = self._rate("lr", space.lr)
        if self._cells.get("backbone_lr"):
            backbone_lr = self._rate("backbone_lr", space.backbone_lr)
            self._compare_ratio(lr / backbone_lr)
        else:
            backbone_lr = self._inside("ratio", lr / (self._number("ratio") or math.nan), space.backbone_lr)
        validation = self._metrics(VALIDATION)
        yardstick = self._spec.what.yardstick
        if "loss" in validation:
            validation.setdefault(yardstick, validation.pop("loss"))
        bare = {name: self._metric(name, name) for name in metrics if self._cells.get(name)}
        seed = self._seed(is_needed=yardstick in validation)
        loss, test = self._loss(), {**bare, **self._metrics((TEST,))}
        self._compare("validation", validation)
        self._compare("test", test)
        return DiaryRow(line, lr, backbone_lr, loss, seed, validation, test, self._choices())

    def _choices(self) -> Choices:
        """Return the row's value of each key that the study searches."""
        found = {name: self._chosen(name, values) for name, values in self._spec.space.choices.items()}
        return Choices(found)

    def _chosen(self, name: str, values: Sequence[Value]) -> Value:
        cell, default = self._cells.get(name, ""), default_of(name)
        if not cell and default in values:
            return default
        for value in values:
            if cell and _is_meant(cell, value):
                return value
        listed = ", ".join(map(value_words, values))
        self.faults.append(
            Said(
                "column {name}: {cell}; expected one of {listed}",
                name=name,
                cell=cell or NOTHING,
                listed=listed,
            )
        )
        return default

    def _compare(self, split: str, metrics: Mapping[str, float]) -> None:
        """Note metrics that contradict each other: no mean error is above the root of its mean square."""
        mae, rmse = metrics.get("mae", math.nan), metrics.get("rmse", math.nan)
        if 0 <= rmse < mae * (1 - ROUNDING):
            self.faults.append(
                Said(
                    "{split} mae {mae:g} with rmse {rmse:g}; expected rmse at least as large",
                    split=split,
                    mae=mae,
                    rmse=rmse,
                )
            )

    def _compare_ratio(self, ratio: float) -> None:
        """Note a ratio that is not that of the rates beside it."""
        told = self._number("ratio") if self._cells.get("ratio") else ratio
        if abs(told - ratio) > ROUNDING * ratio:
            self.faults.append(
                Said("ratio {told:g}; expected {ratio:g}, as the two rates have it", told=told, ratio=ratio)
            )

    def _metrics(self, prefixes: Sequence[str]) -> dict[str, float]:
        return {
            name.removeprefix(prefix): self._metric(name, name.removeprefix(prefix))
            for prefix in prefixes
            for name, cell in self._cells.items()
            if cell and name.startswith(prefix)
        }

    def _metric(self, column: str, metric: str) -> float:
        """Return a metric's value; one that the metric cannot have is a fault."""
        value = self._number(column)
        yardstick = self._spec.what.yardstick
        low, high = METRIC_RANGES.get(yardstick if metric == "loss" else metric, (-math.inf, math.inf))
        if value < low:
            why = Said(" (has its sign been turned?)") if -value <= high else ""
            self.faults.append(
                Said(
                    "column {column}: {value:g}; expected {low:g} or more{why}",
                    column=column,
                    value=value,
                    low=low,
                    why=why,
                )
            )
        elif value > high:
            why = Said(" (is it in percent?)") if high < value <= 100 * high else ""
            self.faults.append(
                Said(
                    "column {column}: {value:g}; expected {high:g} or less{why}",
                    column=column,
                    value=value,
                    high=high,
                    why=why,
                )
            )
        return value

    def _number(self, column: str) -> float:
        cell = self._cells.get(column, "")
        digits = cell.replace(",", ".", 1) if self._given.separator != "," and "." not in cell else cell
        try:
            value = math.nan if "_" in cell else float(digits)
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            self.faults.append(
                Said("column {column}: {cell}; expected a number", column=column, cell=cell or NOTHING)
            )
        return value

    def _rate(self, column: str, bounds: Range) -> float:
        return self._inside(column, self._number(column), bounds)

    def _inside(self, column: str, value: float, bounds: Range) -> float:
        if math.isfinite(value) and not bounds.contains(value):
            name = "backbone_lr" if column == "ratio" else column
            self.faults.append(
                Said(
                    "column {column}: {name} {value:g} is outside the study's space; expected "
                    "{low:g} to {high:g}",
                    column=column,
                    name=name,
                    value=value,
                    low=bounds.low,
                    high=bounds.high,
                )
            )
        return value

    def _loss(self) -> str:
        loss, known = self._cells.get("loss", "").lower(), self._spec.space.loss
        if loss not in known:
            near = nearest(loss, list(known))
            self.faults.append(
                Said(
                    "column loss: {loss}; expected one of {known}{near}",
                    loss=loss or NOTHING,
                    known=", ".join(known),
                    near=near,
                )
            )
        return loss

    def _seed(self, *, is_needed: bool) -> int | None:
        cell, seeds = self._cells.get("seed", ""), self._spec.space.seed
        if not cell and self._given.seed is not None:
            cell = str(self._given.seed)
        if not cell and not is_needed:
            return None
        if not cell.isdecimal() or not seeds.low <= int(cell) <= seeds.high:
            self.faults.append(
                Said(
                    "column seed: {cell}; expected a whole number from {low} to {high} (seeds beyond "
                    "are kept for confirmation){hint}",
                    cell=cell or NOTHING,
                    low=seeds.low,
                    high=seeds.high,
                    hint="" if cell else Said("; --seed names one for all rows"),
                )
            )
            return None
        return int(cell)
