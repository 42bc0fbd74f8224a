"""Studies on signals of a user's own: the YAML, the fingerprint, and the way to an answer."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from test_study_file import GOOD, faults_of, only_fault_of

from finetune.api import Filter, RunSpec
from hpo.cli.app import main
from hpo.study import Configuration, StudySpec, parse_spec, task_of
from hpo.worker import settled

OWN = GOOD.replace(
    "task: bidmc_rr",
    "data: {file: windows.npz, kind: regression, subject: who, split: {grouped: [0.6, 0.2, 0.2]},"
    " rate_hz: 50, unit: bpm, modality: ppg}",
)
ONE = Configuration(1e-4, 1e-5, "mse", 3)


def own_spec(text: str = OWN) -> StudySpec:
    spec, faults = parse_spec(text)
    assert spec is not None, faults
    return spec


def save_windows(folder: Path, people: int = 10, each: int = 12) -> None:
    """Pulses of 10 s at 50 Hz whose label is their rate."""
    rng = np.random.default_rng(0)
    rates = rng.uniform(55, 100, people * each)
    time_s = np.arange(500) / 50
    phase = 2 * np.pi * rates[:, None] / 60 * time_s + rng.uniform(0, 6, (len(rates), 1))
    x = np.sin(phase) + 0.3 * np.sin(2 * phase) + 0.05 * rng.normal(size=phase.shape)
    who = np.repeat([f"p{place}" for place in range(people)], each)
    np.savez(folder / "windows.npz", x=x.astype(np.float32), y=rates, who=who)


def test_the_example_of_the_documentation_is_a_study() -> None:
    page = Path(__file__).resolve().parent.parent / "docs" / "own_data.md"
    example = re.search(r"```yaml\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    assert example is not None

    assert own_spec(example[1]).data is not None


def test_data_name_the_task_of_a_study() -> None:
    spec = own_spec()

    assert (spec.task, spec.what.unit, spec.what.kind) == ("windows", "bpm", "regression")
    assert spec.run_spec(ONE).inputs.own == spec.data.signals()  # type: ignore[union-attr]


def test_a_stored_study_on_own_data_is_read_back() -> None:
    spec = own_spec()
    stored = spec.model_dump(mode="json")

    assert StudySpec.model_validate(stored) == spec
    assert task_of(stored) == spec.what
    assert StudySpec.model_validate(stored).fingerprint() == spec.fingerprint()


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ("{bandpass: [0.5, 8]}", (Filter("bandpass", (0.5, 8.0)),)),
        ("elgendi", (Filter("elgendi"),)),
        ("[{notch: 50}, {highpass: 0.5}]", (Filter("notch", (50.0,)), Filter("highpass", (0.5,)))),
    ],
)
def test_filters_are_written_in_three_ways(filters: str, wanted: tuple[Filter, ...]) -> None:
    spec = own_spec(OWN.replace("unit: bpm", f"unit: bpm, filter: {filters}"))

    assert spec.data is not None
    assert spec.data.signals().filters == wanted


def test_a_window_may_be_a_number_of_seconds_and_classes_whole_numbers() -> None:
    text = OWN.replace("kind: regression", "kind: classes, classes: [1, 2], window: 10").replace(
        "unit: bpm, ", ""
    )
    spec = own_spec(text.replace("mse", "cross_entropy").replace(", l1", ""))

    assert spec.data is not None
    assert (spec.data.signals().window_s, spec.what.classes) == (10.0, ("1", "2"))


@pytest.mark.parametrize("channels", [1, 3])
def test_channels_of_a_file_are_those_that_are_found(channels: int, tmp_path: Path) -> None:
    save_windows(tmp_path)
    spec = settled(own_spec(OWN.replace("unit: bpm", f"unit: bpm, channels: {channels}")), tmp_path)

    assert spec.data is not None
    assert (spec.data.channels, spec.data.window.seconds) == (1, 10.0)  # type: ignore[union-attr]


def test_folds_of_the_data_are_the_folds_of_the_runs() -> None:
    spec = own_spec(re.sub(r"split: {[^}]*}", "split: {folds: 4}", OWN))
    run: RunSpec = spec.run_spec(ONE)

    assert (run.inputs.folds, run.fold) == (4, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("kind: regression", "kind: regresion"), "did you mean regression"),
        (("subject: who", "subjects: who"), "unknown key 'data.subjects'"),
        (("rate_hz: 50", "rate_hz: -1"), "data.rate_hz is -1"),
        (("[0.6, 0.2, 0.2]", "[0.6, 0.2, 0.3]"), "three above 0 that sum to 1"),
        (("unit: bpm", "unit: bpm, filter: {bandpass: [8, 0.5]}"), "ascending"),
        (("loss: [mse, l1]", "loss: [bce]"), "does not fit task 'windows'"),
        (("cmssl_tiny_ppg", "cmssl_tiny_ecg"), "is for ecg signals"),
    ],
)
def test_a_fault_in_data_is_told_with_its_line(change: tuple[str, str], words: str) -> None:
    assert any(words in fault for fault in faults_of(OWN.replace(*change)))


def test_task_and_data_together_are_one_too_many() -> None:
    assert "both task and data" in only_fault_of(OWN.replace("data:", "task: bidmc_rr\ndata:"))


def test_neither_task_nor_data_is_one_too_few() -> None:
    assert "missing key 'task'" in only_fault_of(GOOD.replace("task: bidmc_rr\n", ""))


def test_classes_that_are_found_become_part_of_the_study(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = np.array(["b", "a", "c"] * 40)
    np.savez(tmp_path / "windows.npz", x=rng.normal(size=(120, 500)), y=labels, who=np.arange(120) // 6)
    text = OWN.replace("kind: regression", "kind: classes").replace("unit: bpm, ", "")
    spec = settled(own_spec(text.replace("mse", "cross_entropy").replace(", l1", "")), tmp_path)

    assert spec.what.classes == ("a", "b", "c")
    assert spec.data is not None
    assert spec.data.window is not None
    assert (spec.what.outputs, spec.data.window.seconds) == (3, 10.0)
    assert settled(spec, tmp_path) == spec


@pytest.mark.usefixtures("one_process")
def test_a_search_on_own_signals_ends_in_an_answer_and_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    save_windows(tmp_path)
    text = OWN.replace("subject: who, ", "").replace("baseline:", "recipe: {epochs: 1}\nbaseline:")
    (tmp_path / "mine.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path}/hpo.db")
    places = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache")]

    ran = main(["run", "--study", "./mine.yaml", "--trials", "5", "--workers", "1", *places])
    again = main(["run", "--study", "./mine.yaml", "--trials", "5", "--workers", "1", *places])
    confirmed = main(["confirm", "--study", "./mine.yaml", "--seeds", "1", "--workers", "1", *places])
    status = main(["status"])
    exported = main(["export", "--study", "mine", "--out", "model", *places])
    np.save(tmp_path / "long.npy", np.sin(np.arange(3000) / 6).astype(np.float32))
    capsys.readouterr()
    predicted = main(["predict", "--model", "model", "--input", "long.npy", "--rate", "50"])

    assert (ran, again, confirmed, status, exported, predicted) == (0, 0, 0, 0, 0, 0)
    assert capsys.readouterr().out.startswith("start_s,end_s,windows (bpm)")
    assert "subjects not known" in (tmp_path / "model" / "MODEL_CARD.md").read_text()
