"""How the dashboard answers: compressed, and with headers that keep what it shows from doing harm."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

Headers = list[tuple[str, str]]

_PICTURES = frozenset({"image/png", "image/jpeg", "image/gif", "image/webp"})
"""Artifacts that may show in the page. Not SVG, which may hold a script."""
_SHRINKING = ("text/", "application/json", "application/javascript", "image/svg+xml")
_LEAST_BYTES = 1024
GZIP_LEVEL = 3  # 25 MB of trials: 0.13 s to 3.5 MB; level 6 takes twice the time for an eighth less
_DROPPED = frozenset({"access-control-allow-origin", "server"})
_PROTECTING: Headers = [
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "SAMEORIGIN"),
    # Not no-referrer: with it, a browser sends "Origin: null" with our own login form.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
]
_NOTHING = "default-src 'none'; frame-ancestors 'self'"


class Hardened:
    """Adds protecting headers, a content security policy where there is none; makes artifacts downloads."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as the app does, with safer headers."""
        path = environ.get("PATH_INFO", "")

        def start(status: str, headers: Headers, *error: Any) -> Any:
            return start_response(status, hardened(path, headers), *error)

        # Bottle's dashboard takes a missing header for a fault of its own.
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")
        return self._app(environ, start)


def hardened(path: str, headers: Headers) -> Headers:
    """Return the headers of a page with what protects its reader."""
    kept = [(name, value) for name, value in headers if name.lower() not in _DROPPED]
    names = {name.lower() for name, _ in kept}
    added = list(_PROTECTING)
    if path.startswith("/artifacts/"):
        added.append(("Content-Security-Policy", f"{_NOTHING}; sandbox"))
        if _value(kept, "content-type").split(";")[0].strip().lower() not in _PICTURES:
            added.append(("Content-Disposition", "attachment"))
    elif "content-security-policy" not in names:
        added.append(("Content-Security-Policy", _NOTHING))
    if "cache-control" not in names:
        added.append(("Cache-Control", "private, no-cache" if path.startswith("/static/") else "no-store"))
    return kept + added


class Compressed:
    """Compresses texts for browsers that can unpack them."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as the app does, with gzip where it is asked for and worth it."""
        if "gzip" not in environ.get("HTTP_ACCEPT_ENCODING", "") or environ["REQUEST_METHOD"] == "HEAD":
            return self._app(environ, start_response)
        begun: list[tuple[str, Headers]] = []

        def start(status: str, headers: Headers, *_: Any) -> Any:
            begun.append((status, headers))

        body = self._app(environ, start)
        status, headers = begun[-1]
        if not is_worth_it(status, headers):
            start_response(status, headers)
            return body
        text = joined(body)
        if len(text) >= _LEAST_BYTES:
            text = gzip.compress(text, GZIP_LEVEL, mtime=0)
            headers = [*headers, ("Content-Encoding", "gzip"), ("Vary", "Accept-Encoding")]
        headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        start_response(status, [*headers, ("Content-Length", str(len(text)))])
        return [text]


def is_worth_it(status: str, headers: Headers) -> bool:
    """Return whether a whole text follows that nobody has compressed yet."""
    is_text = _value(headers, "content-type").lower().startswith(_SHRINKING)
    return status.startswith("200") and is_text and not _value(headers, "content-encoding")


def joined(body: Iterable[bytes]) -> bytes:
    """Return the whole body of an answer, and close it."""
    try:
        return b"".join(body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


def _value(headers: Headers, name: str) -> str:
    return next((value for key, value in headers if key.lower() == name), "")
