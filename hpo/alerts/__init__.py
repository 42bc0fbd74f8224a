"""Tells people of their studies: by webhook, by a command of their own, or by apprise.

A thread looks at the database every few seconds, writes what happened into its outbox and sends what nobody
has sent. Any number of processes may do so for the same target: each happening is sent by one of them.
Nothing here can end or slow a search: what fails is said, and tried again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from hpo.alerts.delivery import LONGEST_S, NotDeliveredError, Target
from hpo.alerts.message import message_of
from hpo.errors import HpoError, Interrupted
from hpo.ledger.ledger import Ledger
from hpo.ledger.outbox import Due, Outbox
from hpo.reading.standing import is_there
from hpo.report.language import Language
from hpo.storage import open_engine

LOOK_S = 5.0
"""Between two looks."""
LEASE_S = LONGEST_S + 30.0
"""So long one process may take to send an alert; after its death another sends it then."""
LAST_S = 20.0
"""How long the end of a command waits for alerts to arrive."""
_FIRST_AGAIN_S, _LONGEST_AGAIN_S = 2.0, 1800.0


@dataclass(frozen=True)
class Watched:
    """What is looked at, and who is told."""

    url: str
    names: Sequence[str]
    """Of studies; none: all searches."""
    targets: Sequence[Target]
    stuck_s: float
    """A study with work that got no further for so long is stuck."""
    language: Language = "en"
    look_s: float = LOOK_S
    lease_s: float = LEASE_S


@contextmanager
def alerting(watched: Watched, say: Callable[[str], None]) -> Iterator[None]:
    """Tell the targets what happens to the studies while the block runs, and what its end brought.

    After an interruption nothing is waited for: the next command that watches the study tells the rest.
    """
    if not watched.targets:
        yield
        return
    alerter = Alerter(watched, say)
    thread = threading.Thread(target=alerter.run, name="alerts", daemon=True)
    thread.start()
    is_interrupted = False
    try:
        yield
    except (Interrupted, KeyboardInterrupt):
        is_interrupted = True
        raise
    finally:
        if not is_interrupted:
            alerter.done.set()
            thread.join(LAST_S + LEASE_S)


class Alerter:
    """Looks at the studies of a database, and tells what happened."""

    def __init__(self, watched: Watched, say: Callable[[str], None]) -> None:
        self._watched = watched
        self._say = say
        self._said = ""
        self._began = time.monotonic()
        self.done = threading.Event()
        """Set from outside: look once more, and end."""

    def run(self) -> None:
        """Look until ``done`` is set, and then until all has arrived, for at most ``LAST_S``."""
        while not self.done.is_set():
            self.look()
            self.done.wait(self._watched.look_s)
        deadline = time.monotonic() + LAST_S
        while (unsent := self.look()) and time.monotonic() < deadline:
            time.sleep(0.5)
        if unsent:
            self._tell(f"{unsent} alerts have not arrived yet; to try again, type: hpo alert --once")

    def look(self) -> int:
        """Write down what happened and send what is due; return how many alerts are still to be sent."""
        if not is_there(self._watched.url):
            return 0
        try:
            engine = open_engine(self._watched.url, create=False)
        except (SQLAlchemyError, HpoError):
            return 0  # no study yet, or away: the search itself says so
        try:
            return self._look(engine)
        except (SQLAlchemyError, HpoError) as error:
            self._tell(f"alerts wait for the database ({type(error).__name__})")
            return 1
        finally:
            engine.dispose()

    def _look(self, engine: sa.Engine) -> int:
        names, outbox = set(self._watched.names), Outbox(engine)
        rows = [
            row for row in Ledger(engine).studies() if (row.name in names if names else row.kind == "search")
        ]
        ids = [row.study_id for row in rows]
        unsent = 0
        for target in self._watched.targets:
            since = outbox.register(target.key, ago_s=time.monotonic() - self._began)
            for study_id in ids:
                happened = outbox.happenings(study_id, since, stuck_s=self._watched.stuck_s)
                outbox.add(happened, target.key)
            while (due := outbox.take(target.key, ids, lease_s=self._watched.lease_s)) is not None:
                self._send(engine, target, due)
            unsent += outbox.unsent(target.key, ids)
        return unsent

    def _send(self, engine: sa.Engine, target: Target, due: Due) -> None:
        watched, outbox = self._watched, Outbox(engine)
        row = next(row for row in Ledger(engine).studies() if row.study_id == due.happening.study_id)
        message = message_of(engine, row, due, watched.url, watched.stuck_s, watched.language)
        try:
            target.deliver(message)
        except NotDeliveredError as error:
            again_s = min(_FIRST_AGAIN_S * 4 ** (due.attempt - 1), _LONGEST_AGAIN_S)
            outbox.not_sent(due, str(error), again_s=again_s)
            self._tell(f"an alert did not arrive: {error}")
            return
        outbox.sent(due)

    def _tell(self, text: str) -> None:
        """Say something, unless it was said last."""
        if text != self._said:
            self._said = text
            self._say(text)
