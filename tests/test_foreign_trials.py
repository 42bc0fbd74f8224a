"""What Optuna's own tools put into a study is said wherever a study is shown, and counted nowhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from small_study import NAME, Place
from web import ask

import hpo
from hpo.cli.app import main
from hpo.dashboard import Access, PageKeeper, make_door
from hpo.dashboard.kept import AnswerStore
from hpo.ledger.ledger import Ledger
from hpo.reading.foreign import foreign_trials
from hpo.storage import open_engine, parse_url
from hpo.worker import work

OURS, THEIRS = 5, 4
SAID = "4 trials that another tool put into this study count for nothing here."


@contextmanager
def optunas(place: Place) -> Iterator[optuna.Study]:
    """Give the study as plain Optuna opens it."""
    url = parse_url(place.url).render_as_string(hide_password=False)
    storage = optuna.storages.RDBStorage(url)
    yield optuna.load_study(study_name=NAME, storage=storage)
    storage.remove_session()
    storage.engine.dispose()


def searched(place: Place) -> Place:
    place.open(OURS)
    work(place.url, [NAME], below=OURS, settings=place.settings())
    return place


def meddle(place: Place) -> None:
    """Do what Optuna's documentation shows: optimise, add and enqueue trials; one is best by far."""
    with optunas(place) as study:
        study.optimize(lambda trial: trial.suggest_float("lr", 1e-6, 1e-1, log=True) * 1e-9, n_trials=2)
        study.add_trial(optuna.trial.create_trial(value=-1.0))
        study.enqueue_trial({"lr": 1e-4})


@pytest.fixture
def place(database_url: str, tmp_path: Path) -> Place:
    place = searched(Place(tmp_path, database_url))
    meddle(place)
    return place


def told(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_foreign_trials_are_counted_as_such_alone(place: Place) -> None:
    engine = open_engine(place.url)
    found = foreign_trials(engine, Ledger(engine).study(NAME).study_id)
    engine.dispose()

    assert found == THEIRS


def test_status_and_report_count_ours_and_say_the_others(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    status = told(capsys, "status", NAME, "--storage", place.url)
    report = told(capsys, "report", NAME, "--storage", place.url, "--out", str(place.folder / "r"))
    summary = told(capsys, "report", "--all", "--storage", place.url, "--out", str(place.folder / "s"))

    for found in (status, report):
        assert (found["finished"], found["budget"], found["foreign_trials"]) == (OURS, OURS, THEIRS)
    assert status["best"]["validation_loss"] > 0
    assert (summary["studies"][0]["finished"], summary["studies"][0]["foreign_trials"]) == (OURS, THEIRS)
    assert SAID in (place.folder / "r" / "report.md").read_text()
    assert SAID in (place.folder / "r" / "report.html").read_text()
    assert len((place.folder / "r" / "trials.csv").read_text().splitlines()) == 1 + OURS
    assert "4 trials of another tool do not count" in (place.folder / "s" / "summary.md").read_text()


def test_the_pages_of_the_dashboard_say_them_as_soon_as_they_are_there(tmp_path: Path) -> None:
    place = searched(Place(tmp_path))
    engine = open_engine(place.url)
    answers = AnswerStore(engine)
    keeper = PageKeeper(engine, answers)
    keeper.refresh()
    app = make_door(place.url, engine, Access("127.0.0.1"), answers=answers).app
    before = ask(app, f"/answer/{NAME}").body.decode()
    meddle(place)
    keeper.refresh()
    card = ask(app, "/live").json["studies"][0]
    live = ask(app, f"/live/{NAME}").json
    after = ask(app, f"/answer/{NAME}").body.decode()
    engine.dispose()

    assert SAID not in before
    assert SAID in after
    assert SAID in live["answer"]
    assert card["foreign"] == live["foreign"] == "4 trials of another tool do not count"
    assert (live["finished"], live["total"]) == (OURS, OURS)


def test_python_says_them(place: Place) -> None:
    study = hpo.load(NAME, place.url)

    assert study.findings.foreign == THEIRS
    assert SAID in study.words()
    assert len(study.trials) == OURS
    assert list(hpo.studies(place.url)["foreign_trials"]) == [THEIRS]


def test_a_study_that_optuna_deleted_is_unknown_at_once(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with optunas(place) as study:
        optuna.delete_study(study_name=NAME, storage=study._storage)
    capsys.readouterr()

    assert main(["report", NAME, "--storage", place.url]) == 2
    assert main(["status", NAME, "--storage", place.url]) == 2
    assert told(capsys, "status", "--storage", place.url)["studies"] == []
    with pytest.raises(hpo.HpoError):
        hpo.load(NAME, place.url)


def test_a_budget_goes_on_beside_what_others_enqueued(tmp_path: Path) -> None:
    place = searched(Place(tmp_path))
    meddle(place)
    place.open(OURS + 3)
    work(place.url, [NAME], below=OURS + 3, settings=place.settings())
    engine = open_engine(place.url)
    with engine.connect() as connection:
        count = sa.text("SELECT count(*) FROM hpo_slot WHERE state = 'done'")
        done = connection.execute(count).scalar_one()
    found = foreign_trials(engine, Ledger(engine).study(NAME).study_id)
    engine.dispose()

    assert (done, found) == (OURS + 3, THEIRS)
