"""A study that is half there, or that others wrote into, is one row that says so: nothing falls over it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_study import NAME, Place, finished_study
from web import ask

from hpo.cli.app import main
from hpo.dashboard import Access, PageKeeper, make_door
from hpo.dashboard.kept import AnswerStore
from hpo.storage import open_engine

PAGES = ("/", "/live", f"/live/{NAME}", f"/study/{NAME}", "/answer", f"/answer/{NAME}")
OPTUNAS = ("/dashboard", "/api/studies", "/api/studies/1?after=0")
LOOKS = (["status"], ["status", NAME, "--json"], ["studies", "--json"], ["watch", "--json"])
NO_JSON = ("null", "7", "[]", "{}", '"x"', "{broken")
OURS = ("hpo_study", "hpo_slot", "hpo_attempt", "hpo_curve", "hpo_worker")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of one finished study, whole in its one file."""
    file = finished_study(tmp_path_factory.mktemp("whole"), total=4).folder / "hpo.db"
    with contextlib.closing(sqlite3.connect(file)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return file


def harms(file: Path, table: str) -> Iterator[str]:
    """Yield statements that take away, or spoil, each column of a table and each key of its JSON."""
    with contextlib.closing(sqlite3.connect(file)) as connection:
        columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
        for _, name, kind, must_be_there, _, is_key in columns:
            column = f'UPDATE {table} SET "{name}"'
            if is_key:
                continue
            if not must_be_there:
                yield f"{column} = NULL"
            if kind == "JSON":
                yield from (f"{column} = '{value}'" for value in NO_JSON)
                held = connection.execute(
                    f'SELECT "{name}" FROM {table} WHERE "{name}" IS NOT NULL LIMIT 1'
                ).fetchone()
                for key in json.loads(held[0]) if held else ():
                    yield f"{column} = json_remove(\"{name}\", '$.{key}')"
                    yield f"{column} = json_set(\"{name}\", '$.{key}', 'text')"
        yield f"DELETE FROM {table}"


def attribute_harms() -> Iterator[str]:
    """Yield statements that take away, or spoil, the attributes of Optuna's study and trials."""
    for table in ("study_user_attributes", "study_system_attributes", "trial_user_attributes"):
        yield f"DELETE FROM {table}"
        yield f"UPDATE {table} SET value_json = '7'"
        yield f"UPDATE {table} SET value_json = 'null'"


def falls(harm: str, whole: Path, folder: Path, *commands: list[str]) -> list[str]:
    """Do harm to a copy of a database; return each command and page that falls over it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    file = shutil.copy(whole, folder / "hpo.db")
    with contextlib.closing(sqlite3.connect(file, isolation_level=None)) as connection:
        connection.execute(harm)
    found = []
    for words in (*LOOKS, *commands):
        said = io.StringIO()
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
            status = main([*words, "--storage", str(file)])
        if status not in {0, 2}:
            found.append(f"{harm}: {' '.join(words)}: {said.getvalue()}")
    return found + [
        f"{harm}: {path}: {status}" for path, status in pages(f"sqlite:///{file}") if status >= 500
    ]


def pages(url: str) -> Iterator[tuple[str, int]]:
    engine = open_engine(url, create=False)
    try:
        answers = AnswerStore(engine)
        PageKeeper(engine, answers).refresh()
        app = make_door(url, engine, Access(), answers=answers).app
        for path in (*PAGES, *OPTUNAS):
            yield path, ask(app, path).status
    finally:
        engine.dispose()


@pytest.mark.parametrize("table", OURS)
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_nothing_that_is_missing_of_our_tables_breaks_a_look(
    table: str, whole: Path, tmp_path: Path, data: st.DataObject
) -> None:
    harm = data.draw(st.sampled_from(list(harms(whole, table))))

    assert not falls(harm, whole, tmp_path / "t")


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=2, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(harm=st.sampled_from(list(attribute_harms())))
def test_no_attribute_that_is_missing_breaks_a_look(whole: Path, tmp_path: Path, harm: str) -> None:
    assert not falls(harm, whole, tmp_path / "t")


@pytest.mark.parametrize("key", ["trivial", "trivial_name", "data_hash"])
def test_a_study_that_does_not_say_what_its_data_are_is_unknown_here(
    key: str, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = Place(tmp_path)
    shutil.copy(whole, tmp_path / "hpo.db")
    with contextlib.closing(sqlite3.connect(tmp_path / "hpo.db", isolation_level=None)) as connection:
        connection.execute(f"UPDATE hpo_study SET data = json_remove(data, '$.{key}')")

    assert main(["status", "--storage", place.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["studies"][0]["known_here"] is False
    assert main(["report", NAME, "--storage", place.url]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert dict(pages(place.url))[f"/answer/{NAME}"] == 404


def test_a_database_that_is_gone_is_a_page_that_says_so(whole: Path, tmp_path: Path) -> None:
    file = Path(shutil.copy(whole, tmp_path / "hpo.db"))
    engine = open_engine(f"sqlite:///{file}", create=False)
    app = make_door(f"sqlite:///{file}", engine, Access()).app
    file.unlink()
    found = [ask(app, path) for path in PAGES]
    engine.dispose()

    assert {one.status for one in found} == {503}
    assert all("cannot be read now" in one.body.decode() for one in found)
