"""``python -m finetune``: one configuration, without a search."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.__main__ import main

SMALL = ["--epochs", "1", "--train-subjects", "2", "--seed", "3"]


def places(folder: Path) -> list[str]:
    """Return the options that keep a run inside ``folder``."""
    return ["--data", str(folder / "data"), "--cache", str(folder / "cache"), "--device", "cpu"]


def test_one_run_prints_its_epochs_and_its_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--task", "synthetic_hr", "--loss", "l1", *SMALL, *places(tmp_path)]) == 0

    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert printed.err.startswith("synthetic signals\nepoch 1: train loss ")
    assert (result["reason"], result["epochs"]) == ("finished", 1)
    assert "test" not in result


def test_the_loss_is_the_task_s_own_and_must_fit_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--task", "csn", "--loss", "mse", *places(tmp_path)]) == 2
    assert "loss 'mse' for csn; expected one of bce, bce_balanced" in capsys.readouterr().err
    assert main(["run", "--task", "csn", *places(tmp_path)]) == 2
    assert "no CSN record" in capsys.readouterr().err


@pytest.mark.real_data
def test_areas_that_no_class_has_are_null_in_json_and_a_note(
    tmp_path: Path, hpo_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Four records, one of which validates: no class has positives and negatives there."""
    where = ["--data", str(hpo_data), "--cache", str(tmp_path), "--device", "cpu"]
    main(["run", "--task", "csn", "--allow-partial", *SMALL, *where])

    printed = capsys.readouterr()
    assert "94 of 94 classes without positives or without negatives" in printed.err
    found = json.loads(printed.out, parse_constant=pytest.fail)["best_metrics"]
    assert (found["auroc"], found["auc_pr"], found["classes_skipped"]) == (None, None, 94)
    assert found["bce"] > 0


def test_the_test_split_is_scored_only_when_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["run", "--task", "synthetic_hr", "--loss", "l1", "--test", *SMALL, *places(tmp_path)])

    assert json.loads(capsys.readouterr().out)["test"]["mae"] > 0


def test_the_backbone_is_the_tiny_one_of_the_tasks_signal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--task", "ptb-xl", "--loss", "bce", *places(tmp_path)]) == 2

    assert "ptb-xl" in capsys.readouterr().err  # the data are missing; the backbone fits


@pytest.mark.real_data
def test_a_partial_data_set_has_to_be_allowed(
    tmp_path: Path, hpo_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [
        "run",
        "--task",
        "ptb-xl",
        "--loss",
        "bce",
        *SMALL,
        "--cache",
        str(tmp_path),
        "--data",
        str(hpo_data),
    ]

    assert main(words) == 2
    assert "partial" in capsys.readouterr().err
    assert main([*words, "--allow-partial", "--samples", "625"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["epochs"] == 1
    assert json.loads(printed.out)["labels"] == ["partial: 500 of 21799 records"]
    assert printed.err.startswith("partial: 500 of 21799 records\n")
