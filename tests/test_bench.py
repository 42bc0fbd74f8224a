"""The benchmark of this machine: what it measures, and what it recommends from it."""

from __future__ import annotations

import time

import pytest
from small_study import Place, small_spec

from finetune.api import SlotAdvice
from hpo.bench import Benchmark, EpochClock, Overhead, Rate, bench_lines, measure_overhead, to_json
from hpo.errors import UsageError
from hpo.search_here import parse_slots
from hpo.worker.session import Event

ADVICE = SlotAdvice("graph", {1: 2.0, "graph": 0.5, 2: 1.25})


def benchmark_of(*rates: Rate) -> Benchmark:
    return Benchmark("small", "cpu", 2, 10, Overhead(1, 10, 9.8, 0.2), rates, ADVICE)


def test_overhead_counts_every_trial_and_epoch_and_splits_their_time(tmp_path):
    spec = small_spec()
    found = measure_overhead(spec, Place(tmp_path).settings(), tmp_path, trials=3)

    assert (found.trials, found.epochs) == (3, 3 * spec.recipe.epochs)
    assert found.service_s > 0
    assert 0 < found.share <= 1


def test_the_fewest_workers_that_are_about_as_fast_are_recommended():
    assert benchmark_of(Rate(1, 1.0), Rate(2, 1.9)).best.workers == 2
    assert benchmark_of(Rate(1, 1.0), Rate(2, 1.01)).best.workers == 1


def test_the_summary_names_trials_an_hour_the_share_and_the_options_to_type():
    text = "\n".join(bench_lines(benchmark_of(Rate(1, 1.0), Rate(2, 2.0))))

    assert "720 trials an hour of 10 epochs" in text
    assert "2.0 % of a trial's CPU time" in text
    assert "--workers 2 --slots graph" in text
    assert "--slots graph: 0.5 s a run and epoch" in text
    assert to_json(benchmark_of(Rate(1, 1.0)))["seconds_by_slots"] == {"1": 2.0, "graph": 0.5, "2": 1.25}


def test_a_rate_is_counted_from_each_workers_first_epoch():
    clock = EpochClock()
    for _ in range(3):
        clock.take(Event("epoch", "a"))
        clock.take(Event("started", "a"))
        time.sleep(0.05)

    assert 5 < clock.rate() <= 20


@pytest.mark.parametrize(("text", "slots"), [("auto", "auto"), ("graph", "graph"), ("1", 1), ("64", 64)])
def test_slots_are_a_number_graph_or_auto(text, slots):
    assert parse_slots(text) == slots


@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5"])
def test_other_slots_are_refused(text):
    with pytest.raises(UsageError, match="--slots"):
        parse_slots(text)
