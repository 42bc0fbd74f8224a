"""Zones of an axis, what matters, support and the fit: each threshold from both of its sides."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from hpo.analysis import _verdict
from hpo.analysis.box import Box, Lattice
from hpo.analysis.choice import is_supported
from hpo.analysis.fitting import MOST_RMS, ModelFit, model_fit
from hpo.analysis.matters import Mattering, matters_of
from hpo.analysis.ratio import ratio_curve
from hpo.analysis.zones import Standing, WorthSource, Zones, disagreement, zones_of

pytestmark = pytest.mark.whole_posterior

Floats = NDArray[np.float64]
AXIS = np.linspace(0.0, 3.0, 31)
BOX = Box((-5.0, -2.0), (-6.0, -3.0), ("mse", "l1"))
LATTICE = Lattice.of(BOX)
WORTH = 0.1


def zones(profiles: Floats, worth: float = WORTH) -> Zones:
    return zones_of(AXIS, profiles, worth, WorthSource.SEED_SD)


def raised(draws: int, by: float, *, of: int = 200, where: Floats = AXIS >= 2.0) -> Floats:
    """Return flat profiles (of, J); so many of them are higher by something in a part of the axis."""
    profiles = np.zeros((of, len(AXIS)))
    profiles[:draws, where] = by
    return profiles


@pytest.mark.parametrize(
    ("draws", "standing"),
    [
        (5, Standing.AS_GOOD),
        (6, Standing.OPEN),
        (194, Standing.OPEN),
        (195, Standing.WORSE),
    ],
)
def test_a_value_is_as_good_or_worse_from_97_5_per_cent_of_the_draws(draws: int, standing: Standing) -> None:
    found = zones(raised(draws, 2 * WORTH))

    assert found.at(2.5) is standing
    assert found.at(1.0) is Standing.AS_GOOD


@pytest.mark.parametrize(
    ("draws", "standing"),
    [
        (40, Standing.AS_GOOD),
        (41, Standing.OPEN),
        (159, Standing.OPEN),
        (160, Standing.WORSE),
    ],
)
def test_a_value_is_likely_as_good_or_worse_from_80_per_cent_of_the_draws(
    draws: int, standing: Standing
) -> None:
    found = zones(raised(draws, 2 * WORTH))
    (last,) = [piece for piece in found.likely if piece.high == 3.0]

    assert found.at(2.5) is Standing.OPEN
    assert last.standing is standing
    assert [(piece.low, piece.standing) for piece in found.leaning] == (
        [] if standing is Standing.OPEN else [(pytest.approx(1.95), standing)]
    )


def test_what_is_sure_does_not_lean() -> None:
    found = zones(raised(200, 2 * WORTH))

    assert found.likely == found.pieces
    assert found.leaning == ()


@pytest.mark.parametrize(("rise", "standing"), [(0.999, Standing.AS_GOOD), (1.001, Standing.WORSE)])
def test_what_costs_no_more_than_the_worth_is_as_good(rise: float, standing: Standing) -> None:
    assert zones(raised(200, rise * WORTH)).at(2.5) is standing


def test_zones_cover_the_axis_and_what_is_not_open_is_resolved() -> None:
    profiles = raised(100, 1.0, where=AXIS >= 1.5)
    profiles[:, AXIS >= 2.4] = 2.0

    found = zones(profiles)

    assert [piece.standing for piece in found.pieces] == [Standing.AS_GOOD, Standing.OPEN, Standing.WORSE]
    assert found.pieces[0].low == 0.0
    assert found.pieces[-1].high == 3.0
    assert all(one.high == other.low for one, other in zip(found.pieces, found.pieces[1:], strict=False))
    assert found.resolved == pytest.approx(1 - 0.9 / 3.0)
    assert found.as_good == (0.0, pytest.approx(1.45))


@pytest.mark.parametrize(("places", "standing"), [(2, Standing.OPEN), (3, Standing.WORSE)])
def test_a_piece_of_a_step_or_two_that_is_worse_is_open(places: int, standing: Standing) -> None:
    profiles = raised(100, 1.0, where=AXIS >= 1.0)
    profiles[:, 20 : 20 + places] = 1.0

    found = zones(profiles)

    assert found.at(float(AXIS[20])) is standing
    assert found.at(1.2) is Standing.OPEN
    assert len(found.pieces) == (2 if standing is Standing.OPEN else 4)


@pytest.mark.parametrize(
    ("places", "draws", "pieces"),
    [(2, 190, 1), (2, 189, 3), (3, 190, 3)],
    ids=["narrow and all but sure", "narrow and doubtful", "wide"],
)
@pytest.mark.parametrize("rise", [0.0, 2 * WORTH], ids=["as good", "worse"])
def test_a_gap_of_a_step_or_two_in_a_zone_is_the_zones(
    places: int, draws: int, pieces: int, rise: float
) -> None:
    profiles = np.zeros((200, len(AXIS)))
    profiles[:, AXIS >= 1.0] = rise
    profiles[draws:, 20 : 20 + places] = 2 * WORTH - rise

    found = zones(profiles)

    assert len([piece for piece in found.pieces if piece.high > 1.0]) == pieces
    assert (found.at(float(AXIS[20])) is Standing.OPEN) is (pieces == 3)


def test_where_nothing_is_known_every_draw_is_lowest_elsewhere_and_nothing_is_called_worse() -> None:
    profiles = 5 * WORTH * np.random.default_rng(0).standard_normal((400, len(AXIS)))

    assert {piece.standing for piece in zones(profiles).pieces} == {Standing.OPEN}


def test_two_runs_disagree_where_one_is_sure_and_the_other_far_from_it() -> None:
    sure, doubtful, echo = raised(195, 1.0), raised(159, 1.0), raised(160, 1.0)

    assert disagreement(AXIS, (sure, doubtful), WORTH) == pytest.approx(1.1)
    assert disagreement(AXIS, (doubtful, sure), WORTH) == pytest.approx(1.1)
    assert disagreement(AXIS, (sure, echo), WORTH) == 0


@pytest.mark.parametrize(("spread", "identified"), [(1.49, True), (1.51, False)])
def test_a_best_ratio_is_identified_up_to_half_of_the_narrower_range(spread: float, identified: bool) -> None:
    best = 1.0 + spread * np.linspace(-0.5, 0.5, 401) / 0.95  # its 95 % interval is as wide as the spread
    draws = (LATTICE.ratio - best[:, None]) ** 2 + 0 * LATTICE.lr[:, None, None]
    draws = np.where(LATTICE.feasible, np.moveaxis(draws, 0, 1), np.inf)[:, None]

    curve = ratio_curve(LATTICE, draws.mean(axis=0), draws)

    low, high = curve.interval
    assert high - low == pytest.approx(spread, abs=0.01)
    assert curve.identified is identified


@pytest.mark.parametrize(
    ("lead", "error", "noise", "verdict"),
    [
        (1.97, 1.0, 0.1, "beats"),
        (1.95, 1.0, 0.1, "cannot be told"),
        (1.01, 0.1, 1.0, "beats"),
        (0.99, 0.1, 1.0, "cannot be told"),
        (0.81, 0.1, 1.0, "cannot be told"),
        (0.80, 0.1, 1.0, "does not beat"),
    ],
)
def test_a_constant_is_beaten_by_1_96_standard_errors_and_a_seeds_deviation(
    lead: float, error: float, noise: float, verdict: str
) -> None:
    assert _verdict(lead, error, noise) == verdict


def landscapes(values: Floats) -> Floats:
    """Return draws (20, L, I, J) of one landscape (I, J) for both losses."""
    whole = np.where(LATTICE.feasible, values, np.inf)
    return np.broadcast_to(whole, (20, 2, *whole.shape)).copy()


LR = LATTICE.lr[:, None] + 0 * LATTICE.ratio
BACKBONE_LR = LATTICE.lr[:, None] - LATTICE.ratio


@pytest.mark.parametrize(
    ("values", "matters", "does_not"),
    [
        ((LR + 3.5) ** 2, {"lr"}, {"backbone_lr", "ratio"}),
        ((BACKBONE_LR + 4.5) ** 2, {"backbone_lr"}, {"lr", "ratio"}),
        ((LR - BACKBONE_LR - 1.0) ** 2, {"ratio"}, {"lr", "backbone_lr"}),
        ((LR + 3.5) ** 2 + (BACKBONE_LR + 4.5) ** 2, {"lr", "backbone_lr", "ratio"}, set()),
        (0 * LR, set(), {"lr", "backbone_lr", "ratio"}),
    ],
    ids=["ridge of lr", "ridge of backbone_lr", "ridge of the ratio", "bowl", "nothing"],
)
def test_on_a_ridge_only_what_crosses_it_matters(
    values: Floats, matters: set[str], does_not: set[str]
) -> None:
    found = matters_of(LATTICE, landscapes(values), WORTH, WorthSource.STUDY)

    assert {name for name, one in found.items() if one.standing is Mattering.MATTERS} == matters
    assert {name for name, one in found.items() if one.standing is Mattering.DOES_NOT_MATTER} == does_not


def test_a_decade_off_costs_what_the_landscape_rises_and_nothing_is_said_outside_the_search() -> None:
    found = matters_of(LATTICE, landscapes((LR + 2.5) ** 2), WORTH, WorthSource.STUDY)["lr"]

    assert found.best == pytest.approx(-2.5, abs=0.05)
    told = found.to_json()
    assert (told["best"], told["decade_up"]) == (10**found.best, None)
    assert found.down is not None
    assert told["decade_down"]["value"] == found.down.value
    assert found.down.value == pytest.approx(1.0, abs=0.1)
    assert found.down.low <= found.down.value <= found.down.high
    assert found.up is None


@pytest.mark.parametrize(
    ("cost", "spread", "standing"),
    [
        (0.99, 0.4, Mattering.DOES_NOT_MATTER),
        (1.01, 0.4, Mattering.OPEN),
        (0.5, 1.45, Mattering.DOES_NOT_MATTER),
        (0.5, 1.55, Mattering.OPEN),
        (2.0, 1.05, Mattering.OPEN),
        (2.0, 0.95, Mattering.MATTERS),
    ],
)
def test_a_rate_matters_by_what_a_decade_off_costs_and_how_sure_that_is(
    cost: float, spread: float, standing: Mattering
) -> None:
    far = np.abs(LR + 3.5) > 0.5
    sizes = cost + spread / 0.95 * np.linspace(-1, 1, 200)  # quantiles of 2.5 and 97.5 %: cost -+ spread
    draws = np.where(far, WORTH * sizes[:, None, None], 0.0)
    draws = np.where(LATTICE.feasible, draws, np.inf)[:, None]

    found = matters_of(LATTICE, draws, WORTH, WorthSource.STUDY)

    assert found["lr"].standing is standing


@pytest.mark.parametrize(
    ("lr", "backbone_lr", "loss"), [(0.31, 0, 0), (0, 0.31, 0), (0.29, -0.31, 0), (0, 0, 1)]
)
def test_a_place_without_a_trial_of_its_loss_near_in_both_rates_is_not_supported(
    lr: float, backbone_lr: float, loss: int
) -> None:
    tried = np.array([[-3.0, 1.5, 0.0]])
    asked = tried + np.array([[lr, lr - backbone_lr, loss]])

    assert not is_supported(asked, tried)[0]


@pytest.mark.parametrize(("lr", "backbone_lr"), [(0.3, 0.0), (0.0, 0.3), (0.3, -0.3), (-0.29, 0.29)])
def test_a_place_with_a_trial_within_a_factor_of_two_in_both_rates_is_supported(
    lr: float, backbone_lr: float
) -> None:
    tried = np.array([[-3.0, 1.5, 1.0]])

    assert is_supported(tried + np.array([[lr, lr - backbone_lr, 0.0]]), tried)[0]


@pytest.mark.parametrize(
    ("fit", "fits"),
    [
        (ModelFit(50, 0.86, 1.0, 0.0), True),
        (ModelFit(50, 0.84, 1.0, 0.0), False),
        (ModelFit(11, 9 / 11, 1.0, 0.0), True),
        (ModelFit(11, 7 / 11, 1.0, 0.0), False),
        (ModelFit(50, 1.0, MOST_RMS, 0.0), True),
        (ModelFit(50, 1.0, MOST_RMS + 0.01, 0.0), False),
        (ModelFit(50, 0.95, 1.0, 0.2), True),
        (ModelFit(50, 0.95, 1.0, 0.3), False),
        (ModelFit(50, 0.95, 1.0, None), True),
    ],
)
def test_a_model_fits_if_left_out_trials_are_where_it_says_and_two_runs_agree(
    fit: ModelFit, fits: bool
) -> None:
    assert fit.fits is fits


def test_a_left_out_trial_is_within_its_interval_up_to_1_96_standard_deviations() -> None:
    error, sd = np.array([1.95, -1.95, 1.97, -1.97]), np.ones(4)

    assert model_fit(error, sd, None).within_95 == 0.5
