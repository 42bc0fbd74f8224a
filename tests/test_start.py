"""``hpo init`` writes what runs; ``hpo check`` sees what a search would not."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from finetune.checking import looked_at
from hpo.cli.app import main
from hpo.starter import ENCODER
from hpo.study import studies_folder

FAULTY = {
    "not_repeatable": "return self.second(self.first(x)).mean(dim=-1) + torch.rand(1)",
    "batch_mates_matter": "h = self.second(self.first(x)).mean(dim=-1); return h - h.mean(dim=0)",
    "no_gradient_backbone": "return self.second(self.first(x)).mean(dim=-1).detach()",
    "constant_features": "return self.second(self.first(0 * x)).mean(dim=-1)",
    "part_without_gradient": "return self.first(x).mean(dim=-1)",
    "state_not_kept": (
        "h = self.second(self.first(x)).mean(dim=-1); self.m = getattr(self, 'm', 0) + "
        "self.training * h.mean().detach(); return h - self.m"
    ),
    "not_finite": "return self.second(self.first(x)).mean(dim=-1) * float('nan')",
}


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that ``hpo init`` has made, with its data."""
    folder = tmp_path / "a place"
    monkeypatch.setenv("HPO_STORAGE", f"sqlite:///{tmp_path}/hpo.db")
    monkeypatch.setenv("HPO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HPO_CODE", str(folder / "code"))
    assert main(["init", str(folder), "--name", "first"]) == 0
    subprocess.run([sys.executable, str(folder / "make_windows.py")], check=True)
    return folder


@pytest.mark.usefixtures("one_process")
def test_what_init_writes_is_checked_and_searched(start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(start / "study.yaml")
    capsys.readouterr()

    checked = main(["check", study])
    said = capsys.readouterr().out
    ran = main(["run", "--study", study, "--trials", "4", "--workers", "1"])

    assert (checked, ran) == (0, 0)
    assert "ready" in said.splitlines()[-1]
    assert "to beat: always" in said
    assert " s an epoch of" in said


def test_init_replaces_nothing(start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (start / "study.yaml").write_text("mine")

    assert main(["init", str(start)]) == 2

    assert "is there already" in capsys.readouterr().err
    assert (start / "study.yaml").read_text() == "mine"


@pytest.mark.parametrize("fault", FAULTY)
def test_check_names_what_is_wrong_with_an_encoder(
    fault: str, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = "return self.dropout(self.second(self.first(x)).mean(dim=-1))"
    assert good in ENCODER
    broken = "import torch\n" + ENCODER.replace(good, FAULTY[fault])
    (start / "code" / "my_encoder.py").write_text(broken)
    capsys.readouterr()

    status = main(["check", str(start / "study.yaml"), "--json"])
    found = json.loads(capsys.readouterr().out)

    assert fault in found["faults"]
    assert status == (0 if fault == "part_without_gradient" else 2)
    assert found["ready"] is (status == 0)


@pytest.mark.parametrize(("mflop", "windows"), [(0.0, 32), (68.0, 32), (136.0, 16), (1e6, 2)])
def test_a_check_looks_at_fewer_windows_of_a_larger_encoder(mflop: float, windows: int) -> None:
    assert looked_at(mflop) == windows


def test_a_large_encoder_is_checked_on_few_windows(start: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = "return self.dropout("
    large = "torch.ones(1000, 1000) @ torch.ones(1000, 1000); assert len(x) <= 2; " + good
    (start / "code" / "my_encoder.py").write_text("import torch\n" + ENCODER.replace(good, large))
    capsys.readouterr()

    assert main(["check", str(start / "study.yaml"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["epoch_s"] > 0


@pytest.mark.parametrize(("losses", "steps"), [("lower", 3), ("not lower", 10)])
def test_a_large_encoder_is_built_once_and_takes_few_steps(
    losses: str, steps: int, start: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good, built = "return self.dropout(", "def build(weights, width=32):"
    large = (
        "torch.ones(1000, 1000) @ torch.ones(1000, 1000); print('pass', len(x), self.training, file=err); "
    )
    code = "import torch\nfrom sys import stderr as err\n" + ENCODER.replace(good, large + good)
    code = code if losses == "lower" else code.replace(".mean(dim=-1)", ".mean(dim=-1) * float('nan')")
    code = code.replace(built, f"{built}\n    print('built', file=err)")
    (start / "code" / "my_encoder.py").write_text(code)
    capsys.readouterr()

    main(["check", str(start / "study.yaml"), "--json"])
    said, told = capsys.readouterr()
    assert json.loads(said)["steps"] == steps
    assert told.count("built\n") == 1
    assert told.count("pass 2 True\n") == 1 + steps


def test_a_check_imports_no_compiler(start: Path) -> None:
    study, code = str(start / "study.yaml"), str(start / "code")
    script = f"import sys; from hpo.cli.app import main; main(['check', {study!r}, '--code', {code!r}]); "
    heavy = "print([name for name in ('torch._dynamo', 'sympy', 'triton') if name in sys.modules])"

    found = subprocess.run(
        [sys.executable, "-c", script + heavy], capture_output=True, text=True, check=True
    ).stdout
    assert found.splitlines()[-1] == "[]"


@pytest.mark.parametrize("mode", ["linear_probing", "linear_probing_cached"])
def test_a_frozen_encoder_is_checked_as_it_trains(
    mode: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = tmp_path / "study.yaml"
    text = (studies_folder() / "synthetic_hr.yaml").read_text(encoding="utf-8")
    study.write_text(text.replace("full_finetuning", mode).replace("1250}", "1250, train_subjects: 3}"))

    assert main(["check", str(study), "--cache", str(tmp_path / "cache"), "--json"]) == 0

    told = json.loads(capsys.readouterr().out)
    assert told["ready"]
    assert told["loss_after"] < told["loss_before"]


def test_a_shipped_study_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "synthetic_hr", "--data", str(tmp_path), "--cache", str(tmp_path / "cache")]) == 0

    said = capsys.readouterr().out
    (losses,) = re.findall(r"training loss from (\S+) to (\S+)", said)
    assert "cmssl_tiny_ppg" in said
    assert losses[0] != losses[1]  # as many digits as show what the steps did
