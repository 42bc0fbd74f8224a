"""The service's commands: submit a study, attach workers, stop, pause and resume it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from makers import csn
from test_cli import TINY, complaint, hpo

from hpo.cli.app import main
from hpo.search_here import make_settings


@pytest.fixture
def submitted(tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a database in which a tiny study of two trials is waiting."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path}/hpo.db")
    monkeypatch.setenv("HPO_DATA", str(tmp_path))
    monkeypatch.setenv("HPO_CACHE", str(shared_cache_dir))
    (tmp_path / "tiny.yaml").write_text(TINY.replace("EPOCHS", "1"))
    assert main(["submit", "--study", "tiny.yaml", "--trials", "2", "--priority", "3"]) == 0
    return tmp_path


def status(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    capsys.readouterr()
    assert main(["status", "--study", "tiny", "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_a_submitted_study_waits_for_workers(submitted: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = status(capsys)

    assert (found["finished"], found["budget"], found["running"]) == (0, 2, 0)


@pytest.mark.slow
def test_a_study_of_a_part_of_its_data_is_submitted_as_such(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    csn.write(tmp_path)
    words = ["submit", "--study", "csn", "--trials", "3", "--allow-partial", "--data", str(tmp_path)]
    places = ["--cache", str(tmp_path / "cache"), "--storage", f"sqlite:///{tmp_path}/a.db"]

    assert main([*words, *places]) == 0
    assert "csn [partial: 20 of 45152 records]: 0 of 3 trials" in capsys.readouterr().out
    assert main([*words, *places, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["partial"] == "20 of 45152 records"


def test_a_worker_serves_what_was_submitted_and_ends(submitted: Path, shared_cache_dir: Path) -> None:
    first = hpo(submitted, shared_cache_dir, "worker", "--device", "cpu", "--json")
    again = hpo(submitted, shared_cache_dir, "worker", "--device", "cpu")

    assert first.returncode == 0, first.stderr
    assert json.loads(first.stdout) == {"ended": "no_work", "ends": {"finished": 2}}
    assert "tiny trial 1 complete" in first.stderr
    assert again.stdout == "this worker ended (no work): no trial\n"


def test_a_paused_study_is_not_run_until_it_is_resumed(
    submitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pause", "--study", "tiny"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == (
        "tiny was open and is paused; to go on: hpo resume tiny"
    )
    told = complaint(capsys, "run", "--study", "tiny.yaml", "--trials", "2")
    assert "is paused" in told
    assert "hpo resume --study tiny" in told

    assert main(["resume", "--study", "tiny"]) == 0
    assert main(["submit", "--study", "tiny.yaml", "--trials", "3"]) == 0
    assert status(capsys)["budget"] == 3


def test_a_worker_finds_no_work_in_a_stopped_study(
    submitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["stop", "--study", "tiny"]) == 0
    capsys.readouterr()
    assert main(["worker", "--device", "cpu", "--json"]) == 0

    assert json.loads(capsys.readouterr().out) == {"ended": "no_work", "ends": {}}


@pytest.mark.parametrize("command", ["stop", "pause", "resume", "worker"])
def test_an_unknown_study_is_the_users_fault(
    submitted: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    capsys.readouterr()
    assert "tinny" in complaint(capsys, command, "--study", "tinny")


def test_a_worker_without_a_database_is_the_users_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path}/none.db")

    assert "none.db" in complaint(capsys, "worker")


def test_slurm_needs_a_database_that_other_machines_reach(
    submitted: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert "PostgreSQL" in complaint(capsys, "fleet", "slurm", "--workers", "2")


def test_how_long_a_database_may_be_away_is_set_by_the_environment(
    submitted: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert make_settings(submitted, None, "cpu", None).patience_s == 600
    monkeypatch.setenv("HPO_PATIENCE", "90s")
    assert make_settings(submitted, None, "cpu", None).patience_s == 90
    monkeypatch.setenv("HPO_PATIENCE", "soon")
    capsys.readouterr()

    assert "HPO_PATIENCE is 'soon'" in complaint(capsys, "worker", "--study", "tiny")
