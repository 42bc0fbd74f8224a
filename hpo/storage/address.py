"""Where a database is, in a person's words: a file or a URL, and how it is shown. Imports next to nothing."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import unquote

_DATABASE_FILES = {".db", ".db3", ".sqlite", ".sqlite3"}
# The user's part ends at the last @ of the word, since a password may hold any sign.
_IN_URL = re.compile(r"(?P<before>[a-z][\w+.-]*://[^\s:@/]*):\S*@", re.IGNORECASE)
_AS_KEYWORD = re.compile(
    r"(?P<before>\b\w*(?:password|passwd|pwd)['\"]?\s*[=:]\s*)"
    r"(?:'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s&,;)}\]]+)",
    re.IGNORECASE,
)


def default_url() -> str:
    """Return HPO_STORAGE (a URL or an SQLite file), or ``sqlite:///hpo.db`` in the working folder."""
    return url_of_word(os.environ.get("HPO_STORAGE") or "sqlite:///hpo.db")


def url_of_word(word: str) -> str:
    """Return the URL that a person means: a file's path is an SQLite database, a URL is itself.

    A path is what has a folder in it, ends as database files do, or names a file that is there; a word with a
    scheme (``postgresql:...``) never is one. Anything else is given back: :func:`parse_url` refuses it.
    """
    file = Path(word).expanduser()
    looks_like_one = len(file.parts) > 1 or file.suffix in _DATABASE_FILES or file.is_file()
    is_path = looks_like_one and not re.match(r"[a-z][\w+.-]+:", word, re.IGNORECASE)
    return f"sqlite:///{str(file).replace('%', '%25').replace('?', '%3F')}" if is_path else word


def redact(text: str) -> str:
    """Return ``text`` without the password of any URL or connection string in it."""
    return _AS_KEYWORD.sub(r"\g<before>***", _IN_URL.sub(r"\g<before>:***@", text))


def plain_file(url: str) -> Path | None:
    """Return the file of an SQLite database whose URL says no more; None for any other."""
    path = url.removeprefix("sqlite:///")
    is_plain = path != url and "?" not in path and path not in {"", ":memory:"}
    return real_path(unquote(path)) if is_plain else None


def real_path(path: str) -> Path:
    """Return the absolute path of a file, where a link leads to; a name that no file can have stays."""
    return Path(path).absolute() if "\0" in path else Path(path).resolve()
