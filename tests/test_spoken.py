"""What commands say in Chinese: progress, tables and answers; and nothing of it in English."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from small_study import NAME, Place, finished_study, small_spec

from hpo.cli.app import main
from hpo.cli.listing import columns, state_words
from hpo.cli.terminal import fitted
from hpo.cli.watch import picture_lines
from hpo.reading.findings import find_out
from hpo.report.answer import answer_lines
from hpo.report.chinese import CHINESE
from hpo.report.language import SPOKEN
from hpo.search_here import launch
from hpo.storage import open_engine
from hpo.worker.progress import Progress, event_line
from hpo.worker.session import Event

LOANS = {"breaths", "min", "lr", "backbone_lr", "mse", "l1", "smooth_l1", "MAE", "hpo", "worker", "run", NAME}
"""Words that stay as they are: names, and what is typed."""


def english_in(text: str) -> list[str]:
    """Return the English words of a text, but for names, units and what is typed."""
    words = re.findall(r"[A-Za-z_][A-Za-z0-9_]{2,}", text)
    return [word for word in words if word not in LOANS]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return finished_study(tmp_path, total=4, below=3)


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    capsys.readouterr()
    assert main([*words, "--lang", "zh"]) == 0
    told = capsys.readouterr()
    return told.out + told.err


def test_status_and_watch_speak_chinese(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (["status", NAME], ["status"]):
        told = said(capsys, *words, "--storage", place.url)
        assert "研究" in told
        assert english_in(told.replace(place.url, "").partition("--storage")[0]) == []


@pytest.mark.parametrize(
    ("state", "finished", "running", "said"),
    [
        ("open", 3, 0, "open"),
        ("open", 3, 1, "open"),
        ("open", 4, 0, "finished"),
        ("stopped", 4, 0, "stopped"),
    ],
)
def test_an_open_study_whose_trials_have_all_ended_is_finished(
    state: str, finished: int, running: int, said: str
) -> None:
    study = {"state": state, "finished": finished, "failed": 0, "budget": 4, "running": running}
    assert state_words(study, SPOKEN["en"]) == said


def test_a_picture_of_watch_is_chinese() -> None:
    study = {"study": NAME, "state": "open", "finished": 3, "budget": 4, "pruned": 1, "failed": 1}
    study |= {
        "running": 1,
        "remaining_s": 60.0,
        "unit": "bpm",
        "best": {"validation_loss": 1.0, "number": 1, "ratio": 5.0},
    }
    worker: dict[str, Any] = {
        "host": "h",
        "device": "d",
        "study": NAME,
        "number": 1,
        "epoch": 2,
        "silent_s": 3.0,
    }

    for line in picture_lines([study], [worker, worker | {"study": None, "number": None}], "zh"):
        assert english_in(line.replace("bpm", "")) == []


@pytest.mark.usefixtures("one_process")
def test_a_search_and_its_progress_speak_chinese(tmp_path: Path) -> None:
    place, console = Place(tmp_path), Console(record=True, quiet=False, file=(tmp_path / "log").open("w"))
    spec = small_spec()
    launch(spec, place.url, total=2, workers=1, settings=place.settings(), console=console, language="zh")
    console.file.close()

    told = (tmp_path / "log").read_text(encoding="utf-8")
    assert "第 1 号试验完成" in told
    assert english_in(told.replace("breaths/min", "")) == []


@pytest.mark.parametrize("kind", ["complete", "pruned", "failed", "started"])
def test_each_event_has_its_line(kind: Any) -> None:
    progress = Progress("s", 10, words=SPOKEN["zh"])
    line = event_line(Event(kind, "w", "s", 1, 1, 2, 6, 1.5), progress)

    assert line is not None
    assert english_in(line) == []


def test_the_environment_names_the_language(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_LANG", "zh")
    assert main(["status", "--storage", place.url]) == 0
    assert CHINESE["status.head.finished"] in capsys.readouterr().out
    assert main(["status", "--storage", place.url, "--lang", "en"]) == 0
    assert "finished" in capsys.readouterr().out
    monkeypatch.setenv("HPO_LANG", "fr")
    assert main(["status", "--storage", place.url]) == 2
    assert "no language 'fr'" in capsys.readouterr().err


def test_json_is_the_same_in_every_language(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for language in ("en", "zh"):
        assert main(["compare", NAME, NAME, "--storage", place.url, "--lang", language, "--json"]) == 0
        found.append(json.loads(capsys.readouterr().out))

    assert found[0] == found[1]


def test_columns_of_chinese_stand_below_each_other() -> None:
    lines = columns([("研究", "a"), ("small", "b")])

    assert lines == ["研究   a", "small  b"]


# --- a terminal of 80 columns


@pytest.mark.parametrize("words", [["--help"], ["data", "--help"], ["fleet", "--help"]])
def test_help_says_what_each_command_does_in_whole_sentences(
    words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(words) == 0

    lines = capsys.readouterr().out.splitlines()[1:]  # but the usage
    assert [line for line in lines if line.endswith("...") or len(line) > 80] == []


@given(st.lists(st.text("abcdefgh", min_size=1, max_size=12), min_size=1, max_size=40), st.integers(20, 100))
def test_a_sentence_is_broken_between_words_and_loses_none(words: list[str], columns: int) -> None:
    lines = fitted(" ".join(words), columns)

    assert " ".join(" ".join(lines).split()) == " ".join(words)
    assert all(len(line) <= columns for line in lines)


def test_what_goes_elsewhere_than_to_a_person_stays_whole() -> None:
    line = "a sentence that goes anywhere else than to a person"

    assert fitted(line, None) == [line]


def test_a_baseline_that_is_called_what_it_is_is_named_once(place: Place) -> None:
    engine = open_engine(place.url)
    findings = find_out(engine, NAME)
    engine.dispose()
    baseline = findings.spec.baseline.model_copy(update={"name": "published default"})
    named = replace(findings, spec=findings.spec.model_copy(update={"baseline": baseline}))

    assert sum(line.lower().count("published default") for line in answer_lines(named)) == 1


# --- errors


@pytest.mark.parametrize(
    "words",
    [
        ["report", "--all", NAME],
        ["status", "nowhere"],
        ["report", "--nothing"],
        ["delete"],
        ["delete", "--study", NAME],
        ["rename", "--study", NAME, "--to", "a/b"],
        ["copy", "--study", NAME, "--to", "memory://x"],
        ["confirm", "nowhere"],
        ["check", "nowhere"],
        ["init", "study.yaml"],
        ["run", "study.yaml"],
        ["run", NAME, "--timeout", "4"],
        ["run", NAME, "--device", "abacus"],
    ],
    ids=" ".join,
)
def test_errors_speak_chinese(
    words: list[str],
    place: Place,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPO_LANG", "zh")
    monkeypatch.setenv("HPO_STORAGE", place.url)
    recipe = {"epochs": 0, "patience": "two"}
    Path("study.yaml").write_text(json.dumps({"name": "x", "recipe": recipe, "space": {"lr": 1}}))
    capsys.readouterr()

    assert main(words) == 2

    told = capsys.readouterr().err
    assert told.startswith("错误：")
    own = re.sub("请输入：[^；]*", "", told)
    assert re.findall(r"[A-Za-z]+ [a-z]+ [a-z]+", own) == []  # no sentence of English; names, commands


def test_a_command_without_the_option_speaks_the_language_of_the_environment_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for language, begins in (("en", "error: "), ("zh", "错误："), ("", "error: ")):
        monkeypatch.setenv("HPO_LANG", language)
        assert main(["delete", "--study", "x"]) == 2
        assert capsys.readouterr().err.startswith(begins)
    assert main(["report", "x", "--lang", "zh"]) == 2  # above what the environment says
    assert capsys.readouterr().err.startswith("错误：")
