"""A study where people keep their records: what is read back is what was written."""

from __future__ import annotations

import csv
import json
import math
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from small_study import NAME, Place, finished_study, small_spec

from hpo.cli.app import main
from hpo.reading.findings import find_out
from hpo.records.live import open_record, recording
from hpo.records.study import StudyRecord, TrialRecord, record_of
from hpo.storage import open_engine
from hpo.worker import work


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return finished_study(tmp_path, total=8, below=7)


@pytest.fixture
def study(place: Place) -> StudyRecord:
    engine = open_engine(place.url)
    found = record_of(find_out(engine, NAME), place.url)
    engine.dispose()
    return found


def exported(place: Place, to: str) -> Path:
    out = place.folder / "out"
    assert main(["export", NAME, "--to", to, "--out", str(out), "--storage", place.url]) == 0
    return out


def test_a_record_holds_every_trial_that_was_begun_with_its_curve(study: StudyRecord, place: Place) -> None:
    assert [trial.number for trial in study.trials] == list(range(7))
    assert {trial.state for trial in study.trials} <= {"complete", "pruned"}
    for trial in study.trials:
        assert len(trial.curve) == trial.results["epochs"]
        assert isinstance(trial.parameters["seed"], int)
    assert study.answer["study"] == NAME


def test_tables_read_back_equal(place: Place, study: StudyRecord) -> None:
    out = exported(place, "csv")

    rows = list(csv.DictReader((out / "trials.csv").read_text(encoding="utf-8").splitlines()))
    assert len(rows) == len(study.trials)
    for row, trial in zip(rows, study.trials, strict=True):
        assert (int(row["number"]), row["state"], row["loss"]) == (
            trial.number,
            trial.state,
            trial.parameters["loss"],
        )
        assert float(row["lr"]) == trial.parameters["lr"]
        assert {key: float(row[key]) for key in trial.results} == dict(trial.results)
    curves = list(csv.DictReader((out / "curves.csv").read_text(encoding="utf-8").splitlines()))
    assert len(curves) == sum(len(trial.curve) for trial in study.trials)
    assert json.loads((out / "answer.json").read_text()) == json.loads(json.dumps(study.answer))
    assert json.loads((out / "study.json").read_text())["name"] == NAME


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of mlflow's own use of SQLAlchemy
def test_mlflow_reads_back_equal_and_a_second_export_adds_what_is_new(
    place: Place, study: StudyRecord
) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    out = exported(place, "mlflow")
    exported(place, "mlflow")

    check_mlflow(tracking, out, study)


def check_mlflow(tracking: Any, out: Path, study: StudyRecord) -> None:
    client = tracking.MlflowClient(tracking_uri=f"sqlite:///{out}/mlflow.db")
    experiment = client.get_experiment_by_name(NAME)
    runs = {run.data.tags["hpo.run"]: run for run in client.search_runs([experiment.experiment_id])}
    assert len(runs) == len(client.search_runs([experiment.experiment_id])) == len(study.trials) + 1
    for trial in study.trials:
        run = runs[str(trial.number)]
        assert float(run.data.params["lr"]) == trial.parameters["lr"]
        assert int(run.data.params["seed"]) == trial.parameters["seed"]
        assert {key: run.data.metrics[key] for key in trial.results} == dict(trial.results)
        history = client.get_metric_history(run.info.run_id, "validation_loss")
        assert {(m.step, m.value) for m in history} == losses(trial)
        assert run.info.status == {"complete": "FINISHED", "pruned": "KILLED"}[trial.state]


def losses(trial: Any) -> set[tuple[int, float]]:
    known = [(epoch.epoch, epoch.values.get("validation_loss")) for epoch in trial.curve]
    return {(epoch, value) for epoch, value in known if value is not None}


def test_tensorboard_reads_back_equal(place: Place, study: StudyRecord) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    util = pytest.importorskip("tensorboard.util.tensor_util")
    check_tensorboard(events, util, exported(place, "tensorboard"), study)


def check_tensorboard(events: Any, util: Any, out: Path, study: StudyRecord) -> None:
    for trial in study.trials:
        found = events.EventAccumulator(str(out / NAME / f"{trial.number:05d}"), size_guidance={"tensors": 0})
        found.Reload()
        read = {
            (event.step, float(util.make_ndarray(event.tensor_proto)))
            for event in found.Tensors("validation_loss")
        }
        assert read == losses(trial)
        for name, value in trial.results.items():
            (event,) = found.Tensors(name)
            assert float(util.make_ndarray(event.tensor_proto)) == value


def wandb_records(file: Path) -> Iterator[bytes]:
    """Give the records of an offline run: a LevelDB log (blocks of 32 KiB, parts of 7 bytes and a text)."""
    content, place, whole = file.read_bytes(), 7, b""
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack("<HB", content[place + 4 : place + 7])
        part = content[place + 7 : place + 7 + length]
        whole = part if kind in {1, 2} else whole + part
        place += 7 + length
        if kind in {1, 4}:
            yield whole


def test_wandb_reads_back_equal(place: Place, study: StudyRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    protocol = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    check_wandb(protocol, exported(place, "wandb"), study)


def check_wandb(protocol: Any, out: Path, study: StudyRecord) -> None:
    expected, deadline = {trial.number: losses(trial) for trial in study.trials}, time.monotonic() + 20
    while wandb_losses(protocol, out) != expected and time.monotonic() < deadline:
        time.sleep(0.2)  # its own process writes the last file's end

    assert wandb_losses(protocol, out) == expected


def wandb_losses(protocol: Any, out: Path) -> dict[int, set[tuple[int, float]]]:
    read: dict[int, set[tuple[int, float]]] = {}
    for file in out.glob("wandb/offline-run-*/run-*.wandb"):
        number = int(file.stem.rpartition("-")[2])
        for content in wandb_records(file):
            record = protocol.Record()
            record.ParseFromString(content)
            if record.HasField("history"):
                row = {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }
                if "validation_loss" in row:
                    read.setdefault(number, set()).add((row["epoch"], row["validation_loss"]))
    return read


# --- while it runs


def logged(place: Place, to: str, *, killed_first: bool = False) -> tuple[Path, StudyRecord, list[str]]:
    """Search with a record that looks often; return where it is, what it should hold, and what was said."""
    place.open(5)
    place.behave(epoch_s=0.02)
    out, said = place.folder / "records", list[str]()
    fingerprint = small_spec().fingerprint()
    if killed_first:
        with (
            suppress(KeyboardInterrupt),
            recording(
                place.url, NAME, {to: open_record(to, NAME, fingerprint, out)}, said.append, look_s=0.02
            ),
        ):
            work(place.url, [NAME], below=2, settings=place.settings(timeout_s=0.2))
            raise KeyboardInterrupt
    with recording(
        place.url, NAME, {to: open_record(to, NAME, fingerprint, out)}, said.append, look_s=0.02
    ) as finish:
        work(place.url, [NAME], settings=place.settings())
        engine = open_engine(place.url)
        findings = find_out(engine, NAME)
        finish(findings)
        engine.dispose()
    return out, record_of(findings, place.url), said


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("killed_first", [False, True])
def test_mlflow_written_while_it_runs_reads_back_equal(tmp_path: Path, killed_first: bool) -> None:
    tracking = pytest.importorskip("mlflow.tracking")
    out, study, said = logged(Place(tmp_path), "mlflow", killed_first=killed_first)

    check_mlflow(tracking, out, study)
    assert said == []


@pytest.mark.parametrize("killed_first", [False, True])
def test_tensorboard_written_while_it_runs_reads_back_equal(tmp_path: Path, killed_first: bool) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    util = pytest.importorskip("tensorboard.util.tensor_util")
    out, study, said = logged(Place(tmp_path), "tensorboard", killed_first=killed_first)

    check_tensorboard(events, util, out, study)
    assert said == []


def test_wandb_written_while_it_runs_reads_back_equal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    protocol = pytest.importorskip("wandb.proto.wandb_internal_pb2")
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    out, study, said = logged(Place(tmp_path), "wandb")

    check_wandb(protocol, out, study)
    assert said == []


@dataclass
class Kept:
    """A record that keeps what it is given, and breaks at a trial."""

    breaks_at: int = -1
    given: list[TrialRecord] = field(default_factory=list)

    def trial(self, trial: TrialRecord) -> None:
        if trial.number == self.breaks_at:
            raise OSError("the disk is full")
        self.given.append(trial)


def test_a_trial_is_told_while_it_runs_and_every_epoch_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept()
    monkeypatch.setattr("hpo.records.live.OPENED", {"kept": lambda *_: kept})
    _, study, _ = logged(Place(tmp_path), "kept")

    last = {trial.number: trial for trial in kept.given}
    assert [last[trial.number] for trial in study.trials] == list(study.trials)
    assert any(trial.state == "running" and trial.curve for trial in kept.given)
    seen = [(trial.number, trial.state, len(trial.curve), trial.attempt) for trial in kept.given]
    assert len(set(seen)) == len(seen), "nothing is written that was written"


def test_a_record_that_breaks_ends_and_the_search_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Kept(breaks_at=2)
    monkeypatch.setattr("hpo.records.live.OPENED", {"kept": lambda *_: kept})
    _, study, said = logged(Place(tmp_path), "kept")

    assert len(study.trials) == 5
    assert said == ["records of kept end here (OSError: the disk is full)"]


def test_a_format_that_is_not_known_is_told_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["run", "synthetic_rr", "--trials", "1", "--storage", str(tmp_path / "a.db")]

    assert main([*words, "--log-to", "excel", "--log-dir", str(tmp_path)]) == 2
    assert "no record 'excel'" in capsys.readouterr().err
    assert not (tmp_path / "a.db").exists()


@pytest.mark.parametrize(
    ("to", "told"),
    [
        ("excel", "no format 'excel'; expected model, csv, mlflow, tensorboard, wandb"),
        ("csv", "cannot write to"),
    ],
)
def test_what_cannot_be_written_is_one_line(
    to: str, told: str, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    out = place.folder / "file"
    out.write_text("not a folder")

    assert main(["export", NAME, "--to", to, "--out", str(out), "--storage", place.url]) == 2
    assert told in capsys.readouterr().err
    assert math.isfinite(out.stat().st_size)
