"""Hand-made runs in a study: what was validated is a trial, what was only tested is tried again."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import optuna
import pytest
from small_study import NAME, Place

from finetune.api import METRIC_RANGES, find_task
from hpo.cli.app import main
from hpo.diary import find_or_open
from hpo.diary.file import read_diary
from hpo.errors import UsageError
from hpo.reading.activity import throughput
from hpo.reading.findings import find_out
from hpo.report.answer import answer_lines
from hpo.report.told import to_json
from hpo.storage import open_engine
from hpo.study import load_spec, shipped_studies
from hpo.worker import work

DIARY = """\
lr, backbone_lr, loss, seed, validation_mae, test_mae, note
1e-4, 2e-5, l1, 7, 2.61, 1.9, the best one
1e-3, 5e-5, l1, 8, , 1.87, only tested
1e-4, 1e-5, mse, , , 2.9, the default again
"""


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.open(4)
    return place


def bring(place: Place, text: str, *words: str) -> int:
    file = place.folder / "runs.csv"
    file.write_text(text)
    return main(["import", "--study", NAME, "--csv", str(file), "--storage", place.url, *words])


def test_each_row_says_what_became_of_it(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert bring(place, DIARY) == 0

    lines = capsys.readouterr().out.splitlines()
    told = "line 2: imported, trial 4: lr 0.0001, backbone_lr 2e-05, l1, validation mae 2.61"
    assert lines[0] == f"{told} (kept as test figures: mae 1.9)"
    assert lines[1].startswith("line 3: to try, trial 5: lr 0.001, backbone_lr 5e-05, l1; only test metrics")
    assert lines[2].startswith("line 4: already there, trial 0: lr 0.0001, backbone_lr 1e-05, mse")
    assert lines[4].startswith(f"{NAME}: 1 imported, 1 to try, 1 already there")


def test_a_diary_is_told_of_in_chinese(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    assert bring(place, DIARY, "--lang", "zh") == 0

    told = capsys.readouterr().out
    assert "已导入，第 4 号试验" in told
    assert not {"imported", "line", "trial", "kept", "only", "already"} & set(re.findall("[a-z]+", told))


def test_the_same_file_again_does_nothing(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    bring(place, DIARY)
    slots = len(place.slots())
    capsys.readouterr()

    assert bring(place, DIARY, "--json") == 0

    told = json.loads(capsys.readouterr().out)
    assert (told["imported"], told["to_try"], told["already"]) == (0, 0, 3)
    assert len(place.slots()) == slots


def test_an_imported_trial_is_marked_in_the_tables_and_in_the_answer(place: Place) -> None:
    bring(place, DIARY)

    trial = optuna.load_study(study_name=NAME, storage=place.url).trials[-1]
    engine = open_engine(place.url)
    findings = find_out(engine, NAME)
    engine.dispose()
    assert trial.value == 2.61
    assert trial.user_attrs["origin"] == "imported"
    assert trial.params["seed"] == 7
    assert list(findings.trials["origin"]).count("imported") == 1
    assert to_json(findings, place.url)["imported"] == 1
    assert "1 of 1 finished trials was imported, not measured here" in "\n".join(answer_lines(findings))


def test_test_figures_are_kept_as_such_and_imported_runs_are_no_speed(place: Place) -> None:
    bring(place, DIARY)

    study = optuna.load_study(study_name=NAME, storage=place.url)
    assert study.user_attrs["imported_test:4"] == {"source": "runs.csv:2", "test": {"mae": 1.9}}
    assert study.user_attrs["imported_test:5"]["test"] == {"mae": 1.87}
    engine = open_engine(place.url)
    pace = throughput(engine, place.ledger().study(NAME).study_id)
    engine.dispose()
    assert (pace.trials_per_hour, pace.epochs_per_hour) == (0, 0)


def test_test_figures_of_trials_that_were_there_are_kept_too_and_said(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    bring(place, DIARY)

    told = capsys.readouterr().out.splitlines()[2]
    assert told.endswith("mse (kept as test figures: mae 2.9)")
    study = optuna.load_study(study_name=NAME, storage=place.url)
    kept = {"source": "runs.csv:4", "test": {"mae": 2.9}}
    assert study.user_attrs["imported_test:0:runs.csv:4"] == kept


def test_what_is_passed_over_and_what_is_a_test_figure_is_said(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "lr,backbone_lr,loss,MAE,note,empty\n1e-4,3e-5,l1,2.9,a good one,\n"
    assert bring(place, text) == 0

    lines = capsys.readouterr().out.splitlines()
    assert "mae: taken as test figures; a validation figure is called validation_mae" in lines
    assert "passed over, for they mean nothing here: note" in lines
    assert bring(place, text, "--json") == 0
    assert json.loads(capsys.readouterr().out)["passed_over"] == ["note"]


@pytest.mark.parametrize("sign", [";", "tab", "|"])
def test_a_seed_for_all_and_another_separator(
    place: Place, capsys: pytest.CaptureFixture[str], sign: str
) -> None:
    rows = [["lr", "backbone_lr", "loss", "seed", "val_mae"], ["1e-4", "3e-5", "l1", "", "2,5"]]
    rows += [["0,0001", "4e-5", "l1", "9", "2.5"]]
    text = "\n".join({"tab": "\t"}.get(sign, sign).join(row) for row in rows)

    assert bring(place, text) == 2
    assert "--separator" in capsys.readouterr().err or sign == "|"
    assert bring(place, text, "--separator", sign) == 2
    assert "--seed names one for all rows" in capsys.readouterr().err
    assert bring(place, text, "--separator", sign, "--seed", "3") == 0
    brought = [row for row in place.slots() if row.origin == "imported"]
    assert [(row.config["seed"], row.value, row.config["lr"]) for row in brought] == [
        (3, 2.5, 1e-4),
        (9, 2.5, 1e-4),
    ]


@pytest.mark.parametrize("words", [["--separator", "xy"], ["--separator", "."], ["--seed", "1000000"]])
def test_habits_that_cannot_be_are_refused(
    place: Place, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    assert bring(place, "lr,backbone_lr,loss,val_mae\n1e-4,3e-5,l1,2.5\n", *words) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_row_with_test_metrics_only_is_run_like_any_known_configuration(place: Place) -> None:
    bring(place, DIARY)

    work(place.url, [NAME], settings=place.settings())

    tried = place.slots()[5]
    assert (tried.origin, tried.state, tried.config["lr"]) == ("known", "done", 1e-3)
    assert tried.value != 1.87


def test_a_study_that_is_not_there_yet_is_made_with_its_first_slots(tmp_path: Path) -> None:
    place = Place(tmp_path)

    name = find_or_open(place.url, "synthetic_rr", place.settings())

    assert name == "synthetic_rr"
    assert next(slot.origin for slot in place.slots()) == "baseline"
    assert {slot.state for slot in place.slots()} == {"free"}


def test_metrics_of_another_split_are_no_evidence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(tmp_path)
    place.open(4, validation={"kind": "grouped_folds", "k": 3})

    bring(place, DIARY)

    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("line 2: already there, trial 1")
    assert "validated on another split" not in told[0]
    assert [slot.origin for slot in place.slots()].count("imported") == 0


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ["runs.csv:1: column lr is missing"]),
        ("lr,loss\n1e-4,l1\n", ["runs.csv:1: column backbone_lr is missing; expected it, or ratio"]),
        ("lr,ratio,loss\n", ["runs.csv:1: no row"]),
        (
            "lr,ratio,loss,val_loss\n1e-4,10,l1,2\n",
            ["runs.csv:1: column val_loss does not say which loss; expected validation_mae"],
        ),
        (
            "lr,ratio,loss,seed,validation_mae\n1e-4,10,l1,1,2.0\nfast,10,l2,1,nan\n5,10,l1,1000000,2\n",
            [
                "runs.csv:3: column lr: fast; expected a number",
                "runs.csv:3: column validation_mae: nan; expected a number",
                "runs.csv:3: column loss: l2; expected one of mse, l1",
                "runs.csv:4: column lr: lr 5 is outside the study's space; expected 1e-06 to 0.1",
                "runs.csv:4: column seed: 1000000; expected a whole number from 0 to 9999",
            ],
        ),
        (
            "lr,ratio,loss,validation_mae\n1e-4,10,l1,2.0\n",
            ["runs.csv:2: column seed: nothing; expected a whole number"],
        ),
        (
            "lr,ratio,loss,seed,validation_mae,validation_rmse,test_r2\n"
            "1e-4,10,l1,1,-2.0,3,0\n1e-4,10,l1,1,2.0,-3,0\n1e-4,10,l1,1,2.0,3,1.5\n1e-4,10,l1,1,2.0,1.5,0\n"
            "1e-4,10,l1,1,0,0,-9\n",
            [
                "runs.csv:2: column validation_mae: -2; expected 0 or more (has its sign been turned?)",
                "runs.csv:3: column validation_rmse: -3; expected 0 or more",
                "runs.csv:4: column test_r2: 1.5; expected 1 or less (is it in percent?)",
                "runs.csv:5: validation mae 2 with rmse 1.5; expected rmse at least as large",
            ],
        ),
        (
            "lr,ratio,loss,seed,validation_loss\n1e-4,10,l1,1,-2.0\n",
            ["runs.csv:2: column validation_loss: -2; expected 0 or more"],
        ),
        (
            "lr,ratio,loss,seed,test_mae\n0,0001,10,l1,1,2,5\n1e-4,10,l1\nx,1e-4,10,l1,1,2\n",
            [
                "runs.csv:2: 7 cells; expected 5, as in the header (are there decimal commas?)",
                "runs.csv:3: 3 cells; expected 5, as in the header",
                "runs.csv:4: 6 cells; expected 5, as in the header",
            ],
        ),
        (
            "lr,backbone_lr,ratio,loss,seed,validation_mae\n1e-4,1e-5,10.02,l1,1,2\n1e-4,1e-5,100,l1,1,2\n",
            ["runs.csv:3: ratio 100; expected 10, as the two rates have it"],
        ),
        ("lr;ratio;loss;seed;mae\n1e-4;10;l1;1;2,5\n", ["runs.csv:1: fields are parted by semicolons"]),
        ('lr,ratio,loss\n1e-4,10,"l1\n', ["runs.csv:2: unexpected end of data"]),
    ],
    ids=[
        "empty",
        "a column missing",
        "no row",
        "which loss",
        "every fault of every row",
        "no seed",
        "values that no metric has",
        "a yardstick below 0",
        "rows of another width",
        "a ratio that the rates do not have",
        "semicolons",
        "a quotation mark that is left open",
    ],
)
def test_a_faulty_file_is_told_by_line_and_column_and_nothing_is_imported(
    text: str, faults: list[str], place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bring(place, text) == 2

    told = capsys.readouterr().err
    for fault in faults:
        assert fault in told
    assert len(place.slots()) == 4


@pytest.mark.parametrize("metric", METRIC_RANGES)
def test_a_value_on_either_side_of_a_metrics_range_is_told_apart(metric: str, tmp_path: Path) -> None:
    spec = next(spec for spec in map(load_spec, shipped_studies()) if metric in find_task(spec.task).metrics)
    low, high = METRIC_RANGES[metric]
    file = tmp_path / "runs.csv"

    for value, is_possible in ((low, True), (low - 0.01, False), (high, True), (high + 0.01, False)):
        if not math.isfinite(value):
            continue
        row = f"1e-4,10,{spec.space.loss[0]},1,{value}"
        file.write_text(f"lr,ratio,loss,seed,validation_{metric}\n{row}\n")
        if is_possible:
            assert read_diary(file, spec).rows[0].validation == {metric: value}
        else:
            with pytest.raises(UsageError, match=f"runs.csv:2: column validation_{metric}: {value:g}"):
                read_diary(file, spec)


def test_commas_at_the_ends_of_lines_change_nothing(tmp_path: Path) -> None:
    spec, file = load_spec("bidmc_hr"), tmp_path / "runs.csv"
    file.write_text(DIARY)
    clean = read_diary(file, spec)

    file.write_text("".join(f"{line},,\n" for line in DIARY.splitlines()))

    assert read_diary(file, spec) == clean


def test_a_missing_file_is_told(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["import", "--study", NAME, "--csv", "nowhere.csv", "--storage", place.url]

    assert main(words) == 2

    assert "cannot read 'nowhere.csv' (No such file or directory)" in capsys.readouterr().err
