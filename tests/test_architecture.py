"""The rules of docs/architecture.md that a machine can check."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEST_SPLIT = {"score_test", "score_trivial", "load_test", "test_split", "scoring", "score_constant"}
"""Names by which the test split could be reached."""
PACKAGES = ("hpo", "finetune")


def modules(package: str) -> list[Path]:
    return sorted(path for path in (ROOT / package).rglob("*.py") if "migrations" not in path.parts)


def functions(path: Path) -> Iterator[ast.FunctionDef]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    yield from (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))


def test_the_import_contracts_are_kept() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from importlinter.cli import lint_imports_command as lint; lint()",
            "--no-cache",
        ],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr


def placed(path: Path) -> str:
    """Return where a module lies, for the names of tests too."""
    return path.relative_to(ROOT).as_posix()


def named_in(path: Path) -> set[str]:
    """Return every name that code, not documentation, uses; a string counts by its words."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) | ast.Attribute(attr=name):
                found.add(name)
            case ast.ImportFrom(module=module, names=names):
                found |= {*(module or "").split("."), *(name.name for name in names)}
            case ast.Import(names=names):
                found |= {part for name in names for part in name.name.split(".")}
            case ast.Constant(value=str(text)) if id(node) not in documentation:
                found |= set(re.split(r"\W+", text))
    return found


def test_only_a_confirmation_names_the_test_split() -> None:
    named = {placed(path): named_in(path) & TEST_SPLIT for path in modules("hpo")}

    assert {
        place for place, names in named.items() if names and not place.startswith("hpo/confirm/")
    } == set()


def test_a_module_is_opened_by_name_in_one_place_only() -> None:
    by_name = {"importlib", "import_module", "__import__", "runpy", "modules", "exec", "eval", "pkgutil"}
    found = {}
    for path in modules("hpo"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        used = {name for node in ast.walk(tree) for name in _names_of(node)} & by_name
        found |= {placed(path): used} if used else {}

    assert found == {
        "hpo/worker/session.py": {"importlib", "import_module"},  # the trainer
        "hpo/cli/app.py": {"importlib"},  # versions of packages
        "hpo/__main__.py": {"modules"},  # whether torch is loaded
        "hpo/__init__.py": {"modules"},  # itself
    }


def _names_of(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return [name]
        case ast.ImportFrom(module=module, names=names):
            return [(module or "").split(".")[0], *(name.name for name in names)]
        case ast.Import(names=names):
            return [name.name.split(".")[0] for name in names]
    return []


def test_hpo_imports_of_finetune_the_doorway_and_confirmation_the_second_one() -> None:
    whole, parts = set(), set()
    for path in modules("hpo"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                whole |= {placed(path) for name in node.names if name.name.split(".")[0] == "finetune"}
            if isinstance(node, ast.ImportFrom) and node.module == "finetune":
                parts |= {(placed(path), name.name) for name in node.names}

    assert whole == set()
    assert {one for one in parts if one[1] != "api"} == {("hpo/confirm/__init__.py", "test_split")}


def test_in_finetune_only_scoring_opens_the_test_split() -> None:
    naming = {placed(path) for path in modules("finetune") if named_in(path) & {"load_test", "score_test"}}

    assert naming == {
        "finetune/__main__.py",  # finetune's own command, without a search
        "finetune/engine/scoring.py",
        "finetune/test_split.py",
    }


def test_only_the_command_lines_print() -> None:
    printing = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) in {"print", "typer.echo", "sys.stdout.write"}
    }

    assert printing <= {"hpo/cli/app.py", "hpo/cli/terminal.py", "finetune/__main__.py"}


CHANGING = {
    "finetune/datasets/uci_raw.py:_Found",
    "finetune/engine/checkpoint.py:Progress",
    "finetune/engine/loop.py:Member",
    "hpo/study/yaml_lines.py:Document",
    "hpo/worker/progress.py:Progress",
    "hpo/worker/trial.py:Trial",
}
"""Dataclasses that one owner changes; what goes between modules is frozen."""


def test_a_dataclass_is_frozen_unless_its_owner_changes_it() -> None:
    open_ones = {
        f"{placed(path)}:{node.name}"
        for package in PACKAGES
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
        for said in map(ast.unparse, node.decorator_list)
        if said.startswith("dataclass") and "frozen=True" not in said
    }

    assert open_ones == CHANGING


MOST_ROOMS, MOST_FLOORS, MOST_ARROWS = 25, 11, 126


def room_of(module: str) -> str:
    """Return the part of hpo that a module lies in: a folder or a file of its own."""
    return [*module.split("."), ""][1]


def test_the_rooms_of_hpo_and_the_arrows_between_them_grow_no_more() -> None:
    names = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules("hpo")}
    names = {name.removesuffix(".__init__") for name in names}
    rooms = {room_of(name) for name in names} - {"", "__main__"}
    below: dict[str, set[str]] = {room: set() for room in rooms}
    for path in modules("hpo"):
        room = path.relative_to(ROOT).with_suffix("").parts[1]
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "hpo":
                found = {room_of(f"{node.module}.{name.name}") for name in node.names}
                below[room] = below.get(room, set()) | (found & rooms) - {room}

    floors = [*TopologicalSorter({room: below[room] for room in rooms}).static_order()]  # or a circle
    height: dict[str, int] = {}
    for room in floors:
        height[room] = 1 + max((height[other] for other in below[room]), default=0)

    assert len(rooms) <= MOST_ROOMS
    assert max(height.values()) <= MOST_FLOORS
    assert sum(len(below[room]) for room in rooms) <= MOST_ARROWS


def test_no_function_is_over_sixty_lines() -> None:
    long = [
        f"{path.name}:{function.name}"
        for package in PACKAGES
        for path in modules(package)
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno >= 60
    ]

    assert long == []


LIGHT = {
    "hpo": ("torch", "pandas", "numpy", "scipy", "sqlalchemy", "optuna", "matplotlib", "typer"),
    "hpo.reading.activity, hpo.storage": ("optuna", "torch", "pandas", "alembic"),
    "hpo.reading.frames, hpo.storage": ("optuna", "torch", "alembic"),
    "hpo.search_here, hpo.report.checked": ("pandas", "scipy", "hpo.analysis"),
    "finetune.backbones": ("torch",),
}
"""Modules, and what does not come with them."""


@pytest.mark.parametrize("imported", LIGHT)
def test_an_import_brings_nothing_heavy(imported: str) -> None:
    code = f"import sys, {imported}; print([name for name in {LIGHT[imported]} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}

    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("command", ["run --help", "report --study none"])  # others: test_glance.py
def test_light_commands_start_without_torch(command: str, tmp_path: Path) -> None:
    code = (
        "import sys; from hpo.cli.app import main; main(sys.argv[1:]);sys.exit(int('torch' in sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HPO_STORAGE": f"sqlite:///{tmp_path}/hpo.db"}

    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr


def test_the_package_is_typed_for_its_users() -> None:
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)
