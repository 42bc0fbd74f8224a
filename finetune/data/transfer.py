"""One download session: files from one base URL into one folder, resumed, checked, with a progress bar."""

from __future__ import annotations

import sys
import threading
import time
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from urllib.parse import urljoin

import pooch
import requests
import urllib3
from tqdm import tqdm  # type: ignore[import-untyped]  # comes with pooch[progress], has no types

from finetune.errors import DataError

CHUNK_BYTES = 1 << 16
TIMEOUT_S = 30
TRIES = 5
"""Attempts at one file; each goes on where the one before stopped."""
SLOWEST_BYTES_S, SLOW_S = 1024, 60.0
"""An attempt that brings less than so many bytes a second, for so many seconds, counts as broken off."""
MOST_TIMES, MOST_MORE = 2, 64 << 20
"""A session ends when it has been sent more than so many times what is published, and so many bytes more."""
FIRST_WAIT_S = 0.5
"""Before the second attempt; doubled before each further one."""

NetworkError = (requests.ConnectionError, requests.Timeout, urllib3.exceptions.HTTPError)

pooch.get_logger().setLevel("WARNING")  # it announces every file


class Stopped(Exception):  # noqa: N818 - not an error: another file failed, or Ctrl-C came
    """This session has been told to end."""


class Transfer:
    """Fetches files; used as a context, and by several threads at once."""

    def __init__(self, base_url: str, root: Path, title: str, size_bytes: int | None) -> None:
        self.base_url = base_url if base_url.endswith("/") else base_url + "/"
        self.root = root
        self.stop = threading.Event()
        self._lock = threading.Lock()
        self._left = None if size_bytes is None else MOST_TIMES * size_bytes + MOST_MORE
        # disable=None: no bar where standard error is not a terminal
        self._bar = tqdm(
            total=size_bytes,
            desc=title,
            unit="B",
            unit_scale=True,
            file=sys.stderr,
            disable=None,
            leave=False,
        )

    def __enter__(self) -> Transfer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()

    def advance(self, count: int) -> None:
        """Move the progress bar on by so many bytes."""
        with self._lock:
            self._bar.update(count)

    def aside(self) -> AbstractContextManager[None]:
        """Return a context in which lines can be printed without running into the progress bar."""
        context: AbstractContextManager[None] = tqdm.external_write_mode(file=sys.stderr)
        return context

    def url_of(self, path: str) -> str:
        """Return the address of a file."""
        return urljoin(self.base_url, path)

    def fetch(self, path: str, sha256: str | None) -> Path:
        """Fetch one file to its place below the folder and return that; None: there is no checksum.

        Without one an old copy is replaced, once the new one is whole: nothing tells them apart. A file whose
        checksum is wrong is removed. Raises :class:`DataError`.
        """
        target = self.root / path
        url = self.url_of(path)
        if sha256 is None:
            self._download(url, str(target), None)
            return target
        try:
            pooch.retrieve(
                url,
                known_hash=f"sha256:{sha256}",
                fname=target.name,
                path=target.parent,
                downloader=self._download,
            )
        except ValueError as error:  # pooch's word for a wrong checksum; it has removed the file
            what = f"{url} has another content than its publisher's checksum says"
            raise DataError(what, f"sha256 {sha256}", "try again later") from error
        return target

    def _download(self, url: str, output_file: str, pooch: object) -> None:
        """Fetch ``url`` by way of a ``.part`` file that outlives an interruption (a pooch downloader)."""
        part = Path(output_file).parent / f"{Path(url).name}.part"
        for attempt in range(TRIES):
            try:
                self._append(url, part)
                break
            except NetworkError as error:
                if attempt == TRIES - 1:
                    next_step = "the same command again goes on from there"
                    raise DataError(
                        f"{url} stopped: {_broken(error)}", "the whole file", next_step
                    ) from error
                time.sleep(FIRST_WAIT_S * 2**attempt)
            except requests.RequestException as error:
                raise DataError(
                    f"{url} cannot be fetched: {_why(error)}", "a file at a web address"
                ) from error
        part.replace(output_file)

    def _append(self, url: str, part: Path) -> None:
        """Add to ``part`` what is missing of it."""
        have = part.stat().st_size if part.exists() else 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with requests.get(url, headers=headers, stream=True, timeout=TIMEOUT_S) as response:
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise DataError(f"{url} leads to {response.url}", "an encrypted connection all the way")
            if response.status_code == requests.codes.requested_range_not_satisfiable:
                self._settle(response, part, have)
                return
            if response.status_code >= 500:
                raise requests.ConnectionError(f"{response.status_code} {response.reason}")
            if not response.ok:
                raise DataError(f"{url} answers {response.status_code} {response.reason}", "the file")
            resumes = response.status_code == requests.codes.partial_content
            self.advance(have if resumes else 0)
            with part.open("ab" if resumes else "wb") as stream:
                # read1 gives what has come; iter_content would lose up to a chunk when the line breaks
                pace = _Pace(url)
                while chunk := response.raw.read1(CHUNK_BYTES):
                    if self.stop.is_set():
                        raise Stopped
                    self._demand_room(url, len(chunk))
                    stream.write(chunk)
                    self.advance(len(chunk))
                    pace.take(len(chunk))

    def _demand_room(self, url: str, count: int) -> None:
        """Count what has come; raises :class:`DataError` when it is far more than is published."""
        with self._lock:
            if self._left is not None:
                self._left -= count
                if self._left < 0:
                    what = f"{url}: far more has been sent than is published of this data set"
                    raise DataError(what, "its files", "is this the publisher's address, or a mirror of it?")

    def _settle(self, response: requests.Response, part: Path, have: int) -> None:
        """Decide on a part that the server has nothing to add to: it is whole, or it is rubbish."""
        total = response.headers.get("Content-Range", "").rpartition("/")[2]
        if total != str(have):
            part.unlink()
            raise requests.ConnectionError(f"{have} bytes are here of {total or 'an unknown number'}")


class _Pace:
    """How fast one attempt is, measured over :data:`SLOW_S` at a time."""

    def __init__(self, url: str) -> None:
        self._url, self._since, self._bytes = url, time.monotonic(), 0

    def take(self, count: int) -> None:
        """Count bytes; raises a network error (the next attempt goes on) when they are too few."""
        self._bytes += count
        passed_s = time.monotonic() - self._since
        if passed_s < SLOW_S:
            return
        if self._bytes < SLOWEST_BYTES_S * passed_s:
            raise requests.Timeout(f"{self._bytes} bytes in {passed_s:.0f} s")
        self._since, self._bytes = time.monotonic(), 0


def _broken(error: Exception) -> str:
    """Return why a connection was not made, or did not last, without the library's own tale."""
    if isinstance(error, requests.Timeout):
        return "the server does not answer"
    if isinstance(error, requests.ConnectionError):
        return "the server cannot be reached"
    return "the connection broke"


def _why(error: requests.RequestException) -> str:
    """Return what was wrong with an address or an answer."""
    if isinstance(error, requests.TooManyRedirects):
        return "it is redirected in a circle"
    if isinstance(error, requests.exceptions.InvalidSchema):
        return "addresses of this kind are not fetched (or it is redirected to one)"
    if isinstance(error, requests.exceptions.MissingSchema | requests.exceptions.InvalidURL):
        return "it is no web address"
    return " ".join(str(error).split()) or type(error).__name__
