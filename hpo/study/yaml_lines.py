"""YAML with line numbers: every fault of a file at once, each with its line and the nearest valid key."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from hpo.errors import Said

Path = tuple[str | int, ...]
"""Keys and list positions from the top of the file, such as ``("space", "lr", "low")``."""


LONGEST = 1_000_000
"""Characters of a study file; the shipped ones have about 2,000."""


_EXPECTED = {
    "greater_than": "greater than {gt}",
    "greater_than_equal": "greater than or equal to {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "less than or equal to {le}",
    "literal_error": "{expected}",
    "int_type": "integer",
    "int_parsing": "integer, unable to parse string as an integer",
    "int_from_float": "integer, got a number with a fractional part",
    "float_type": "number",
    "float_parsing": "number, unable to parse string as a number",
    "finite_number": "a finite number",
    "bool_type": "boolean",
    "bool_parsing": "boolean, unable to interpret input",
    "string_type": "string",
    "dict_type": "dictionary",
}
"""What pydantic expected, by the type of its error; of any other its own line is said."""


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong in a file, and where."""

    line: int
    text: str


@dataclass
class Document:
    """A YAML file as plain values, with the line of every key and the faults of the YAML itself."""

    value: Any = None
    lines: dict[Path, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def line(self, path: Path) -> int:
        """Return the line of ``path``, or of the nearest key above it that is in the file."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def piece(self, *path: str | int) -> Any:
        """Return the value at ``path``; None when it is not there."""
        value = self.value
        for key in path:
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and isinstance(key, int) and key < len(value):
                value = value[key]
            else:
                return None
        return value


class _Loader(yaml.SafeLoader):
    """SafeLoader that takes for a number, a truth or nothing what YAML 1.2 does, and refuses aliases.

    YAML 1.1, PyYAML's own, reads 010 as 8, 1:30 as 90, ``no`` as false and 1e-5 as a text. An alias could
    refer to itself, or blow a small file up to any size.
    """

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        """Compose the next node; raise on an alias."""
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]  # types-PyYAML leaves it untyped
            problem = "aliases are not read here: write the value out"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        return super().compose_node(parent, index)


_Loader.yaml_implicit_resolvers = {}
_DIGITS = list("-+.0123456789")
for _kind, _form, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", _DIGITS),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        _DIGITS,
    ),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_form})$"), _first)
_Loader.add_constructor(
    "tag:yaml.org,2002:int",
    lambda _, node: int(node.value, 16 if node.value.startswith("0x") else 10),
)


def read_yaml(text: str) -> Document:
    """Read ``text``; faults of the syntax and duplicate keys are in the document's ``faults``."""
    document = Document()
    if len(text) > LONGEST:
        document.faults.append(
            Fault(
                1,
                Said(
                    "{n_text} characters; expected a study, under {longest}",
                    n_text=len(text),
                    longest=LONGEST,
                ),
            )
        )
        return document
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is not None:
            document.value = _value(loader, node, (), document)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.faults.append(
            Fault(mark.line + 1 if mark else 1, Said("not YAML: {problem}", problem=error.problem))
        )
    except yaml.reader.ReaderError as error:
        document.faults.append(Fault(1, Said("not YAML: {reason}", reason=error.reason)))
    except RecursionError:
        document.faults.append(Fault(1, "nested too deeply; expected the few levels of a study"))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        # what PyYAML's constructors raise on a date or a number that is none, without a place
        document.value = None
        document.faults.append(
            Fault(1, Said("not YAML: a value cannot be read ({kind})", kind=type(error).__name__))
        )
    return document


def _value(loader: _Loader, node: yaml.Node, path: Path, document: Document) -> Any:
    document.lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.SequenceNode):
        return [_value(loader, item, (*path, place), document) for place, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        return _mapping(loader, node, path, document)
    return loader.construct_object(node)


def _mapping(loader: _Loader, node: yaml.MappingNode, path: Path, document: Document) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key is no word", key_node.start_mark)
        key, line = str(key_node.value), key_node.start_mark.line + 1
        if key in values:
            first = document.lines[(*path, key)]
            document.faults.append(
                Fault(
                    line,
                    Said(
                        "duplicate key {key!r}; expected it once (first on line {first})",
                        key=dotted((*path, key)),
                        first=first,
                    ),
                )
            )
            continue
        document.lines[(*path, key)] = line
        values[key] = _value(loader, value_node, (*path, key), document)
    return values


def dotted(path: Path) -> str:
    """Return ``path`` as people write it: ``known[1].lr``."""
    words = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path)
    return words.removeprefix(".")


def nearest(name: str, names: Sequence[str]) -> str:
    """Return ``; did you mean ...?`` for the names that are near, or nothing."""
    near = get_close_matches(name, names, n=2, cutoff=0.5)
    return Said("; did you mean {near}?", near=Said.listed(near, " or ")) if near else ""


def model_faults(error: ValidationError, model: type[BaseModel], document: Document) -> list[Fault]:
    """Return one fault for each thing that ``model`` found wrong in ``document``."""
    return [_fault(details, model, document) for details in error.errors(include_url=False)]


def _fault(details: ErrorDetails, model: type[BaseModel], document: Document) -> Fault:
    path = details["loc"]
    line = document.line(path)
    key = dotted(path)
    if details["type"] == "extra_forbidden":
        names = _keys_at(model, path[:-1])
        known = Said("expected one of {names}", names=", ".join(names))
        return Fault(
            line,
            Said(
                "unknown key {key!r}; {known}{nearest}",
                key=key,
                known=known,
                nearest=nearest(str(path[-1]), names),
            ),
        )
    if details["type"] == "missing":
        return Fault(line, Said("missing key {key!r}; expected it here", key=key))
    if details["type"] == "file_fault":
        said = details["ctx"]["said"]
        return Fault(line, Said("{key}: {said}", key=key, said=said) if key else said)
    expected = _expected(details)
    hint = nearest(str(details["input"]), re.findall(r"'([^']+)'", expected))
    return Fault(
        line,
        Said(
            "{key} is {short}; expected {expected}{hint}",
            key=key,
            short=_short(details["input"]),
            expected=expected,
            hint=hint,
        ),
    )


def expected_by(error: ValidationError) -> str:
    """Return what a model expected of the first value that it refused."""
    return _expected(error.errors(include_url=False)[0])


def _expected(details: ErrorDetails) -> str:
    """Return what pydantic expected, as a sentence of its own with the values that it put in."""
    if details["type"] == "tuple_type":
        return Said("a list")
    line = details["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    said = Said(_EXPECTED.get(details["type"], "{line}"), line=line, **details.get("ctx", {}))
    return said if said == line else line


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _keys_at(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that ``model`` allows at ``path``."""
    for key in path:
        if isinstance(key, str):
            model = _model_in(model.model_fields[key].annotation) or model
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the first model in an annotation such as ``tuple[Model, ...]`` or ``Model | None``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
