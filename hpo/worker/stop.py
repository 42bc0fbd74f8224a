"""One orderly end of a process, whoever asks for it: a signal, a clock, or the parent's death.

Python runs signal handlers in the main thread between two bytecodes. :class:`Stop` turns the first request
into one :class:`Stopped`, raised right there, so that an epoch of minutes ends at once. It is held back
while a database transaction runs, so that no claim is made that nobody knows of, and it is not raised a
second time, so that the cleaning up is not itself interrupted.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Literal

StopReason = Literal["interrupted", "timeout", "fault"]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
HELD_S = 1.5
"""So long a request is held back. A server that does not answer would hold it back for ever."""


class Stopped(BaseException):
    """The process should end in order. No ``Exception``: ``except Exception`` on its way must not eat it."""


class Stop:
    """Whether, and why, this process should end."""

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self.fault: Exception | None = None
        """What made the end necessary, where another thread found it."""
        self._asked_at: float | None = None
        self._raises = False
        self._holds = 0
        self._was_raised = False

    def request(self, reason: StopReason) -> None:
        """Ask for the end, from any thread; the first reason counts."""
        self.reason = self.reason or reason
        if signal.getsignal(signal.SIGTERM) == self._on_signal:
            main = threading.main_thread().ident
            assert main is not None
            signal.pthread_kill(main, signal.SIGTERM)

    def fail(self, fault: Exception) -> None:
        """Ask for the end because of a fault that another thread than the main one has met."""
        self.fault = self.fault or fault
        self.request("fault")

    @contextmanager
    def listening(self, *, for_good: bool = False) -> Iterator[None]:
        """Take SIGINT and SIGTERM as requests (in the main thread; elsewhere only :meth:`check` raises).

        A terminal that closes is one too, unless ``nohup`` has that ignored. With
        ``for_good`` they stay so after a signal: the process is on its way out, and an impatient second one
        must not cut that short.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        is_nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
        heard = [number for number in _SIGNALS if not (is_nohup and number == signal.SIGHUP)]
        before = {number: signal.signal(number, self._on_signal) for number in heard}
        try:
            yield
        finally:
            if not (for_good and self.reason == "interrupted"):
                for number, handler in before.items():
                    signal.signal(number, handler)

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Let a request raise :class:`Stopped` anywhere inside; one that came before raises at once."""
        self.check()
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold a request back inside, and raise it at the end."""
        self._holds += 1
        try:
            yield
        finally:
            self._holds -= 1
        self._raise_once()

    @contextmanager
    def silenced(self) -> Iterator[None]:
        """Let nothing raise inside, nor at its end: for cleaning up."""
        before, self._raises = self._raises, False
        try:
            yield
        finally:
            self._raises = before

    def last_words(self, seconds: float, call: Callable[[], object]) -> None:
        """Call, but once the end was asked for wait no longer than that for it to return.

        Then it is left behind, to end with the process. Raises what the call raised in time.
        """
        if self.reason is None:
            call()
            return
        raised: list[BaseException] = []

        def run() -> None:
            try:
                call()
            except BaseException as error:
                raised.append(error)

        thread = threading.Thread(target=run, name="last words", daemon=True)
        thread.start()
        thread.join(timeout=seconds)
        if raised and not thread.is_alive():
            raise raised[0]

    def check(self) -> None:
        """Raise :class:`Stopped` if the end was asked for (again, should an earlier one have been eaten)."""
        if self.reason is not None:
            self._was_raised = True
            raise Stopped(self.reason)

    def pause(self, seconds: float) -> None:
        """Sleep, and raise :class:`Stopped` soon after the end was asked for, also where it is held back."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check()
            time.sleep(min(left, 0.1))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.reason = self.reason or "interrupted"
        if self._asked_at is None:
            self._asked_at = time.monotonic()
            reminder = threading.Timer(HELD_S, self._remind)
            reminder.daemon = True
            reminder.start()
        self._raise_once()

    def _remind(self) -> None:
        """Ask again: what was held back by then is not held back any longer."""
        if not self._was_raised:
            self.request(self.reason or "interrupted")

    def _raise_once(self) -> None:
        is_held = self._holds and not self._is_overdue
        if self._raises and not is_held and not self._was_raised:
            self.check()

    @property
    def _is_overdue(self) -> bool:
        return self._asked_at is not None and time.monotonic() - self._asked_at >= HELD_S
