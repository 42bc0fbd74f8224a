"""What is suggested next, and when a run is stopped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Origin, Outcome, Peers, Point
from hpo.search import PastTrial, Suggester, own_seed, suggest, tuning_seed
from hpo.search.pruning import UnderWay, goes_on, is_above_median
from hpo.study import Configuration, Pruner, StudySpec

pytestmark = pytest.mark.whole_posterior

KINDS = ("random", "tpe", "gp", "ratio")
MEDIAN = Pruner(kind="median", warmup_epochs=2, startup_trials=3)


def make_spec(kind: str = "tpe", startup_trials: int = 5, **parts: object) -> StudySpec:
    return StudySpec.model_validate(
        {
            "name": "searched",
            "task": "synthetic_rr",
            "backbone": {"name": "cmssl_tiny_ppg"},
            "space": {
                "lr": {"low": 1e-6, "high": 1e-1},
                "backbone_lr": {"low": 1e-7, "high": 1e-2},
                "loss": ["mse", "l1"],
            },
            "sampler": {"kind": kind, "startup_trials": startup_trials},
            "baseline": {"name": "default", "lr": 1e-4, "backbone_lr": 1e-5, "loss": "mse"},
            **parts,
        }
    )


def loss_of(configuration: Configuration) -> float:
    """Best at lr 1e-3 and ratio 10 with l1; not finite from lr 1e-2 on."""
    if configuration.lr > 1e-2:
        return math.nan
    lr, ratio = math.log10(configuration.lr), math.log10(configuration.ratio)
    return 2.0 + 0.3 * (lr + 3) ** 2 + 0.2 * (ratio - 1) ** 2 + 0.2 * (configuration.loss == "mse")


@cache
def searched(kind: str) -> tuple[PastTrial, ...]:
    return tuple(search(make_spec(kind), 40))


def search(spec: StudySpec, trials: int) -> list[PastTrial]:
    past: list[PastTrial] = []
    for slot in range(trials):
        configuration = suggest(spec, slot, past)
        value = loss_of(configuration)
        finite = math.isfinite(value)
        past.append(
            PastTrial(
                slot, configuration, "finished" if finite else "diverged", value if finite else None, 20
            )
        )
    return past


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_history_gives_the_same_suggestion(kind: str) -> None:
    spec, past = make_spec(kind), searched(kind)[:8]

    assert suggest(spec, 8, past) == suggest(spec, 8, past)
    assert suggest(spec, 8, past) != suggest(spec, 9, past)


@pytest.mark.parametrize("kind", KINDS)
def test_suggestions_lie_in_the_space(kind: str) -> None:
    space = make_spec(kind).space

    for trial in searched(kind):
        assert space.lr.contains(trial.configuration.lr)
        assert space.backbone_lr.contains(trial.configuration.backbone_lr)
        assert trial.configuration.loss in space.loss
        assert space.seed.low <= trial.configuration.seed <= space.seed.high


@pytest.mark.parametrize("kind", ["tpe", "gp", "ratio"])
def test_a_model_finds_better_configurations_than_chance(kind: str) -> None:
    modelled, random = searched(kind), searched("random")

    def mean_of_last(past: Sequence[PastTrial]) -> float:
        return float(np.mean([6.0 if trial.value is None else trial.value for trial in past[-20:]]))

    assert mean_of_last(modelled) < mean_of_last(random) - 0.3


@pytest.mark.parametrize("kind", ["tpe", "gp", "ratio"])
def test_a_search_leaves_the_diverging_region(kind: str) -> None:
    last = searched(kind)[-20:]

    assert sum(trial.end == "diverged" for trial in last) <= 4


@pytest.mark.parametrize("kind", ["tpe", "gp"])
def test_a_search_learns_from_pruned_trials(kind: str) -> None:
    spec = make_spec(kind)
    past = [replace(t, end="pruned" if t.value and t.value > 2.5 else t.end) for t in searched(kind)[:20]]
    without_pruned = [trial for trial in past if trial.end != "pruned"]

    assert suggest(spec, 20, past) != suggest(spec, 20, without_pruned)


@pytest.mark.parametrize("kind", ["tpe", "ratio"])
def test_a_suggester_sees_what_has_finished_in_whatever_order(
    engine: sa.Engine, ledger: Ledger, kind: str
) -> None:
    spec = make_spec(kind, startup_trials=2)
    study = ledger.create_study(spec, data={}, versions={})
    ledger.add_slots(study.study_id, 12)
    suggester = Suggester(spec, study.study_id, engine)
    past: dict[int, PastTrial] = {}
    claims = [ledger.claim(study.study_id, "worker", lease_s=60) for _ in range(10)]
    for claim in (claims[slot] for slot in (1, 0, 5, 4, 3, 2, 9, 8, 6, 7)):
        assert claim is not None
        configuration = suggester.suggest(claim.slot)
        begun = ledger.begin(claim, configuration, spec.space, {})
        assert begun is not None
        end = "pruned" if claim.slot % 2 else "finished"
        losses = [4.0 + claim.slot, math.nan, 2.0 + claim.slot]
        for epoch, loss in enumerate(losses, start=1):
            ledger.report([Point(begun, epoch, loss, loss, {}, 0.1)], lease_s=60)
        ledger.finish(begun, Outcome(end, 2.0 + claim.slot, 1, 3, {}, 1.0, "cpu"))
        curve = (losses[0], losses[0], losses[2])
        past[claim.slot] = PastTrial(claim.slot, configuration, end, 2.0 + claim.slot, 3, curve=curve)

    assert suggester.suggest(10) == suggest(spec, 10, [past[slot] for slot in range(10)])
    assert Suggester(spec, study.study_id, engine).suggest(10) == suggester.suggest(10)


def test_a_running_trial_keeps_others_away() -> None:
    spec = make_spec("tpe")
    past = search(spec, 20)
    running = PastTrial(20, suggest(spec, 21, past), None, None, 0)

    assert suggest(spec, 21, [*past, running]) != suggest(spec, 21, past)


def test_a_space_with_one_loss_can_be_searched() -> None:
    space = {
        "lr": {"low": 1e-6, "high": 1e-1},
        "backbone_lr": {"low": 1e-7, "high": 1e-2},
        "loss": ["mse"],
    }

    assert {trial.configuration.loss for trial in search(make_spec("tpe", space=space), 12)} == {"mse"}


@given(slot=st.integers(0, 10_000), low=st.integers(0, 50), width=st.integers(0, 50))
def test_tuning_seeds_lie_in_their_range_and_depend_on_the_slot_alone(
    slot: int, low: int, width: int
) -> None:
    space = make_spec().space.model_dump() | {"seed": {"low": low, "high": low + width}}
    spec = make_spec(space=space)

    assert low <= tuning_seed(spec, slot) <= low + width
    assert tuning_seed(spec, slot) == tuning_seed(spec.model_copy(), slot)


def test_tuning_seeds_differ_between_slots() -> None:
    assert len({tuning_seed(make_spec(), slot) for slot in range(100)}) > 90


def taking_turns(count: int, **space: object) -> StudySpec:
    whole = make_spec().space.model_dump() | {"seed": {"low": 10, "high": 99, "count": count}} | space
    return make_spec("random", space=whole)


def test_trials_take_turns_with_a_few_seeds() -> None:
    spec = taking_turns(3)

    seeds = [tuning_seed(spec, slot) for slot in range(6)]

    assert seeds[:3] == seeds[3:]
    assert len(set(seeds)) == 3
    assert all(10 <= seed <= 99 for seed in seeds)
    assert tuning_seed(spec, 0, taken={seeds[0]}) == seeds[1]
    assert tuning_seed(spec, 0, taken=set(seeds)) == own_seed(spec, 0)


def test_a_configuration_meets_each_of_the_seeds_once_and_then_others() -> None:
    near = {"lr": {"low": 1e-4, "high": 1.01e-4}, "backbone_lr": {"low": 1e-5, "high": 1.01e-5}}
    spec = taking_turns(3, **near, loss=["mse"])

    seeds = [trial.configuration.seed for trial in search(spec, 8)]

    turns = {tuning_seed(spec, slot) for slot in range(3)}
    assert set(seeds[:3]) == turns
    assert seeds[3:] == [own_seed(spec, slot) for slot in range(3, 8)]


def test_with_folds_each_trial_draws_its_own_seed_and_so_its_fold() -> None:
    folds = {"kind": "grouped_folds", "k": 5}
    spec = make_spec(space=taking_turns(3).space.model_dump(), validation=folds)

    assert tuning_seed(spec, 4) == own_seed(spec, 4)


@pytest.mark.parametrize("count", [1, 91])
def test_turns_of_one_seed_or_of_more_than_there_are_are_refused(count: int) -> None:
    with pytest.raises(ValidationError, match="seed"):
        taking_turns(count)


def test_another_sampler_seed_is_another_search_and_none_keeps_the_fingerprint_that_it_had() -> None:
    plain, *others = [make_spec(sampler={"kind": "ratio", "seed": seed}) for seed in (0, 1, 2)]

    assert "seed" not in plain.what_counts()["sampler"]
    assert len({spec.fingerprint() for spec in (plain, *others)}) == 3
    assert len({suggest(spec, 0, []) for spec in (plain, *others)}) == 3


def test_a_study_without_turns_keeps_the_fingerprint_that_it_had() -> None:
    assert "count" not in make_spec().what_counts()["space"]["seed"]
    assert taking_turns(3).fingerprint() != taking_turns(4).fingerprint()


def poor_run(epoch: int = 3, **parts: object) -> UnderWay:
    """A run that every pruner would stop at its third epoch of ten, after two of warm-up."""
    run = UnderWay("search", Configuration(1e-3, 1e-4, "l1", 0), epoch, 10, True, (9.0, 9.0, 9.0))
    return replace(run, **parts)


def is_stopped(
    run: UnderWay, kind: str, prospects: object = SimpleNamespace(is_hopeless=lambda *_: True)
) -> bool:
    pruner = MEDIAN.model_copy(update={"kind": kind})
    peers = Peers(count=3, median=2.0)
    return not goes_on(pruner, run, peers=lambda: peers, prospects=lambda: prospects)


@pytest.mark.parametrize("kind", ["median", "improvement"])
def test_a_poor_run_is_stopped_from_the_end_of_the_warm_up_to_the_last_epoch_but_one(kind: str) -> None:
    stopped = [epoch for epoch in range(1, 11) if is_stopped(poor_run(epoch), kind)]

    assert stopped == list(range(3, 10))


@pytest.mark.parametrize("kind", ["median", "improvement"])
def test_only_what_a_search_chose_is_ever_stopped(kind: str) -> None:
    origins = get_args(Origin)

    assert {one for one in origins if is_stopped(poor_run(origin=one), kind)} == {"search", "transferred"}


@pytest.mark.parametrize("kind", ["median", "improvement"])
def test_an_epoch_without_a_loss_is_the_trainers_to_judge(kind: str) -> None:
    assert not is_stopped(poor_run(is_finite=False), kind)


def test_nothing_is_stopped_without_a_pruner_or_before_there_is_something_to_learn_from() -> None:
    assert not is_stopped(poor_run(), "none")
    assert not is_stopped(poor_run(), "improvement", prospects=None)
    assert not is_stopped(poor_run(lowest=()), "improvement")
    assert not is_stopped(poor_run(), "improvement", SimpleNamespace(is_hopeless=lambda *_: False))


def test_a_run_above_the_median_of_its_peers_is_pruned() -> None:
    assert is_above_median(MEDIAN, 2.1, Peers(count=3, median=2.0))
    assert not is_above_median(MEDIAN, 1.9, Peers(count=3, median=2.0))


def test_a_run_without_a_finite_epoch_is_pruned() -> None:
    assert is_above_median(MEDIAN, None, Peers(count=3, median=2.0))


def test_too_few_peers_prune_nothing() -> None:
    one_is_enough = MEDIAN.model_copy(update={"startup_trials": 0})

    assert not is_above_median(MEDIAN, 9.0, Peers(count=2, median=1.0))
    assert not is_above_median(one_is_enough, None, Peers(count=0, median=math.nan))
    assert is_above_median(one_is_enough, 9.0, Peers(count=1, median=1.0))


@given(peers=st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_a_run_as_good_as_the_best_is_never_pruned(peers: list[float]) -> None:
    assert not is_above_median(MEDIAN, min(peers), Peers(len(peers), float(np.median(peers))))


def test_what_complete_trials_teach_is_learned_once_for_each_that_ends(
    engine: sa.Engine, ledger: Ledger
) -> None:
    spec = make_spec("random", pruner={"kind": "improvement", "startup_trials": 6})
    study = ledger.create_study(spec, data={}, versions={})
    ledger.add_slots(study.study_id, 8)
    suggester = Suggester(spec, study.study_id, engine)
    for slot in range(7):
        assert (suggester.prospects(None) is None) == (slot < 6)
        claim = ledger.claim(study.study_id, "worker", lease_s=60)
        assert claim is not None
        begun = ledger.begin(claim, suggester.suggest(slot), spec.space, {})
        assert begun is not None
        for epoch in range(1, 5):
            loss = 2 + 0.1 * slot + 1 / epoch
            ledger.report([Point(begun, epoch, loss, loss, {}, 0.1)], lease_s=60)
        ledger.finish(begun, Outcome("finished", 2.25 + 0.1 * slot, 4, 4, {}, 1.0, "cpu"))
    prospects = suggester.prospects(None)

    assert prospects is not None
    assert suggester.prospects(None) is prospects
    assert suggester.prospects(3) is None
    somewhere = suggester.suggest(7)
    assert prospects.is_hopeless(somewhere, [9.0, 8.5])
    assert not prospects.is_hopeless(somewhere, [3.0, 2.4])
