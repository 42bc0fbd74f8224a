"""A login for the dashboard: one token, given once, then a session's cookie; scripts send it each time."""

from __future__ import annotations

import hashlib
import hmac
import html
import json
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from http.cookies import CookieError, SimpleCookie
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, parse_qsl, quote, urlencode

from hpo.dashboard.reader import language_of
from hpo.report.language import SPOKEN

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

SESSION_S = 7 * 24 * 3600
IDLE_S = 24 * 3600
"""A session ends after a week, or a day without a request."""
FAILURES, WINDOW_S = 10, 60.0
"""So many wrong tokens from one address in so many seconds; after them it is told to wait. The right token
is let in all the same: behind a proxy everybody has one address, and a guesser must not lock them out. What
keeps a guesser out is the token's length (:func:`hpo.dashboard.check_token`)."""
_MOST_SESSIONS = 1000
_MOST_ADDRESSES = 10_000
_LONGEST_FORM = 4096


class Sessions:
    """Random names of sessions that are open; only their hashes are kept. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._ends: dict[bytes, tuple[float, float]] = {}
        """When each ends at the latest, and when without a request."""
        self._lock = threading.Lock()

    def open(self) -> str:
        """Return the name of a new session; the oldest gives way when there are too many."""
        name = secrets.token_urlsafe(32)
        with self._lock:
            while len(self._ends) >= _MOST_SESSIONS:
                del self._ends[next(iter(self._ends))]
            now = self._clock()
            self._ends[_digest(name)] = now + SESSION_S, now + IDLE_S
        return name

    def is_open(self, name: str) -> bool:
        """Return whether that session was opened and has not run out; it is used by asking."""
        key = _digest(name)
        with self._lock:
            ends, now = self._ends.get(key, (0.0, 0.0)), self._clock()
            if min(ends) <= now:
                self._ends.pop(key, None)
                return False
            self._ends[key] = ends[0], now + IDLE_S
            return True

    def close(self, name: str) -> None:
        """End that session, if there is one."""
        with self._lock:
            self._ends.pop(_digest(name), None)


class Throttle:
    """Counts wrong tokens by address. Safe for threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: dict[str, list[float]] = {}
        self._lock = threading.Lock()

    def is_shut(self, address: str) -> bool:
        """Return whether that address has to wait."""
        with self._lock:
            return len(self._lately(address)) >= FAILURES

    def count(self, address: str) -> None:
        """Record a wrong token."""
        with self._lock:
            if len(self._failures) >= _MOST_ADDRESSES:
                self._failures.pop(next(iter(self._failures)))
            self._failures[address] = [*self._lately(address), self._clock()]

    def _lately(self, address: str) -> list[float]:
        since = self._clock() - WINDOW_S
        return [at for at in self._failures.get(address, ()) if at > since][-FAILURES:]


class Login:
    """Lets pass who has a session's cookie or sends the token; everybody else gets the login page (401)."""

    def __init__(
        self,
        app: WSGIApplication,
        token: str,
        cookie: str,
        *,
        is_secure: bool = False,
    ) -> None:
        """``is_secure`` cookies are sent over HTTPS only."""
        self._app = app
        self._token = _digest(token)
        self._cookie = cookie
        self._flags = "HttpOnly; SameSite=Strict" + ("; Secure" if is_secure else "")
        self._sessions = Sessions()
        self._throttle = Throttle()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with the app, with the login page, or 429 after too many wrong tokens."""
        session = _cookie(environ.get("HTTP_COOKIE", ""), self._cookie)
        if self._sessions.is_open(session):
            if _is_logout(environ):
                return self._leave(session, start_response)
            return self._app(environ, start_response)
        given, further = _given_token(environ)
        if given is None:
            return _login_page(environ, start_response, further or "/", "")
        if not self._is_right(given):
            return self._refuse(environ, start_response, further or "/")
        return self._app(environ, start_response) if further is None else self._enter(start_response, further)

    def knows(self, headers: Mapping[str, str]) -> bool:
        """Return whether a request with these headers comes from somebody who came in, or has the token."""
        scheme, _, bearer = headers.get("AUTHORIZATION", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_right(bearer.strip())
        return self._sessions.is_open(_cookie(headers.get("COOKIE", ""), self._cookie))

    def _is_right(self, token: str) -> bool:
        return hmac.compare_digest(_digest(token), self._token)

    def _refuse(
        self, environ: WSGIEnvironment, start_response: StartResponse, further: str
    ) -> Iterable[bytes]:
        """Answer a wrong token: with the form, or after too many of them that it is time to wait."""
        address = environ.get("REMOTE_ADDR", "")
        if self._throttle.is_shut(address):
            return _too_many(start_response)
        self._throttle.count(address)
        return _login_page(environ, start_response, further, "login.wrong")

    def _leave(self, session: str, start_response: StartResponse) -> Iterable[bytes]:
        """End the session and send the browser to the form."""
        self._sessions.close(session)
        cookie = f"{self._cookie}=; Path=/; Max-Age=0; {self._flags}"
        start_response("303 See Other", [("Location", "/"), ("Set-Cookie", cookie), ("Content-Length", "0")])
        return []

    def _enter(self, start_response: StartResponse, further: str) -> Iterable[bytes]:
        """Open a session and send the browser on, to an address without the token."""
        name = self._sessions.open()
        cookie = f"{self._cookie}={name}; Path=/; Max-Age={SESSION_S}; {self._flags}"
        start_response(
            "303 See Other", [("Location", further), ("Set-Cookie", cookie), ("Content-Length", "0")]
        )
        return []


def _given_token(environ: WSGIEnvironment) -> tuple[str | None, str | None]:
    """Return the token of a request, None when it has none, and where a browser is to go with a session.

    The latter is None for scripts, which are answered at once.
    """
    scheme, _, bearer = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
    if scheme.lower() == "bearer":
        return bearer.strip(), None
    path, method = environ.get("PATH_INFO", "/"), environ["REQUEST_METHOD"]
    if method == "POST" and path == "/login":
        form = _form(environ)
        return form.get("token", ""), local_path(form.get("next", ""))
    if method not in {"GET", "HEAD"}:
        return None, None
    query = dict(parse_qsl(environ.get("QUERY_STRING", "")))
    token = query.pop("token", None)
    return token, local_path(quote(path) + (f"?{urlencode(query)}" if query else ""))


def _form(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the fields of a login form; empty for one that is too long to be one."""
    length = environ.get("CONTENT_LENGTH", "")
    if not length.isdigit() or int(length) > _LONGEST_FORM:
        return {}
    text = environ["wsgi.input"].read(int(length)).decode("utf-8", "replace")
    return {name: values[0] for name, values in parse_qs(text).items()}


def local_path(path: str) -> str:
    """Return ``path`` when it leads to a page here, otherwise the front page."""
    is_local = path.startswith("/") and not path.startswith(("//", "/\\", "/login", "/logout"))
    is_plain = path.isascii() and path.isprintable()
    return path if is_local and is_plain else "/"


def _is_logout(environ: WSGIEnvironment) -> bool:
    """Return whether a page of ours asks for the session's end (a page elsewhere sends no cookie of ours)."""
    path = str(environ.get("PATH_INFO", ""))
    return environ["REQUEST_METHOD"] == "POST" and path.rstrip("/") == "/logout"


def _cookie(header: str, name: str) -> str:
    try:
        found = SimpleCookie(header).get(name)
    except CookieError:
        return ""
    return found.value if found else ""


def _digest(text: str) -> bytes:
    """Return a hash of fixed length: comparing two takes the same time whatever was given."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest()


def _login_page(
    environ: WSGIEnvironment, start_response: StartResponse, further: str, fault: str
) -> Iterable[bytes]:
    """Answer 401: a form for browsers, in their language, JSON for scripts; ``fault`` is a key of words."""
    is_browser = "text/html" in environ.get("HTTP_ACCEPT", "")
    if is_browser:
        words = SPOKEN[language_of(environ)]
        texts = {name: words.say(f"login.{name}") for name in ("title", "heading", "token", "enter", "where")}
        said = words.say(fault) if fault else ""
        body = _PAGE.format(
            language=words.language, said=said, further=html.escape(further), **texts
        ).encode()
    else:
        reason = SPOKEN["en"].say(fault) if fault else "send the token: Authorization: Bearer TOKEN"
        body = json.dumps({"reason": reason}).encode()
    headers = [
        ("Content-Type", "text/html; charset=utf-8" if is_browser else "application/json"),
        ("Content-Length", str(len(body))),
        ("WWW-Authenticate", 'Bearer realm="hpo"'),
        ("Content-Security-Policy", _PAGE_POLICY),
    ]
    start_response("401 Unauthorized", headers)
    return [body]


def _too_many(start_response: StartResponse) -> Iterable[bytes]:
    body = b'{"reason": "too many wrong tokens; try again in a minute"}'
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("429 Too Many Requests", [*headers, ("Retry-After", str(round(WINDOW_S)))])
    return [body]


_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'"
_PAGE = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 26rem;
  margin: 15vh auto 0; padding: 0 1rem }}
label {{ display: block; font-weight: 600 }}
input {{ font: inherit; width: 100%; box-sizing: border-box; padding: .5rem; margin: .25rem 0 1rem }}
button {{ font: inherit; padding: .5rem 1.5rem; background: #0072b2; color: #fff; border: 0;
  border-radius: 4px }}
.said {{ color: light-dark(#b00020, #ff9d9d); min-height: 1.5em }}
</style>
</head>
<body>
<main>
<h1>{heading}</h1>
<form method="post" action="/login">
<label for="token">{token}</label>
<input id="token" name="token" type="password" autocomplete="current-password" required autofocus>
<input name="next" type="hidden" value="{further}">
<button type="submit">{enter}</button>
<p class="said" role="alert">{said}</p>
</form>
<p>{where}</p>
</main>
</body>
</html>
"""
