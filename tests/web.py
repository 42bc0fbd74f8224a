"""A dashboard of a small finished study, asked without a network, and served to a browser."""

from __future__ import annotations

import gzip
import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any
from wsgiref.types import WSGIApplication

import waitress

TOKEN = "a-token-that-only-the-test-knows"


@dataclass(frozen=True)
class Answer:
    status: int
    headers: dict[str, str]
    """Names in lower case."""
    raw: bytes

    @property
    def body(self) -> bytes:
        return gzip.decompress(self.raw) if self.headers.get("content-encoding") == "gzip" else self.raw

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    app: WSGIApplication,
    path: str,
    method: str = "GET",
    *,
    host: str = "127.0.0.1:8080",
    body: bytes = b"",
    content_type: str = "application/json",
    **headers: str,
) -> Answer:
    """Ask a WSGI application as a server would; ``headers`` as in ``X_Name="value"``."""
    path, _, query = path.partition("?")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8080",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_HOST": host,
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": content_type,
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        "wsgi.url_scheme": "http",
        **{f"HTTP_{name.upper()}": value for name, value in headers.items()},
    }
    begun: list[tuple[str, list[tuple[str, str]]]] = []
    parts = app(environ, lambda status, given, *_: begun.append((status, given)))  # type: ignore[arg-type, return-value]
    raw = b"".join(parts)
    getattr(parts, "close", lambda: None)()
    status, given = begun[-1]
    return Answer(HTTPStatus(int(status[:3])), {name.lower(): value for name, value in given}, raw)


@contextmanager
def served(app: WSGIApplication) -> Iterator[int]:
    """Serve the application on loopback; gives its port."""
    with running(waitress.server.create_server(app, host="127.0.0.1", port=0, threads=4)) as port:
        yield port


@contextmanager
def running(server: Any) -> Iterator[int]:
    """Run a server of waitress in a thread; gives its port."""
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield server.effective_port
    server.close()
    server.task_dispatcher.shutdown()
    thread.join(5)
