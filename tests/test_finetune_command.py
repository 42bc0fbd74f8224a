"""``python -m finetune``: one configuration, without a search."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import pytest
from bidmc_files import write_bidmc
from makers import cpsc2018, csn, physionet2017, ppg_bp, ppg_dalia, ptb, ptbxl, uci_bp, wesad

from finetune.__main__ import main
from finetune.spec import Recipe, RunSpec
from finetune.tasks import TASKS, find_task
from hpo.study import load_spec

SMALL = ["--epochs", "1", "--train-subjects", "2", "--seed", "3"]


def places(folder: Path) -> list[str]:
    """Return the options that keep a run inside ``folder``."""
    return ["--data", str(folder / "data"), "--cache", str(folder / "cache"), "--device", "cpu"]


def write_four_subjects(data_dir: Path) -> None:
    write_bidmc(data_dir, [20, 42, 11, 8])


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


AS_PUBLISHED: list[tuple[str, Callable[[Path], object]]] = [
    *((task, write_four_subjects) for task in ("bidmc_hr", "bidmc_rr", "bidmc_rr_30s")),
    *((task, ppg_dalia.write) for task in ("ppg_dalia_hr", "ppg_dalia_rr")),
    ("uci_sbp", uci_bp.write),
    ("uci_dbp", uci_bp.write_raw),
    ("ptb-xl", ptbxl.write),
    ("physionet2017", physionet2017.write_zip),
    ("csn", csn.write),
    ("wesad", wesad.write),
    ("ppg_bp_sbp", ppg_bp.write),
    ("ppg_bp_dbp", ppg_bp.write),
    ("ptb", ptb.write),
    ("cpsc2018", cpsc2018.write),
]


def test_every_task_of_a_publisher_is_run_here() -> None:
    assert {task for task, _ in AS_PUBLISHED} == {name for name, task in TASKS.items() if not task.synthetic}


@pytest.mark.parametrize(
    ("task", "write"), AS_PUBLISHED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_task_runs_as_its_study_says_from_files_as_they_are_published(
    task: str, write: Callable[[Path], object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "data")
    study = load_spec(task)
    inputs = ["--samples", str(study.inputs.samples), "--normalisation", study.inputs.normalisation]

    status = main(["run", "--task", task, "--epochs", "1", *inputs, "--allow-partial", *places(tmp_path)])

    printed = capsys.readouterr()
    assert status == 0, printed.err
    found = json.loads(printed.out)
    assert next(iter(found["best_metrics"])) == find_task(task).yardstick
    assert all(value is not None for value in found["best_metrics"].values())


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


def test_every_key_of_a_recipe_is_an_option_that_counts(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[RunSpec] = []
    monkeypatch.setattr("finetune.__main__.train", lambda source, **_: seen.append(source.next_run().spec))
    given = {"weight_decay": 0.3, "dropout": 0.25, "max_grad_norm": 2.0, "precision": "bf16", "epochs": 2}
    words = [word for key, value in given.items() for word in (f"--{key.replace('_', '-')}", str(value))]

    with pytest.raises(AssertionError):  # the run is looked at, not made
        main(["run", "--task", "synthetic_hr", *words, "--every", "3", *places(tmp_path)])

    (spec,) = seen
    assert {key: getattr(spec.recipe, key) for key in given} == given
    assert spec.inputs.every == 3
    with pytest.raises(SystemExit):
        main(["run", "--help"])
    told = capsys.readouterr().out
    options = set(re.findall(r"--[a-z-]+", told))
    assert {f"--{field.name.replace('_', '-')}" for field in fields(Recipe)} <= options
