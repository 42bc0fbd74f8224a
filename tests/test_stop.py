"""One orderly end: raised once, at once, but never inside what must be whole."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress

import pytest

from hpo.worker.stop import Stop, Stopped


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def test_a_signal_ends_a_sleep_at_once() -> None:
    stop = Stop()
    threading.Timer(0.1, interrupt).start()

    with stop.listening(), pytest.raises(Stopped), stop.raising():
        time.sleep(3600)  # longer than a test may take
    assert stop.reason == "interrupted"


def test_another_thread_can_ask_for_the_end_and_the_first_reason_counts() -> None:
    stop = Stop()
    threading.Timer(0.1, stop.request, ["timeout"]).start()

    with stop.listening(), pytest.raises(Stopped), stop.raising():
        time.sleep(20)
    stop.request("interrupted")
    assert stop.reason == "timeout"


def test_a_hangup_that_nohup_ignores_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    with Stop().listening():
        heard = signal.getsignal(signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)
    assert heard == signal.SIG_IGN


def test_what_is_held_is_finished_first() -> None:
    stop, done = Stop(), []

    def work() -> None:
        with stop.raising():
            with stop.held():
                with stop.held():
                    interrupt()
                done.append("both parts")
            done.append("never")

    with stop.listening(), pytest.raises(Stopped):
        work()
    assert done == ["both parts"]


def test_cleaning_up_is_not_interrupted() -> None:
    stop, done = Stop(), []

    def work() -> None:
        with stop.raising():
            try:
                interrupt()
            finally:
                interrupt()
                with stop.held():
                    interrupt()
                done.append("cleaned")

    with stop.listening(), pytest.raises(Stopped):
        work()
    assert done == ["cleaned"]


def test_what_is_silenced_is_not_interrupted_even_by_the_first_request() -> None:
    stop, done = Stop(), []

    with stop.listening(), stop.raising():
        with stop.silenced():
            interrupt()
            done.append("whole")
        assert stop.reason == "interrupted"
    assert done == ["whole"]


def test_a_request_that_came_early_is_raised_when_the_work_begins() -> None:
    stop = Stop()

    with stop.listening():
        interrupt()
        with pytest.raises(Stopped), stop.raising():
            time.sleep(20)


def test_a_request_that_was_eaten_is_raised_again_by_the_next_check() -> None:
    stop = Stop()

    def work() -> None:
        with stop.raising():
            with suppress(Stopped):
                interrupt()
            stop.check()

    with stop.listening(), pytest.raises(Stopped):
        work()


def test_a_pause_ends_when_the_end_is_asked_for_also_where_it_is_held_back() -> None:
    stop = Stop()
    threading.Timer(0.1, interrupt).start()

    with stop.listening(), pytest.raises(Stopped), stop.raising(), stop.held():
        stop.pause(3600)


def test_outside_the_main_thread_only_a_check_raises() -> None:
    stop, raised = Stop(), threading.Event()

    def work() -> None:
        with stop.listening(), stop.raising():
            try:
                stop.pause(20)
            except Stopped:
                raised.set()

    thread = threading.Thread(target=work)
    thread.start()
    stop.request("timeout")
    thread.join(timeout=5)

    assert raised.is_set()


def test_the_handlers_of_before_are_back_afterwards() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Stop().listening():
        pass

    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
