"""The rules of docs/architecture.md that a machine can check."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TRAINING = {"train", "score_test"}
"""Calls of the doorway that only a worker and a confirmation may make."""
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


@pytest.mark.parametrize("path", modules("hpo"), ids=lambda path: path.stem)
def test_only_workers_and_confirmation_may_train_or_see_the_test_split(path: Path) -> None:
    imported = {
        name.name
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and node.module == "finetune.api"
        for name in node.names
    }

    assert not imported & TRAINING or path.stem in {"worker", "session", "confirm"}


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


def test_no_function_is_over_sixty_lines() -> None:
    long = [
        f"{path.name}:{function.name}"
        for package in PACKAGES
        for path in modules(package)
        for function in functions(path)
        if (function.end_lineno or 0) - function.lineno >= 60
    ]

    assert long == []


@pytest.mark.parametrize(
    "command", ["--help", "run --help", "status", "report --study none", "studies", "version"]
)
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
