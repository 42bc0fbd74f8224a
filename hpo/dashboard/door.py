"""What stands between a browser and the dashboard: which host was asked, what may be written, how it answers.

WSGI middlewares, each of which adds one concern and calls the next. The dashboard itself has no
authentication, no read-only mode and no Host check; :func:`behind_door` gives it all of them.
"""

from __future__ import annotations

import io
import ipaddress
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hpo.dashboard.answering import Compressed, Hardened
from hpo.dashboard.login import Login

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_READING = frozenset({"GET", "HEAD"})
_WRITES = re.compile(
    r"PUT /api/studies/\d+(/\d+)?/note"
    r"|DELETE /api/studies/\d+"
    r"|POST /api/artifacts/\d+(/\d+)?"
    r"|DELETE /api/artifacts/\d+(/\d+)?/[0-9a-fA-F-]+",
    re.ASCII,
)
"""All that can be written in a page: notes, files, and a study's end. Whatever else the dashboard offers
would part Optuna's rows from the ledger's: a result, an attribute or a study that no worker made."""


@dataclass(frozen=True)
class Door:
    """An application that strangers may knock at."""

    app: WSGIApplication
    may_write: Callable[[Mapping[str, str]], bool]
    """Whether the sender of a request with these headers may send more than a login form."""


def behind_door(
    app: WSGIApplication,
    *,
    hosts: Collection[str],
    token: str | None,
    allow_writes: bool,
    cookie: str,
    behind_tls: bool = False,
) -> Door:
    """Return ``app`` with a Host check, a login (unless ``token`` is None) and a check of what is written.

    ``hosts`` are the names under which it may be asked for, besides the loopback ones; ``cookie`` is the
    name of the login's cookie.
    """
    guarded: WSGIApplication = WriteCheck(app, allow_writes=allow_writes)
    login = None if token is None else Login(guarded, token, cookie, is_secure=behind_tls)
    whole = Compressed(Hardened(HostCheck(login or guarded, hosts)))
    return Door(whole, lambda headers: allow_writes and (login is None or login.knows(headers)))


class HostCheck:
    """Refuses requests for a foreign host name.

    A page elsewhere can make a browser ask us under its own name (DNS rebinding); then the browser takes
    our answers for that page's own. Only names that are ours are answered.
    """

    def __init__(self, app: WSGIApplication, hosts: Collection[str]) -> None:
        self._app = app
        self._hosts = frozenset(host.lower().strip("[]").rstrip(".") for host in hosts)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer 403 unless the Host header names this machine."""
        name = host_name(environ.get("HTTP_HOST", ""))
        if name is not None and (name in self._hosts or is_loopback(name)):
            return self._app(environ, start_response)
        return refuse(start_response, "this host name is not allowed here; start with --allowed-host NAME")


class WriteCheck:
    """Lets only reading requests pass; with ``allow_writes`` also those that a page of our own makes."""

    def __init__(self, app: WSGIApplication, *, allow_writes: bool) -> None:
        self._app = app
        self._allow_writes = allow_writes

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer 403 to a write that is not allowed."""
        reason = None if environ["REQUEST_METHOD"] in _READING else self._objection(environ)
        if reason is not None:
            return refuse(start_response, reason)
        if environ["REQUEST_METHOD"] == "PUT" and not _is_object(_body(environ)):
            return refuse(start_response, "a note is a JSON object", "400 Bad Request")
        return self._app(environ, start_response)

    def _objection(self, environ: WSGIEnvironment) -> str | None:
        if not self._allow_writes:
            return "this dashboard is read-only; start with --allow-writes"
        path = environ.get("PATH_INFO", "").rstrip("/")  # as the dashboard's router has it
        if not _WRITES.fullmatch(f"{environ['REQUEST_METHOD']} {path}"):
            return "studies and results belong to the ledger; here notes, files and a study's end are written"
        return None if is_same_origin(environ) else "the request comes from another site"


def _body(environ: WSGIEnvironment) -> bytes:
    """Return the body of a request, and leave it for who reads it next."""
    body: bytes = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _is_object(text: bytes) -> bool:
    """Return whether a text is a JSON object; the dashboard asks anything else for its keys, and fails."""
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def is_same_origin(environ: WSGIEnvironment) -> bool:
    """Return whether a request was made by a page of our own, or by no page at all (a script)."""
    if environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in {"same-origin", "none"}:
        return False
    origin = environ.get("HTTP_ORIGIN")
    return origin is None or urlsplit(origin).netloc.lower() == environ.get("HTTP_HOST", "").lower()


def host_name(header: str) -> str | None:
    """Return the name in a Host header, lower case, without port and brackets; None when there is none."""
    if not re.fullmatch(r"[\w.\-]+(:\d{1,5})?|\[[0-9A-Fa-f:.]+\](:\d{1,5})?", header, re.ASCII):
        return None
    name = header[1:].split("]")[0] if header.startswith("[") else header.split(":")[0]
    return name.lower().rstrip(".") or None


def is_loopback(name: str) -> bool:
    """Return whether a host name or address reaches this machine only."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def refuse(start_response: StartResponse, reason: str, status: str = "403 Forbidden") -> Iterable[bytes]:
    """Answer with the reason as the dashboard's own errors give it."""
    body = json.dumps({"reason": reason}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]
