"""A model folder: complete by itself, with the numbers that confirmation saw."""

from __future__ import annotations

import json
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import wfdb

from finetune.api import (
    BackboneSpec,
    CheckpointError,
    DataError,
    InputSpec,
    Recipe,
    Report,
    Run,
    RunResult,
    RunSpec,
    SettingError,
    TestScores,
    export_model,
    predict_signal,
    train,
)
from finetune.datasets.synthetic import RATE_HZ, READER, STRIDE_S, simulate
from finetune.test_split import score_test

SPEC = RunSpec(
    InputSpec("synthetic_hr", train_subjects=1),
    BackboneSpec("cmssl_tiny_ppg", "none"),
    "full_finetuning",
    Recipe(epochs=1, batch_size=64, patience=5),
    lr=1e-3,
    backbone_lr=1e-4,
    loss="l1",
    seed=1_000_000,
)


class Once:
    def __init__(self, run: Run) -> None:
        self.runs = [run]
        self.result: RunResult | None = None

    def next_run(self) -> Run | None:
        return self.runs.pop() if self.runs else None

    def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        return [True] * len(reports)

    def finish(self, result: RunResult) -> None:
        self.result = result


def make_model(folder: Path, cache: Path, spec: RunSpec) -> tuple[Path, TestScores]:
    """Train, score and export ``spec``; returns the model folder and the test scores."""
    source = Once(Run("run", spec, folder / "checkpoint"))
    train(source, data_dir=folder, cache_dir=cache, device="cpu")
    assert source.result is not None
    assert source.result.checkpoint is not None
    scored = score_test(spec, source.result.checkpoint, data_dir=folder, cache_dir=cache, device="cpu")
    out = folder / "model"
    export_model(spec, source.result.checkpoint, out, card="# a card\n", data_dir=folder, cache_dir=cache)
    return out, scored


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, shared_cache_dir: Path) -> tuple[Path, TestScores]:
    return make_model(tmp_path_factory.mktemp("window"), shared_cache_dir, SPEC)


def ppg_of(subject: str) -> np.ndarray:
    return simulate(READER.seed, int(subject)).ppg


def predictions_of(scored: TestScores, subject: str) -> np.ndarray:
    mine = np.array(scored.groups) == subject
    return np.array(scored.predictions)[mine]


@pytest.mark.parametrize("normalisation", ["window", "position"])
def test_predictions_are_those_of_the_confirmation_on_the_same_windows(
    normalisation: str, tmp_path: Path, shared_cache_dir: Path, made: tuple[Path, TestScores]
) -> None:
    if normalisation == "position":
        spec = replace(SPEC, inputs=replace(SPEC.inputs, normalisation="position"))
        made = make_model(tmp_path, shared_cache_dir, spec)
    model, scored = made
    subject = scored.groups[0]
    np.save(tmp_path / "ppg.npy", ppg_of(subject))

    said = predict_signal(model, tmp_path / "ppg.npy", rate_hz=RATE_HZ, stride_s=STRIDE_S, device="cpu")

    expected = predictions_of(scored, subject)
    np.testing.assert_allclose(said.values, expected, rtol=1e-5)
    assert said.columns == ("synthetic_hr (bpm)",)
    assert list(said.start_s)[:3] == [0.0, 3.0, 6.0]


def test_a_csv_a_npy_and_a_wfdb_record_of_one_signal_give_the_same(
    made: tuple[Path, TestScores], tmp_path: Path
) -> None:
    model, scored = made
    ppg = np.round(ppg_of(scored.groups[0])[: 30 * RATE_HZ], 3)
    np.save(tmp_path / "one.npy", ppg)
    np.savetxt(tmp_path / "two.csv", np.stack([0 * ppg, ppg], 1), "%.3f", ",", header="a, PLETH", comments="")
    wfdb.wrsamp(
        "three",
        fs=RATE_HZ,
        units=["NU"],
        sig_name=["PLETH"],
        p_signal=ppg[:, None].astype(np.float64),
        fmt=["16"],
        adc_gain=[1000.0],
        baseline=[0],
        write_dir=str(tmp_path),
    )

    one = predict_signal(model, tmp_path / "one.npy", rate_hz=RATE_HZ, device="cpu")
    two = predict_signal(model, tmp_path / "two.csv", rate_hz=RATE_HZ, column="PLETH", device="cpu")
    three = predict_signal(model, tmp_path / "three.hea", rate_hz=None, device="cpu")

    np.testing.assert_allclose(two.values, one.values, rtol=1e-5)
    np.testing.assert_allclose(three.values, one.values, rtol=1e-5)


def test_another_rate_is_resampled_to_the_models(made: tuple[Path, TestScores], tmp_path: Path) -> None:
    model, _ = made
    time_s = np.arange(30 * 250) / 250
    np.save(tmp_path / "fast.npy", np.sin(2 * np.pi * 1.2 * time_s))
    np.save(tmp_path / "slow.npy", np.sin(2 * np.pi * 1.2 * time_s[::2]))

    fast = predict_signal(model, tmp_path / "fast.npy", rate_hz=250, device="cpu")
    slow = predict_signal(model, tmp_path / "slow.npy", rate_hz=125, device="cpu")

    assert len(fast.values) == len(slow.values)
    np.testing.assert_allclose(fast.values[2:-2], slow.values[2:-2], rtol=0.02)


def test_windows_with_missing_samples_have_no_prediction(
    made: tuple[Path, TestScores], tmp_path: Path
) -> None:
    model, scored = made
    ppg = ppg_of(scored.groups[0])[: 30 * RATE_HZ].copy()
    ppg[:RATE_HZ] = np.nan
    np.save(tmp_path / "gap.npy", ppg)

    said = predict_signal(model, tmp_path / "gap.npy", rate_hz=RATE_HZ, device="cpu")

    is_missing = np.isnan(np.array(said.values)[:, 0])
    assert list(is_missing) == [True] + [False] * (len(is_missing) - 1)


def test_a_model_folder_is_its_owners(made: tuple[Path, TestScores]) -> None:
    out, _ = made

    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in out.iterdir()} == {0o600}


def test_a_model_folder_needs_neither_its_data_nor_the_weights_it_began_with(
    made: tuple[Path, TestScores], tmp_path: Path
) -> None:
    model, _ = made
    config = json.loads((model / "config.json").read_text())

    assert {file.name for file in model.iterdir()} == {"weights.safetensors", "config.json", "MODEL_CARD.md"}
    assert config["rate_hz"] == RATE_HZ
    assert config["window_samples"] == 1250
    assert set(config["label_scale"]) == {"mean", "std"}
    assert str(tmp_path.anchor + "tmp") not in (model / "config.json").read_text()


@pytest.mark.parametrize(
    ("name", "content", "column", "message"),
    [
        ("x.csv", "a,b\n1,2\n", None, "no column named; expected one of a, b"),
        ("x.csv", "a,b\n1,2\n", "c", "no column 'c'; expected one of a, b"),
        ("x.csv", "a\nword\n", "a", r"x\.csv cannot be read"),
        ("x.csv", "", "a", r"x\.csv cannot be read"),
        ("x.npy", "no array", None, r"x\.npy cannot be read"),
        ("x.wav", "RIFF", None, r"x\.wav is no signal"),
        ("x.hea", "no header", None, r"x\.hea cannot be read"),
        ("x.csv", "a\n\n\n", "a", "holds no number"),
        ("x.csv", "1\n2\n3\n", None, r"x\.csv cannot be read \(its first line is 1\)"),
        ("x.csv", "t,PLETH\nr1,0,1\n", "PLETH", "line 2 has 3 fields"),
        ("x.csv", "t;PLETH\n0;0,5\n", "PLETH", "parted by semicolons"),
        ("x.csv", "a,a\n1,2\n", "a", "2 columns are named 'a'"),
    ],
)
def test_a_broken_signal_is_named(
    name: str, content: str, column: str | None, message: str, made: tuple[Path, TestScores], tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)

    with pytest.raises(DataError, match=message):
        predict_signal(made[0], tmp_path / name, rate_hz=125, column=column, device="cpu")


def write_record(folder: Path, lines: Sequence[str]) -> Path:
    """Write a WFDB record of as many signals as ``lines``, 3,000 samples at 125 Hz."""
    wave = (1000 * np.sin(np.arange(3000)[:, None] / 20 + np.arange(len(lines)))).astype("<i2")
    (folder / "r.hea").write_text("\n".join([f"r {len(lines)} 125 3000", *lines, ""]))
    (folder / "r.dat").write_bytes(wave.tobytes())
    return folder / "r.hea"


@pytest.mark.parametrize("line", ["r.dat 16", "r.dat 16 1000/mV", "r.dat 16 1000/mV 16 0 0 0 0"])
def test_what_is_optional_in_a_wfdb_header_may_be_left_out(
    line: str, made: tuple[Path, TestScores], tmp_path: Path
) -> None:
    one = write_record(tmp_path, [line])
    assert len(predict_signal(made[0], one, rate_hz=None, device="cpu").values) > 0

    two = write_record(tmp_path, [line, line])
    with pytest.raises(DataError, match="no column named; expected one of 0, 1"):
        predict_signal(made[0], two, rate_hz=None, device="cpu")
    assert len(predict_signal(made[0], two, rate_hz=None, column="1", device="cpu").values) > 0


def test_a_signal_shorter_than_a_window_is_refused(made: tuple[Path, TestScores], tmp_path: Path) -> None:
    np.save(tmp_path / "short.npy", np.ones(1000))

    with pytest.raises(SettingError, match=r"the signal has 8 s; expected at least 10 s"):
        predict_signal(made[0], tmp_path / "short.npy", rate_hz=125, device="cpu")


def test_a_folder_that_is_no_model_is_refused_and_one_that_holds_other_files_is_not_overwritten(
    made: tuple[Path, TestScores], tmp_path: Path, shared_cache_dir: Path
) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    np.save(tmp_path / "x.npy", np.ones(2000))
    weights = made[0] / "weights.safetensors"

    with pytest.raises(CheckpointError, match="cannot be read"):
        predict_signal(tmp_path, tmp_path / "x.npy", rate_hz=125, device="cpu")
    with pytest.raises(SettingError, match="holds other files"):
        export_model(SPEC, weights, tmp_path, card="", data_dir=tmp_path, cache_dir=shared_cache_dir)
    assert (tmp_path / "thesis.txt").exists()
