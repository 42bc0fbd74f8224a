"""``hpo dashboard``: the Optuna dashboard of a database behind a door, each study's answer in its page."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from optuna.artifacts import FileSystemArtifactStore

from hpo.dashboard.answer_page import AnswerPages
from hpo.dashboard.door import Door, behind_door, is_loopback
from hpo.dashboard.front import FrontPages
from hpo.dashboard.glance import glance
from hpo.dashboard.kept import AnswerStore
from hpo.dashboard.listening import listen
from hpo.dashboard.quick_pages import quick_dashboard
from hpo.dashboard.study_page import write_study_page
from hpo.errors import Said, UsageError
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Counts
from hpo.reading.foreign import foreign_trials
from hpo.storage import may_write, open_engine, optuna_storage, parse_url, sqlite_file

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

_log = logging.getLogger(__name__)

_WILDCARDS = frozenset({"", "0.0.0.0", "::"})
_SHORTEST_TOKEN = 16
_FEWEST_SIGNS = 8
"""Different ones in a token: 24 random bytes in hex have fewer once in 10^16 times."""
_GUESSED = ("password", "changeme", "change-me", "qwerty", "letmein", "secret-token", "example")
_COLLECT_AFTER = 50_000
"""Objects until Python looks for unreachable ones, usually 700: a first view of Optuna's page of 20,000
trials makes millions that stay, and to look through them took a fifth of its time."""
_REFRESH_S = 60.0
_SHARE = 0.05
"""Of one core, at most, that keeping the answers up to date may take."""


@dataclass(frozen=True)
class Access:
    """Who may reach the dashboard, and to do what."""

    host: str = "127.0.0.1"
    port: int = 8080
    token: str | None = field(default=None, repr=False)
    """None: no login."""
    is_generated: bool = False
    """The token was made up here, so it has to be told."""
    allowed_hosts: tuple[str, ...] = ()
    allow_writes: bool = False
    behind_tls: bool = False
    """A proxy in front of it speaks HTTPS: cookies are sent over nothing else."""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Names that a browser may ask for, besides the loopback ones."""
        return self.allowed_hosts if self.host in _WILDCARDS else (self.host, *self.allowed_hosts)

    def address(self, port: int) -> str:
        """Return what to type into a browser; ``port`` is the one that was got."""
        name = self.host if self.host not in _WILDCARDS else next(iter(self.allowed_hosts), "localhost")
        token = f"/?token={self.token}" if self.is_generated else "/"
        scheme = "https" if self.behind_tls else "http"
        where = f"[{name}]" if ":" in name else name
        return f"{scheme}://{where}{token}" if self.behind_tls else f"{scheme}://{where}:{port}{token}"


def make_access(
    host: str, port: int, allowed_hosts: Sequence[str], *, allow_writes: bool, behind_tls: bool = False
) -> Access:
    """Return the access to a dashboard on that address.

    A login is required unless it can be reached from this machine only: with another host, with other
    names (a proxy in front of it), or when HPO_DASHBOARD_TOKEN (or the file that HPO_DASHBOARD_TOKEN_FILE
    names) gives a token. Raises :class:`UsageError` for a token that can be guessed, a port that is none, and
    ``behind_tls`` without the name that the proxy is asked by.
    """
    if not 0 <= port <= 65535:
        raise UsageError(Said("--port is {port}", port=port), "a number up to 65535 (0: any that is free)")
    token = _token_given()
    if token is not None:
        check_token(token)
    if behind_tls and not allowed_hosts:
        raise UsageError("--behind-tls without --allowed-host", "the name by which the proxy is asked")
    is_private = is_loopback(host.strip("[]").lower()) and not allowed_hosts
    is_generated = token is None and not is_private
    if is_generated:
        token = secrets.token_hex(24)
    named = tuple(allowed_hosts)
    return Access(host.strip("[]"), port, token, is_generated, named, allow_writes, behind_tls)


def check_token(token: str) -> None:
    """Raise :class:`UsageError` for a token that a person or a program would try among the first."""
    fault: tuple[str, str] | None = None
    steps = [ord(after) - ord(before) for before, after in pairwise(token)]
    if len(token) < _SHORTEST_TOKEN:
        fault = (
            Said("HPO_DASHBOARD_TOKEN has {n} characters", n=len(token)),
            Said("at least {n}", n=_SHORTEST_TOKEN),
        )
    elif not (token.isascii() and token.isprintable() and " " not in token):
        fault = (
            "HPO_DASHBOARD_TOKEN has blanks or signs that a header cannot hold",
            "letters, digits and signs of ASCII",
        )
    elif len(set(token)) < _FEWEST_SIGNS or 2 * sum(abs(step) <= 1 for step in steps) > len(token):
        fault = "HPO_DASHBOARD_TOKEN repeats a few signs or counts", "random characters"
    elif any(word in token.lower() for word in _GUESSED):
        fault = "HPO_DASHBOARD_TOKEN holds a word that is tried among the first", "random characters"
    if fault is not None:
        raise UsageError(*fault, "make one: openssl rand -hex 24")


def _token_given() -> str | None:
    file = os.environ.get("HPO_DASHBOARD_TOKEN_FILE")
    if not file:
        return os.environ.get("HPO_DASHBOARD_TOKEN") or None
    try:
        return Path(file).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise UsageError(
            Said(
                "cannot read HPO_DASHBOARD_TOKEN_FILE, {file!r} ({strerror})",
                file=file,
                strerror=error.strerror,
            ),
            "a file with the token",
        ) from error


def build(url: str, engine: sa.Engine, access: Access, artifacts: Path | None = None) -> WSGIApplication:
    """Return the whole WSGI application; ``artifacts`` is the folder with the files of trials, if any."""
    return make_door(url, engine, access, artifacts).app


def make_door(
    url: str,
    engine: sa.Engine,
    access: Access,
    artifacts: Path | None = None,
    answers: AnswerStore | None = None,
) -> Door:
    """Return the application behind its door; ``answers`` are those that a :class:`PageKeeper` works out."""
    files = None if artifacts is None else FileSystemArtifactStore(artifacts)
    optunas = quick_dashboard(optuna_storage(url), files)
    pages = FrontPages(
        AnswerPages(optunas, engine),
        engine,
        answers or AnswerStore(engine),
        has_login=access.token is not None,
        allow_writes=access.allow_writes,
    )
    return behind_door(
        pages,
        hosts=access.hosts,
        token=access.token,
        allow_writes=access.allow_writes,
        cookie=f"hpo-{access.port}",
        behind_tls=access.behind_tls,
    )


def serve(url: str, access: Access, artifacts: Path | None, announce: Callable[[str], None]) -> None:
    """Serve until SIGINT or SIGTERM; ``announce`` gets the address once it can be asked.

    Raises :class:`UsageError` when the address cannot be had, and what :func:`open_engine` raises.
    """
    gc.set_threshold(_COLLECT_AFTER)
    # A server's database may be empty still: the dashboard and the workers start together.
    engine = open_engine(url, create=sqlite_file(parse_url(url)) is None)
    answers = AnswerStore(engine)
    server = _listen(make_door(url, engine, access, artifacts, answers), access)
    keeper = PageKeeper(engine, answers)
    keeper.start()
    try:
        with ended_by_signals():
            announce(access.address(_port(server)))
            server.run()
    finally:
        keeper.stop()
        server.close()
        engine.dispose()


def _listen(door: Door, access: Access) -> Any:
    """Return a server that has its address already (waitress has no types)."""
    try:
        return listen(door.app, access.host, access.port, door.may_write)
    except (OSError, ValueError) as error:
        is_taken = getattr(error, "errno", None) == errno.EADDRINUSE
        raise UsageError(
            Said(
                "cannot listen on {host} port {port} ({error})",
                host=access.host,
                port=access.port,
                error=error,
            ),
            "an address of this machine",
            "take another: --port 0 takes any that is free" if is_taken else "",
        ) from error


def _port(server: Any) -> int:
    """Return the port of a server; of one that listens at several addresses of a name, the first's."""
    several = getattr(server, "effective_listen", None)
    return int(several[0][1] if several else server.effective_port)


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """End what is inside, waitress' loop or what comes before it, at the first SIGINT or SIGTERM."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(0)  # waitress' loop ends in order: it waits for its threads, up to 5 s

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with contextlib.suppress(SystemExit):
            yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class PageKeeper:
    """A thread that keeps each answer up to date in our pages and Optuna's, once a minute at most."""

    def __init__(self, engine: sa.Engine, answers: AnswerStore | None = None) -> None:
        self._engine = engine
        self._answers = answers or AnswerStore(engine)
        self._seen: dict[int, tuple[int, ...]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="answers", daemon=True)

    def start(self) -> None:
        """Begin; the first answers are written at once."""
        self._thread.start()

    def stop(self) -> None:
        """End, after what is being written."""
        self._ended.set()
        self._thread.join(timeout=10)

    def _keep(self) -> None:
        while not self._ended.is_set():
            began = time.thread_time()
            _quietly(self.refresh)
            spent = time.thread_time() - began
            self._ended.wait(max(_REFRESH_S, spent / _SHARE))

    def refresh(self) -> None:
        """Write the pages of the studies of which a trial has ended, or that another tool wrote to, since."""
        ledger = Ledger(self._engine)
        if may_write(self._engine):
            ledger.forget_deleted()
        there = ledger.studies()
        self._answers.forget_others({study.name for study in there})
        for study in there:
            foreign = foreign_trials(self._engine, study.study_id)
            state = (*_ends(ledger.counts(study.study_id)), foreign)
            if self._ended.is_set() or self._seen.get(study.study_id) == state:
                continue
            _quietly(partial(self._write, study.name))
            self._seen[study.study_id] = state

    def _write(self, study: str) -> None:
        findings = glance(self._engine, study)
        self._answers.keep(findings)
        if may_write(self._engine):
            write_study_page(self._engine, findings)


def _quietly(call: Callable[[], None]) -> None:
    """Call; the pages go without a new answer for a while when it fails: no reason to end the dashboard."""
    try:
        call()
    except Exception:
        _log.warning("the answers in the pages could not be brought up to date", exc_info=True)


def _ends(counts: Counts) -> tuple[int, int, int]:
    return counts.complete, counts.pruned, counts.failed
