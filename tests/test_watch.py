"""Who is dead and who only slept: a lease that ran out is no proof."""

from __future__ import annotations

import pytest

from hpo.ledger.values import Lease
from hpo.worker.watch import Watch


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def lease(slot: int = 0, until: float = 5.0, length_s: float = 60.0) -> Lease:
    return Lease(1, slot, 1, until, length_s)


def look(watch: Watch, clock: Clock, after_s: float, *leases: Lease) -> list[Lease]:
    clock.at += after_s
    return watch.dead(list(leases))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(60.0, clock)


def test_nobody_is_dead_at_the_first_look(watch: Watch, clock: Clock) -> None:
    assert look(watch, clock, 0.0, lease()) == []


def test_a_holder_is_dead_half_a_lease_after_it_was_seen_to_be_over_and_not_before(
    watch: Watch, clock: Clock
) -> None:
    look(watch, clock, 0.0, lease())

    assert look(watch, clock, 29.9, lease()) == []
    assert look(watch, clock, 0.1, lease()) == [lease()]


def test_a_renewed_lease_is_another_one(watch: Watch, clock: Clock) -> None:
    look(watch, clock, 0.0, lease())
    look(watch, clock, 20.0, lease(until=25.0))

    assert look(watch, clock, 20.0, lease(until=45.0)) == []
    assert look(watch, clock, 29.0, lease(until=45.0)) == []
    assert look(watch, clock, 1.0, lease(until=45.0)) == [lease(until=45.0)]


def test_a_lease_that_was_good_in_between_is_watched_anew(watch: Watch, clock: Clock) -> None:
    look(watch, clock, 0.0, lease())
    look(watch, clock, 20.0)

    assert look(watch, clock, 20.0, lease()) == []


@pytest.mark.parametrize(("gap_s", "is_dead"), [(60.0, True), (60.1, False)])
def test_a_watch_that_was_broken_off_begins_anew(
    watch: Watch, clock: Clock, gap_s: float, is_dead: bool
) -> None:
    look(watch, clock, 0.0, lease())

    assert look(watch, clock, gap_s, lease()) == ([lease()] if is_dead else [])
    assert look(watch, clock, 30.0, lease()) == [lease()]


def test_each_lease_has_its_own_length(watch: Watch, clock: Clock) -> None:
    short, long = lease(0, length_s=2.0), lease(1, length_s=60.0)
    look(watch, clock, 0.0, short, long)

    assert look(watch, clock, 1.0, short, long) == [short]
