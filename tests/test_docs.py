"""Documentation keeps up: a command, option, study key or dependency that nobody wrote about fails."""

from __future__ import annotations

import ast
import re
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel

from finetune.data.publishers import SOURCES, Source
from finetune.tasks import LOSSES, TASKS
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


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_takes_json(path: str) -> None:
    assert "--json" in [name for option in COMMANDS[path].params for name in option.opts]


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


def test_the_study_of_the_readme_is_one() -> None:
    from hpo.study import parse_spec

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    example = re.search(r"^    name: my_rr\n(?:    .*\n)+", text, re.MULTILINE)
    assert example is not None

    spec, faults = parse_spec(textwrap.dedent(example[0]))

    assert spec is not None, faults


def test_the_picture_of_the_readme_is_there_and_light() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    (picture,) = re.findall(r"!\[[^]]{20,}\]\(([^)]+)\)", text)

    assert (ROOT / picture).stat().st_size < 200_000


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [package for extra in project["optional-dependencies"].values() for package in extra]
    names = [re.split(r"[\[<>=]", package)[0] for package in (*project["dependencies"], *extras)]
    text = (DOCS / "dependencies.md").read_text(encoding="utf-8")

    assert [name for name in names if f"| {name} |" not in text] == []


PAGE = (DOCS / "data.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "source", [one for one in SOURCES.values() if one.url], ids=lambda source: source.name
)
def test_every_public_data_set_has_its_row_and_its_folder_in_the_help(source: Source) -> None:
    assert f"| `{source.folder}/`" in PAGE
    assert f"`{source.folder}/`" in section("hpo run")


@pytest.mark.parametrize("name", [*TASKS, *LOSSES])
def test_every_task_and_loss_is_documented(name: str) -> None:
    assert f"`{name}`" in PAGE


# --- the house's papers


def test_the_hooks_are_the_tools_of_make_static() -> None:
    recipe = re.search(
        r"^static:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert recipe is not None
    tools = [line.strip().replace("$(BIN)", ".venv/bin") for line in recipe[1].splitlines()]
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]

    assert [hook["entry"] for hook in hooks[0]["hooks"]] == tools


def test_every_dependency_has_a_tested_version_in_its_range() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    tested = dict(line.split("==") for line in lines if not line.startswith("#"))
    tested = {canonicalize_name(name): number for name, number in tested.items()}
    extras = [package for extra in project["optional-dependencies"].values() for package in extra]
    wrong = [
        text
        for text in (*project["dependencies"], *extras)
        if (one := Requirement(text))
        and not one.specifier.contains(tested.get(canonicalize_name(one.name), "0"))
    ]

    assert wrong == []


PAPERS = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.relative_to(ROOT).as_posix())
def test_every_link_of_a_page_leads_somewhere(paper: Path) -> None:
    text = paper.read_text(encoding="utf-8")
    links = [link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", text)]

    assert [link for link in links if link and "://" not in link and not (paper.parent / link).exists()] == []


NOT_FILES = re.compile(r"[<>*$ ]|^(docs|hpo|finetune)/?$")


@pytest.mark.parametrize("paper", ["README.md", "CONTRIBUTING.md", "docs/architecture.md"])
def test_every_file_that_a_page_names_is_there(paper: str) -> None:
    named = re.findall(
        r"`((?:hpo|finetune|tests|docs|benchmarks|studies)/[^`]+)`", (ROOT / paper).read_text("utf-8")
    )

    assert [name for name in named if not NOT_FILES.search(name) and not (ROOT / name).exists()] == []


MOST_FILES, MOST_LINES = 30, 2500


def definitions(file: Path) -> dict[str, int]:
    """Return the lines of each function, class and method of a file, by name."""
    found: dict[str, int] = {}
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found[node.name] = (node.end_lineno or 0) - node.lineno + 1
        for part in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(part, ast.FunctionDef):
                found[f"{node.name}.{part.name}"] = (part.end_lineno or 0) - part.lineno + 1
    return found


def test_the_way_of_one_trial_is_short_and_there() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8").partition("## The files of one trial")[2]
    rows = re.findall(r"^\|[^|]*\| `([^`]+\.py)` \| (.+) \|$", text, re.MULTILINE)
    lines = {
        f"{file}: {name}": definitions(ROOT / file).get(name, 0)
        for file, names in rows
        for name in re.findall(r"`([^`]+)`", names)
    }

    assert [name for name, count in lines.items() if not count] == []
    assert 20 < len({file for file, _ in rows}) <= MOST_FILES
    assert 1000 < sum(lines.values()) <= MOST_LINES
