"""Replicates: the last part of a budget goes to fresh seeds for the leaders and the baseline."""

from __future__ import annotations

from collections import Counter

import pandas as pd
from small_study import NAME, Place, small_spec

from hpo.fleet import run_local
from hpo.reading.frames import trials_frame
from hpo.search.race import Tried, contenders, first_replicate, is_behind, next_replicate
from hpo.storage import open_engine
from hpo.study import Configuration, StudySpec
from hpo.study.setting import Setting
from hpo.worker import work

REPLICATE = {"top": 2, "seeds": 2}
GOOD, FAIR, POOR = (Setting(1e-3, rate, "l1") for rate in (1e-4, 2e-4, 4e-4))
BASELINE = Setting(1e-4, 1e-5, "mse")


def spec(**replicate: int) -> StudySpec:
    return small_spec(replicate=replicate or REPLICATE)


def tried(setting: Setting, seed: int, value: float | None, slot: int = 50) -> Tried:
    configuration = Configuration(setting.lr, setting.backbone_lr, setting.loss, seed)
    return Tried(slot, "replicate", configuration, True, value)


def race(losses: dict[Setting, float], runs: int, noise: float = 0.0) -> list[Configuration]:
    """Run the race to its end, one run after the other."""
    done: list[Tried] = []
    for slot in range(50, 50 + runs):
        racing = contenders(spec(), done, list(losses), first=50)
        found = next_replicate(spec(), done, racing, rounds=runs)
        assert found is not None
        setting = Setting(found.lr, found.backbone_lr, found.loss)
        done.append(tried(setting, found.seed, losses[setting] + noise * (found.seed % 3), slot))
    return [one.configuration for one in done]


def trials(place: Place) -> pd.DataFrame:
    engine = open_engine(place.url)
    frame = trials_frame(engine, place.ledger().study(NAME).study_id)
    engine.dispose()
    return frame


def test_the_last_part_of_the_budget_is_replicates_of_the_leaders_and_the_baseline(place: Place) -> None:
    place.open(20, replicate=REPLICATE)

    work(place.url, [NAME], settings=place.settings())

    frame = trials(place)
    assert list(frame["origin"]) == ["baseline", "known"] + ["search"] * 12 + ["replicate"] * 6
    replicates = frame.tail(6)
    of_each = Counter(zip(replicates["lr"], replicates["backbone_lr"], replicates["loss"], strict=True))
    assert of_each[1e-4, 1e-5, "mse"] == 2
    assert sorted(of_each.values()) == [2, 2, 2]
    searched = frame.head(14)
    assert set(of_each) <= set(zip(searched["lr"], searched["backbone_lr"], searched["loss"], strict=True))


def test_all_contenders_meet_the_same_fresh_seeds_and_none_twice(place: Place) -> None:
    place.open(20, replicate=REPLICATE)

    work(place.url, [NAME], settings=place.settings())

    replicates = trials(place).tail(6)
    seeds = replicates.groupby(["lr", "backbone_lr", "loss"])["seed"].apply(
        lambda found: tuple(sorted(found))
    )
    assert seeds.nunique() == 1
    assert set(seeds.iloc[0]).isdisjoint(trials(place).head(14)["seed"])


def test_replicates_are_never_pruned(place: Place) -> None:
    place.open(20, replicate=REPLICATE)

    work(place.url, [NAME], settings=place.settings())

    assert set(trials(place).tail(6)["state"]) == {"complete"}


def test_several_workers_give_no_seed_to_one_configuration_twice(place: Place) -> None:
    place.behave(epoch_s=0.01)
    place.open(24, replicate={"top": 3, "seeds": 3})

    run_local(place.url, NAME, total=24, workers=3, settings=place.settings())

    frame = trials(place)
    assert set(frame["state"]) <= {"complete", "pruned"}
    replicates = frame[frame["origin"] == "replicate"]
    assert len(replicates) == 11
    assert not replicates.duplicated(["lr", "backbone_lr", "loss", "seed"]).any()


def test_a_larger_budget_replicates_again_at_its_end(place: Place) -> None:
    place.open(14, replicate=REPLICATE)
    work(place.url, [NAME], settings=place.settings())
    place.open(24, replicate=REPLICATE)

    work(place.url, [NAME], settings=place.settings())

    origins = list(trials(place)["origin"])
    assert origins[8:14] == ["replicate"] * 6
    assert origins[14:18] == ["search"] * 4
    assert origins[18:] == ["replicate"] * 6


def test_without_replicate_every_slot_is_searched(place: Place) -> None:
    place.open(8)

    work(place.url, [NAME], settings=place.settings())

    assert list(trials(place)["origin"])[2:] == ["search"] * 6


def test_replicates_take_at_most_half_of_what_the_known_configurations_leave() -> None:
    assert first_replicate(spec(top=5, seeds=5), 100) == 70
    assert first_replicate(spec(top=5, seeds=5), 12) == 7
    assert first_replicate(spec(top=5, seeds=5), 2) == 2
    assert first_replicate(small_spec(), 100) == 100


def test_the_leader_and_the_baseline_meet_every_seed_before_a_challenger_does() -> None:
    runs = race({GOOD: 2.0, BASELINE: 2.1, FAIR: 2.05}, 6)

    first_round = [(run.lr, run.backbone_lr) for run in runs[:3]]
    assert first_round == [(1e-3, 1e-4), (1e-4, 1e-5), (1e-3, 2e-4)]
    assert len({run.seed for run in runs[:3]}) == 1
    assert len({run.seed for run in runs[3:]}) == 1


def test_a_challenger_clearly_behind_runs_no_more_and_the_baseline_always_does() -> None:
    runs = race({GOOD: 2.0, BASELINE: 9.0, POOR: 4.0}, 10)

    of_each = Counter(run.backbone_lr for run in runs)
    assert of_each[4e-4] == 2
    assert of_each[1e-5] == of_each[1e-4] == 4


def test_a_challenger_that_diverges_once_is_out() -> None:
    results = {(GOOD, 1): 2.0, (POOR, 1): float("inf")}

    assert is_behind(results, POOR, GOOD, [1])
    assert not is_behind({(GOOD, 1): 2.0, (POOR, 1): 9.0}, POOR, GOOD, [1])


def test_who_has_begun_to_race_stays_whatever_later_trials_show() -> None:
    begun = [tried(POOR, 1, 5.0)]

    assert contenders(spec(), begun, [GOOD, FAIR], first=50) == [POOR, BASELINE, GOOD]
