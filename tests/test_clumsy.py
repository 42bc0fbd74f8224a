"""What people and their shells do to a command: pipes that close, full disks, files of other programs."""

from __future__ import annotations

import os
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
from small_study import NAME, Place

from hpo.cli.app import main
from hpo.storage import open_engine

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.open(2)
    return place


def typed(words: str, place: Place, **env: str) -> subprocess.CompletedProcess[str]:
    """Type a line into a shell; PIPESTATUS of its first command is the last line of what it says."""
    line = f"{sys.executable} -m hpo {words}; echo status ${{PIPESTATUS[0]}} >&2"
    given = os.environ | {"PYTHONPATH": str(ROOT), "HPO_STORAGE": place.url} | env
    return subprocess.run(
        ["bash", "-c", line], env=given, cwd=place.folder, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("words", ["status", "status --json", "studies", "--help"])
def test_who_reads_no_further_hears_no_complaint(words: str, place: Place) -> None:
    done = typed(f"{words} | true", place)

    assert "Traceback" not in done.stderr
    assert done.stderr.strip() in {"status 141", "status 0"}  # 0: all was written before


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_who_is_started_without_an_output_works_all_the_same(closed: str, place: Place) -> None:
    done = typed(f"status {closed}", place)

    assert "Traceback" not in done.stderr
    assert done.stderr.strip().endswith("status 0")


@pytest.mark.parametrize("name", ["a?b.db", "%41.db", "100%.db", "a#b.db", "ü &'b.db"])
def test_the_file_that_was_named_is_the_one(
    name: str, place: Place, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place.folder)
    assert main(["copy", "--study", NAME, "--storage", place.url, "--to", f"./{name}"]) == 0
    told = capsys.readouterr().out.strip().rpartition("next: hpo ")[2]

    assert (place.folder / name).is_file()
    assert main(shlex.split(told)) == 0
    assert main(["rename", "--study", NAME, "--to", "other", "--storage", f"./{name}"]) == 0


@pytest.mark.parametrize("words", ["status --json", "studies", "--help"])
def test_a_full_disk_is_one_line(words: str, place: Place) -> None:
    done = typed(f"{words} > /dev/full", place)

    assert "Traceback" not in done.stderr
    assert "cannot write: No space left on device" in done.stderr
    assert done.stderr.strip().endswith("status 2")


def test_a_terminal_that_knows_no_chinese_gets_all_the_same(place: Place) -> None:
    done = typed("status --lang zh", place, PYTHONIOENCODING="latin-1")

    assert done.stderr.strip().endswith("status 0")
    assert "small" in done.stdout


@pytest.mark.parametrize("name", ["x" * 300 + ".db", "x" * 5000 + ".db", "a\0.db"])
def test_a_name_that_no_file_can_have_is_one_line(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["status"], ["report", "small"], ["stop", "small"]):
        assert main([*words, "--storage", name]) == 2
        assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("table", ["studies(x)", "customers(x)"])
def test_a_file_of_another_program_is_refused_and_left_as_it_is(
    table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "theirs.db"
    with sqlite3.connect(file) as connection:
        connection.execute(f"CREATE TABLE {table}")
    before = file.read_bytes()

    assert main(["submit", "synthetic_rr", "--storage", str(file), "--cache", str(tmp_path)]) == 2
    assert "tables of another program" in capsys.readouterr().err
    assert file.read_bytes()[100:] == before[100:]  # the header says WAL now


def test_a_database_of_plain_optuna_is_taken(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(storage=url, study_name="theirs")

    open_engine(url).dispose()
