"""A study as its YAML file describes it: a frozen, checked value with a fingerprint. Free of torch.

Bounds of the search space are log-uniform; learning rates are those of AdamW's two parameter groups
(``lr`` the head's, ``backbone_lr`` the backbone's).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self, TypeVar

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from finetune.api import InputSpec, Mode, RunSpec, Task, find_task
from finetune.api import Recipe as RunRecipe
from hpo.errors import MismatchError, Said, SpecError, UnknownStudyError, apart, at
from hpo.study.own_signals import OwnSignals
from hpo.study.part import Part
from hpo.study.parts import (
    LAST_TUNING_SEED,
    Backbone,
    Budget,
    Inputs,
    NamedConfiguration,
    Pruner,
    PublishedResult,
    Range,
    Replicate,
    Sampler,
    SeedRange,
    Space,
    Validation,
    disagreements,
)
from hpo.study.recipe import NAMES, Recipe, settle_choices
from hpo.study.setting import Configuration
from hpo.study.yaml_lines import Document, Fault, dotted, model_faults, nearest, read_yaml
from hpo.study.yaml_lines import Path as KeyPath

__all__ = [
    "ABSENT",
    "LAST_TUNING_SEED",
    "LONGEST_NAME",
    "STUDY_NAME",
    "Backbone",
    "Budget",
    "Configuration",
    "Difference",
    "Inputs",
    "NamedConfiguration",
    "Pruner",
    "PublishedResult",
    "Range",
    "Recipe",
    "Replicate",
    "Sampler",
    "SeedRange",
    "Space",
    "StudySpec",
    "Validation",
    "keep_defaults",
    "load_spec",
    "parse_spec",
    "shipped_studies",
    "stored_spec",
    "task_of",
    "studies_folder",
]

_TEXTS: dict[str, Any] = {
    "name": True,
    "title": True,
    "notes": True,
    "published": True,
    "budget": True,
    "worth": True,
    "inputs": {"allow_partial"},
    "space": {"lr": {"source"}, "backbone_lr": {"source"}},
    "baseline": {"name", "source"},
    "known": {"__all__": {"name", "source"}},
}
"""What cannot change a trial's numbers, and so is not in the fingerprint."""


STUDY_NAME, LONGEST_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$", 100


class Absent:
    """Stands for the value of a key that is not there."""

    def __str__(self) -> str:
        """Return it as a message of an error says it."""
        return Said("nothing")


ABSENT = Absent()


@dataclass(frozen=True)
class Difference:
    """A key of two studies that counts and differs."""

    key: str
    here: Any
    there: Any

    def __str__(self) -> str:
        """Return it as a message of an error says it."""
        return apart(self.key, self.here, self.there)


class StudySpec(Part):
    """One study: what is searched for which task, and how. See docs/studies.md for every key."""

    name: str = Field(pattern=STUDY_NAME, max_length=LONGEST_NAME)
    title: str = ""
    notes: str = ""
    task: str = ""
    """Of ours; with ``data`` the name of a user's own signals."""
    data: OwnSignals | None = None
    inputs: Inputs = Inputs()
    validation: Validation = Validation()
    backbone: Backbone
    mode: Mode = "full_finetuning"
    recipe: Recipe = Recipe()
    space: Space
    sampler: Sampler = Sampler()
    pruner: Pruner = Pruner()
    replicate: Replicate | None = None
    budget: Budget = Budget()
    worth: float | None = Field(default=None, gt=0)
    """The difference in validation loss that its user cares for; None: one seed's standard deviation."""
    baseline: NamedConfiguration
    known: tuple[NamedConfiguration, ...] = ()
    published: tuple[PublishedResult, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def _says_what_follows(cls, given: Any) -> Any:
        """Settle its choices, and let ``data`` name the task where the file does not."""
        if not isinstance(given, dict):
            return given
        given = settle_choices(given)
        if given.get("task") is not None:
            return given
        data = given.get("data")
        own = data if isinstance(data, OwnSignals) else _part(OwnSignals, data)
        return given if own is None else {**given, "task": own.task_name}

    @model_validator(mode="after")
    def _parts_agree(self) -> Self:
        wrong = disagreements(
            self.task,
            self.backbone,
            self.space.loss,
            self.space,
            {("baseline",): self.baseline}
            | {("known", place): known for place, known in enumerate(self.known)},
            self.data,
            self.recipe,
        )
        if wrong:
            texts = "; ".join(text for _, text in wrong)
            raise PydanticCustomError("parts_disagree", "{texts}", {"texts": texts})
        return self

    @property
    def what(self) -> Task:
        """The task, ours or of a user's own signals."""
        return find_task(self.task, None if self.data is None else self.data.signals())

    def what_counts(self) -> dict[str, Any]:
        """Return all that can change a trial's numbers, as plain JSON values."""
        counts = self.model_dump(mode="json", exclude=_TEXTS)
        if self.inputs.every == 1:
            del counts["inputs"]["every"]  # studies made before it was there keep their fingerprint
        if not self.inputs.leads:
            del counts["inputs"]["leads"]  # as above
        if self.space.seed.count is None:
            del counts["space"]["seed"]["count"]  # as above
        self.backbone.what_counts(counts["backbone"])
        self.recipe.what_counts(counts["recipe"])
        if self.data is None:
            del counts["data"]  # as above
        for rate in ("lr", "backbone_lr"):
            if counts["space"][rate]["values"] is None:
                del counts["space"][rate]["values"]  # as above
        if self.sampler.seed == 0:
            del counts["sampler"]["seed"]  # as above
        return counts

    def fingerprint(self) -> str:
        """Return the sha256 (hex) of what can change a result; texts and the budget are not in it."""
        canonical = json.dumps(self.what_counts(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()

    def differences(self, other: StudySpec) -> list[Difference]:
        """Return each thing that counts and differs."""
        here, there = _flat(self.what_counts()), _flat(other.what_counts())
        return [
            Difference(key, here.get(key, ABSENT), there.get(key, ABSENT))
            for key in here | there
            if here.get(key) != there.get(key)
        ]

    @property
    def _folds(self) -> int | None:
        if self.data is not None and self.data.split.folds is not None:
            return self.data.split.folds
        return self.validation.k if self.validation.kind == "grouped_folds" else None

    def run_spec(self, configuration: Configuration) -> RunSpec:
        """Return the run that tries ``configuration`` in this study."""
        return RunSpec(
            inputs=InputSpec(
                task=self.task,
                folds=self._folds,
                own=None if self.data is None else self.data.signals(),
                **self.inputs.model_dump(),
            ),
            backbone=self.backbone.spec(),
            mode=self.mode,
            recipe=RunRecipe(**(self.recipe.model_dump() | configuration.choices)),
            lr=configuration.lr,
            backbone_lr=configuration.backbone_lr,
            loss=configuration.loss,
            seed=configuration.seed,
        )


def task_of(stored: Mapping[str, Any]) -> Task:
    """Return the task of a study as a database holds it; raises what :func:`find_task` raises."""
    data = stored.get("data")
    own = None if data is None else OwnSignals.model_validate(data)
    return find_task(stored["task"], None if own is None else own.signals())


def _flat(value: Any, path: KeyPath = ()) -> dict[str, Any]:
    """Return nested ``value`` as one level of dotted keys."""
    if isinstance(value, Mapping):
        parts: Any = value.items()
    elif (
        isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(v, dict) for v in value)
    ):
        parts = enumerate(value)
    else:
        return {dotted(path): value}
    return {key: leaf for name, part in parts for key, leaf in _flat(part, (*path, name)).items()}


def stored_spec(name: str, stored: Mapping[str, Any]) -> StudySpec:
    """Return the spec that a database holds of a study; raises :class:`MismatchError` for one not known here.

    A version of the program that knows other tasks, encoders, losses or keys may have made it.
    """
    try:
        return StudySpec.model_validate(stored)
    except ValidationError as error:
        reasons = "; ".join(dict.fromkeys(_reason(details) for details in error.errors()))
        raise MismatchError(
            Said(
                "study {name!r} was made by another version of this program ({reasons})",
                name=name,
                reasons=reasons,
            ),
            "a study that this version knows",
            "use the version that made it",
        ) from error


def _reason(details: Any) -> str:
    where = dotted(details["loc"])
    text = str(details["msg"])[:200]
    return f"{where}: {text}" if where else text


def keep_defaults(spec: StudySpec, stored: Mapping[str, Any]) -> StudySpec:
    """Return ``spec`` with the sampler and pruner of a stored study where it leaves them to the default.

    A default that changed since then is no wish of the user's: the study keeps what it was made with.
    """
    kept: dict[str, Any] = {}
    for name in ("sampler", "pruner"):
        part: Part = getattr(spec, name)
        given = part.model_dump(exclude_unset=True) if name in spec.model_fields_set else {}
        try:
            kept[name] = type(part).model_validate({**stored.get(name, {}), **given})
        except ValidationError:  # another version's: the differences will say so
            continue
    return spec.model_copy(update=kept)


def studies_folder() -> Path:
    """Return the folder of the shipped studies: in the wheel inside the package, in a checkout beside it."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "studies"
    return inside if inside.is_dir() else package.parent / "studies"


def shipped_studies() -> list[str]:
    """Return the names of the studies that ship with the package, sorted."""
    return sorted(file.stem for file in studies_folder().glob("*.yaml"))


def load_spec(name_or_file: str) -> StudySpec:
    """Return the shipped study of that name, or the study in that YAML file.

    A file is what ends in .yaml or .yml, or has a folder in it. Raises :class:`UnknownStudyError` when there
    is neither, and :class:`SpecError` with every fault of the file, each as ``file:line: what; expected``.
    """
    given = Path(name_or_file)
    if given.suffix in {".yaml", ".yml"} or len(given.parts) > 1:
        return _load_file(given)
    names = shipped_studies()
    if name_or_file not in names:
        raise UnknownStudyError(
            Said("unknown study {name!r}", name=name_or_file),
            Said(
                "a YAML file or one of {names}{nearest}",
                names=", ".join(names),
                nearest=nearest(name_or_file, names),
            ),
            "type: hpo studies",
        )
    return _load_file(studies_folder() / f"{name_or_file}.yaml", shipped=True)


def _load_file(file: Path, *, shipped: bool = False) -> StudySpec:
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise SpecError(at(file, 1, "not a text file in UTF-8"), "a study in YAML") from error
    except OSError as error:
        raise UnknownStudyError(
            Said("cannot read the study {file!r} ({strerror})", file=str(file), strerror=error.strerror),
            "a readable YAML file",
            "type: hpo studies",
        ) from error
    spec, faults = parse_spec(text)
    if spec is not None and shipped and spec.name != file.stem:
        wrong = Said(
            "name is {name!r}; expected {stem!r}, as the file is named", name=spec.name, stem=file.stem
        )
        faults = [Fault(1, wrong)]
    if faults or spec is None:
        lines = sorted(faults, key=lambda fault: fault.line)
        raise SpecError(Said.listed((at(file, one.line, one.text) for one in lines), "\n"))
    return spec


def parse_spec(text: str) -> tuple[StudySpec | None, list[Fault]]:
    """Return the study that ``text`` (YAML) describes, or None and every fault of it."""
    document = read_yaml(text)
    if document.faults and document.value is None:
        return None, document.faults
    if not isinstance(document.value, dict):
        return None, [
            Fault(1, "the file holds no keys; expected a study: name, task, backbone, space, baseline")
        ]
    try:
        spec = StudySpec.model_validate(document.value)
    except ValidationError as error:
        faults = [
            fault
            for fault, details in zip(model_faults(error, StudySpec, document), error.errors(), strict=True)
            if details["type"] != "parts_disagree"
        ]
        wrong = _disagreements_in(document)
        faults += [Fault(document.line(path), what) for path, what in wrong]
        return None, document.faults + faults + _said_twice(document)
    faults = document.faults + _said_twice(document)
    return (None, faults) if faults else (spec, [])


def _said_twice(document: Document) -> list[Fault]:
    """Return a fault for each key of a recipe that the file both fixes and searches."""
    recipe, space = document.piece("recipe"), document.piece("space")
    if not isinstance(recipe, dict) or not isinstance(space, dict):
        return []
    both = [key for key in NAMES if key in recipe and key in space]
    said = "{key} is in recipe too; expected it in one of them"
    return [Fault(document.line(("space", key)), Said(said, key=f"space.{key}")) for key in both]


def _disagreements_in(document: Document) -> list[tuple[KeyPath, str]]:
    """Check the parts of a faulty file against each other as far as they can be read."""
    document = replace(document, value=settle_choices(document.value))
    known, losses = document.piece("known"), document.piece("space", "loss")
    paths: list[KeyPath] = [("baseline",)]
    paths += [("known", place) for place in range(len(known) if isinstance(known, list) else 0)]
    read = {path: _part(NamedConfiguration, document.piece(*path)) for path in paths}
    data = document.piece("data")
    return disagreements(
        document.piece("task"),
        _part(Backbone, document.piece("backbone")),
        [loss for loss in losses if isinstance(loss, str)] if isinstance(losses, list) else [],
        _part(Space, document.piece("space")),
        {path: part for path, part in read.items() if part is not None},
        _part(OwnSignals, data) or data,
        _part(Recipe, document.piece("recipe") or {}),
    )


_AnyPart = TypeVar("_AnyPart", bound=BaseModel)


def _part(model: type[_AnyPart], value: object) -> _AnyPart | None:
    try:
        return model.model_validate(value)
    except ValidationError:
        return None
