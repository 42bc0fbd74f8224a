"""Databases that earlier versions made open, tell what they hold, and go on."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import analytic_trainer
import pytest
import sqlalchemy as sa
from small_study import NAME, Place

from hpo.cli.app import main
from hpo.storage import open_engine, writing
from hpo.storage.tables import studies
from hpo.worker import versions, work

OLDER = {file.name.split(".")[0]: file for file in (Path(__file__).parent / "data").glob("schema_*.db.gz")}
"""Each holds trials of every kind: complete, pruned, diverged, failed, a dead worker's, one that waits."""


@pytest.fixture(params=sorted(OLDER))
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    """A database as an earlier version left it."""
    place = Place(tmp_path)
    (tmp_path / "hpo.db").write_bytes(gzip.decompress(OLDER[request.param].read_bytes()))
    return place


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, object]:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found: dict[str, object] = json.loads(capsys.readouterr().out)
    return found


def test_its_status_counts_what_is_there(before: Place, capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "status", "--study", NAME, "--storage", before.url)

    counted = {key: found[key] for key in ("budget", "complete", "pruned", "failed", "finished")}
    assert counted == {"budget": 16, "complete": 5, "pruned": 8, "failed": 1, "finished": 13}
    assert found["running"] == 0, "its worker has been silent for longer than any lease"
    assert found["fingerprint"] == "68246475e9ea00b41b78df5ea1dcb3f6f3d853a0b7fdb2f26753d42d3f09ab62"


def test_its_report_has_an_answer_about_all_its_trials(
    before: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    out = before.folder / "report"
    found = told(capsys, "report", "--study", NAME, "--storage", before.url, "--out", str(out))

    assert (found["complete"], found["pruned"]) == (5, 8)
    assert (out / "report.html").exists()
    assert len((out / "trials.csv").read_text().splitlines()) == 17


def test_its_search_goes_on_to_its_budget(before: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.worker.watch.PATIENCE", 0.01)  # its dead worker's lease of a minute is over soon
    use_these_versions(before)
    finished = [row for row in before.slots() if row.state == "done"]

    summary = work(before.url, [NAME], settings=before.settings())

    counts = before.counts()
    assert (summary.ended, counts.finished, counts.failed, counts.running) == ("no_work", 15, 1, 0)
    after = {row.slot: row for row in before.slots()}
    for row in finished:
        now = after[row.slot]
        assert (now.config, now.value, now.end, now.attempt) == (row.config, row.value, row.end, row.attempt)
    assert before.epochs_of(14)[:2] == [1, 2]


def use_these_versions(place: Place) -> None:
    """Say that the study was made with what is installed here, which is not what is tested."""
    here = versions(analytic_trainer.__name__)
    engine = open_engine(place.url)
    with writing(engine) as connection:
        connection.execute(sa.update(studies).values(versions=here))
    engine.dispose()
