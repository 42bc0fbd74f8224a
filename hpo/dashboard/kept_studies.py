"""Optuna's whole study as JSON, kept compressed until something in it changes: a reload costs nothing."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from hpo.dashboard.answering import GZIP_LEVEL, Headers, joined

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_ADDRESS = re.compile(r"/api/studies/([0-9]{1,18})")
_MOST = 4
"""Studies that are kept; one of 20,000 trials takes 5 MB."""

Mark = Callable[[int], str]
"""Gives what changes with a study's trials and attributes; raises KeyError for one that is not there."""


@dataclass(frozen=True)
class _Kept:
    mark: str
    body: bytes


class KeptStudies:
    """Answers for a whole study (``after=0``) from what was sent before, if nothing has changed since."""

    def __init__(self, app: WSGIApplication, mark: Mark) -> None:
        self._app = app
        self._mark = mark
        self._kept: dict[int, _Kept] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with the study, with 304 to who has it already, or as the app does."""
        if _ADDRESS.fullmatch(environ.get("PATH_INFO", "")) and not all(map(_is_number, _after(environ))):
            start_response("400 Bad Request", [("Content-Type", "application/json")])
            return [b'{"reason": "after is no number of trials"}']
        study_id = _whole_study(environ)
        if study_id is None:
            return self._app(environ, start_response)
        try:
            mark = self._mark(study_id)
        except KeyError:
            return self._app(environ, start_response)
        tag = f'"{mark}"'
        headers = [("ETag", tag), ("Cache-Control", "private, no-cache"), ("Vary", "Accept-Encoding")]
        with self._lock:  # the same study is made once for all who wait for it
            kept = self._kept.get(study_id)
            if kept is None or kept.mark != mark:
                status, found, body = self._asked(environ)
                if not status.startswith("200"):
                    start_response(status, found)
                    return [body]
                kept = _Kept(mark, gzip.compress(body, GZIP_LEVEL, mtime=0))
                self._kept.pop(study_id, None)
                self._kept[study_id] = kept
                while len(self._kept) > _MOST:
                    del self._kept[next(iter(self._kept))]
        if environ.get("HTTP_IF_NONE_MATCH") == tag:
            start_response("304 Not Modified", headers)
            return []
        headers += [("Content-Type", "application/json"), ("Content-Encoding", "gzip")]
        start_response("200 OK", [*headers, ("Content-Length", str(len(kept.body)))])
        return [kept.body]

    def _asked(self, environ: WSGIEnvironment) -> tuple[str, Headers, bytes]:
        begun: list[tuple[str, Headers]] = []

        def start(status: str, headers: Headers, *_: Any) -> Any:
            begun.append((status, headers))

        body = joined(self._app(environ, start))
        return *begun[-1], body


def _whole_study(environ: WSGIEnvironment) -> int | None:
    """Return the study of which everything is asked for, by a browser that can unpack it; None otherwise."""
    found = _ADDRESS.fullmatch(environ.get("PATH_INFO", ""))
    is_asked = environ["REQUEST_METHOD"] == "GET" and "gzip" in environ.get("HTTP_ACCEPT_ENCODING", "")
    return int(found[1]) if found and is_asked and _after(environ) == ["0"] else None


def _after(environ: WSGIEnvironment) -> list[str]:
    return parse_qs(environ.get("QUERY_STRING", ""), keep_blank_values=True).get("after", ["0"])


def _is_number(word: str) -> bool:
    return word.isascii() and word.removeprefix("-").isdigit() and len(word) < 19


def mark_of(trials: Iterable[Any], *attributes: Any) -> str:
    """Return a mark of Optuna's trials, as a storage gives them, and of JSON values beside them."""
    states = [(one.number, one.state.value, len(one.intermediate_values)) for one in trials]
    said = json.dumps([states, attributes], sort_keys=True, default=str)
    return hashlib.sha256(said.encode()).hexdigest()[:24]
