"""The table of recorded fine-tuning runs that other programs may load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import recorded_runs

    return recorded_runs


@pytest.mark.parametrize(
    ("task", "runs", "epochs"), [("bidmc_hr", 480, 8), ("bidmc_rr", 480, 8), ("ptb-xl", 900, 20)]
)
def test_every_run_and_epoch_has_a_row(recorded: Any, task: str, runs: int, epochs: int) -> None:
    table = recorded.load_runs(task)

    sizes = table.groupby(["lr", "backbone_lr", "loss", "seed"]).size()
    assert len(sizes) == runs == sum(part["runs"] for part in recorded.provenance(task)["parts"])
    assert sizes.max() == epochs
    assert table["epoch"].min() == 1


def test_a_value_is_worse_only_where_its_runs_say_so(recorded: Any) -> None:
    """Ten seeds each: 10 costs nothing, 100 five deviations, and 1 somewhat less than one."""
    rows = [
        {
            "lr": 10.0 * ratio,
            "backbone_lr": 10.0,
            "loss": "l1",
            "seed": seed,
            "validation_loss": level + 0.1 * luck,
        }
        for ratio, level in ((1.0, 1.08), (10.0, 1.0), (100.0, 1.5))
        for seed, luck in enumerate((-1.5, -1.0, -0.7, -0.3, -0.1, 0.1, 0.3, 0.7, 1.0, 1.5))
    ]

    found = list(recorded.standings(recorded.configurations(pd.DataFrame(rows)), "ratio"))

    assert [standing for _, _, standing in found] == ["open", "as good", "worse"]
    assert [round(cost, 6) for _, cost, _ in found] == [0.08, 0.0, 0.5]
