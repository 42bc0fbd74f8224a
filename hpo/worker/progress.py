"""Progress of a search for a person: a live display on a terminal, plain lines elsewhere.

Writes only to the console that it is given (standard error, from the command line).
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Protocol, Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpo import first_sign
from hpo.numbers import number_and_unit, quantity

if TYPE_CHECKING:
    from hpo.worker.session import Event

SLOW_S = 0.7
"""What takes longer says what it is."""
QUIET_S = 30.0
"""Without a terminal, the longest silence while trials run."""


@contextmanager
def said_if_slow(text: str, say: Callable[[str], None]) -> Iterator[None]:
    """Say what is done here, once, if it takes longer than a person waits without a sign of life."""

    def tell() -> None:
        first_sign.given()
        say(f"{text} ...")

    timer = threading.Timer(SLOW_S, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Says(Protocol):
    """A language; :class:`hpo.report.language.Words`."""

    def say(self, key: str, /, **parts: object) -> str:
        """Return the sentence of ``key`` with its parts filled in."""
        ...


@dataclass
class Progress:
    """How far a study is, kept up to date by its events."""

    study: str
    total: int
    unit: str = ""
    """Of the validation loss, such as ``bpm``; empty for classes."""
    complete: int = 0
    pruned: int = 0
    failed: int = 0
    best: float | None = None
    best_slot: int | None = None
    now: Callable[[], float] = time.monotonic
    running: dict[int, Event] = field(default_factory=dict)
    """Slot -> its last event."""
    words: Says = field(kw_only=True)

    def __post_init__(self) -> None:
        """Start the clock: time left is estimated from the trials that finish from here on."""
        self._gaps: list[float] = []
        """Seconds between the ends of trials, the first from the start."""
        self._last_end = self.now()

    @property
    def finished(self) -> int:
        """Complete and pruned trials: what the budget counts."""
        return self.complete + self.pruned

    def take(self, event: Event) -> None:
        """Count ``event``."""
        if event.slot is None:
            return
        if event.kind in {"started", "epoch"}:
            self.running[event.slot] = event
            return
        self.running.pop(event.slot, None)
        if event.kind in {"complete", "pruned"}:
            self._ended()
        if event.kind == "complete":
            self.complete += 1
            if event.value is not None and (self.best is None or event.value < self.best):
                self.best, self.best_slot = event.value, event.slot
        elif event.kind == "pruned":
            self.pruned += 1
        elif event.kind == "failed":
            self.failed += 1

    def _ended(self) -> None:
        now = self.now()
        self._gaps.append(now - self._last_end)
        self._last_end = now

    def seconds_left(self) -> tuple[float, float] | None:
        """Return between how many seconds the end is expected (80 %); None before two trials have ended.

        From the gaps between the ends of trials of this command, taken as independent: their sum to come,
        and the error of their mean. At least half as variable as long, even where the first ones are equal.
        """
        count, left = len(self._gaps), max(0, self.total - self.finished)
        if count < 2:
            return None
        gap = statistics.fmean(self._gaps)
        spread = max(statistics.stdev(self._gaps), 0.5 * gap)
        away = 1.28 * spread * math.sqrt(left + left**2 / count)
        since = self.now() - self._last_end
        return max(0.0, left * gap - away - since), max(0.0, left * gap + away - since)

    def standing(self) -> str:
        """Return the state in one line."""
        say = self.words.say
        counted = {"finished": self.finished, "total": self.total, "pruned": self.pruned}
        parts = [say("progress.finished", **counted)]
        if self.failed:
            parts.append(say("progress.failed", n=self.failed))
        if self.best is not None:
            parts.append(say("progress.best", value=quantity(self.best), number=self.best_slot))
        left = self.seconds_left()
        if left is not None and self.finished < self.total:
            parts.append(say("progress.left", time=duration_range(*left, self.words)))
        return say("list.comma").join(parts)

    def loss(self, value: float) -> str:
        """Return a validation loss with its unit."""
        return quantity(value, self.unit)


def duration_range(low_s: float, high_s: float, words: Says) -> str:
    """Return two times as a person says them: ``10 to 15 min``, ``40 s to 3 min``; one where they agree."""
    if high_s >= 2 * 3600 and low_s >= 1800:
        low, high = (f"{low_s / 3600:.0f}", "h"), (f"{high_s / 3600:.0f}", "h")
    else:
        low, high = number_and_unit(low_s), number_and_unit(high_s)
    whole = " ".join(filter(None, high))
    if low == high:
        return words.say("progress.about", time=whole)
    has_same_unit = low[1] == high[1] != ""
    least = low[0] if has_same_unit else " ".join(filter(None, low))
    return words.say("progress.span", low=least, high=whole)


def event_line(event: Event, progress: Progress) -> str | None:
    """Return the plain lines that ``event`` is worth, or None; of 80 columns where names are short."""
    if event.kind in {"waiting", "message"}:
        return f"{progress.study}: {event.text}"
    if event.kind == "started" and event.epoch:
        where = {"epoch": event.epoch + 1, "epochs": event.epochs}
        return progress.words.say("progress.resumes", study=progress.study, number=event.slot, **where)
    if event.kind not in {"complete", "pruned", "failed"}:
        return None
    return f"{_end_words(event, progress)}\n  {progress.standing()}"


def _end_words(event: Event, progress: Progress) -> str:
    say = progress.words.say
    if event.value is None or event.kind == "failed":
        what = say(f"progress.ended.{event.kind}")
    else:
        what = say(f"progress.{event.kind}", value=progress.loss(event.value))
    if event.text:
        what = say("progress.reason", what=what, reason=event.text)
    return say("progress.trial", study=progress.study, number=event.slot, what=what)


class Display:
    """Shows the events of one study while its trials run; a context manager, safe from several threads."""

    def __init__(self, progress: Progress, console: Console) -> None:
        self._progress = progress
        self._console = console
        self._lock = threading.Lock()
        self._spoke = progress.now()
        self._live = Live(console=console, get_renderable=self._picture, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        """Begin to draw, on a terminal."""
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""
        if self._console.is_terminal:
            self._live.stop()

    def take(self, event: Event) -> None:
        """Show ``event``."""
        with self._lock:
            self._progress.take(event)
            line = event_line(event, self._progress)
            if self._console.is_terminal:
                if line is not None and event.kind not in {"complete", "pruned"}:
                    self._say(line)
            elif line is not None:
                self._say(line)
            elif self._progress.now() - self._spoke >= QUIET_S:
                self._say(f"{self._progress.study}: {self._progress.standing()}; {self._running()}")

    def _say(self, line: str) -> None:
        self._spoke = self._progress.now()
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _running(self) -> str:
        return ", ".join(_epoch_words(event, self._progress) for event in self._progress.running.values())

    def _picture(self) -> RenderableType:
        progress = self._progress
        row = Table.grid(padding=(0, 1))
        bar = ProgressBar(total=progress.total, completed=progress.finished, width=12)
        row.add_row(Text(progress.study, style="bold"), bar, Text(progress.standing()))
        events = sorted(progress.running.items())
        return Group(row, *(Text(f"  {_epoch_words(event, progress)}", style="dim") for _, event in events))


def _epoch_words(event: Event, progress: Progress) -> str:
    say = progress.words.say
    if not event.epoch:
        return say("progress.starting", number=event.slot)
    where = {"number": event.slot, "epoch": event.epoch, "epochs": event.epochs}
    if event.value is None:
        return say("progress.running", **where)
    return say("progress.running.at", **where, value=progress.loss(event.value))
