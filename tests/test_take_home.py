"""From a search to a model folder with the real trainer: the whole way on the command line."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest

from finetune.datasets.synthetic import RATE_HZ, READER, STRIDE_S, simulate
from hpo.cli.app import main
from hpo.confirm.confirmed import Confirmation, newest_confirmation
from hpo.storage import open_engine

STUDY = """\
name: home
task: synthetic_hr
inputs: {train_subjects: 1}
backbone: {name: cmssl_tiny_ppg, weights: none}
recipe: {epochs: 1, batch_size: 256, patience: 5}
space:
  lr: {low: 1e-4, high: 1e-2}
  backbone_lr: {low: 1e-5, high: 1e-2}
  loss: [mse, l1]
sampler: {kind: random}
baseline: {name: published default, lr: 1e-4, backbone_lr: 1e-5, loss: mse}
"""


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    status = main(words)
    told = capsys.readouterr()

    assert status == 0, told.err
    return told.out


def stored(url: str) -> Confirmation:
    engine = open_engine(url)
    found = newest_confirmation(engine, "home")
    engine.dispose()
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("one_process")
def test_a_search_is_confirmed_exported_and_predicts_what_the_confirmation_saw(
    tmp_path: Path,
    shared_cache_dir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home.yaml").write_text(STUDY)
    url, model = f"sqlite:///{tmp_path}/hpo.db", tmp_path / "model"
    place = ("--storage", url, "--data", str(tmp_path), "--cache", str(shared_cache_dir), "--device", "cpu")

    said(capsys, "run", "--study", "./home.yaml", "--trials", "4", "--workers", "1", *place)
    untested = json.loads(said(capsys, "export", "--study", "home", "--out", str(model), *place, "--json"))
    choice = ("--study", "home", "--top", "1", "--seeds", "2", "--workers", "1")
    told = json.loads(said(capsys, "confirm", *choice, *place, "--json"))
    tested = json.loads(said(capsys, "export", "--study", "home", "--out", str(model), *place, "--json"))

    assert untested["origin"] == "trained again"
    assert tested["origin"] == "confirmed"
    assert told["test_looks"] == 1
    assert "looked at once" in said(capsys, "confirm", *choice, *place)
    card = (model / "MODEL_CARD.md").read_text()
    assert "This run on the test split (6 subjects): mae" in card
    assert "Trained on synthetic signals." in card

    found = stored(url)
    subject = found.scores.groups[0]
    np.save(tmp_path / "ppg.npy", simulate(READER.seed, int(subject)).ppg)
    signal = ("--input", str(tmp_path / "ppg.npy"), "--rate", str(RATE_HZ), "--stride", str(STRIDE_S))
    rows = list(csv.reader(io.StringIO(said(capsys, "predict", "--model", str(model), *signal))))

    assert rows[0] == ["start_s", "end_s", "synthetic_hr (bpm)"]
    run = next(one for one in found.scores.scores if (one.arm, one.seed) == (0, tested["seed"]))
    expected = run.predictions[found.scores.groups == subject][:, 0]
    np.testing.assert_allclose([float(row[2]) for row in rows[1:]], expected, rtol=1e-5)
