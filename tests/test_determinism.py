"""The same bits again: what is set while runs train, and given back; which GPU is the current one."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_runs import SPEC, ListSource
from typer.testing import CliRunner

from finetune.api import NoDeviceError, Report, Run, train
from finetune.engine import devices
from finetune.engine.devices import DETERMINISTIC, open_device, reproducible
from hpo.cli.app import app


class Watching(ListSource):
    """Notes what is set while an epoch is reported."""

    def report(self, reports: list[Report]) -> list[bool]:  # type: ignore[override]  # lists here
        self.seen = torch.are_deterministic_algorithms_enabled()
        return list(super().report(reports))


@pytest.fixture
def search(shared_cache_dir: Path, tmp_path: Path):
    def call() -> Watching:
        source = Watching(Run("a", SPEC), prune_after=1)
        train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu")
        return source

    return call


def test_a_run_that_asks_for_it_has_it_alone_and_the_numbers_of_one_that_does_not(search, monkeypatch):
    monkeypatch.delenv(DETERMINISTIC, raising=False)
    free = search()
    monkeypatch.setenv(DETERMINISTIC, "1")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    bound = search()

    assert (free.seen, bound.seen) == (False, True)
    assert not torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert bound.curve("a") == free.curve("a")


def test_what_was_set_is_given_back_after_a_fault(monkeypatch):
    monkeypatch.setenv(DETERMINISTIC, "true")
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    before = torch.utils.deterministic.fill_uninitialized_memory

    def fail() -> None:
        with reproducible():
            assert not torch.utils.deterministic.fill_uninitialized_memory
            raise RuntimeError("an epoch failed")

    with pytest.raises(RuntimeError, match="an epoch failed"):
        fail()
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory == before
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":16:8"


def test_the_option_reaches_the_processes_that_a_command_starts(monkeypatch, tmp_path):
    monkeypatch.setenv(DETERMINISTIC, "0")
    CliRunner().invoke(app, ["worker", "--deterministic", "--storage", str(tmp_path / "none.db")])

    assert os.environ[DETERMINISTIC] == "1"


def test_the_gpu_that_is_named_is_the_current_one(monkeypatch):
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: chosen.append(device))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)

    assert open_device("cuda:1") == torch.device("cuda:1")
    assert open_device("cuda") == torch.device("cuda:0")
    assert chosen == [torch.device("cuda:1"), torch.device("cuda:0")]


BUSY = "CUDA error: all CUDA-capable devices are busy or unavailable\nSearch for more in the manual"
OLD = "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU driver."


def test_a_gpu_that_cannot_be_opened_is_told_in_one_line_before_any_run(monkeypatch):
    def refuse(device: torch.device) -> None:
        raise torch.AcceleratorError(BUSY)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", refuse)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)

    with pytest.raises(NoDeviceError, match=r"'cuda' cannot be opened .*busy or unavailable") as caught:
        open_device("cuda")

    assert "manual" not in str(caught.value)


def test_why_there_is_no_gpu_is_said(monkeypatch, caplog):
    def refuse() -> None:
        raise RuntimeError(OLD)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    monkeypatch.setattr(devices, "has_gpu", lambda: False)
    assert open_device("auto") == torch.device("cpu")
    assert caplog.messages == []

    monkeypatch.setattr(devices, "has_gpu", lambda: True)
    assert open_device("auto") == torch.device("cpu")
    assert len(caplog.messages) == 1
    assert "driver on your system is too old" in caplog.text
    with pytest.raises(NoDeviceError, match=r"'cuda' is not there .*driver on your system is too old"):
        open_device("cuda")


@pytest.mark.parametrize(
    ("file", "chosen", "is_there"),
    [
        ("nvidia0", None, True),
        ("nvidia3", "GPU-aa", True),
        ("dxg", None, True),
        ("nvidiactl", None, False),
        ("nvidia0", "", False),
        ("nvidia0", "-1", False),
        ("nvidia0", "NoDevFiles", False),
    ],
)
def test_a_gpu_is_there_unless_it_was_taken_away(monkeypatch, tmp_path, file, chosen, is_there):
    (tmp_path / file).touch()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if chosen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", chosen)

    assert devices.has_gpu(tmp_path) == is_there


@pytest.mark.parametrize(
    ("precision", "has", "warns"), [("bf16", False, 1), ("bf16", True, 0), ("fp32", False, 0)]
)
def test_bf16_is_warned_of_on_a_processor_without_it(
    monkeypatch, caplog, shared_cache_dir, tmp_path, precision, has, warns
):
    monkeypatch.setattr(devices, "has_bf16", lambda device: has)
    run = Run("a", replace(SPEC, recipe=replace(SPEC.recipe, precision=precision)))
    with caplog.at_level(logging.WARNING, "finetune"):
        train(ListSource(run, prune_after=1), data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu")

    assert len([one for one in caplog.records if "fp32" in one.getMessage()]) == warns
