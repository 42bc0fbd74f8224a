"""Optuna's own pages without the buttons that cannot work here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from hpo.dashboard.answering import Headers, joined

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_NEVER = ("rename study", "skip trial")
"""What would part Optuna's rows from the ledger's, by its label in optuna-dashboard 0.21."""
_WRITING = ("delete study", "delete artifact")


def hiding_style(*, allow_writes: bool) -> bytes:
    """Return the style sheet that hides what the door refuses."""
    labels = _NEVER if allow_writes else (*_NEVER, *_WRITING)
    hidden = ", ".join(f'[aria-label="{label}"]' for label in labels)
    return f"{hidden} {{ display: none !important }}\n".encode()


class OptunasPages:
    """Gives the pages of the Optuna dashboard one more style sheet, ``/own/optuna.css``."""

    def __init__(self, app: WSGIApplication) -> None:
        self._app = app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer as the app does, a page with a link to the style sheet."""
        if not environ.get("PATH_INFO", "").startswith("/dashboard") or environ["REQUEST_METHOD"] != "GET":
            return self._app(environ, start_response)
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
