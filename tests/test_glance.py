"""A glance at a database costs next to nothing: what it imports, and that it says what the long way says."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_play import make_study, outcome, report, take

from hpo.cli import app as command_line
from hpo.cli.quick import status_words
from hpo.errors import StorageError
from hpo.ledger.ledger import Ledger
from hpo.reading.standing import attached_workers, overview
from hpo.storage import open_engine
from hpo.storage.glance import Glance, glance_at
from hpo.study import StudySpec

HEAVY = (
    "sqlalchemy",
    "optuna",
    "alembic",
    "pydantic",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "torch",
    "matplotlib",
    "numba",
    "finetune.api",
)


def loaded(words: list[str], folder: Path) -> set[str]:
    """Return which of the heavy packages a command loads, in a process of its own."""
    root = Path(__file__).resolve().parent.parent
    code = (
        "import json, sys\nfrom hpo.cli.app import main\nassert main(sys.argv[1:]) == 0\n"
        f"print('\\n' + json.dumps([name for name in {HEAVY} if name in sys.modules]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        env=os.environ | {"PYTHONPATH": str(root)},
        cwd=folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(json.loads(done.stdout.rpartition("\n\n")[2] or done.stdout.strip().rpartition("\n")[2]))


@pytest.fixture
def url(tmp_path: Path) -> str:
    """A file with a study of which trials are finished, run and failed, and a worker."""
    url = f"sqlite:///{tmp_path / 'hpo.db'}"
    engine = open_engine(url)
    ledger = Ledger(engine)
    study = make_study(ledger, 6)
    for value in (2.0, 1.0):
        claim = take(ledger, study)
        assert report(ledger, claim, 1, value)
        assert ledger.finish(claim, outcome(value))
    for _ in range(3):
        ledger.fail(take(ledger, study), "error", "Traceback\nRuntimeError: boom")
    report(ledger, take(ledger, study), 3, 1.0)
    ledger.register_worker("host", 1, "cpu", {})
    engine.dispose()
    return url


@pytest.mark.parametrize("words", [["status"], ["status", "--json"], ["status", "--study", "study"]])
def test_status_loads_no_heavy_package(words: list[str], url: str, tmp_path: Path) -> None:
    assert loaded(words, tmp_path) == set()


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["version"]])
def test_what_needs_no_database_loads_none(words: list[str], tmp_path: Path) -> None:
    assert loaded(words, tmp_path) <= {"pydantic"}  # typer reads options with it


@pytest.mark.parametrize("words", [["studies"], ["watch", "--json"], ["submit", "--help"]])
def test_other_looks_load_neither_the_search_nor_the_analysis(
    words: list[str], url: str, tmp_path: Path
) -> None:
    assert not loaded(words, tmp_path) & {
        "optuna",
        "alembic",
        "pandas",
        "scipy",
        "torch",
        "matplotlib",
        "numba",
    }


def test_a_worker_that_attaches_loads_neither_scipy_stats_nor_pandas(tmp_path: Path) -> None:
    code = (
        "import sys, hpo.search.sampler, hpo.search.prospects; "
        "print([name for name in ('scipy.stats', 'pandas') if name in sys.modules])"
    )
    root = Path(__file__).resolve().parent.parent
    env = os.environ | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_a_glance_says_what_the_long_way_says(url: str) -> None:
    engine = open_engine(url, create=False)
    with glance_at(url) as there:
        assert isinstance(there, Glance)
        short = overview(there, url)
        names = [one["worker"] for one in attached_workers(there)]

    assert without_clock(short) == without_clock(overview(engine, url))
    assert names == [one["worker"] for one in attached_workers(engine)]
    counted = Ledger(engine).counts(Ledger(engine).study("study").study_id)
    assert short[0]["finished"] == counted.finished == 2
    assert (short[0]["failed"], short[0]["running"]) == (counted.failed, counted.running) == (1, 1)
    engine.dispose()


def without_clock(studies: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = {"trials_per_hour", "epochs_per_hour", "remaining_s"}
    return [{key: value for key, value in one.items() if key not in timed} for one in studies]


@pytest.mark.parametrize(
    "harm",
    [
        "DELETE FROM study_system_attributes",
        "UPDATE study_system_attributes SET value_json = '{'",
        "UPDATE study_system_attributes SET value_json = '7'",
        "UPDATE study_system_attributes SET value_json = json_set(value_json, '$.reader', 'another version')",
        "UPDATE study_system_attributes SET value_json = json_remove(value_json, '$.task.unit')",
    ],
)
def test_a_note_that_does_not_hold_is_none(harm: str, url: str, tmp_path: Path) -> None:
    with glance_at(url) as there:
        before = overview(there, url)
    change(url, harm)

    with glance_at(url) as there:
        assert without_clock(overview(there, url)) == without_clock(before)
    assert "pydantic" in loaded(["status"], tmp_path)


def test_a_study_that_was_changed_since_its_note_is_read_anew(url: str) -> None:
    change(url, "UPDATE hpo_study SET spec = json_set(spec, '$.task', 'a_task_of_tomorrow')")

    with glance_at(url) as there:
        (found,) = overview(there, url)
    assert (found["known_here"], found["task"], found["finished"]) == (False, "a_task_of_tomorrow", 2)


def test_a_study_that_grows_keeps_its_note(url: str, tmp_path: Path) -> None:
    engine = open_engine(url, create=False)
    ledger = Ledger(engine)
    row = ledger.study("study")
    spec = StudySpec.model_validate(row.spec)
    ledger.set_budget(row, spec.model_copy(update={"budget": spec.budget.model_copy(update={"trials": 77})}))
    engine.dispose()

    assert loaded(["status"], tmp_path) == set()


def test_tables_of_another_version_are_opened_as_ever(url: str) -> None:
    change(url, "UPDATE hpo_alembic_version SET version_num = '0001'")

    with pytest.raises(StorageError, match="already exists"), glance_at(url):  # the way of migrations
        pass


def change(url: str, statement: str) -> None:
    with sqlite3.connect(url.removeprefix("sqlite:///")) as connection:
        connection.execute(statement)


WORDS = st.lists(
    st.sampled_from(
        [
            "--json",
            "--study",
            "--storage",
            "--lang",
            "--study=x",
            "--storage=",
            "zh",
            "x",
            "-x",
            "--",
            "--help",
        ]
    ),
    max_size=5,
)


@given(WORDS)
def test_the_quick_way_reads_words_as_typer_does(words: list[str]) -> None:
    asked = status_words(["status", *words])
    if asked is None:
        return

    assert typers(["status", *words]) == asked


def typers(words: list[str]) -> dict[str, Any]:
    """Return the arguments with which typer would call ``status``."""
    import typer

    group: Any = typer.main.get_command(command_line.app)
    command = group.commands["status"]
    with command.make_context("status", words[1:]) as context:
        return dict(context.params)
