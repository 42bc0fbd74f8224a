"""Ways in which an alert leaves this process.

A target is a word that a person typed or put into the environment of a process. It is never stored: a
database cannot make anybody run a command or call an address; of a target it knows a hash.

    NotDeliveredError    an alert did not arrive; says why, never an address, which may hold a secret
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol
from urllib.parse import urlsplit

from hpo.errors import Said, UsageError

LONGEST_S = 60.0
"""A command that takes longer is ended."""
_ANSWER_S = (5.0, 20.0)
"""For a connection, and for the answer."""
EXPECTED = "https://ADDRESS (a webhook), exec:COMMAND, or an address of apprise such as mailto://..."


class NotDeliveredError(Exception):
    """An alert did not arrive."""


@dataclass(frozen=True)
class Message:
    """What a target is told."""

    alert_id: str
    """The same however often it is sent."""
    title: str
    text: str
    """One or two sentences."""
    body: Mapping[str, Any] = field(repr=False)
    """All of it, as JSON values."""


class _Way(Protocol):
    def __call__(self, message: Message) -> None:
        """Deliver; raises :class:`NotDeliveredError`."""


@dataclass(frozen=True)
class Target:
    """Somebody who is told."""

    key: str
    """What the database knows of it."""
    deliver: _Way = field(repr=False)
    """Raises :class:`NotDeliveredError`."""


def parse_target(word: str) -> Target:
    """Return the target of a word; raises :class:`UsageError` for one that cannot be one."""
    key = hashlib.sha256(word.encode()).hexdigest()[:32]
    if word.startswith("exec:"):
        return Target(key, _Command(_words_of(word.removeprefix("exec:"))))
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://.", word)
    if scheme is None:
        raise UsageError(Said("cannot alert {word!r}", word=word), EXPECTED)
    if scheme[1].lower() in {"http", "https"}:
        if not urlsplit(word).hostname:
            raise UsageError(Said("cannot alert {word!r}", word=word), "an address with a host")
        return Target(key, _Webhook(word))
    return Target(key, _apprise(word, scheme[1]))


def _words_of(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(
            Said("cannot read the command {command!r} ({error})", command=command, error=error),
            "words as a shell has them",
        ) from None
    if not words:
        raise UsageError("exec: without a command", "exec:COMMAND", "type: --alert 'exec:COMMAND'")
    return words


@dataclass(frozen=True)
class _Webhook:
    """POSTs the body as JSON; anything but a 2xx answer means that it did not arrive."""

    url: str

    def __call__(self, message: Message) -> None:
        import requests

        headers = {
            "Content-Type": "application/json",
            "Idempotency-Key": message.alert_id,
            "User-Agent": "hpo",
        }
        where = f"the webhook at {urlsplit(self.url).hostname}"
        try:
            answer = requests.post(
                self.url,
                data=json.dumps(message.body).encode(),
                headers=headers,
                timeout=_ANSWER_S,
                allow_redirects=False,
            )
        except requests.RequestException as error:
            raise NotDeliveredError(f"{where} cannot be reached ({type(error).__name__})") from None
        if not 200 <= answer.status_code < 300:
            raise NotDeliveredError(f"{where} answered {answer.status_code}")


@dataclass(frozen=True)
class _Command:
    """Runs a command, without a shell, with the body as JSON on its standard input."""

    words: list[str]

    def __call__(self, message: Message) -> None:
        environment = {**os.environ, "HPO_ALERT_TITLE": message.title, "HPO_ALERT_TEXT": message.text}
        try:
            done = subprocess.run(
                self.words,
                input=json.dumps(message.body).encode(),
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=LONGEST_S,
                start_new_session=True,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise NotDeliveredError(f"{self.words[0]} took longer than {LONGEST_S:.0f} s") from None
        except OSError as error:
            raise NotDeliveredError(f"{self.words[0]} cannot be run ({error.strerror})") from None
        if done.returncode != 0:
            said = done.stdout.decode(errors="replace").strip().rpartition("\n")[2][:200]
            raise NotDeliveredError(f"{self.words[0]} ended with status {done.returncode}: {said}")


def _apprise(word: str, scheme: str) -> _Way:
    """Return what sends through apprise; raises :class:`UsageError` without it or for a bad address."""
    try:
        from apprise import Apprise
    except ModuleNotFoundError:
        next_step = "type: pip install 'hpo[apprise]'"
        raise UsageError(
            Said("an alert by {scheme}:// needs the package apprise", scheme=scheme),
            "it installed",
            next_step,
        ) from None
    sender = Apprise()
    if not sender.add(word):
        raise UsageError(
            Said("apprise cannot read the address {scheme}://...", scheme=scheme), "one of its documentation"
        )

    def deliver(message: Message) -> None:
        if not sender.notify(title=message.title, body=message.text):
            raise NotDeliveredError(f"apprise could not send by {scheme}://")

    return deliver
