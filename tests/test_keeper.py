"""When checkpoints are written: seldom, beside the training, and always when a run is told to stop."""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from engine_runs import SPEC, ListSource
from test_checkpoint import fresh, whole

from finetune.api import Run, SettingError, train
from finetune.engine import keeper
from finetune.engine.checkpoint import BEST, LAST, Progress, load_best, load_last
from finetune.engine.keeper import EVERY, Keeper, on_host

LONG = replace(SPEC, recipe=replace(SPEC.recipe, epochs=6, patience=6))


class Clock:
    """Time that goes when it is told to."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def keeper_of(folder: Path, told: list[str] | None = None) -> tuple[Keeper, Clock]:
    clock, names = Clock(), [] if told is None else told
    run = Run("a", SPEC, folder, lambda file: names.append(file.name))
    return Keeper(run, Progress(), epochs=True, clock=clock), clock


def kept_epoch(folder: Path) -> int:
    return load_last(folder, SPEC, *fresh(2)).epoch


def test_a_checkpoint_is_written_at_most_once_in_so_many_seconds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EVERY, "10")
    one, clock = keeper_of(tmp_path)
    model, optimizer = fresh(1)
    seen = []
    for epoch, now in enumerate([100.0, 105.0, 109.9, 110.0, 111.0], start=1):
        clock.now = now
        one.take(Progress(epoch), model, optimizer)
        one.wait()
        seen.append(kept_epoch(tmp_path))

    assert seen == [1, 1, 1, 4, 4]
    one.flush()
    assert kept_epoch(tmp_path) == 5


def test_the_best_weights_are_written_only_when_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EVERY, "0")
    told: list[str] = []
    one, _ = keeper_of(tmp_path, told)
    model, optimizer = fresh(1)
    one.take_best(1, model)
    for epoch in (1, 2, 3):
        one.take(Progress(epoch, 1, 1.0), model, optimizer)
        one.wait()
    one.finish()

    assert told == [BEST, LAST, LAST, LAST]
    load_best(tmp_path / BEST, fresh(2)[0])


def test_what_is_written_is_the_end_of_the_epoch_whatever_the_run_does_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begin, real = threading.Event(), keeper.save_state

    def slow(*given: object) -> object:
        assert begin.wait(30)
        return real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(keeper, "save_state", slow)
    one, _ = keeper_of(tmp_path)
    model, optimizer = fresh(1)
    one.take_best(1, model)
    one.take(Progress(1, 1, 1.0), model, optimizer)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
            optimizer.state[parameter]["exp_avg"].zero_()
    assert not (tmp_path / LAST).exists()  # it returned before anything was written
    begin.set()
    one.wait()

    restored, moments = fresh(2)
    assert load_last(tmp_path, SPEC, restored, moments).epoch == 1
    assert whole(restored, moments) == whole(*fresh(1))


def test_an_epoch_that_was_not_settled_does_not_spoil_the_one_before(tmp_path: Path) -> None:
    one, _ = keeper_of(tmp_path)
    model, optimizer = fresh(1)
    one.take(Progress(1), model, optimizer)
    one.take_best(2, model)
    one.take(Progress(2, 2, 1.0), model, optimizer)  # not written: not yet time
    one.take_best(3, fresh(2)[0])
    one.leave()

    restored, moments = fresh(3)
    assert load_last(tmp_path, SPEC, restored, moments).best_epoch == 2
    best = fresh(3)[0]
    load_best(tmp_path / BEST, best)
    assert all(torch.equal(a, b) for a, b in zip(best.parameters(), model.parameters(), strict=True))


def test_a_fault_of_the_writing_ends_the_run_and_is_only_told_where_another_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*given: object) -> object:
        raise OSError("no space left\non the disk")

    monkeypatch.setattr(keeper, "save_state", fail)
    one, _ = keeper_of(tmp_path)
    one.take(Progress(1), *fresh(1))
    with pytest.raises(OSError, match="no space left"):
        one.wait()
    one.take(Progress(2), *fresh(1))
    with caplog.at_level(logging.WARNING):
        one.leave()

    assert "the last epoch of a could not be kept: no space left on the disk" in caplog.text


@pytest.mark.parametrize("text", ["-1", "nan", "inf", "soon"])
def test_seconds_that_are_none_are_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EVERY, text)

    with pytest.raises(SettingError, match=EVERY):
        keeper.every_s()


def test_copies_are_whole_share_nothing_and_keep_what_is_one_tensor_one() -> None:
    count = torch.ones(())
    given = {
        "large": torch.randn(600, 600),
        "turned": torch.randn(3, 4).t(),
        "whole": torch.arange(3),
        "empty": torch.empty(0),
        "a": count,
        "b": count,
    }
    found = on_host(given)

    assert list(found) == list(given)
    assert all(torch.equal(found[name], given[name]) for name in given)
    assert found["a"] is found["b"]
    assert not {one.untyped_storage().data_ptr() for one in found.values() if one.numel()} & {
        one.untyped_storage().data_ptr() for one in given.values()
    }


@pytest.mark.parametrize("slots", [1, 2])
def test_a_run_that_is_stopped_goes_on_from_its_last_whole_epoch(
    slots: int, tmp_path: Path, shared_cache_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EVERY, "1000")

    def trained(source: ListSource) -> ListSource:
        train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu", slots=slots)
        return source

    with pytest.raises(ConnectionError):
        trained(ListSource(Run("a", LONG, tmp_path / "run"), raise_after=5))
    resumed = trained(ListSource(Run("a", LONG, tmp_path / "run")))
    whole_run = trained(ListSource(Run("a", LONG, tmp_path / "whole")))

    assert [report.epoch for report in resumed.reports] == [5, 6]
    assert resumed.curve("a") == whole_run.curve("a")[4:]
    assert (tmp_path / "run" / BEST).read_bytes() == (tmp_path / "whole" / BEST).read_bytes()


KILLED = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from engine_runs import ListSource
from test_keeper import LONG
from finetune.api import Run, train

class Source(ListSource):
    def report(self, reports):
        if reports[0].epoch == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().report(reports)

folder, cache = map(Path, sys.argv[1:])
train(Source(Run("a", LONG, folder / "run")), data_dir=folder, cache_dir=cache, device="cpu")
"""


@pytest.mark.parametrize(("seconds", "goes_on_at"), [("0", {4, 5}), ("1000", {2})])
def test_a_killed_run_goes_on_from_its_last_checkpoint(
    seconds: str,
    goes_on_at: set[int],
    tmp_path: Path,
    shared_cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of epoch 4, which a thread may still be writing, or of epoch 1, if it is long until the second."""
    monkeypatch.setenv(EVERY, seconds)
    monkeypatch.setenv("PYTHONPATH", ":".join(filter(None, sys.path)))
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(shared_cache_dir)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL

    runs = Run("a", LONG, tmp_path / "run"), Run("a", LONG)
    resumed, alone = (ListSource(run) for run in runs)
    for source in (resumed, alone):
        train(source, data_dir=tmp_path, cache_dir=shared_cache_dir, device="cpu")

    assert resumed.reports[0].epoch in goes_on_at
    assert resumed.curve("a") == alone.curve("a")[resumed.reports[0].epoch - 1 :]
    assert resumed.results[0].best_epoch == alone.results[0].best_epoch
