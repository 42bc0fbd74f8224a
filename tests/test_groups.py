"""Groups of studies, and commands on several of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_study import NAME, Place, small_spec

from finetune.api import TASKS
from hpo.cli.app import main
from hpo.cli.groups import GROUPS, expand
from hpo.ledger.choice import Arm, FrozenChoice
from hpo.ledger.choice_book import ChoiceBook, Score, Scores
from hpo.storage import open_engine
from hpo.study import load_spec
from hpo.worker import open_study, work

PUBLISHED = {"name": "somebody", "metrics": {"mae": 2.5}, "source": "a paper", "comparable": "nothing"}


def test_all_is_the_own_study_of_every_task_with_real_signals() -> None:
    tasks = {name for name, task in TASKS.items() if not task.synthetic}

    assert set(expand(["all"])) == tasks
    assert {load_spec(name).task for name in expand(["all"])} == tasks
    assert sorted(expand(["all-ppg", "all-ecg"])) == sorted(expand(["all"]))
    assert set(expand(["all-ecg"])) == {name for name in tasks if TASKS[name].signal == "ecg"}


def test_a_study_that_is_named_twice_runs_once_and_in_its_first_place() -> None:
    first, *others, last = expand(["csn", "all-ecg", "mine.yaml", "csn"])

    assert (first, last) == ("csn", "mine.yaml")
    assert sorted([first, *others]) == sorted(expand(["all-ecg"]))


@pytest.mark.parametrize("group", GROUPS)
def test_no_shipped_study_is_named_like_a_group(group: str) -> None:
    assert not (Path(__file__).parent.parent / "studies" / f"{group}.yaml").exists()


@pytest.mark.usefixtures("one_process")
def test_a_study_without_data_does_not_stop_the_others_and_is_told_at_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "name: tiny\ntask: synthetic_rr\ninputs: {train_subjects: 1}\n"
        "backbone: {name: cmssl_tiny_ppg, weights: none}\nrecipe: {epochs: 1, batch_size: 256}\n"
        "space: {lr: {low: 1e-4, high: 1e-2}, backbone_lr: {low: 1e-5, high: 1e-2}, loss: [mse]}\n"
        "baseline: {name: default, lr: 1e-4, backbone_lr: 1e-5, loss: mse}\n"
    )
    words = ["run", "--study", "csn", "--study", str(file), "--trials", "1", "--workers", "1", "--json"]
    places = [
        "--storage",
        f"sqlite:///{tmp_path}/a.db",
        "--data",
        str(tmp_path),
        "--cache",
        str(tmp_path / "c"),
    ]

    status = main([*words, *places])
    told = capsys.readouterr()

    found = json.loads(told.out)
    assert status == 2
    assert [study["study"] for study in found["studies"]] == ["tiny"]
    assert "hpo data get csn" in found["not_run"]["csn"]
    assert told.err.splitlines()[-1] == "error: 1 of 2 studies were not run: csn; the reasons are above"


def searched(place: Place, **parts: object) -> None:
    place.open(12, published=[PUBLISHED], **parts)
    work(place.url, [NAME], below=12, settings=place.settings())


def test_report_all_has_a_row_a_study_with_the_published_number_beside_ours(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    searched(place)
    open_study(place.url, small_spec(name="empty"), place.settings(), total=3)
    out = place.folder / "out"

    status = main(["report", "--all", "--storage", place.url, "--out", str(out)])

    assert status == 0
    empty, small = (out / "summary.md").read_text().splitlines()[4:6]
    assert small.startswith(f"| {NAME} | synthetic signals | 12 |")
    assert "validation, luckiest trial (optimistic)" in small
    assert "mae 2.5 (test, somebody)" in small
    assert empty.startswith("| empty | synthetic signals | 0 | too few trials | not known |")
    assert "nothing published" in empty
    rows = json.loads((out / "summary.json").read_text())["studies"]
    assert [row["study"] for row in rows] == ["empty", NAME]
    assert NAME in capsys.readouterr().out


def test_report_all_shows_the_test_scores_of_a_confirmed_choice(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    searched(place)
    study, engine = place.ledger().study(NAME), open_engine(place.url)
    arms = (
        Arm("published", "baseline", "full_finetuning", 1e-4, 1e-5, "mse"),
        Arm("chosen", "choice", "full_finetuning", 1e-3, 1e-4, "l1"),
    )
    choice = FrozenChoice(NAME, study.fingerprint, "d", arms, (1_000_000, 1_000_001))
    book, nothing = ChoiceBook(engine), np.zeros((1, 1), np.float32)
    book.freeze(study.study_id, choice, "request")
    scores = [
        Score(arm, seed, {"mae": 4.0 - arm + seed % 2}, nothing) for arm in (0, 1) for seed in choice.seeds
    ]
    everything = Scores(np.zeros((1, 1)), np.array(["a"]), tuple(scores))
    book.store_scores(study.study_id, choice.choice_hash, everything)

    status = main(["report", "--all", "--storage", place.url, "--out", str(place.folder / "out"), "--json"])

    (row,) = json.loads(capsys.readouterr().out)["studies"]
    assert status == 0
    assert row["ours"] == {"mae": 3.5}
    assert row["ours_is"] == "test, mean of 2 seeds"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "no study is named"),
        (["--all", "--study", "a"], "a study and --all are named; expected one of them"),
    ],
)
def test_report_wants_one_study_or_all(
    words: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", *words, "--storage", f"sqlite:///{tmp_path}/a.db"]) == 2
    assert capsys.readouterr().err.startswith(f"error: {told}")
