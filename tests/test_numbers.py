"""Values with their errors, as texts."""

from __future__ import annotations

import math

import pytest

from hpo.numbers import quantity, rate, ratio, rounded, with_error, within


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (0.44962, 0.0774, "0.450 ± 0.077"),
        (1.4424, 0.83, "1.44 ± 0.83"),
        (3.0514, 0.0996, "3.05 ± 0.10"),
        (16.92, 12.3, "17 ± 12"),
        (120.4, 0.5, "120.40 ± 0.50"),
        (0.418, 0.00012, "0.41800 ± 0.00012"),
        (1234.5, 140.0, "1234 ± 140"),
        (25314.0, 120.0, "25310 ± 120"),
        (25314.0, None, "25310"),
        (0.5, 3e-9, "0.5 ± 3e-09"),
        (2.349123, None, "2.349"),
        (2.349123, 0.0, "2.349"),
        (2.349123, math.nan, "2.349"),
    ],
)
def test_a_value_has_the_digits_that_its_error_allows(value: float, error: float | None, text: str) -> None:
    assert with_error(value, error) == text


@pytest.mark.parametrize(
    ("three", "text"),
    [
        ((1.5830, 0.7012, 2.6315), "1.58 [0.70, 2.63]"),
        ((-2.5095, -5.2308, 0.2118), "-2.5 [-5.2, 0.2]"),
        ((-0.0356, -3.0583, 0.1994), "0.0 [-3.1, 0.2]"),
        ((31415.9, 29000.0, 33000.0), "31420 [29000, 33000]"),
    ],
)
def test_an_interval_has_the_digits_that_its_width_allows(
    three: tuple[float, float, float], text: str
) -> None:
    assert within(*three) == text


def test_unit_and_sign_are_shown_where_asked_for() -> None:
    assert with_error(0.2, 0.05, "bpm", sign="+") == "+0.200 ± 0.050 bpm"
    assert with_error(-0.2, None, "bpm", sign="+") == "-0.2 bpm"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (2.5219, "2.522 bpm"),
        (25314.0, "25310 bpm"),
        (120.0, "120 bpm"),
        (-31415.9, "-31420 bpm"),
        (4e7, "4e+07 bpm"),
    ],
)
def test_a_quantity_has_four_digits_and_no_exponent_where_it_is_of_ordinary_size(
    value: float, text: str
) -> None:
    assert quantity(value, "bpm") == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(6.31e-4, "6.3e-4"), (1e-5, "1e-5"), (0.05, "0.05"), (9.96e-6, "1e-5"), (1.0, "1"), (9.999e-3, "0.01")],
)
def test_a_rate_has_two_digits_and_a_short_exponent(value: float, text: str) -> None:
    assert rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0822, "0.082"), (90.4, "90"), (118.0, "120"), (1234.0, "1200"), (2.1e-5, "2.1e-5"), (4e6, "4e6")],
)
def test_a_ratio_has_no_exponent_where_it_is_of_ordinary_size(value: float, text: str) -> None:
    assert ratio(value) == text


def test_a_measured_loss_has_the_digits_that_the_seeds_leave_it() -> None:
    assert rounded(3.36812, 0.31, "bpm") == "3.37 bpm"
    assert rounded(3.36812, None) == "3.368"
    assert rounded(3.36812, 0.0) == "3.368"
