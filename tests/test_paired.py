"""Verdicts on paired runs: what chance alone gives, and what is found."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from hpo.confirm.paired import adjust, compare, detectable, holm, interval, sign_flip_p, verdict

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
    said = [verdict(found := compare(*arms(rng, 0.0), WINDOWS), found.p) for _ in range(200)]

    assert sum(one != "cannot be told apart" for one in said) <= 14  # 5 %, and its own chance


def test_a_gain_of_two_standard_deviations_is_found() -> None:
    rng = np.random.default_rng(2)
    said = [verdict(found := compare(*arms(rng, 2.0), WINDOWS), found.p) for _ in range(50)]

    assert said.count("better") >= 45
    assert said.count("worse") == 0


def test_five_seeds_never_say_anything() -> None:
    loss, other = arms(np.random.default_rng(3), gain=50.0, seeds=5)

    found = compare(loss, other, WINDOWS)

    assert found.p == pytest.approx(2 / 2**5)
    assert verdict(found, 0.0) == "cannot be told apart"


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
    assert verdict(found, found.p) == "cannot be told apart"


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


def test_the_choice_is_tested_first_and_the_others_count_only_behind_it() -> None:
    assert adjust([0.03, 0.01, 0.02]) == pytest.approx([0.03, 0.03, 0.03])
    assert adjust([0.2, 0.001, 0.002]) == pytest.approx([0.2, 0.2, 0.2])
    assert adjust([0.001, 0.02, 0.03]) == pytest.approx([0.001, 0.04, 0.04])
    assert adjust([0.04]) == [0.04]
