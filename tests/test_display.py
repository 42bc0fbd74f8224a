"""Progress for a person: counting, times, and the two ways to show them."""

from __future__ import annotations

import io
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from hpo.errors import UsageError
from hpo.search_here import parse_duration
from hpo.worker.progress import Display, Progress, duration
from hpo.worker.session import Event


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("2h", 7200), ("45", 45), ("1.5h", 5400)]
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
    progress = Progress("s", 10, "bpm", now=clock)
    progress.take(Event("epoch", "w1", "s", 0, 1, 2, 6, 4.0))

    clock.now_s = 30.0
    progress.take(ended(0, "complete", 3.0))
    progress.take(ended(1, "pruned", 2.0))
    progress.take(ended(2, "failed", None))

    assert progress.words() == (
        "2/10 finished (1 complete, 1 pruned), 1 failed, best 3 bpm (trial 0), about 2 min left"
    )
    assert progress.running == {}


def test_a_resumed_study_estimates_from_the_trials_of_this_command_alone(clock: Clock) -> None:
    progress = Progress("s", 100, complete=90, now=clock)
    clock.now_s = 10.0

    assert progress.seconds_left() is None
    progress.take(ended(90, "complete", 3.0))

    assert progress.seconds_left() == pytest.approx(90.0)


def shown(events: list[Event], clock: Clock, *, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    with Display(Progress("s", 10, "bpm", now=clock), console) as display:
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
        "s: 0/10 finished (0 complete, 0 pruned); trial 0 epoch 1/6 at 4 bpm",
        "s: the database is away",
        "s: trial 0 complete at 3 bpm; "
        "1/10 finished (1 complete, 0 pruned), best 3 bpm (trial 0), about 12 min left",
    ]


def test_on_a_terminal_messages_stay_and_the_picture_moves(clock: Clock) -> None:
    told = shown(EVENTS, clock, terminal=True)

    assert "s: the database is away" in told
    assert "1/10 finished" in told
