"""Documentation keeps up: a command, option, study key or dependency that nobody wrote about fails."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from hpo.cli.app import app
from hpo.study import StudySpec

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"


def commands(group: Any = None, path: str = "hpo") -> Iterator[tuple[str, Any]]:
    group = group or typer.main.get_command(app)
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


COMMANDS = dict(commands())
OPTIONS = [(path, option) for path, command in COMMANDS.items() for option in command.params]


def section(path: str) -> str:
    text = (DOCS / "cli.md").read_text(encoding="utf-8")
    found = re.search(rf"^## {re.escape(path)}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/cli.md has no section '## {path}'"
    return found[1]


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_help_and_a_section_with_an_example(path: str) -> None:
    assert COMMANDS[path].help
    assert f"    {path}" in section(path)


@pytest.mark.parametrize(("path", "option"), OPTIONS, ids=lambda given: getattr(given, "name", given))
def test_every_option_has_help_and_is_documented(path: str, option: Any) -> None:
    assert option.help
    if option.param_type_name == "option":
        assert f"`{option.opts[0]}" in section(path)


def test_no_documented_option_is_gone() -> None:
    for path, command in COMMANDS.items():
        real = {name for option in command.params for name in option.opts}
        documented = set(re.findall(r"^\| `(--[a-z-]+)", section(path), re.MULTILINE))

        assert documented <= real, path


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")

    assert [path for path in COMMANDS if f"{path} " not in text and f"{path}`" not in text] == []


def test_the_readme_begins_with_the_two_commands() -> None:
    first_screen = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()[:25]

    assert any(line.strip().startswith("make run") for line in first_screen)
    assert any(line.strip().startswith("make test") for line in first_screen)


def keys_of(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in model.model_fields.items():
        inner = inner_model(field.annotation)
        if inner is None or name in {"baseline", "known", "published"}:
            yield f"{prefix}{name}"
        else:
            yield from keys_of(inner, f"{prefix}{name}.")


def inner_model(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := inner_model(part))), None)


@pytest.mark.parametrize("key", list(keys_of(StudySpec)))
def test_every_key_of_a_study_is_documented(key: str) -> None:
    assert f"`{key}`" in (DOCS / "studies.md").read_text(encoding="utf-8")


def test_the_example_study_of_the_documentation_is_one() -> None:
    from hpo.study import parse_spec

    example = re.search(r"```yaml\n(.*?)```", (DOCS / "studies.md").read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None

    spec, faults = parse_spec(example[1])

    assert spec is not None, faults


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [package for extra in project["optional-dependencies"].values() for package in extra]
    names = [re.split(r"[\[<>=]", package)[0] for package in (*project["dependencies"], *extras)]
    text = (DOCS / "dependencies.md").read_text(encoding="utf-8")

    assert [name for name in names if f"| {name} |" not in text] == []
