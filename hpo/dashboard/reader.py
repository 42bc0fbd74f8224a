"""What the reader of a page wants."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from hpo.report.language import Language

if TYPE_CHECKING:
    from wsgiref.types import WSGIEnvironment


def language_of(environ: WSGIEnvironment) -> Language:
    """Return the language that the address names, or else the browser's first where we speak it."""
    asked = parse_qs(environ.get("QUERY_STRING", "")).get("lang", [""])[0]
    if asked in {"en", "zh"}:
        return "zh" if asked == "zh" else "en"
    preferred = str(environ.get("HTTP_ACCEPT_LANGUAGE", ""))
    return "zh" if preferred.strip().lower().startswith("zh") else "en"
