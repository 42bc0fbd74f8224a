"""Rules on draws of the landscape: where the next trial is worth most."""

from __future__ import annotations

import numpy as np
import pytest

from hpo.analysis.box import Box, Floats, Lattice
from hpo.search.acquisition import _reach, best_point, decision

pytestmark = pytest.mark.whole_posterior

LATTICE = Lattice.of(Box((-4.0, -2.0), (-5.0, -3.0), ("mse", "l1")), 0.5)
SEEDS = range(5)


def draws_of(
    means: dict[tuple[int, int, int], float], sds: dict[tuple[int, int, int], float], seed: int
) -> Floats:
    """Draws of a landscape that is 3 everywhere and known, but for some places."""
    rng = np.random.default_rng(seed)
    draws = np.full((48, 2, *LATTICE.feasible.shape), 3.0)
    for place, mean in means.items():
        draws[:, *place] = mean + sds.get(place, 0.0) * rng.standard_normal(48)
    draws[:, :, ~LATTICE.feasible] = np.inf
    return draws


def place_of(point: Floats) -> tuple[int, int, int]:
    row, column = (int(np.argmin(np.abs(axis - at))) for axis, at in
                   ((LATTICE.lr, point[0]), (LATTICE.ratio, point[1])))  # fmt: skip
    return int(point[2]), row, column


KNOWN, CLOSE, FAR = (0, 1, 3), (1, 3, 5), (0, 3, 2)


def test_a_trial_is_worth_nothing_where_everything_is_known() -> None:
    told = decision(LATTICE, draws_of({KNOWN: 1.0}, {}, 0), noise=0.1)

    assert told.max() < 1e-12


@pytest.mark.parametrize("seed", SEEDS)
def test_it_is_worth_most_where_the_choice_may_change(seed: int) -> None:
    draws = draws_of({KNOWN: 1.0, CLOSE: 1.1, FAR: 2.9}, {CLOSE: 0.3, FAR: 0.3}, seed)

    told = decision(LATTICE, draws, noise=0.01)

    assert place_of(best_point(LATTICE, draws, 0.01, "decision")) == CLOSE
    assert told[CLOSE] > 10 * told[FAR]
    assert told[KNOWN] < 1e-9


@pytest.mark.parametrize("seed", SEEDS)
def test_the_noisier_a_trial_the_less_it_is_worth(seed: int) -> None:
    draws = draws_of({KNOWN: 1.0, CLOSE: 1.1}, {CLOSE: 0.3}, seed)

    worth = [decision(LATTICE, draws, noise)[CLOSE] for noise in (0.0, 0.1, 1.0, 10.0)]

    assert sorted(worth, reverse=True) == worth
    assert worth[0] > 2 * worth[-1]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_doubtful_leader_is_worth_another_seed(seed: int) -> None:
    draws = draws_of({KNOWN: 1.0, CLOSE: 1.05}, {KNOWN: 0.3}, seed)

    assert place_of(best_point(LATTICE, draws, 0.01, "decision")) == KNOWN


def test_a_trials_news_fades_with_distance_and_is_less_for_another_loss() -> None:
    places = np.array([KNOWN, (0, 1, 5), (1, 1, 3)])  # itself, a decade off in the ratio, the other loss

    told = _reach(LATTICE, places[:1], places)

    np.testing.assert_allclose(told, [[1.0, np.exp(-0.5), 0.7]])


def test_an_improvement_is_what_lies_below_the_lowest_mean() -> None:
    lattice = Lattice.of(Box((-4.0, -2.0), (-5.0, -3.0), ("mse", "l1")), 1.0)
    draws = np.full((40, 2, *lattice.feasible.shape), 1.0)
    draws[:20, 1, 1, 1], draws[20:, 1, 1, 1] = -1.0, 2.5

    found = best_point(lattice, draws, 0.01, "improvement")

    np.testing.assert_array_equal(found, lattice.place(1, lattice.lr[1], lattice.ratio[1]))


@pytest.mark.parametrize("rule", ["decision", "confidence", "information", "improvement", "thompson"])
def test_no_rule_leaves_the_box(rule: str) -> None:
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((48, 2, *LATTICE.feasible.shape))
    draws[:, :, ~LATTICE.feasible] = np.inf

    _, row, column = place_of(best_point(LATTICE, draws, 0.1, rule))  # type: ignore[arg-type]

    assert LATTICE.feasible[row, column]
