"""Our sampler and pruner in plain Optuna studies: any user can take them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial, Trial, TrialState

from hpo.analysis.box import Box, Floats, Lattice
from hpo.analysis.evidence import Seen
from hpo.search.acquisition import information
from hpo.search.prospects import CHANCE, Prospects
from hpo.search.pruner import ImprovementPruner
from hpo.search.sampler import Memory, RatioSampler

pytestmark = pytest.mark.whole_posterior

EPOCHS = 6
RATES = {
    "lr": optuna.distributions.FloatDistribution(1e-5, 1e-1, log=True),
    "backbone_lr": optuna.distributions.FloatDistribution(1e-6, 1e-2, log=True),
}


def expected(lr: float, backbone_lr: float, loss: str = "l1") -> float:
    """Best at lr 1e-3 and ratio 30 with l1."""
    log_lr, ratio = math.log10(lr), math.log10(lr / backbone_lr)
    return 2.0 + 0.3 * (log_lr + 3) ** 2 + 0.3 * (ratio - 1.5) ** 2 + 0.3 * (loss == "mse")


def objective(trial: Trial) -> float:
    lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    backbone_lr = trial.suggest_float("backbone_lr", 1e-6, 1e-2, log=True)
    loss = trial.suggest_categorical("loss", ["mse", "l1"])
    noise = 0.03 * np.random.default_rng(trial.number).standard_normal()
    final = expected(lr, backbone_lr, loss) + noise
    for epoch in range(1, EPOCHS + 1):
        trial.report(final + 2 * math.exp(-epoch) - 2 * math.exp(-EPOCHS), epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return final


def searched(sampler: optuna.samplers.BaseSampler, trials: int, **settings: object) -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=sampler, pruner=ImprovementPruner(n_warmup_steps=1), **settings)
    study.optimize(objective, n_trials=trials)
    return study


def parameters(study: optuna.Study) -> list[dict[str, object]]:
    return [trial.params for trial in study.trials]


def complete_trial(lr: float, backbone_lr: float, noise: float = 0.0) -> FrozenTrial:
    final = expected(lr, backbone_lr) + noise
    curve = {epoch: final + 2 * math.exp(-epoch) for epoch in range(1, EPOCHS + 1)}
    params = {"lr": lr, "backbone_lr": backbone_lr}
    return optuna.create_trial(
        value=curve[EPOCHS], params=params, distributions=RATES, intermediate_values=curve
    )


# --- the sampler


def test_a_plain_study_comes_close_to_the_best_ratio_with_few_trials() -> None:
    study = searched(RatioSampler(seed=1), 40)

    late = study.trials[-10:]
    errors = [abs(math.log10(trial.params["lr"] / trial.params["backbone_lr"]) - 1.5) for trial in late]
    assert float(np.median(errors)) < 0.6
    assert sum(trial.params["loss"] == "l1" for trial in late) >= 7
    assert any(trial.state == TrialState.PRUNED for trial in study.trials)


def by_seeds(sampler: RatioSampler, trials: int) -> optuna.Study:
    """A search whose trials take turns with three seeds, of which each is good or bad everywhere."""
    study = optuna.create_study(sampler=sampler)
    for _ in range(trials):
        trial = study.ask()
        trial.set_user_attr("seed", trial.number % 3)
        lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
        backbone_lr = trial.suggest_float("backbone_lr", 1e-6, 1e-2, log=True)
        study.tell(trial, expected(lr, backbone_lr) + (-0.5, 0.0, 0.5)[trial.number % 3])
    return study


def test_what_trials_of_one_seed_share_is_told_from_what_their_rates_do() -> None:
    knowing = by_seeds(RatioSampler(seed=5), 40)
    blind = by_seeds(RatioSampler(seed=5, blocks=()), 40)

    regrets = [
        np.median(
            [expected(trial.params["lr"], trial.params["backbone_lr"]) - 2 for trial in study.trials[-12:]]
        )
        for study in (knowing, blind)
    ]
    assert regrets[0] < 0.1
    assert regrets[0] < regrets[1]


def test_a_running_trial_of_a_seed_is_reckoned_with() -> None:
    study = by_seeds(RatioSampler(seed=5), 12)
    study.ask().set_user_attr("seed", 0)
    running = study.ask()
    running.suggest_float("lr", 1e-5, 1e-1, log=True)
    running.suggest_float("backbone_lr", 1e-6, 1e-2, log=True)

    trial = study.ask()

    assert 1e-5 <= trial.suggest_float("lr", 1e-5, 1e-1, log=True) <= 1e-1


def test_the_same_seed_asks_for_the_same_trials() -> None:
    first, second = (parameters(searched(RatioSampler(seed=3), 16)) for _ in range(2))

    assert first == second
    assert first != parameters(searched(RatioSampler(seed=4), 16))


def test_what_a_sampler_remembers_saves_time_and_changes_nothing() -> None:
    class Forgetful(dict[str, object]):
        def __setitem__(self, name: str, value: object) -> None:
            self.clear()
            super().__setitem__(name, value)

    forgetful: Memory = Forgetful()  # type: ignore[assignment]  # a dictionary of one entry is one too

    assert parameters(searched(RatioSampler(seed=3, memory=forgetful), 18)) == parameters(
        searched(RatioSampler(seed=3), 18)
    )


def test_maximising_is_minimising_with_the_sign_turned() -> None:
    down = optuna.create_study(sampler=RatioSampler(seed=5))
    up = optuna.create_study(sampler=RatioSampler(seed=5), direction="maximize")
    for _ in range(14):
        trials = [study.ask(RATES) for study in (down, up)]
        assert trials[0].params == trials[1].params
        value = expected(trials[0].params["lr"], trials[0].params["backbone_lr"])
        for study, trial, sign in zip((down, up), trials, (1, -1), strict=True):
            study.tell(trial, sign * value)


def test_other_parameters_are_sampled_beside_the_rates() -> None:
    study = optuna.create_study(sampler=RatioSampler(seed=0, n_startup_trials=5))
    space = RATES | {
        "dropout": optuna.distributions.FloatDistribution(0.0, 0.5),
        "optimiser": optuna.distributions.CategoricalDistribution(["adamw", "sgd"]),
        "layers": optuna.distributions.IntDistribution(1, 4),
    }
    for _ in range(12):
        trial = study.ask(space)
        study.tell(trial, expected(trial.params["lr"], trial.params["backbone_lr"]))

    assert len({trial.params["dropout"] for trial in study.trials}) == 12
    assert {trial.params["optimiser"] for trial in study.trials} == {"adamw", "sgd"}


def test_a_study_without_the_rates_is_sampled_at_random() -> None:
    study = optuna.create_study(sampler=RatioSampler(seed=0))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1) ** 2, n_trials=15)

    assert len({trial.params["x"] for trial in study.trials}) == 15


def test_the_parameters_may_have_other_names() -> None:
    sampler = RatioSampler(lr="head", backbone_lr="body", n_startup_trials=4, seed=0)
    study = optuna.create_study(sampler=sampler)
    space = {"head": RATES["lr"], "body": RATES["backbone_lr"]}
    for _ in range(25):
        trial = study.ask(space)
        study.tell(trial, expected(trial.params["head"], trial.params["body"]))

    best = study.best_trial.params
    assert expected(best["head"], best["body"]) < 2.2


def test_the_first_trials_fill_the_space_evenly() -> None:
    study = optuna.create_study(sampler=RatioSampler(seed=2, n_startup_trials=16))
    places = sorted(math.log10(study.ask(RATES).params["lr"]) for _ in range(16))

    assert max(after - before for before, after in pairwise(places)) < 0.6


def next_four(seed: int, past: list[FrozenTrial], *, at_once: bool) -> list[float]:
    """What the next four trials of a search would expect to reach, asked at once or in turn."""
    study = optuna.create_study(sampler=RatioSampler(seed=seed))
    study.add_trials(past)
    space = {**RATES, "loss": optuna.distributions.CategoricalDistribution(["mse", "l1"])}
    reached = []
    for _ in range(4):
        trial = study.ask(space)
        reached.append(expected(**trial.params))
        if not at_once:
            study.tell(trial, reached[-1])
    return reached


def test_what_workers_get_at_once_is_worth_as_much_as_what_one_gets_in_turn() -> None:
    """Of running trials others keep away: not waiting costs nothing. A law over seeds."""
    pasts = [searched(RatioSampler(seed=seed), 16).trials for seed in range(6)]
    at_once, in_turn = (
        [next_four(seed, past, at_once=way) for seed, past in enumerate(pasts)] for way in (True, False)
    )

    lowest = [float(np.mean([min(four) for four in fours])) for fours in (at_once, in_turn)]
    assert lowest[0] < lowest[1] + 0.1
    assert float(np.mean([len(set(four)) for four in at_once])) >= 2


def test_trials_that_diverged_or_failed_are_survived() -> None:
    study = optuna.create_study(sampler=RatioSampler(seed=0, n_startup_trials=5))
    for number in range(20):
        trial = study.ask(RATES)
        lr, backbone_lr = trial.params["lr"], trial.params["backbone_lr"]
        if lr > 1e-2:
            study.tell(trial, state=TrialState.FAIL if number % 2 else TrialState.PRUNED)
        else:
            study.tell(trial, expected(lr, backbone_lr))

    assert sum(trial.params["lr"] <= 1e-2 for trial in study.trials[-8:]) >= 5


def test_where_runs_were_pruned_hardly_any_other_is_tried() -> None:
    near, differ = 0, 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        studies = [optuna.create_study(sampler=RatioSampler(seed=seed, n_startup_trials=5)) for _ in range(2)]
        for _ in range(8):
            lr, noise = float(10 ** rng.uniform(-3.2, -2.8)), 0.1 * float(rng.standard_normal())
            for study in studies:
                study.add_trial(complete_trial(lr, lr / 30, noise))
        for _ in range(10):
            lr = float(10 ** rng.uniform(-5, -4))
            curve = {epoch: 5 + 2 * math.exp(-epoch) for epoch in (1, 2, 3)}
            params = {"lr": lr, "backbone_lr": lr / 10}
            pruned = optuna.create_trial(
                state=TrialState.PRUNED, params=params, distributions=RATES, intermediate_values=curve
            )
            studies[1].add_trial(pruned)
        unknowing, knowing = ([study.ask(RATES).params for _ in range(4)] for study in studies)
        differ += knowing != unknowing
        ratios = [math.log10(one["lr"] / one["backbone_lr"]) for one in knowing]
        near += sum(
            one["lr"] < 1e-4 and 0.5 < ratio < 1.5 for one, ratio in zip(knowing, ratios, strict=True)
        )
    assert differ == 4
    assert near <= 3, "of sixteen"


def test_two_objectives_are_refused() -> None:
    study = optuna.create_study(directions=["minimize"] * 2, sampler=RatioSampler(seed=0))
    for _ in range(2):
        study.tell(study.ask(), [1.0, 2.0])
    study.add_trial(
        optuna.create_trial(values=[1.0, 2.0], params={"lr": 1e-3, "backbone_lr": 1e-4}, distributions=RATES)
    )

    with pytest.raises(ValueError, match="2 objectives"):
        study.ask(RATES)


def test_a_trial_tells_which_loss_is_best_where_the_rates_are_known() -> None:
    lattice = Lattice.of(Box((-4.0, -2.0), (-5.0, -3.0), ("mse", "l1")), 1.0)
    best = (1, 1)
    draws = np.full((40, 2, *lattice.feasible.shape), 3.0)
    draws[:20, 0, *best] = draws[20:, 1, *best] = -1.0
    draws[:20, 1, *best] = draws[20:, 0, *best] = 1.0

    told = information(lattice, draws, noise=1.0)
    assert lattice.feasible[best]
    assert (told[:, *best] > 0.3).all()
    told[:, *best] = 0.0
    assert told.max() < 1e-9


# --- the pruner


def study_of(trials: int, pruner: ImprovementPruner | None = None) -> optuna.Study:
    study = optuna.create_study(pruner=pruner or ImprovementPruner(n_warmup_steps=1))
    rng = np.random.default_rng(0)
    for _ in range(trials):
        lr = float(10 ** rng.uniform(-4, -2))
        study.add_trial(complete_trial(lr, lr / 30, 0.02 * float(rng.standard_normal())))
    return study


def is_pruned(study: optuna.Study, final: float, epochs: int = 3) -> bool:
    trial = study.ask()
    trial.suggest_float("lr", 1e-5, 1e-1, log=True)
    trial.suggest_float("backbone_lr", 1e-6, 1e-2, log=True)
    for epoch in range(1, epochs + 1):
        trial.report(final + 2 * math.exp(-epoch), epoch)
    return trial.should_prune()


def test_a_run_that_will_end_far_above_the_best_is_stopped() -> None:
    assert is_pruned(study_of(20), final=4.0)


def test_a_run_as_good_as_the_best_goes_on() -> None:
    assert not is_pruned(study_of(20), final=2.0)


def test_a_smaller_chance_stops_fewer_runs() -> None:
    finals = np.linspace(2.0, 2.4, 9)

    stopped = [
        sum(is_pruned(study_of(20, ImprovementPruner(n_warmup_steps=1, chance=chance)), f) for f in finals)
        for chance in (0.001, 0.1, 0.4)
    ]
    assert stopped == sorted(stopped)
    assert stopped[0] < stopped[-1]


@pytest.mark.parametrize(("trials", "epochs"), [(2, 3), (20, 1), (20, 0)])
def test_too_few_curves_or_epochs_stop_nothing(trials: int, epochs: int) -> None:
    assert not is_pruned(study_of(trials), final=50.0, epochs=epochs)


@pytest.mark.parametrize(("startup", "enough"), [(0, 6), (6, 6), (9, 9)])
def test_nothing_is_stopped_before_enough_trials_are_complete(startup: int, enough: int) -> None:
    pruner = ImprovementPruner(n_startup_trials=startup)

    assert not is_pruned(study_of(enough - 1, pruner), final=50.0)
    assert is_pruned(study_of(enough, pruner), final=50.0)


def test_a_run_that_was_never_finite_is_stopped() -> None:
    study = study_of(10)
    trial = study.ask()
    for epoch in (1, 2):
        trial.report(math.nan, epoch)

    assert trial.should_prune()


def test_a_study_without_rates_can_be_pruned_too() -> None:
    study = optuna.create_study(pruner=ImprovementPruner(n_warmup_steps=1))
    for number in range(12):
        curve = {epoch: 1 + 0.01 * number + math.exp(-epoch) for epoch in range(1, 7)}
        study.add_trial(optuna.create_trial(value=curve[6], intermediate_values=curve))
    trial = study.ask()
    for epoch in (1, 2):
        trial.report(5.0 + math.exp(-epoch), epoch)

    assert trial.should_prune()


def test_maximised_curves_are_judged_upside_down() -> None:
    study = optuna.create_study(direction="maximize", pruner=ImprovementPruner(n_warmup_steps=1))
    for number in range(12):
        curve = {epoch: -1 - 0.01 * number - math.exp(-epoch) for epoch in range(1, 7)}
        study.add_trial(optuna.create_trial(value=curve[6], intermediate_values=curve))
    bad, good = study.ask(), study.ask()
    for epoch in (1, 2):
        bad.report(-5.0 - math.exp(-epoch), epoch)
        good.report(-0.9 - math.exp(-epoch), epoch)

    assert bad.should_prune()
    assert not good.should_prune()


def test_the_bar_is_no_lucky_run_whose_unlucky_like_were_stopped() -> None:
    """One run of 1.0 at a place where others were stopped near 1.3; all else ends at 1.5."""
    lucky, later = np.array([-3.0, 1.0, 0.0]), np.array([-4.0, 2.5, 0.0])

    def curve(final: float, epochs: int = 10) -> Floats:
        return final + np.exp(-np.arange(1, epochs + 1))

    def bar(stopped: Sequence[Floats]) -> float:
        complete = [curve(1.0), *(curve(1.5 + 0.01 * number) for number in range(8))]
        places = [
            lucky,
            *(later + np.array([0.1 * number, 0, 0]) for number in range(8)),
            *[lucky] * len(stopped),
        ]
        kinds = ["complete"] * 9 + ["pruned"] * len(stopped)
        curves = [*complete, *stopped]
        seen = Seen(np.stack(places), np.array(kinds), np.array([one[-1] for one in curves]), curves)
        found = Prospects.of(seen)
        assert found is not None
        return float(found.scale.expand(np.array(found.incumbent)))

    assert bar([]) == pytest.approx(1.0, abs=0.01)
    assert bar([curve(1.3, 9)] * 4) > 1.2
    assert bar([]) < bar([curve(1.3, 2)] * 4) < bar([curve(1.3, 9)] * 4)


@pytest.mark.parametrize("column", [2, 3], ids=["loss", "choice"])
def test_what_is_seen_near_the_best_with_another_loss_or_choice_counts_less(column: int) -> None:
    def bar(others: float) -> float:
        x = np.array([[-3.0, 1.0, 0.0, 0.0]] * 4 + [[-3.0, 1.6, 0.0, 0.0]] * 4)
        x[4:, column] = others
        ends = np.array([0.7, 0.9, 1.1, 1.3, 1.4, 1.6, 1.8, 2.0])
        curves = [np.array([3.0, 2.0, end]) for end in ends]
        found = Prospects.of(Seen(x, np.array(["complete"] * 8), ends, curves))
        assert found is not None
        return found.incumbent

    assert bar(1.0) < bar(0.0) - 0.01


def test_the_pruner_learns_again_only_when_another_trial_has_ended() -> None:
    pruner = ImprovementPruner(n_warmup_steps=1)
    study = study_of(10, pruner)

    learned = [(is_pruned(study, final=2.0), pruner._known[2])[1] for _ in range(2)]
    study.add_trial(complete_trial(1e-3, 1e-4, 0.0))
    is_pruned(study, final=2.0)

    assert learned[0] is learned[1] is not None
    assert pruner._known[2] is not learned[0]


@pytest.mark.parametrize(("unlucky_by", "goes_on"), [(1.2, True), (1.4, False)])  # 11.5 and 8.3 %
def test_an_unlucky_run_of_the_best_configuration_goes_on(unlucky_by: float, goes_on: bool) -> None:
    """Seeds of one configuration end 0.1 apart, and what a run will end at is seen after two epochs."""
    ends = 1.0 + 0.1 * np.array([-1.4, -0.9, -0.5, -0.1, 0.1, 0.5, 0.9, 1.4])
    ends = np.concatenate([ends, np.linspace(1.8, 2.2, 8)])
    places = np.array([[-3.0, 1.0, 0.0]] * 8 + [[-4.0 + 0.1 * number, 2.5, 0.0] for number in range(8)])
    curves = [end + np.exp(-np.arange(1, 11)) for end in ends]
    seen = Seen(places, np.array(["complete"] * 16), np.array([curve[-1] for curve in curves]), curves)
    found = Prospects.of(seen)
    assert found is not None

    chance = found.chance((-3.0, 1.0), 1.0 + 0.1 * unlucky_by + np.exp(-np.arange(1, 3)))

    assert (chance > CHANCE) is goes_on
