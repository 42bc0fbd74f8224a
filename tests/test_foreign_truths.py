"""The benchmark's foreign landscapes: what they call true is true, and a wrong zone is seen."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hpo.analysis.matters import Mattering
from hpo.analysis.zones import Standing, WorthSource, Zone, Zones

pytestmark = pytest.mark.whole_posterior

NOISE = 0.03


@pytest.fixture
def foreign(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import foreign_landscapes

    return foreign_landscapes


def test_half_of_the_families_and_more_are_only_judged_on(foreign: Any) -> None:
    kinds = [foreign.kind_of(name) for name in foreign.FAMILIES]

    assert kinds.count("own") == 5
    assert len(kinds) - 5 >= 16
    assert 2 * kinds.count("judged") >= len(kinds)


def test_every_family_has_a_best_place_on_each_axis(foreign: Any) -> None:
    for name, make in foreign.FAMILIES.items():
        truth = make(np.random.default_rng(1), NOISE)

        for axis in ("lr", "backbone_lr", "ratio"):
            place, excess = truth.excess(axis)

            assert (np.diff(place) > 0).all(), name
            assert excess.min() == 0, name


@pytest.mark.parametrize(("name", "free"), [("ridge_lr", "backbone_lr"), ("ridge_backbone", "lr")])
def test_on_a_ridge_one_rate_is_free_and_the_other_is_not(foreign: Any, name: str, free: str) -> None:
    for seed in range(3):
        truth = foreign.FAMILIES[name](np.random.default_rng(seed), NOISE)
        costs = {axis: truth.excess(axis)[1].max() for axis in ("lr", "backbone_lr")}

        assert costs.pop(free) == pytest.approx(0, abs=1e-9)
        assert min(costs.values()) > NOISE


def test_the_ratio_of_the_best_place_costs_nothing(foreign: Any) -> None:
    truth = foreign.FAMILIES["notch"](np.random.default_rng(2), NOISE)
    lr, slow, _ = np.unravel_index(np.argmin(truth.values), truth.values.shape)
    ratio, excess = truth.excess("ratio")
    own = truth.excess("lr")[0][lr] - truth.excess("backbone_lr")[0][slow]

    assert excess[np.argmin(np.abs(ratio - own))] == 0


def test_the_mean_of_many_runs_is_the_expected_loss(foreign: Any) -> None:
    for name in ("skewed", "heavy_tailed", "failures", "noise_backbone", "slow_starters"):
        truth = foreign.FAMILIES[name](np.random.default_rng(3), NOISE)
        rng = np.random.default_rng(4)
        lows = [truth.curve(-3.5, -4.5, 1, rng).min() for _ in range(2000)]
        expected = truth.expected(np.array(-3.5), np.array(-4.5), np.array(1))

        assert abs(np.mean(lows) - expected) < 4 * np.std(lows) / np.sqrt(len(lows)), name


@pytest.mark.parametrize(("shift", "is_wrong"), [(0.1, False), (0.4, True)])
def test_a_zone_is_wrong_from_a_fifth_of_a_decade_on(foreign: Any, shift: float, is_wrong: bool) -> None:
    truth = foreign.FAMILIES["ridge_ratio"](np.random.default_rng(5), NOISE)
    ratio, excess = truth.excess("ratio")
    good = ratio[excess <= NOISE]

    ends = [ratio[0] - 1, good.min() - 1e-9, good.max() + shift, ratio[-1] + 1]
    standings = (Standing.WORSE, Standing.AS_GOOD, Standing.WORSE)
    pieces = tuple(map(Zone, ends, ends[1:], standings))
    likely = (Zone(ends[0], ends[-1], Standing.OPEN),)

    found = foreign.zones_of(truth, SimpleNamespace(zones=Zones(pieces, NOISE, WorthSource.SEED_SD, likely)))

    assert (found["resolved"], found["likely_resolved"]) == (1.0, 0.0)
    assert found["likely_zone_wrong"] == 0.0
    assert (found["zone_wrong"] > foreign.NEAR_DECADES) == is_wrong
    assert found["zone_wrong"] == pytest.approx(shift, abs=0.03)


@pytest.mark.parametrize(
    ("name", "said", "is_false"),
    [
        ("backbone_lr", "does_not_matter", False),
        ("backbone_lr", "matters", True),
        ("lr", "does_not_matter", True),
        ("lr", "matters", False),
        ("lr", "open", False),
        ("backbone_lr", "open", False),
    ],
)
def test_a_verdict_is_false_where_a_decade_off_costs_otherwise(
    foreign: Any, name: str, said: str, is_false: bool
) -> None:
    truth = foreign.FAMILIES["ridge_lr"](np.random.default_rng(5), NOISE)
    place, excess = truth.excess(name)
    best = float(place[np.argmin(excess)])
    verdict = SimpleNamespace(best=best, standing=Mattering(said), zones=SimpleNamespace(worth=NOISE))

    assert foreign._is_false(truth, SimpleNamespace(matters={name: verdict}), name) == is_false
