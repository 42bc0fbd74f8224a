"""Optuna's own pages without the buttons that cannot work here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hpo.dashboard.answering import Headers, joined
from hpo.dashboard.reader import language_of
from hpo.report.language import SPOKEN
from hpo.report.page import page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_NEVER = ("rename study", "skip trial")
"""What would part Optuna's rows from the ledger's, by its label in optuna-dashboard 0.21."""
_WITHOUT_PAGES = ("/api/", "/static/", "/artifacts/")
_WRITING = ("delete study", "delete artifact")


def hiding_style(*, allow_writes: bool) -> bytes:
    """Return the style sheet that hides what the door refuses."""
    labels = _NEVER if allow_writes else (*_NEVER, *_WRITING)
    hidden = ", ".join(f'[aria-label="{label}"]' for label in labels)
    return f"{hidden} {{ display: none !important }}\n".encode()


class OptunasPages:
    """Gives the pages of the Optuna dashboard one more style sheet, ``/own/optuna.css``.

    What it does not have is a page of ours that says so, with the way back.
    """

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as the app does, a page with a link to the style sheet."""
        path = environ.get("PATH_INFO", "")
        if environ["REQUEST_METHOD"] != "GET" or path.startswith(_WITHOUT_PAGES):
            return self._app(environ, start_response)
        if not path.startswith("/dashboard"):
            return self._found_or_not(environ, start_response)
        for name in ("HTTP_IF_NONE_MATCH", "HTTP_IF_MODIFIED_SINCE", "HTTP_RANGE"):
            environ.pop(name, None)  # they would be about the page as Optuna has it
        begun: list[tuple[str, Headers]] = []

        def start(status: str, headers: Headers, *_: Any) -> Any:
            begun.append((status, headers))

        body = joined(self._app(environ, start))
        status, headers = begun[-1]
        body = body.replace(b"</head>", b'<link rel="stylesheet" href="/own/optuna.css">\n</head>', 1)
        changed = {"content-length", "etag", "last-modified", "accept-ranges"}
        kept = [(name, value) for name, value in headers if name.lower() not in changed]
        start_response(status, [*kept, ("Content-Length", str(len(body)))])
        return [body]

    def _found_or_not(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        begun: list[tuple[str, Headers]] = []

        def start(status: str, headers: Headers, *_: Any) -> Any:
            begun.append((status, headers))

        body = joined(self._app(environ, start))
        status, headers = begun[-1]
        if status.startswith("404"):
            language = language_of(environ)
            words = SPOKEN[language]
            said, back = words.say("page.missing"), words.say("page.to_dashboard")
            body = page(said, f'<h1>{said}</h1>\n<p><a href="/">{back}</a></p>', language)
            headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response(status, headers)
        return [body]
