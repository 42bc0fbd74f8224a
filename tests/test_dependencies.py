"""What the packages import is what they declare: nothing missing, nothing that no one uses."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_IMPORTED = {"psycopg"}
"""SQLAlchemy loads it by the name in the database's URL."""
COMES_ALONG = {"pydantic-core", "triton"}
"""Pinned by pydantic to its one version; pydantic documents its import. Triton is in torch's CUDA wheels for
Linux, and dropout's kernel does without it elsewhere."""

INSIDE_AN_EXTRA = {"mlflow"}
"""What the package mlflow-skinny installs."""

A_USERS = {"transformers"}
"""Read where a user's encoder is one of its folders, and only there."""


def imported() -> Iterator[str]:
    """Give the top-level package of every import in hpo and finetune."""
    for file in (*ROOT.glob("hpo/**/*.py"), *ROOT.glob("finetune/**/*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                yield node.module.partition(".")[0]


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_every_import_is_declared_and_every_dependency_is_imported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = {normal(re.split(r"[\[<>=]", text)[0]) for text in project["dependencies"]}
    extras = [
        text for name, texts in project["optional-dependencies"].items() if name != "dev" for text in texts
    ]
    optional = {normal(re.split(r"[\[<>=]", text)[0]) for text in extras} | INSIDE_AN_EXTRA
    foreign = set(imported()) - set(sys.stdlib_module_names) - {"hpo", "finetune", "__future__"}
    packages = metadata.packages_distributions()
    used = {normal(name) for module in foreign for name in packages.get(module, [module])}

    assert used - optional - COMES_ALONG - A_USERS <= declared
    assert declared <= used | NOT_IMPORTED
