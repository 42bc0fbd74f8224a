"""The measurement of a GPU: its cells in their order, and what is left of it when one of them goes wrong."""

from __future__ import annotations

import json
import os
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import gpu

    return gpu


def options_of(gpu: Any, monkeypatch: pytest.MonkeyPatch, *words: str) -> Namespace:
    monkeypatch.setattr("sys.argv", ["gpu.py", *words])
    options: Namespace = gpu.parsed()
    return options


def test_a_cell_that_takes_too_long_is_ended_with_its_process(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = gpu.Server(options_of(gpu, monkeypatch, "--rehearse"))
    started: list[int] = []
    real = server.end
    monkeypatch.setattr(server, "end", lambda: (started.append(server._process.pid), real()))

    row = server.row(gpu.Cell("user"), 0.0)

    assert row["error"] == "ended: it took longer than 0 s"
    assert row["kind"] == "user"
    with pytest.raises(ProcessLookupError):
        os.kill(started[0], 0)


def test_a_process_that_dies_leaves_its_error_and_the_next_begins(
    gpu: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = gpu.Server(options_of(gpu, monkeypatch, "--device", "cuda:77"))

    assert server.row(gpu.Cell("user"), 600.0)["error"] == "its process died (exit status 1)"
    assert server._process is None  # the next row starts another


class Counted:
    """Stands for the process: the second cell fails, the third takes long."""

    def __init__(self, options: Namespace) -> None:
        self.limits: list[float] = []

    def row(self, cell: Any, limit_s: float) -> dict[str, object]:
        self.limits.append(limit_s)
        return {"kind": cell.kind} | ({"error": "no"} if len(self.limits) == 2 else {})

    def end(self) -> None:
        self.limits.append(-1.0)


def test_the_file_has_every_cell_so_far_and_says_how_many_are_left(
    gpu: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    options = options_of(gpu, monkeypatch, "--out", str(tmp_path / "gpu.json"), "--encoders", "tiny")
    times = iter([0.0, 10.0, 20.0, 470.0, 481.0])
    servers: list[Counted] = []
    own = {**vars(gpu.time), "monotonic": lambda: next(times)}  # not the clock of other threads
    monkeypatch.setattr(gpu, "time", SimpleNamespace(**own))
    monkeypatch.setattr(gpu, "Server", lambda options: servers.append(Counted(options)) or servers[0])

    gpu.measure_all(options)

    told = json.loads((tmp_path / "gpu.json").read_text())
    wanted = [cell for cell in gpu.cells() if gpu.is_wanted(cell, options)]
    assert [row["kind"] for row in told["rows"]] == ["equality", "user", "ours"]
    assert "error" in told["rows"][1]
    assert told["cells_left"] == len(wanted) - 3
    assert servers[0].limits == [100.0, 100.0, 10.0 + gpu.LAST_S, -1.0]  # the last within the whole's bound


def test_the_most_important_cells_come_first_and_each_once(gpu: Any) -> None:
    cells = gpu.cells()
    kinds = [cell.kind for cell in cells]

    assert len(set(cells)) == len(cells)
    assert kinds[:4] == ["equality", "user", "ours", "graph"]
    assert kinds.index("search") < 25
    assert {cell.kind for cell in cells[:35]} == set(kinds)
