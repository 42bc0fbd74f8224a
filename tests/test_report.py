"""The report: what it holds, and that it says what cannot be said."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from small_study import NAME, Place, small_spec

from hpo.cli.app import main
from hpo.ledger.values import Outcome, Result
from hpo.study import Configuration
from hpo.worker import work

PICTURES = {"ratio", "zones", "rates", "curves", "seeds", "importances"}
FILES = {"report.html", "report.md", "report.json", "trials.csv", "curves.csv"} | {
    f"{name}.{kind}" for name in PICTURES for kind in ("png", "svg")
}


def finish(place: Place, ends: list[Result], lr: float = 1e-3, step: float = 0.01) -> None:
    """Close one slot for each of ``ends`` by hand, each with a loss ``step`` higher than the one before."""
    place.open(len(ends))
    ledger, spec = place.ledger(), small_spec()
    study = ledger.study(NAME)
    worker = ledger.register_worker("here", 1, "cpu", {})
    for end in ends:
        claim = ledger.claim(study.study_id, worker, lease_s=60)
        assert claim is not None
        configuration = claim.configuration or Configuration(lr, 1e-4, "l1", claim.slot)
        claim = ledger.begin(claim, configuration, spec.space, {})
        assert claim is not None
        value = None if end == "diverged" else 3.0 + step * claim.slot
        assert ledger.finish(claim, Outcome(end, value, 1, 1, {}, 1.0, "cpu"))


def report(place: Place, *words: str) -> tuple[int, Path]:
    out = place.folder / "out"
    return main(["report", "--study", NAME, "--storage", place.url, "--out", str(out), *words]), out


def read_json(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "report.json").read_text()))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the report of a finished study."""
    place = Place(tmp_path_factory.mktemp("finished"))
    place.open(30)
    work(place.url, [NAME], below=30, settings=place.settings())
    status, out = report(place)
    assert status == 0
    return out


def test_a_finished_study_gives_tables_a_picture_and_its_answer(out: Path) -> None:
    assert {file.name for file in out.iterdir()} == FILES
    rows = list(csv.DictReader((out / "trials.csv").read_text().splitlines()))
    assert len(rows) == 30
    assert {"number", "state", "origin", "lr", "backbone_lr", "ratio", "loss", "seed", "value", "end"} <= set(
        rows[0]
    )
    assert (out / "ratio.png").read_bytes().startswith(b"\x89PNG")
    found = read_json(out)
    assert found["finished"] == 30
    assert found["answer"]["trivial"] == 5.0
    assert found["answer"]["baseline"] is not None
    assert found["answer"]["ratio"] == pytest.approx(found["answer"]["lr"] / found["answer"]["backbone_lr"])


def test_the_answer_stands_first_in_the_markdown(out: Path) -> None:
    text = (out / "report.md").read_text()
    first = text.split("## The answer")[1].strip().splitlines()[0]
    assert first.startswith(
        "- small [synthetic signals]: better than the published default: with new seeds expect MAE "
    )
    assert "; the default has " in first
    assert "![Validation loss of each trial against its ratio lr / backbone_lr" in text
    assert "default (default), expected" in text
    assert "always guessing 5 breaths/min" in text


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ([], "no answer"),
        (["finished"], "no answer"),
        (["pruned"] * 6, "all 6 trials were stopped early"),
        (["diverged"] * 6, "all 6 trials diverged"),
    ],
    ids=["no trial", "one trial", "all pruned", "all diverged"],
)
def test_a_poor_study_gives_a_report_that_says_what_cannot_be_said(
    place: Place, ends: list[Result], told: str
) -> None:
    finish(place, ends) if ends else place.open(5)

    status, out = report(place)

    assert status == 0
    assert {file.name for file in out.iterdir()} == FILES
    assert told in (out / "report.md").read_text()
    found = read_json(out)
    assert found["answer"]["expected_validation_loss"] is None
    assert found["answer"]["trivial"] == 5.0


def test_a_constant_metric_is_said(place: Place) -> None:
    finish(place, ["finished"] * 12, step=0.0)

    status, out = report(place)

    assert status == 0
    assert "Note: all 12 complete trials have the same validation loss." in (out / "report.md").read_text()
    assert read_json(out)["noise"]["seed_sd"] == 0


def test_one_loss_only_and_a_baseline_without_a_run_are_said(place: Place) -> None:
    finish(place, ["pruned", *["finished"] * 12])

    status, out = report(place)

    text = (out / "report.md").read_text()
    assert status == 0
    assert "Note: only the loss l1 has complete trials: losses are not compared." in text
    assert ", by the model alone: none of its own runs is complete." in text
    assert read_json(out)["baseline_runs"] == []


def test_one_ratio_only_is_no_best_ratio(place: Place) -> None:
    finish(place, ["finished"] * 12)

    status, out = report(place)

    assert status == 0
    assert "Best ratio" not in (out / "report.md").read_text()
    assert "2 ratios were tried; a best one takes at least 3" in (out / "report.md").read_text()
    assert read_json(out)["ratio"]["identified"] is False


def test_a_partial_data_set_is_said_everywhere(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.behave(partial="10 of 53 subjects")
    finish(place, ["finished"] * 5)

    _, out = report(place)

    assert "partial: 10 of 53 subjects" in (out / "report.md").read_text()
    assert "partial: 10 of 53 subjects" in capsys.readouterr().out
    assert read_json(out)["partial"] == "10 of 53 subjects"
    assert f"`hpo run {NAME} --trials 5 --allow-partial`" in (out / "report.md").read_text()
    for words in (["status"], ["studies"], ["report", "--all", "--out", str(out)], ["compare", NAME, NAME]):
        assert main([*words, "--storage", place.url]) == 0
        assert "partial: 10 of 53 subjects" in capsys.readouterr().out, words
    assert "partial: 10 of 53 subjects" in (out / "summary.md").read_text()


def test_a_folder_that_cannot_be_written_is_the_users_fault(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.open(5)
    (place.folder / "out").write_text("a file")

    status, out = report(place)

    assert status == 2
    assert f"cannot write the report to {str(out)!r}" in capsys.readouterr().err
    assert out.read_text() == "a file"


def test_a_second_report_replaces_the_first(place: Place) -> None:
    finish(place, ["finished"] * 3)
    report(place)

    status, out = report(place)

    assert status == 0
    assert {file.name for file in out.iterdir()} == FILES


def test_an_unknown_study_is_named_with_those_there_are(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.open(5)

    status = main(["report", "--study", "smal", "--storage", place.url])

    assert status == 2
    assert "'smal'" in capsys.readouterr().err
