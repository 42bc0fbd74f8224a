"""A broken file of each format ends ``hpo run`` in one clear line and exit status 2, without a database."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bidmc_files import write_subject
from makers import cpsc2018, csn, physionet2017, ppg_bp, ppg_dalia, ptb, ptbxl, uci_bp, wesad

from finetune.datasets import READERS
from finetune.tasks import TASKS
from hpo.cli.app import main


def write_bidmc_of_four(data_dir: Path) -> Path:
    """Write subjects of every split, their signals gzipped."""
    for subject in (20, 42, 11, 8):
        write_subject(data_dir / "bidmc", subject, gzipped=True)
    return data_dir / "bidmc"


CASES: list[tuple[str, Callable[[Path], Path], str]] = [
    ("bidmc_hr", write_bidmc_of_four, "bidmc_csv/bidmc_11_Signals.csv.gz"),
    ("bidmc_hr", write_bidmc_of_four, "bidmc_csv/bidmc_11_Numerics.csv"),
    ("bidmc_rr", write_bidmc_of_four, "bidmc_csv/bidmc_11_Breaths.csv"),
    ("ppg_dalia_hr", ppg_dalia.write, "PPG_FieldStudy/S3/S3.pkl"),
    ("uci_sbp", uci_bp.write, "uci2_dataset/signal_fold_1.mat"),
    ("uci_dbp", uci_bp.write_raw, "Part_2.mat"),
    ("ptb-xl", ptbxl.write, "records100/00000/00004_lr.dat"),
    ("ptb-xl", ptbxl.write, "records100/00000/00004_lr.hea"),
    ("physionet2017", physionet2017.write, "training2017/A00003.mat"),
    ("physionet2017", physionet2017.write, "training2017/A00003.hea"),
    ("physionet2017", physionet2017.write_zip, "training2017.zip"),
    ("csn", csn.write, "WFDBRecords/01/010/JS00004.mat"),
    ("csn", csn.write, "WFDBRecords/01/010/JS00004.hea"),
    ("ppg_bp_sbp", ppg_bp.write, "Data File/0_subject/4_2.txt"),
    ("ppg_bp_dbp", ppg_bp.write, "Data File/PPG-BP dataset.xlsx"),
    ("wesad", wesad.write, "WESAD/S3/S3.pkl"),
    ("ptb", ptb.write, "patient003/s0030_re.dat"),
    ("ptb", ptb.write, "patient003/s0030_re.hea"),
    ("cpsc2018", cpsc2018.write, "training/cpsc_2018/g1/A0004.mat"),
    ("cpsc2018", cpsc2018.write, "training/cpsc_2018/g1/A0004.hea"),
]


def test_a_file_of_every_data_set_is_broken() -> None:
    assert {TASKS[task].dataset for task, *_ in CASES} == {*READERS} - {"synthetic"}


def complaint(tmp_path: Path, task: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Return the one line that a study of ``task`` ends with."""
    places = ["--data", str(tmp_path), "--cache", str(tmp_path / "cache")]
    storage = f"sqlite:///{tmp_path}/hpo.db"
    status = main(["run", "--study", task, "--trials", "1", "--allow-partial", "--storage", storage, *places])
    told = capsys.readouterr()

    assert status == 2, told.err
    assert told.out == ""
    assert not (tmp_path / "hpo.db").exists()
    (line,) = (line for line in told.err.splitlines() if not line.endswith(" ..."))  # on a slow machine
    return line


@pytest.mark.parametrize(("task", "write", "name"), CASES, ids=[f"{case[0]}-{case[2]}" for case in CASES])
def test_a_truncated_file_is_one_line_that_names_it_and_says_what_to_do(
    tmp_path: Path,
    task: str,
    write: Callable[[Path], Path],
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write(tmp_path) / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    line = complaint(tmp_path, task, capsys)

    assert line.startswith("error: ")
    assert Path(name).stem in line
    assert "hpo data get" in line


class CallsOnLoad:
    """A pickle that would call ``os.system``."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> Any:
        return os.system, (self.command,)


def test_a_pickle_that_would_run_a_command_is_refused_and_runs_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    marker = tmp_path / "was-here"
    root = ppg_dalia.write(tmp_path)
    content = {"signal": CallsOnLoad(f"touch {marker}")}
    ppg_dalia.path_of(root, "S1").write_bytes(pickle.dumps(content, 2))

    line = complaint(tmp_path, "ppg_dalia_hr", capsys)

    assert "S1.pkl was refused, and nothing in it was run" in line
    assert not marker.exists()
