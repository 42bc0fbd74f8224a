"""Verdicts on paired runs: what chance alone gives, and what is found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hpo.confirm.paired import Comparison, compare, detectable, doubt, holm, interval, sign_flip_p
from hpo.confirm.verdicts import Doubt, Look

WINDOWS = np.full(6, 50.0)


def arms(
    rng: np.random.Generator, gain: float, seeds: int = 10, between: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Return losses (S, U) of two arms: people differ, seeds are noise, the first is better by ``gain``."""
    people = 5 + between * rng.standard_normal(6)
    noise = rng.standard_normal((2, seeds, 1)) + 0.3 * rng.standard_normal((2, seeds, 6))
    first, second = (people + noise) * WINDOWS
    return first - gain * WINDOWS, second


def test_the_difference_and_its_test_are_those_of_the_runs() -> None:
    loss, other = arms(np.random.default_rng(0), gain=1.0)
    by_seed = (loss - other).sum(axis=1) / WINDOWS.sum()

    found = compare(loss, other, WINDOWS)

    assert found.difference == pytest.approx(by_seed.mean())
    expected = stats.permutation_test(
        (by_seed,), np.mean, permutation_type="samples", n_resamples=np.inf
    ).pvalue
    assert found.p == pytest.approx(expected)
    assert found.low < found.difference < found.high


def test_equal_arms_are_seldom_called_different() -> None:
    rng = np.random.default_rng(1)
    said = [doubt(found := compare(*arms(rng, 0.0), WINDOWS), found.p) for _ in range(200)]

    assert said.count(None) <= 14  # 5 %, and its own chance


def test_a_gain_of_two_standard_deviations_is_found() -> None:
    rng = np.random.default_rng(2)
    found = [compare(*arms(rng, 2.0), WINDOWS) for _ in range(50)]

    assert [doubt(one, one.p) for one in found].count(None) >= 45
    assert all(one.difference < 0 for one in found)


def told(**changes: float) -> Comparison:
    """Return a comparison that is real, but for what is changed."""
    parts = {"difference": -1.0, "low": -1.5, "high": -0.5, "strict_low": -1.5, "strict_high": -0.5}
    kept: dict[str, float] = {**parts, "p": 0.01, "seeds": 10, "units": 6, "detectable": 1.0, **changes}
    return Comparison(**kept)  # type: ignore[arg-type]  # counts are whole numbers


@pytest.mark.parametrize(
    ("seeds", "look", "said"),
    [
        (5, 1, Doubt.FEW_SEEDS),
        (6, 1, None),
        (6, 2, Doubt.FEW_SEEDS),
        (7, 2, None),
        (14, 10, Doubt.FEW_SEEDS),
        (15, 10, None),
    ],
)
def test_every_look_needs_one_seed_more(seeds: int, look: int, said: Doubt | None) -> None:
    assert doubt(told(seeds=seeds), 0.0, Look(look)) == said


@pytest.mark.parametrize("look", [1, 2, 3, 10])
def test_with_the_fewest_seeds_of_a_look_the_smallest_p_is_just_enough(look: int) -> None:
    least = Look(look).min_seeds

    assert 2 / 2**least <= Look(look).level < 2 / 2 ** (least - 1)


@pytest.mark.parametrize("look", [1, 2, 3])
def test_the_level_of_a_look_is_a_limit_on_either_side(look: int) -> None:
    level = 2 * 0.05 / 2**look

    assert doubt(told(), level, Look(look)) is None
    assert doubt(told(), level * 1.0001, Look(look)) == Doubt.CHANCE


def test_all_looks_together_spend_five_percent() -> None:
    spent = [Look(number).alpha for number in range(1, 60)]

    assert spent[:3] == [0.025, 0.0125, 0.00625]
    assert sum(spent) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-1.0, -0.01, None), (-1.0, 0.0, Doubt.INTERVAL), (0.0, 1.0, Doubt.INTERVAL), (0.01, 1.0, None)],
)
def test_an_interval_that_reaches_zero_says_nothing(low: float, high: float, said: Doubt | None) -> None:
    assert doubt(told(strict_low=low, strict_high=high), 0.001) == said


def test_later_looks_have_wider_intervals_and_smaller_p_is_needed() -> None:
    loss, other = arms(np.random.default_rng(3), gain=1.0)

    first, second = (compare(loss, other, WINDOWS, Look(number)) for number in (1, 2))

    assert (first.low, first.high) == (first.strict_low, first.strict_high)
    assert (first.low, first.high) == (second.low, second.high)
    assert second.strict_low < first.strict_low < first.strict_high < second.strict_high
    assert first.detectable is not None
    assert second.detectable is not None
    assert second.detectable > first.detectable


@pytest.mark.parametrize("look", [1, 3])
def test_an_interval_holds_the_truth_as_often_as_it_says(look: int) -> None:
    rng = np.random.default_rng(12)
    level = Look(look).level
    held = [
        found.strict_low <= 0 <= found.strict_high
        for found in (compare(*arms(rng, 0.0), WINDOWS, Look(look)) for _ in range(600))
    ]

    missed = 1 - np.mean(held)
    error = np.sqrt(level * (1 - level) / len(held))
    assert level / 4 < missed < level + 3 * error


def test_two_people_who_happen_to_be_alike_are_not_taken_for_all() -> None:
    rng, windows = np.random.default_rng(13), np.full(2, 50.0)
    said = []
    for _ in range(600):
        people = rng.standard_normal((2, 1, 2)) + 0.5 * rng.standard_normal((2, 10, 1))
        found = compare(*(people * windows), windows)
        said.append(doubt(found, found.p) is None and found.difference < 0)

    assert np.mean(said) <= 0.025 + 3 * np.sqrt(0.025 * 0.975 / 600)


def test_an_arm_against_itself_has_no_difference() -> None:
    loss, _ = arms(np.random.default_rng(4), gain=0.0)

    found = compare(loss, loss, WINDOWS)

    assert (found.difference, found.low, found.high, found.p) == (0.0, 0.0, 0.0, 1.0)


def test_an_improvement_on_one_person_only_is_not_called_better() -> None:
    loss, other = arms(np.random.default_rng(5), gain=0.0)
    loss[:, 1:] = other[:, 1:]
    loss[:, 0] = other[:, 0] - 5 * WINDOWS[0]

    found = compare(loss, other, WINDOWS)

    assert found.p < 0.01
    assert found.high >= 0
    assert doubt(found, found.p) == Doubt.INTERVAL


def test_an_interval_widens_with_the_people_that_differ() -> None:
    rng = np.random.default_rng(6)
    alike, unlike = (arms(rng, 0.0, between=between)[0] for between in (0.1, 3.0))

    (low, high), (lower, higher) = interval(alike, WINDOWS), interval(unlike, WINDOWS)

    assert higher - lower > 2 * (high - low)


def test_holm_adjusts_as_published() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([]) == []
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_many_seeds_are_flipped_at_random_and_give_nearly_the_same_p() -> None:
    differences = 0.6 + np.random.default_rng(7).standard_normal(20)

    p = sign_flip_p(differences)

    assert p == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=0.02)


def test_the_detectable_difference_is_found_four_times_in_five() -> None:
    rng = np.random.default_rng(8)
    noise = rng.standard_normal((400, 10))
    gains = np.array([detectable(row) for row in noise])

    found = [
        stats.ttest_1samp(row + gain, 0).pvalue < 0.05 for row, gain in zip(noise[::-1], gains, strict=True)
    ]

    assert np.mean(found) == pytest.approx(0.8, abs=0.08)
    assert detectable(noise[0, :5]) is None  # with five seeds no p is under 0.05


def test_a_difference_that_varies_with_the_subject_is_harder_to_detect() -> None:
    rng = np.random.default_rng(9)
    steady = arms(rng, 0.0)
    taste = 3 * rng.standard_normal(len(WINDOWS)) * WINDOWS

    uneven = compare(steady[0] + taste, steady[1], WINDOWS)

    assert (uneven.detectable or 0) > 2 * (compare(*steady, WINDOWS).detectable or 0)
