"""A glance at a database costs next to nothing: what it imports, and that it says what the long way says."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
import sqlalchemy as sa
from hypothesis import given, settings
from hypothesis import strategies as st
from ledger_play import make_study, outcome, report, take

from finetune.api import find_task
from hpo.cli import app as command_line
from hpo.cli.listing import failure_lines, status_lines, worker_lines
from hpo.cli.quick import status_words
from hpo.errors import StorageError
from hpo.ledger.gist import Gist, note_of, noted
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Claim, StudyRow, StudyState
from hpo.reading.frames import trials_frame
from hpo.reading.standing import attached_workers, overview
from hpo.report.language import Language
from hpo.storage import open_engine, writing
from hpo.storage.glance import Glance, glance_at
from hpo.storage.tables import slots
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


def test_a_note_on_a_spec_speaks_for_that_spec_and_those_sources_only() -> None:
    task, spec = find_task("synthetic_rr"), {"task": "synthetic_rr", "name": "small"}
    note = note_of(task, spec)

    assert noted(note, spec) == Gist.of(task)
    assert noted(note, spec | {"name": "another"}) is None
    assert noted(note | {"reader": "another"}, spec) is None


# --- every state of a study

MOVES = st.lists(
    st.tuples(
        st.sampled_from(
            ["take", "take", "finish", "report", "finish", "prune", "diverge", "fail", "give_back", "lapse"]
        ),
        st.integers(0, 3),
        st.floats(0.1, 9.0),
    ),
    max_size=14,
)


def play(engine: sa.Engine, study: StudyRow, moves: list[tuple[str, int, float]]) -> None:
    """Make the moves of some workers; one that cannot be made is passed over."""
    ledger = Ledger(engine)
    held: list[Claim] = []
    for move, place, value in moves:
        if move == "take":
            if ledger.counts(study.study_id).free:
                held.append(take(ledger, study, holder=f"worker-{place}"))
            continue
        if not held:
            continue
        claim = held[place % len(held)]
        match move:
            case "report":
                report(ledger, claim, 1 + place, value)
                continue
            case "lapse":
                past = sa.update(slots).where(slots.c.slot == claim.slot).values(lease_until=1.0)
                with writing(engine) as connection:
                    connection.execute(past.where(slots.c.study_id == study.study_id))
                continue
            case "finish":
                ledger.finish(claim, outcome(value))
            case "prune":
                ledger.finish(claim, outcome(value, end="pruned"))
            case "diverge":
                ledger.finish(claim, outcome(None, end="diverged", best_epoch=None))
            case "fail":
                ledger.fail(claim, "error", f"RuntimeError: {value}")
            case "give_back":
                ledger.give_back(claim)
        held.remove(claim)


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a database without a study."""
    file = tmp_path_factory.mktemp("empty") / "hpo.db"
    open_engine(f"sqlite:///{file}").dispose()
    return file


@given(MOVES, MOVES, st.sampled_from(["open", "paused", "stopped"]))
@settings(max_examples=40, deadline=None)
def test_a_glance_says_the_words_and_numbers_of_the_whole(
    empty_database: Path,
    tmp_path_factory: pytest.TempPathFactory,
    first: list[tuple[str, int, float]],
    second: list[tuple[str, int, float]],
    state: StudyState,
) -> None:
    file = tmp_path_factory.mktemp("play") / "hpo.db"
    shutil.copy(empty_database, file)
    engine = open_engine(f"sqlite:///{file}")
    ledger = Ledger(engine)
    for name, moves in (("one", first), ("two", second)):
        study = make_study(ledger, 4, name=name)
        play(engine, study, moves)
    ledger.set_state(study.study_id, state)
    with glance_at(f"sqlite:///{file}") as there:
        assert isinstance(there, Glance)
        short, workers = overview(there, "u"), attached_workers(there)

    whole = overview(engine, "u")
    for language in get_args(Language):
        assert said(short, workers, language) == said(whole, attached_workers(engine), language)
    for one in short:
        row = ledger.study(one["study"])
        counts, trials = ledger.counts(row.study_id), trials_frame(engine, row.study_id)
        complete = trials[trials["state"] == "complete"]
        assert (
            (one["state"], one["failed"]) == (row.state, counts.failed) == (row.state, len(one["failures"]))
        )
        assert (one["finished"], one["complete"]) == (counts.finished, len(complete))
        assert one["pruned"] == counts.pruned == (trials["state"] == "pruned").sum()
        assert one["running"] + one["silent"] == (trials["state"] == "running").sum()
        best = one["best"]["validation_loss"] if one["best"] else None
        assert best == (None if complete.empty else complete["value"].min())
    engine.dispose()


def said(studies: list[dict[str, Any]], workers: list[dict[str, Any]], language: Language) -> list[str]:
    """Return what status prints, with the clock out of it."""
    still = [one | {"silent_s": 0.0} for one in workers]
    failures = [line for one in studies for line in failure_lines(one, whole=True, language=language)]
    timeless = [one | {"trials_per_hour": 0.0, "remaining_s": None} for one in studies]
    return [*status_lines(timeless, language), *failures, *worker_lines(still, language)]
