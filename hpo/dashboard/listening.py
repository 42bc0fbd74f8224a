"""A server that strangers cannot fill: many connections, bodies of a few KB, seconds for each request.

waitress reads a request whole before any of our code sees it, keeps a silent connection for two minutes, and
listens to no more than a hundred. Here a request must be complete in :data:`REQUEST_S` seconds from its first
byte, and only a visitor whom the login knows may send more than :data:`STRANGERS_BODY` bytes.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import waitress
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser

if TYPE_CHECKING:
    from wsgiref.types import WSGIApplication

REQUEST_S = 10
"""For a whole request of a stranger, and for a connection that says nothing."""
STRANGERS_BODY = 4096
FRIENDS_BODY = 64 * 2**20
"""Of an artifact that somebody uploads who has come in."""
MOST_CONNECTIONS = 2000
"""Each costs a file descriptor and about 10 KB; a browser takes six."""

Knows = Callable[[Mapping[str, str]], bool]
"""Whether the one who sends a request with these headers (``COOKIE``, ``AUTHORIZATION``) may write."""


def listen(app: WSGIApplication, host: str, port: int, knows: Knows) -> Any:
    """Return a server that has its address already (waitress has no types). Raises OSError, ValueError."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)  # a request that waits is no news
    server = waitress.server.create_server(
        app,
        host=host or "0.0.0.0",
        port=port,
        threads=4,
        ident=None,
        max_request_body_size=FRIENDS_BODY,
        clear_untrusted_proxy_headers=True,
        connection_limit=MOST_CONNECTIONS,
        channel_timeout=REQUEST_S,
        cleanup_interval=1,
        asyncore_use_poll=True,  # select() ends at 1,024 descriptors
    )
    each = [server] if hasattr(server, "channel_class") else list(server.map.values())
    for one in each:  # of a name with several addresses there are several
        one.channel_class = _channel(knows)
    return server


def _channel(knows: Knows) -> type[Any]:
    """Return the class of connections whose requests are read with ``knows``."""

    class Parser(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
        """Reads a request; a stranger's body only as far as a login form is long."""

        is_known = False
        adj: Any

        def parse_header(self, header_plus: bytes) -> None:
            """Read the header, and let it say how much may follow."""
            super().parse_header(header_plus)
            self.is_known = knows(self.headers)
            if not self.is_known:
                self.adj = copy.copy(self.adj)
                self.adj.max_request_body_size = STRANGERS_BODY

    class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
        """A connection; a stranger's request that trickles in is as old as its first byte."""

        parser_class = Parser
        begun = 0.0

        def handle_read(self) -> None:
            """Read what has come."""
            if self.request is None:
                self.begun = time.time()
            super().handle_read()
            if self.request is not None and not self.request.is_known:
                self.last_activity = self.begun

    return Channel
