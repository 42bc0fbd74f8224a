"""The answer of a study, on trials whose truth is known."""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import Kernel, Matern

from hpo.analysis import answer
from hpo.analysis.basin import _stretched, basin
from hpo.analysis.box import Box, Lattice
from hpo.analysis.cloud import Cloud
from hpo.analysis.evidence import Scale, gather, thinned
from hpo.analysis.landscape import draw_landscapes
from hpo.analysis.leaders import leaders
from hpo.analysis.likelihood import KERNEL, LEVEL_VARIANCE, Half, Problem, covariance, problem_of
from hpo.analysis.modes import Mode, Proposal
from hpo.analysis.noise import replicate_sd, shares
from hpo.analysis.outlook import Foretold, Regression
from hpo.analysis.posterior import draw_parameters, fit_surrogates
from hpo.analysis.ratio import _indistinguishable, bowl_minimum
from hpo.analysis.surrogate import Fit
from hpo.analysis.values import Answer, Expected, Note, NoteKind
from hpo.analysis.zones import Standing, WorthSource

pytestmark = pytest.mark.whole_posterior

Floats = NDArray[np.float64]
LOSSES = ("mse", "l1")


@dataclass(frozen=True)
class Bounds:
    low: float
    high: float


@dataclass(frozen=True)
class Space:
    lr: Bounds = Bounds(1e-5, 1e-2)
    backbone_lr: Bounds = Bounds(1e-6, 1e-3)
    loss: tuple[str, ...] = LOSSES


@dataclass(frozen=True)
class Default:
    lr: float = 1e-4
    backbone_lr: float = 1e-5
    loss: str = "mse"


SPACE, DEFAULT, TRIVIAL = Space(), Default(), 2.0
BOX = Box.of(SPACE)
BEST_RATIO = 1.3
KNOWN_BAD = ((("interacting", "low"), 37), (("sharp", "low"), 181))
NO_CURVES = pd.DataFrame({"number": [], "epoch": [], "validation_loss": []})


def expected_loss(lr: Floats, ratio: Floats, loss: NDArray[np.int64], steepness: float = 0.3) -> Floats:
    """A basin at lr 10^-3.2, ratio 10^1.3; l1 is better by 0.05."""
    bowl = (lr + 3.2) ** 2 + (ratio - BEST_RATIO) ** 2
    return 1.0 + steepness * (1 - np.exp(-bowl)) - 0.05 * (loss == 1)


def table(size: int, noise: float, *, seed: int = 0, steepness: float = 0.3, **columns: Any) -> pd.DataFrame:
    """Return complete trials at random places, with normal noise between seeds."""
    rng = np.random.default_rng(seed)
    lr, backbone_lr = rng.uniform(-5, -2, size), rng.uniform(-6, -3, size)
    loss = rng.integers(0, 2, size)
    value = expected_loss(lr, lr - backbone_lr, loss, steepness) + noise * rng.standard_normal(size)
    frame = pd.DataFrame(
        {
            "number": np.arange(size),
            "state": "complete",
            "origin": "search",
            "lr": 10**lr,
            "backbone_lr": 10**backbone_lr,
            "ratio": 10 ** (lr - backbone_lr),
            "loss": [LOSSES[place] for place in loss],
            "seed": np.arange(size),
            "fold": None,
            "value": value,
            "end": "finished",
            "best_epoch": 5,
            "epochs": 20,
        }
    )
    return frame.assign(**columns)


def ask(trials: pd.DataFrame, curves: pd.DataFrame = NO_CURVES, trivial: float = TRIVIAL) -> Answer:
    return answer(trials, curves, SPACE, DEFAULT, trivial)


@pytest.fixture(scope="module")
def clear() -> Answer:
    """The answer of 80 trials whose best ratio is plain to see."""
    return ask(table(80, 0.03))


class OurKernel(Kernel):
    """k(x, x') of hpo/analysis/likelihood.py, from scikit-learn's Matern function."""

    def __init__(self, parameters: Floats) -> None:
        self.parameters = parameters

    def __call__(self, a: Floats, b: Floats | None = None, eval_gradient: bool = False) -> Floats:
        b = a if b is None else b
        loss, bump = np.exp(2 * self.parameters[:2])
        lengths, rho = np.exp(self.parameters[2:4]), 1 / (1 + np.exp(-self.parameters[4]))
        same = np.equal.outer(a[:, 2], b[:, 2]).astype(float)
        near = [Matern(lengths[i], nu=2.5)(a[:, i : i + 1], b[:, i : i + 1]) for i in (0, 1)]
        return np.asarray(
            LEVEL_VARIANCE + loss * same + bump * np.where(same == 1, 1.0, rho) * near[0] * near[1]
        )

    def diag(self, x: Floats) -> Floats:
        return np.diag(self(x))

    def is_stationary(self) -> bool:
        return False


def small_problem() -> Any:
    evidence = gather(table(25, 0.05), NO_CURVES, BOX)
    folds = np.arange(25) % 3
    common = 0.1 * np.random.default_rng(4).standard_normal((25, 2))
    extra, late = np.linspace(0, 0.02, 25), np.linspace(0.01, 0, 25)
    return problem_of(evidence.x, evidence.y, extra, common, folds, BOX, late)[0]


def test_the_posterior_is_that_of_scikit_learn() -> None:
    whole = small_problem()
    alone = Half.of(whole.pairs, np.zeros((25, 25)), np.zeros((25, 25)))
    problem = replace(whole, same_group=np.zeros((25, 25)), common_variance=np.zeros((25, 25)), half=alone)
    z = 0.5 * np.random.default_rng(1).standard_normal(len(problem.prior.mean))
    theta = problem.theta(z)
    asked = Lattice.of(BOX, 0.5).points(1)

    mean, variance = Fit.of(problem, z).at(problem, asked)

    noise = problem.seed_variance(theta) + problem.extra
    peer = GaussianProcessRegressor(OurKernel(theta), alpha=noise, optimizer=None)
    peer.fit(problem.x, problem.y - basin(theta[KERNEL:], problem.x))
    their_mean, their_sd = peer.predict(asked, return_std=True)
    np.testing.assert_allclose(mean, their_mean + basin(theta[KERNEL:], asked), atol=1e-5)
    np.testing.assert_allclose(np.sqrt(variance), their_sd, atol=1e-5)


def test_the_gradient_is_that_of_the_density() -> None:
    problem = small_problem()
    z = 0.5 * np.random.default_rng(2).standard_normal(len(problem.prior.mean))

    value, gradient = problem.objective(z)

    units = 1e-5 * np.eye(len(z))
    below, above = log_density(problem, z - units), log_density(problem, z + units)
    np.testing.assert_allclose(gradient, (below - above) / 2e-5, rtol=1e-4, atol=1e-4)
    assert value == pytest.approx(-log_density(problem, z[None])[0])


def test_a_move_of_the_basin_alone_has_the_density_of_a_whole_one() -> None:
    problem = small_problem()
    old = 0.5 * np.random.default_rng(2).standard_normal((3, len(problem.prior.mean)))
    new = old.copy()
    new[:, problem.basin] = 0.5 * np.random.default_rng(3).standard_normal(new[:, problem.basin].shape)
    proposal = prior_of(problem)

    moved = Cloud.of(problem, proposal, old).with_basins(problem, proposal, new)

    whole = Cloud.of(problem, proposal, new)
    np.testing.assert_allclose(moved.log_p, whole.log_p)
    np.testing.assert_allclose(moved.misfit, whole.misfit)


def test_draws_have_the_posteriors_mean_and_spread() -> None:
    """Of so few trials that the prior's draws, weighted by how probable they make them, tell what is true."""
    evidence = gather(table(25, 0.05), NO_CURVES, BOX).rows(np.arange(3))
    problem = problem_of(evidence.x, evidence.y, evidence.extra, evidence.common, None, BOX)[0]
    rng = np.random.default_rng(0)
    prior = rng.standard_normal((8000, len(problem.prior.mean)))
    logs = log_density(problem, prior) + 0.5 * np.sum(prior**2, axis=1)
    weights = np.exp(logs - logs.max())
    weights /= weights.sum()

    drawn = draw_parameters(problem, Proposal.of(problem, rng), 300, rng)

    assert 1 / np.sum(weights**2) > 200, "enough of the prior's draws count"
    mean = weights @ prior
    sd = np.sqrt(weights @ (prior - mean) ** 2)
    assert np.abs(drawn.mean(axis=0) - mean).mean() < 0.12
    assert np.median(drawn.std(axis=0) / sd) == pytest.approx(1.0, abs=0.07)


def prior_of(problem: Any) -> Proposal:
    size = len(problem.prior.mean)
    return Proposal([Mode(np.zeros(size), np.eye(size), 0.0)], np.ones(1))


def log_density(problem: Any, z: Any) -> Any:
    return Cloud.of(problem, prior_of(problem), z).log_p


def test_drawn_noise_has_the_covariance_that_the_density_assumes() -> None:
    problem = small_problem()
    theta = problem.theta(np.zeros(len(problem.prior.mean)))
    rng = np.random.default_rng(0)

    drawn = np.stack([problem.draw_noise(theta, rng) for _ in range(20_000)])

    lower, _ = problem.factor(theta)
    expected = lower @ lower.T - covariance(theta, problem.pairs)
    np.testing.assert_allclose(np.cov(drawn.T), expected, atol=0.05 * expected.max())


def test_draws_of_landscapes_are_draws_from_the_posterior() -> None:
    evidence = gather(table(40, 0.05), NO_CURVES, BOX)
    (surrogate,) = fit_surrogates(evidence.x, evidence.y, BOX)
    lattice = Lattice.of(BOX, 0.5)

    mean, draws = draw_landscapes(surrogate, lattice, np.random.default_rng(0))

    place = np.flatnonzero(lattice.feasible)
    value, sd = surrogate.posterior(lattice.points(1)[place])
    drawn = draws[:, 1].reshape(len(draws), -1)[:, place]
    np.testing.assert_allclose(mean[1].ravel()[place], value, rtol=1e-9)
    assert np.abs((drawn.mean(axis=0) - value) / sd).max() < 4 / np.sqrt(len(draws))
    assert (drawn.std(axis=0) / sd).mean() == pytest.approx(1.0, abs=0.1)
    assert np.isinf(draws[:, :, ~lattice.feasible]).all()


def test_joint_draws_at_points_have_the_posteriors_mean_and_spread() -> None:
    evidence = gather(table(30, 0.05), NO_CURVES, BOX)
    (surrogate,) = fit_surrogates(evidence.x, evidence.y, BOX)
    asked = evidence.x[:3]

    draws = surrogate.draw(asked, 4000, np.random.default_rng(0))

    mean, sd = surrogate.posterior(asked)
    assert np.abs(draws.mean(axis=0) - mean).max() < 0.15 * sd.max()
    np.testing.assert_allclose(draws.std(axis=0), sd, rtol=0.1)


def test_a_plain_best_ratio_is_found_with_a_narrow_interval(clear: Answer) -> None:
    ratio = clear.to_json()["ratio"]

    assert ratio["identified"]
    assert ratio["low"] <= 10**BEST_RATIO <= ratio["high"]
    assert ratio["high"] / ratio["low"] < 5
    assert ratio["indistinguishable"][0] <= ratio["best"] <= ratio["indistinguishable"][1]


def test_the_expected_loss_of_the_choice_is_not_optimistic(clear: Answer) -> None:
    assert clear.choice is not None

    place = np.log10(clear.choice.lr), np.log10(clear.choice.ratio), np.array(1)
    truth = float(expected_loss(np.array(place[0]), np.array(place[1]), place[2]))
    assert clear.choice.loss == "l1"
    assert clear.choice.standard_error is not None
    assert clear.choice.standard_error < 0.03  # one seed's deviation
    assert clear.choice.expected_validation_loss == pytest.approx(
        truth, abs=2.5 * clear.choice.standard_error
    )


def test_a_tilted_bowls_minimum_is_found_between_the_points_of_a_lattice() -> None:
    row, column = np.meshgrid([-1.0, 0.0, 1.0], [-1.0, 0.0, 1.0], indexing="ij")
    a, b = row - 0.3, column + 0.4

    offset = bowl_minimum(a * a - 1.2 * a * b + b * b)

    assert offset == pytest.approx([0.3, -0.4])
    assert bowl_minimum(np.where(row + column == 2, np.inf, a * a + b * b)) is None
    assert bowl_minimum(-(a * a)) is None


def test_a_ratio_is_as_good_where_it_is_no_worse_in_more_than_a_fortieth_of_the_draws() -> None:
    profiles = np.tile([1.0, 0.0, 1.0], (100, 1))
    profiles[:3, 0] = profiles[:2, 2] = -1.0

    assert _indistinguishable(np.array([0.5, 1.0, 1.5]), profiles, 1.0) == (0.5, 1.0)


@pytest.mark.parametrize("shape", [-2.0, 0.0, 0.5, 2.5])
def test_every_basin_is_a_parabola_at_its_bottom(shape: float) -> None:
    narrow, wide = brentq(lambda v: _stretched(np.array([v]))[0][0], -5, 5), 9.0
    parameters = np.array([0.0, -3.5, -4.5, narrow, wide, narrow, wide, shape, 0.0, 0.0, 0.0, 0.0])
    near = np.array([[-3.5 + 0.02, 1.0 + 0.01, 0.0]])

    assert basin(parameters, near) == pytest.approx([0.02**2 + 0.01**2], rel=1e-2)


def test_what_a_regression_foretells_does_not_hang_on_the_units_of_its_features() -> None:
    features = np.random.default_rng(0).standard_normal((30, 3))
    target, scale = features @ [1.0, -0.5, 0.2], np.array([1000.0, 0.01, 3.0])

    plain = Regression.of(features, target).foretell(features[:5])
    scaled = Regression.of(scale * features, target).foretell(scale * features[:5])

    np.testing.assert_allclose(plain.mean, target[:5], atol=0.01)
    np.testing.assert_allclose(scaled.mean, plain.mean, rtol=1e-6)


def test_a_lucky_trial_is_called_lucky_and_leads_nobody() -> None:
    trials = table(40, 0.03)
    lucky = trials["value"].astype(float).idxmax()
    trials.loc[lucky, "value"] = trials["value"].min() - 0.02

    found = ask(trials)

    assert found.best is not None
    assert found.best.number == lucky
    assert found.optimism is not None
    assert found.optimism > 0.05
    assert leaders(trials, NO_CURVES, SPACE, 1)[0].lr != trials["lr"][lucky]


def test_the_noise_between_seeds_is_found_without_replicates(clear: Answer) -> None:
    assert clear.noise.source == "model"
    assert clear.noise.seed_sd == pytest.approx(0.03, rel=0.35)


def test_replicates_say_the_noise_themselves() -> None:
    once = table(20, 0.0)
    rng = np.random.default_rng(3)
    again = [once.assign(value=once["value"] + 0.05 * rng.standard_normal(20)) for _ in range(6)]

    found, degrees = replicate_sd(pd.concat(again))

    assert degrees == 100
    assert found == pytest.approx(0.05, rel=0.2)


def test_where_nothing_matters_no_ratio_is_best() -> None:
    found = ask(table(80, 0.05, steepness=0.0, seed=5))

    assert found.curve is not None
    assert not found.curve.identified
    assert not found.curve.is_known_within(1e9), "a search would end"
    low, high = found.curve.indistinguishable
    assert high - low > 2


def test_the_seed_is_noise_and_never_a_knob() -> None:
    trials = table(20, 0.03)
    other_seeds = trials.assign(seed=trials["seed"][::-1].to_numpy())

    one, other = ask(trials).to_json(), ask(other_seeds).to_json()

    assert {key: one[key] for key in one if key != "best"} == {
        key: other[key] for key in one if key != "best"
    }


@pytest.mark.few_draws
def test_the_answer_moves_with_the_unit_of_the_loss() -> None:
    trials = table(40, 0.03)
    scaled = trials.assign(value=100 + 50 * trials["value"])

    one, other = ask(trials).to_json(), ask(scaled, trivial=200.0).to_json()

    # Not the same bits: a rounding may turn a step of the Metropolis walk.
    assert other["ratio"]["best"] == pytest.approx(one["ratio"]["best"], rel=0.03)
    expected = one["answer"]["expected_validation_loss"]
    assert other["answer"]["expected_validation_loss"] == pytest.approx(100 + 50 * expected, rel=1e-3)
    assert other["noise"]["seed_sd"] == pytest.approx(50 * one["noise"]["seed_sd"], rel=0.03)


@pytest.mark.few_draws
@pytest.mark.parametrize(
    ("trivial", "words"), [(1.2, "beats"), (0.93, "does not beat"), (1.0, "cannot be told")]
)
def test_the_trivial_predictor_is_beaten_by_more_than_the_noise_or_not(trivial: float, words: str) -> None:
    found = ask(table(40, 0.03, seed=2), trivial=trivial)

    assert found.against_trivial == words


def test_the_baseline_stands_beside_the_choice(clear: Answer) -> None:
    truth = float(expected_loss(np.array(-4.0), np.array(1.0), np.array(0)))

    assert clear.baseline is not None
    assert clear.baseline.value == pytest.approx(truth, abs=0.04)
    assert clear.against_baseline == "beats"


@pytest.mark.few_draws
def test_the_baselines_own_complete_runs_are_kept_beside_what_the_model_expects() -> None:
    trials = table(40, 0.03)
    trials.loc[:2, ["lr", "backbone_lr", "loss"]] = [DEFAULT.lr, DEFAULT.backbone_lr, DEFAULT.loss]
    trials.loc[2, ["state", "end"]] = ["pruned", "pruned"]

    found = ask(trials)

    assert found.baseline is not None
    assert found.baseline.runs == tuple(trials["value"][:2])
    assert found.to_json()["baseline_runs"] == list(trials["value"][:2])


def with_curves(trials: pd.DataFrame, pruned: NDArray[np.bool_]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return trials cut after epoch 4 where ``pruned``, and curves that gain 0.4 exp(-epoch / 4)."""
    epochs = np.arange(1, 21)
    rows = []
    for number, value, cut in zip(trials["number"], trials["value"], pruned, strict=True):
        curve = value + 0.4 * np.exp(-epochs / 4) - 0.4 * np.exp(-5)
        rows += [
            (number, epoch, loss) for epoch, loss in zip(epochs, curve, strict=True) if epoch <= 4 or not cut
        ]
    curves = pd.DataFrame(rows, columns=["number", "epoch", "validation_loss"])
    ends = curves.groupby("number")["validation_loss"].min().to_numpy()
    marks = {"state": "pruned", "end": "pruned"}
    cut = trials.assign(value=ends, **{k: np.where(pruned, v, trials[k]) for k, v in marks.items()})
    return cut, curves


def test_a_pruned_trial_counts_as_what_it_would_have_reached() -> None:
    trials = table(40, 0.02)
    trials, curves = with_curves(trials, np.arange(40) % 2 == 1)
    truth = table(40, 0.02)["value"].to_numpy()[1::2]

    evidence = gather(trials, curves, BOX)

    guess, doubt = evidence.y[20:], np.sqrt(evidence.extra[20:])
    reached = evidence.scale.compress(trials["value"].to_numpy(float)[1::2])
    assert (guess < reached).all()
    assert np.abs(guess - evidence.scale.compress(truth)).max() < 0.05
    assert (doubt > 0).all()
    assert (evidence.extra[:20] == 0).all()


def test_a_pruned_trial_is_foretold_with_its_luck_however_far_above_the_knee_it_was() -> None:
    flat = table(60, 0.02, steepness=0.0, loss="l1")
    flat["value"] = 1 + 0.02 * np.random.default_rng(7).standard_normal(60)
    trials, curves = with_curves(flat, np.arange(60) % 2 == 1)

    evidence = gather(trials, curves, BOX)

    truth, reached = flat["value"].to_numpy()[1::2], trials["value"].to_numpy(float)[1::2]
    assert (reached > evidence.scale.knee).all()
    assert np.polyfit(truth, evidence.y[30:], 1)[0] > 0.8


def test_what_is_foretold_on_one_scale_can_be_said_on_another() -> None:
    scale = Scale(1.0, 0.1)
    variance = np.array([1e-6, 1e-6])
    foretold = Foretold(np.array([0.9, 1.4]), variance, 4 * variance, np.array([[1e-3], [1e-3]]))

    moved = scale.moved(foretold, scale.wider())

    drawn = foretold.mean[:, None] + 1e-3 * np.random.default_rng(0).standard_normal((2, 100_000))
    np.testing.assert_allclose(moved.mean, scale.compress(foretold.mean))
    np.testing.assert_allclose(np.sqrt(moved.own), scale.compress(drawn).std(axis=1), rtol=0.02)
    np.testing.assert_allclose(moved.common[:, 0], np.sqrt(moved.own))
    np.testing.assert_allclose(moved.late, 4 * moved.own)


def test_what_a_regression_does_not_know_is_common_to_all_that_it_foretells() -> None:
    rng = np.random.default_rng(0)
    features, asked = rng.standard_normal((30, 3)), 2 * rng.standard_normal((8, 3)) + 1
    slopes = np.array([1.0, -0.5, 0.3])

    repeats = [Regression.of(features, features @ slopes + rng.standard_normal(30)) for _ in range(2000)]

    found = [regression.foretell(asked) for regression in repeats]
    errors = np.stack([one.mean - asked @ slopes for one in found])
    fitted = [one.common[:, :-1] for one in found]  # the last column is the misfit
    claimed = np.mean([one @ one.T for one in fitted], axis=0)
    assert np.cov(errors.T) == pytest.approx(claimed, abs=0.1 * claimed.max())
    assert np.abs(np.corrcoef(errors.T)).max(initial=0, where=~np.eye(8, dtype=bool)) > 0.9


def test_many_trials_that_err_together_are_no_surer_than_their_common_error() -> None:
    x = np.stack([np.linspace(-3.3, -3.1, 40), np.full(40, BEST_RATIO), np.zeros(40)], axis=1)
    y = np.random.default_rng(0).standard_normal(40)
    apart, common = np.zeros((40, 1)), np.full((40, 1), 0.5 * y.std())

    sds = []
    for shared in (apart, common):
        problem, _, _ = problem_of(x, y, np.full(40, 1e-4), shared, None, BOX)
        fit = Fit.of(problem, np.zeros(len(problem.prior.mean)))
        sds.append(float(np.sqrt(fit.at(problem, x[20:21])[1][0])))

    assert sds[0] < 0.1
    assert sds[1] > 0.45


def test_the_errors_of_pruned_trials_stay_theirs_when_trials_are_left_out() -> None:
    trials, curves = with_curves(table(40, 0.02), np.arange(40) % 2 == 1)
    evidence = gather(trials, curves, BOX)

    part = evidence.rows(np.array([0, 25, 39]))

    assert (evidence.common[:20] == 0).all()
    assert (np.abs(evidence.common[20:]).sum(axis=1) > 0).all()
    np.testing.assert_array_equal(part.common, evidence.common[[0, 25, 39]])


def test_pruned_trials_that_are_all_extrapolated_too_low_do_not_outvote_the_complete_ones(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Simulated studies whose answers were too low by 15 and 6 seed standard deviations, errors apart."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    simulated = importlib.import_module("simulated_studies")
    args = argparse.Namespace(sampler="adaptive", pruner="median", trials=100, seeds=0)

    scores = [simulated.scored(case, number, args) for case, number in KNOWN_BAD]

    assert max(score.optimism for score in scores) < 2
    assert max(score.regret for score in scores) < 2


def walks(seed: int, count: int = 90) -> tuple[pd.DataFrame, pd.DataFrame, Floats]:
    """Return a flat study whose runs gain and lose luck to the end; the worse half stops, three times.

    And the final losses (n,) that all of them would have had: mean 1, standard deviation 0.03.
    """
    rng, epochs = np.random.default_rng(seed), 20
    luck = np.cumsum(rng.normal(0, 0.03 / np.sqrt(epochs), (count, epochs)), axis=1)
    losses = 1 + 0.4 * (np.exp(-np.arange(1, epochs + 1) / 3) - np.exp(-epochs / 3)) + luck
    stops = np.full(count, epochs)
    for epoch in (8, 12, 16):
        alive = stops == epochs
        stops[alive & (losses[:, epoch - 1] > np.median(losses[alive, epoch - 1]))] = epoch
    rows = [(run, at + 1, losses[run, at]) for run in range(count) for at in range(stops[run])]
    curves = pd.DataFrame(rows, columns=["number", "epoch", "validation_loss"])
    trials = table(count, 0.0, loss="l1").assign(value=curves.groupby("number")["validation_loss"].min())
    trials.loc[stops < epochs, ["state", "end"]] = "pruned"
    return trials, curves, losses.min(axis=1)


def test_what_the_pruner_left_is_not_taken_for_all_runs() -> None:
    """Complete runs are the lucky ones: judged by them, the loss is too low and the noise too small.

    Here 12 of 90, by 1.3 standard deviations. With gains learned from complete runs alone, and their scatter
    as an error of each stopped run, the answers were as much too low, and the noise 0.3 of the true one.
    """
    low, noise = [], []
    for seed in range(3):
        trials, curves, finals = walks(seed)
        assert trials["value"][trials["state"] == "complete"].mean() < finals.mean() - finals.std()
        found = ask(trials, curves)
        assert found.choice is not None
        assert found.choice.expected_validation_loss is not None
        low.append((found.choice.expected_validation_loss - finals.mean()) / finals.std())
        noise.append(found.noise.seed_sd / finals.std())

    assert np.mean(low) > -1
    assert np.mean(noise) > 0.42


def test_runs_that_were_stopped_later_tell_what_earlier_ones_would_gain() -> None:
    """Unbiased: what complete runs gained is what lucky ones gained."""
    errors = []
    for seed in range(6):
        trials, curves, finals = walks(seed)
        evidence, is_pruned = gather(trials, curves, BOX), trials["state"].to_numpy(str) == "pruned"
        foretold = evidence.scale.expand(evidence.y[(~is_pruned).sum() :])
        errors.append(np.mean(foretold - finals[is_pruned]) / finals.std())

    assert np.mean(errors) == pytest.approx(0, abs=0.3)


def test_a_configuration_of_which_a_run_was_stopped_tells_no_noise() -> None:
    lucky, stopped = table(6, 0.02), table(6, 0.02)
    stopped.loc[:2, ["state", "end"]] = "pruned"
    again = lucky.assign(value=lucky["value"] + 0.1)

    found, degrees = replicate_sd(pd.concat([lucky, again, stopped.iloc[:3]], ignore_index=True))

    assert degrees == 3, "three configurations were never stopped"
    assert found == pytest.approx(0.1 / np.sqrt(2))


def test_without_curves_a_pruned_trial_says_little() -> None:
    trials = table(10, 0.02)
    trials.loc[8:, ["state", "end"]] = "pruned"

    evidence = gather(trials, NO_CURVES, BOX)

    assert (np.sqrt(evidence.extra[8:]) >= 0.15 * evidence.scale.width).all()
    assert (np.abs(evidence.common[8:, 0]) >= 0.15 * evidence.scale.width).all()


def test_two_or_three_curves_say_something_of_a_pruned_trial() -> None:
    trials = table(5, 0.02)
    trials["value"] = [0.5, 0.8, 4.2, 4.6, 4.7]
    trials.loc[4, ["state", "end"]] = "pruned"
    after_three = {0: 1.2, 1: 1.6, 2: 4.2, 3: 4.7, 4: 4.7}
    rows = [(number, epoch, loss) for number, loss in after_three.items() for epoch in (1, 2, 3)]
    rows += [(number, 4, trials["value"][number]) for number in range(4)]
    curves = pd.DataFrame(rows, columns=["number", "epoch", "validation_loss"])

    nothing, some = (gather(trials, known, BOX) for known in (NO_CURVES, curves))

    assert nothing.y[4] < some.y[4] < 4.7
    assert some.y[4] > 3.5
    assert 0 < some.extra[4] < nothing.extra[4]


@pytest.mark.few_draws
def test_with_few_complete_trials_only_a_tried_place_is_chosen() -> None:
    few, enough = table(9, 0.02), table(40, 0.02)

    chosen = [ask(trials).choice for trials in (few, enough)]

    assert chosen[0]
    assert chosen[1]
    assert np.isclose(few["lr"], chosen[0].lr).any()
    assert not np.isclose(enough["lr"], chosen[1].lr).any()


@pytest.mark.few_draws
def test_a_diverged_trial_is_one_of_the_worst_and_keeps_the_choice_away() -> None:
    trials = table(60, 0.02)
    over = trials["lr"] > 10**-3.5
    trials.loc[over, ["state", "end"]] = ["pruned", "diverged"]
    trials.loc[over, "value"] = np.nan

    found = ask(trials)

    evidence = gather(trials, NO_CURVES, BOX)
    assert (evidence.y[evidence.extra > 0] == evidence.y.max()).all()
    assert found.trials["diverged"] == int(over.sum())
    assert found.choice is not None
    assert found.choice.lr < 10**-3.2


def test_losses_below_the_knee_are_not_touched_and_the_scale_can_be_undone() -> None:
    losses = np.concatenate([1 + 0.1 * np.random.default_rng(0).random(50), [5.0, 50.0, 1e4]])
    scale = Scale.of(losses)

    low = losses[losses <= scale.knee]
    np.testing.assert_array_equal(scale.compress(low), low)
    np.testing.assert_allclose(scale.expand(scale.compress(losses)), losses, rtol=1e-9)
    assert scale.compress(losses).max() < 4


def test_shares_are_shapley_effects_and_sum_to_one() -> None:
    lr, backbone_lr = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21), indexing="ij")
    values = np.stack([3 * lr + backbone_lr, 3 * lr + backbone_lr], axis=2)

    found = shares(values, {"seed": float(np.var(backbone_lr))})

    assert sum(found.values()) == pytest.approx(1)
    assert found["loss"] == pytest.approx(0)
    assert found["lr"] == pytest.approx(9 * found["backbone_lr"])
    assert found["seed"] == pytest.approx(found["backbone_lr"])


def test_what_runs_of_one_seed_share_does_not_blur_the_ratio() -> None:
    effect = 0.1 * np.array([-1.2, -0.3, 0.4, 1.1])
    trials = table(60, 0.02)
    trials["seed"] = np.arange(60) % 4
    trials["value"] += effect[np.arange(60) % 4]

    found, blind = ask(trials), ask(trials.assign(seed=np.arange(60)))

    widths = [one.curve.interval[1] - one.curve.interval[0] for one in (found, blind) if one.curve]
    assert widths[0] < widths[1]
    assert found.noise.seed_sd == pytest.approx(np.hypot(effect.std(ddof=1), 0.02), rel=0.6)
    assert set(found.noise.shares) == {"lr", "backbone_lr", "loss", "seed"}


def test_seeds_that_hardly_return_are_no_blocks() -> None:
    trials = table(40, 0.05)
    trials["seed"] = np.arange(40) // 2 * 1000 + np.arange(40) % 2 * (np.arange(40) > 3)

    assert gather(trials, NO_CURVES, BOX).groups is None
    assert gather(trials.assign(seed=np.arange(40) % 5), NO_CURVES, BOX).groups is not None


def test_a_folds_effect_is_its_own_share_and_not_the_seeds() -> None:
    trials = table(60, 0.02, fold=np.arange(60) % 5)
    trials["value"] += np.array([0.0, 0.2, -0.2, 0.1, -0.1])[trials["fold"].astype(int)]

    noise = ask(trials).noise

    assert noise.seed_sd == pytest.approx(0.02, rel=0.6)
    assert noise.shares["fold"] > 3 * noise.shares["seed"]
    assert sum(noise.shares.values()) == pytest.approx(1)


def test_left_out_trials_are_foretold_within_their_intervals(clear: Answer) -> None:
    assert clear.diagnostics["leave_one_out_rmse"] == pytest.approx(0.03, rel=0.5)
    within = clear.diagnostics["within_95"]
    assert within is not None
    assert within >= 0.85


def test_of_many_trials_those_near_the_best_are_kept_with_some_of_the_others() -> None:
    evidence = gather(table(100, 0.02), NO_CURVES, BOX)
    expected = evidence.x[:, 0]

    kept = thinned(evidence, expected, 40)

    assert len(kept.y) == 40
    assert np.isin(np.sort(expected)[:30], kept.x[:, 0]).all()
    assert kept.x[:, 0].max() == expected.max()


@pytest.mark.few_draws
def test_the_same_tables_give_the_same_answer() -> None:
    assert ask(table(20, 0.03)).to_json() == ask(table(20, 0.03)).to_json()


EMPTY = table(0, 0.0)
ODD = {
    "no trials": (EMPTY, Note(NoteKind.FEW_COMPLETE, 0, 10)),
    "too few": (table(3, 0.01), Note(NoteKind.FEW_COMPLETE, 3, 10)),
    "few": (table(6, 0.01), Note(NoteKind.FEW_COMPLETE, 6, 10)),
    "all pruned": (table(12, 0.01, state="pruned", end="pruned"), Note(NoteKind.ALL_PRUNED, 12)),
    "all diverged": (
        table(12, 0.01, state="pruned", end="diverged", value=np.nan),
        Note(NoteKind.ALL_DIVERGED, 12),
    ),
    "constant": (table(12, 0.0, value=1.5), Note(NoteKind.ALL_EQUAL, 12)),
    "one loss": (table(12, 0.01, loss="l1"), Note(NoteKind.ONE_LOSS, name="l1")),
    "one ratio": (table(12, 0.01, lr=1e-3, backbone_lr=1e-4), Note(NoteKind.FEW_RATIOS, 1, 3)),
}


@pytest.mark.few_draws
@pytest.mark.parametrize("case", ODD)
def test_what_cannot_be_said_is_said(case: str) -> None:
    trials, note = ODD[case]

    found = ask(trials)

    text = json.dumps(found.to_json(), allow_nan=False)
    assert note in found.notes
    assert found.curve is not None
    assert case == "one loss" or not found.curve.identified
    assert '"identified"' in text


@pytest.mark.few_draws
@pytest.mark.parametrize(("complete", "is_enough"), [(9, False), (10, True)])
def test_below_ten_complete_trials_there_is_no_interval_no_zone_no_map_and_no_share(
    complete: int, is_enough: bool
) -> None:
    found = ask(table(complete, 0.02))

    assert found.choice is not None
    assert found.curve is not None
    spoken = len(found.curve.mean), found.zones, found.rates, found.matters, found.noise.shares
    assert [bool(one) for one in spoken] == [is_enough] * 5
    assert found.has(NoteKind.FEW_COMPLETE) is not is_enough


def test_without_a_model_the_baselines_own_run_is_its_evidence() -> None:
    trials = table(2, 0.02)
    trials.loc[0, ["lr", "backbone_lr", "loss"]] = [DEFAULT.lr, DEFAULT.backbone_lr, DEFAULT.loss]
    queued = trials.iloc[:1].assign(state="waiting", value=np.nan, end=None)

    found = ask(trials)

    assert found.baseline == Expected(trials["value"][0], None, (trials["value"][0],))
    assert ask(queued).baseline is None


@pytest.mark.few_draws
def test_the_worth_is_a_seeds_deviation_or_the_studys_own() -> None:
    trials = table(40, 0.03)

    usual, generous = ask(trials), answer(trials, NO_CURVES, SPACE, DEFAULT, TRIVIAL, worth=0.1)

    assert usual.zones is not None
    assert generous.zones is not None
    assert (usual.zones.worth, usual.zones.source) == (usual.noise.seed_sd, WorthSource.SEED_SD)
    assert (generous.zones.worth, generous.zones.source) == (0.1, WorthSource.STUDY)
    assert generous.zones.decades(Standing.AS_GOOD) > usual.zones.decades(Standing.AS_GOOD)


@pytest.mark.few_draws
def test_where_the_model_does_not_fit_only_tried_configurations_are_spoken_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    trials = table(20, 0.03)
    monkeypatch.setattr("hpo.analysis.fitting.MOST_RMS", 0.0)

    found = ask(trials)

    assert found.has(NoteKind.DOES_NOT_FIT)
    assert found.choice is not None
    assert np.isclose(trials["lr"], found.choice.lr).any()
    assert found.zones is not None
    assert found.zones.resolved == 0
    assert found.curve is not None
    assert not found.curve.identified
    assert (found.worth_trying, found.rates, found.matters) == (None, None, {})


def test_a_place_without_support_is_worth_trying_and_never_the_answer() -> None:
    trials = table(60, 0.01)
    away = np.hypot(np.log10(trials["lr"]) + 3.2, np.log10(trials["ratio"]) - BEST_RATIO) > 0.7

    found = ask(trials[away])

    assert found.choice is not None
    assert found.worth_trying is not None
    near = [
        np.abs(np.log10(trials[away][name] / getattr(found.choice, name))) for name in ("lr", "backbone_lr")
    ]
    is_near = (np.maximum(*near) <= 0.3 + 1e-6) & (trials[away]["loss"] == found.choice.loss)
    assert is_near.any()
    better = found.worth_trying.expected_validation_loss
    assert better is not None
    assert found.choice.expected_validation_loss is not None
    assert better < found.choice.expected_validation_loss


@pytest.mark.few_draws
def test_without_a_baseline_the_rest_is_answered() -> None:
    found = answer(table(20, 0.02), NO_CURVES, SPACE, None, TRIVIAL)

    assert found.baseline is None
    assert found.against_baseline == "cannot be told"
    assert found.has(NoteKind.NO_BASELINE)
    assert found.choice is not None


@pytest.mark.few_draws
def test_running_and_failed_trials_are_no_evidence() -> None:
    trials = table(24, 0.02)
    more = table(4, 0.02, seed=9, state=["running", "failed", "waiting", "running"], value=0.0, end="error")

    assert ask(pd.concat([trials, more])).choice == ask(trials).choice


def test_a_lattice_covers_the_box_with_one_step() -> None:
    lattice = Lattice.of(BOX)

    assert lattice.lr[[0, -1]] == pytest.approx([-5, -2])
    assert lattice.ratio[[0, -1]] == pytest.approx([-2, 4])
    backbone_lr = (lattice.lr[:, None] - lattice.ratio)[lattice.feasible]
    assert backbone_lr.min() >= -6 - lattice.step / 2
    assert backbone_lr.max() <= -3 + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(("size", "most_rows"), [(100, 100), (240, 120)])
def test_what_an_answer_costs_is_bounded(size: int, most_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nearly all of its time goes into factors of the observations' covariance: cubic in their rows.

    Of 240 trials with a bound of 120: for a user of more than MAX_MODEL, where they take 15 times as long.
    """
    monkeypatch.setattr("hpo.analysis.look.MAX_MODEL", 120)
    rows = []
    root = Problem.root
    monkeypatch.setattr(Problem, "root", lambda self, theta: rows.append(len(self.y)) or root(self, theta))

    found = ask(table(size, 0.03))

    assert found.choice is not None
    assert max(rows) <= most_rows
    assert len(rows) < 12_000
