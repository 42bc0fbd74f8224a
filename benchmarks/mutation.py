"""Would a test notice? Small changes to the code, one at a time, and the tests that should turn red.

    python benchmarks/mutation.py --each 8 --out mutants.jsonl      # the same command goes on where it ended
    python benchmarks/mutation.py --out mutants.jsonl --report

For each module of the list a seeded sample of mutants: a comparison turned, an operation swapped, a number
moved, a condition negated, a flag flipped, a result dropped. Each is written into a copy of the tree, and the
module's tests run there until the first that fails. One that no test notices survives: read it, and write
the test or say why it is harmless.
"""

from __future__ import annotations

import argparse
import ast
import copy
import hashlib
import importlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LIBRARIES = (
    "numpy",
    "pandas",
    "scipy.stats",
    "sqlalchemy.orm",
    "alembic",
    "optuna",
    "pydantic",
    "torch",
    "numba",
    "rich",
    "typer",
)
TESTS = {
    "finetune/engine/optim.py": "test_optim test_engine",
    "finetune/losses.py": "test_losses test_recipe",
    "finetune/metrics.py": "test_metrics",
    "finetune/splits.py": "test_splits test_bidmc",
    "finetune/random.py": "test_random test_philox",
    "hpo/ledger/": "test_ledger test_foreign_trials test_race test_storage test_worker",
    "hpo/ledger/choice.py": "test_confirm",
    "hpo/ledger/choice_book.py": "test_confirm",
    "hpo/ledger/imported.py": "test_diary",
    "hpo/ledger/on_postgresql.py": "test_ledger",
    "hpo/ledger/outbox.py": "test_alerts",
    "hpo/ledger/whole_studies.py": "test_storage test_keep",
    "hpo/worker/": "test_worker test_stop test_service test_fleet",
    "hpo/worker/alive.py": "test_kubernetes test_worker",
    "hpo/worker/watch.py": "test_watch test_worker",
    "hpo/worker/progress.py": "test_display test_watch",
    "hpo/search/": "test_search test_ratio_sampler test_history test_worker",
    "hpo/search/acquisition.py": "test_acquisition test_ratio_sampler",
    "hpo/search/mirror.py": "test_ratio_sampler test_search",
    "hpo/search/race.py": "test_race",
    "hpo/search/settled.py": "test_settled",
    "hpo/search/warm.py": "test_settled",
    "hpo/confirm/": "test_paired test_judging test_confirm",
    "hpo/confirm/judging.py": "test_judging test_paired",
    "hpo/confirm/paired.py": "test_paired test_judging test_unit_intervals",
    "hpo/confirm/unit_intervals.py": "test_unit_intervals",
    "hpo/confirm/verdicts.py": "test_judging test_paired",
    "hpo/analysis/": "test_analysis test_ratio_sampler",
    "hpo/analysis/choice.py": "test_zones test_analysis",
    "hpo/analysis/fitting.py": "test_zones test_analysis",
    "hpo/analysis/matters.py": "test_zones test_analysis",
    "hpo/analysis/ratio.py": "test_zones test_analysis",
    "hpo/analysis/zones.py": "test_zones test_analysis",
}
"""By module, or by a folder of them (the later counts): the tests that should notice, the likeliest first."""
ALWAYS = "tests/test_architecture.py::test_a_dataclass_is_frozen_unless_its_owner_changes_it"
"""The only test that sees a dataclass no longer frozen."""
LEFT_OUT = "real_data or slow or browser"
"""Tests that cost more than they would tell of one small change; PostgreSQL's where a module is its own."""
TURNED = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
SWAPPED = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.Pow: ast.Mult}


def changes_of(tree: ast.Module) -> Iterator[tuple[int, int, str]]:
    """Yield the node's place in a walk, its line, and what, for each change that could be made."""
    for place, node in enumerate(ast.walk(tree)):
        for what in _changes(node):
            yield place, getattr(node, "lineno", 0), what


def changed(tree: ast.Module, place: int, what: str) -> ast.Module:
    """Return the tree with one change made."""
    twin = copy.deepcopy(tree)
    _make(next(node for at, node in enumerate(ast.walk(twin)) if at == place), what)
    return ast.fix_missing_locations(twin)


def _changes(node: ast.AST) -> list[str]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in TURNED:
            return ["turn the comparison"]
        case ast.BinOp(op=op) if type(op) in SWAPPED:
            return ["swap the operation"]
        case ast.BoolOp():
            return ["swap and / or"]
        case ast.If() | ast.IfExp() | ast.While():
            return ["negate the condition"]
        case ast.Constant(value=bool()):
            return ["flip the flag"]
        case ast.Constant(value=int() | float()):
            return ["move the number"]
        case ast.Return(value=ast.expr() as value) if not isinstance(value, ast.Constant):
            return ["return nothing"]
    return []


def _make(node: Any, what: str) -> None:
    match what:
        case "turn the comparison":
            node.ops = [TURNED[type(node.ops[0])]()]
        case "swap the operation":
            node.op = SWAPPED[type(node.op)]()
        case "swap and / or":
            node.op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        case "negate the condition":
            node.test = ast.UnaryOp(ast.Not(), node.test)
        case "flip the flag":
            node.value = not node.value
        case "move the number":
            node.value = node.value * 2 + 1
        case "return nothing":
            node.value = ast.Constant(None)


def modules() -> dict[str, str]:
    """Return the modules, and the tests of each."""
    found = {}
    for place, tests in TESTS.items():
        files = sorted(ROOT.glob(f"{place}**/*.py")) if place.endswith("/") else [ROOT / place]
        found |= {file.relative_to(ROOT).as_posix(): tests for file in files}
    return found


def sampled(module: str, each: int, salt: str) -> list[tuple[int, str, str]]:
    """Return line, change and changed source of ``each`` mutants, for one salt and source always the same."""
    source = (ROOT / module).read_text(encoding="utf-8")
    tree = ast.parse(source)
    found = list(changes_of(tree))
    seed = hashlib.sha256(f"{salt}{module}{source}".encode()).hexdigest()
    chosen = random.Random(seed).sample(found, min(each, len(found)))
    chosen.sort(key=lambda one: one[1])
    return [(line, what, ast.unparse(changed(tree, place, what))) for place, line, what in chosen]


def copy_tree(to: Path) -> None:
    """Copy what the tests need: the files that git knows."""
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in names.splitlines():
        if (ROOT / name).is_file():
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, to / name)


def run_tests(tree: Path, tests: str, limit_s: float, postgres: bool = False) -> str:
    """Return ``passed``, ``failed`` or ``too long``.

    The tests run in a fork of this process, which has loaded the libraries but nothing of ours: it saves each
    mutant the seconds that importing them takes.
    """
    files = [ALWAYS, *(f"tests/{name}.py" for name in tests.split())]
    marks = f"not ({LEFT_OUT}{'' if postgres else ' or postgres'})"
    process = multiprocessing.get_context("fork").Process(
        target=pytest_in, args=(tree, [*files, "-m", marks])
    )
    process.start()
    process.join(limit_s)
    if process.is_alive():
        os.killpg(process.pid or 0, signal.SIGKILL)
        process.join()
        return "too long"
    return "passed" if process.exitcode == 0 else "failed"


def pytest_in(tree: Path, words: list[str]) -> None:
    """Run pytest in a tree until the first test that fails, and exit as it does."""
    os.setsid()
    os.chdir(tree)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.environ |= {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    sys.path[:] = [str(tree), *(entry for entry in sys.path if entry not in {str(ROOT), str(HERE)})]
    os._exit(pytest.main(["-q", "-x", "-p", "no:cacheprovider", *words]))


def load_libraries() -> None:
    """Import what our modules import of others."""
    for name in LIBRARIES:
        importlib.import_module(name)
    assert not {"hpo", "finetune"} & set(sys.modules)


def main() -> None:
    """Try the mutants that were not tried yet, or print what came of them."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("mutants.jsonl"), help="one JSON line a mutant")
    parser.add_argument("--each", type=int, default=8, help="mutants of each module")
    parser.add_argument("--salt", default="", help="another one takes another sample")
    parser.add_argument("--only", default="", help="modules whose path holds this")
    parser.add_argument(
        "--limit", type=float, default=900, help="seconds after which a mutant counts as noticed"
    )
    parser.add_argument("--report", action="store_true")
    parser.add_argument(
        "--unchanged",
        action="store_true",
        help="run the tests of each module on the code as it is: they pass",
    )
    options = parser.parse_args()
    known = (
        [json.loads(line) for line in options.out.read_text().splitlines()] if options.out.exists() else []
    )
    if options.report:
        report(known)
        return
    tried = {(one["module"], one["line"], one["what"], one["digest"]) for one in known}
    todo = [
        (module, tests, mutant)
        for module, tests in modules().items()
        if options.only in module
        for mutant in sampled(module, options.each, options.salt)
        if (module, mutant[0], mutant[1], digest_of(mutant[2])) not in tried
    ]
    random.Random(0).shuffle(todo)  # what was tried by any moment is a sample of all
    load_libraries()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        copy_tree(tree)
        if options.unchanged:
            for tests in sorted({tests for _, tests, _ in todo}):
                print(run_tests(tree, tests, options.limit), tests, flush=True)
            return
        for module, tests, mutant in todo:
            try_mutant(module, tests, mutant, tree, options)


def digest_of(source: str) -> str:
    """Return what tells one changed source from another."""
    return hashlib.sha256(source.encode()).hexdigest()[:12]


def try_mutant(module: str, tests: str, mutant: tuple[int, str, str], tree: Path, options: Any) -> None:
    """Try one mutant and write a line of what came of it."""
    line, what, source = mutant
    original = (tree / module).read_text(encoding="utf-8")
    (tree / module).write_text(source, encoding="utf-8")
    begun = time.monotonic()
    outcome = run_tests(tree, tests, options.limit, "postgresql" in module)
    (tree / module).write_text(original, encoding="utf-8")
    text = original.splitlines()[line - 1].strip()
    row = {"module": module, "line": line, "what": what, "digest": digest_of(source), "outcome": outcome}
    row |= {"text": text, "seconds": round(time.monotonic() - begun, 1)}
    with options.out.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
    print(f"{outcome:8} {module}:{line} {what}: {text}", flush=True)


def report(rows: list[dict[str, Any]]) -> None:
    """Print the share that was noticed, by folder, and every survivor."""
    for place in TESTS:
        ours = [row for row in rows if row["module"].startswith(place)]
        killed = sum(row["outcome"] != "passed" for row in ours)
        print(f"{place:28} {killed} of {len(ours)}")
    killed = sum(row["outcome"] != "passed" for row in rows)
    print(f"{'all':28} {killed} of {len(rows)}")
    for row in rows:
        if row["outcome"] == "passed":
            print(f"survived {row['module']}:{row['line']} {row['what']}: {row['text']}")


if __name__ == "__main__":
    main()
