"""Progress for a person: counting, times, and the two ways to show them."""

from __future__ import annotations

import io
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hpo.errors import UsageError
from hpo.numbers import duration
from hpo.report.language import SPOKEN
from hpo.search_here import parse_duration
from hpo.worker.progress import Display, Progress, event_line, said_if_slow
from hpo.worker.session import Event


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("1d", 86400), ("1.5h", 5400)]
)
def test_a_time_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@given(st.text(max_size=8))
def test_any_other_time_is_refused_or_positive(text: str) -> None:
    try:
        seconds = parse_duration(text)
    except UsageError:
        seconds = None

    assert seconds is None or seconds > 0


@given(st.floats(min_value=0, max_value=1e6))
def test_a_duration_is_short_to_read(seconds: float) -> None:
    assert len(duration(seconds)) <= 12


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def ended(slot: int, kind: Any, value: float | None) -> Event:
    return Event(kind, "w1", "s", slot, 1, 6, 6, value)


def test_progress_counts_the_best_and_the_time_left(clock: Clock) -> None:
    progress = Progress("s", 10, "bpm", now=clock, words=SPOKEN["en"])
    progress.take(Event("epoch", "w1", "s", 0, 1, 2, 6, 4.0))

    clock.now_s = 30.0
    progress.take(ended(0, "complete", 3.0))
    progress.take(ended(1, "pruned", 2.0))
    progress.take(ended(2, "failed", None))

    assert progress.standing() == ("2/10 finished (1 stopped), 1 failed, best 3 (trial 0), 0 s to 5 min left")
    assert progress.running == {}


def test_a_resumed_study_estimates_from_the_trials_of_this_command_alone(clock: Clock) -> None:
    progress = Progress("s", 100, complete=90, now=clock, words=SPOKEN["en"])
    clock.now_s = 10.0

    assert progress.seconds_left() is None
    progress.take(ended(90, "complete", 3.0))
    clock.now_s = 20.0
    progress.take(ended(91, "complete", 3.0))

    left = progress.seconds_left()
    assert left is not None
    assert left[0] < 80.0 < left[1]
    clock.now_s = 25.0
    assert progress.seconds_left() == pytest.approx((left[0] - 5, left[1] - 5))


def test_the_time_left_is_a_range_that_holds_the_end_in_about_four_of_five_searches(clock: Clock) -> None:
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(300):
        ends = np.cumsum(rng.gamma(2.0, 10.0, size=40))
        clock.now_s = 0.0
        progress = Progress("s", 40, now=clock, words=SPOKEN["en"])
        for slot, clock.now_s in enumerate(ends[:12]):
            progress.take(ended(slot, "complete", 1.0))
        left = progress.seconds_left()
        assert left is not None
        held += left[0] <= ends[-1] - ends[11] <= left[1]

    assert 0.70 <= held / 300 <= 0.92


def shown(events: list[Event], clock: Clock, *, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    with Display(Progress("s", 10, "bpm", now=clock, words=SPOKEN["en"]), console) as display:
        for event in events:
            clock.now_s += 20.0
            display.take(event)
    return text.getvalue()


EVENTS = [
    Event("started", "w1", "s", 0, 1, 0, 6),
    Event("epoch", "w1", "s", 0, 1, 1, 6, 4.0),
    Event("waiting", "w1", "s", text="the database is away"),
    ended(0, "complete", 3.0),
]


def test_without_a_terminal_progress_is_plain_lines(clock: Clock) -> None:
    lines = shown(EVENTS, clock, terminal=False).splitlines()

    assert lines == [
        "s: 0/10 finished (0 stopped); trial 0 epoch 1/6 at 4 bpm",
        "s: the database is away",
        "s: trial 0 complete at 3 bpm",
        "  1/10 finished (0 stopped), best 3 (trial 0)",
    ]


def test_a_run_that_goes_on_says_from_where_and_lines_fit_a_terminal(clock: Clock) -> None:
    resumed = Event("started", "w1", "bidmc_hr_quick", 17, 2, 3, 8)
    progress = Progress(
        "bidmc_hr_quick", 100, "breaths/min", 30, 57, 2, 12.3456, 8, now=clock, words=SPOKEN["en"]
    )
    for slot in (18, 19, 20):
        clock.now_s += 4000.0
        progress.take(ended(slot, "complete", 11.1111))

    assert event_line(resumed, progress) == "bidmc_hr_quick: trial 17 resumes at epoch 4 of 8"
    told = event_line(ended(21, "pruned", 14.2222), progress)
    assert told is not None
    assert max(map(len, told.splitlines())) <= 80


def test_what_takes_long_is_said_and_what_is_quick_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.worker.progress.SLOW_S", 0.05)
    said: list[str] = []
    with said_if_slow("reading the data", said.append):
        deadline = time.monotonic() + 10
        while not said and time.monotonic() < deadline:
            time.sleep(0.01)
    with said_if_slow("nothing", said.append):
        pass

    time.sleep(0.1)
    assert said == ["reading the data ..."]


def test_on_a_terminal_messages_stay_and_the_picture_moves(clock: Clock) -> None:
    told = shown(EVENTS, clock, terminal=True)

    assert "s: the database is away" in told
    assert "1/10 finished" in told
