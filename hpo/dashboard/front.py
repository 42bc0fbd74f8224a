"""Our own pages: the studies as cards, and each study with its answer first. Optuna's pages are a click away.

    /                       all studies            /live               what they show, as JSON
    /study/<name>           one study              /live/<name>        the same of one
    /study/<name>/ratio.svg a figure of its answer /own/hpo.js, .css   what the pages are made with

A page holds its first values and asks for new ones every few seconds; nothing is sent where nothing changed
(an ETag). No page loads anything from elsewhere.
"""

from __future__ import annotations

import hashlib
import html
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import sqlalchemy as sa

from hpo.dashboard.kept import AnswerStore
from hpo.dashboard.live import cards, study_state
from hpo.dashboard.optunas import OptunasPages, hiding_style
from hpo.dashboard.reader import language_of
from hpo.errors import StorageError, UnknownStudyError
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.report.language import SPOKEN, Words

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HTML = "text/html; charset=utf-8"
_log = logging.getLogger(__name__)
_STATIC = Path(__file__).parent / "static"
_FIGURES = frozenset({"ratio", "rates"})
_OWN = {"hpo.js": "text/javascript; charset=utf-8", "hpo.css": "text/css; charset=utf-8"}
_HEADS = ("number", "kind", "lr", "backbone_lr", "ratio", "loss", "value", "epochs", "seed")
_SAID = (
    *("best", "few", "none", "ratio", "loss", "value", "parallel"),
    *("curves", "epoch", "trial", "nobody", "rests", "gone"),
)
"""What the page's script says by itself."""


class FrontPages:
    """Serves our pages; everything else is the app's."""

    def __init__(
        self,
        app: WSGIApplication,
        engine: sa.Engine,
        store: AnswerStore,
        *,
        has_login: bool,
        allow_writes: bool = False,
    ) -> None:
        self._app = OptunasPages(app)
        self._style = hiding_style(allow_writes=allow_writes)
        self._engine = engine
        self._store = store
        self._has_login = has_login

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with a page of ours, 404 for a study that is not there, or what the app says."""
        path = environ.get("PATH_INFO", "/").encode("latin-1").decode("utf-8", "replace")
        words = SPOKEN[language_of(environ)]
        try:
            found = self._found(path, words)
            if found is None:
                return self._app(environ, start_response)
        except UnknownStudyError as error:
            found = _Found("404 Not Found", _HTML, self._missing(str(error), words))
        except (StorageError, sa.exc.DBAPIError) as error:  # gone, locked, or its server restarts
            _log.warning("no page for %r: %s", path, error)
            found = _Found(
                "503 Service Unavailable", _HTML, self._missing(words.say("board.no_database"), words)
            )
        return found.answer(environ, start_response)

    def _found(self, path: str, words: Words) -> _Found | None:
        """Return what is at an address of ours; None where it is not ours."""
        kind, _, rest = path.strip("/").partition("/")
        match kind, rest:
            case "", "":
                return _html(self._front(words))
            case "live", "":
                return _json({"studies": cards(self._engine, self._store, words)})
            case "live", name:
                return _json(self._state(name, words))
            case "own", "optuna.css":
                return _Found("200 OK", _OWN["hpo.css"], self._style)
            case "own", name if name in _OWN:
                return _Found("200 OK", _OWN[name], (_STATIC / name).read_bytes())
            case "study", name if name.endswith(".svg") and name.rpartition("/")[2][:-4] in _FIGURES:
                study, _, figure = name.removesuffix(".svg").rpartition("/")
                return self._picture(study, figure, words)
            case "study", name if name:
                return _html(self._study(name, words))
        return None

    def _state(self, name: str, words: Words) -> dict[str, Any]:
        return study_state(self._engine, self._row(name), self._store, words)

    def _row(self, name: str) -> StudyRow:
        return Ledger(self._engine).study(name)

    def _picture(self, study: str, figure: str, words: Words) -> _Found:
        drawn = self._store.picture(self._row(study).name, figure, words)
        if drawn is None:
            return _Found("404 Not Found", "text/plain; charset=utf-8", b"no answer yet")
        return _Found("200 OK", "image/svg+xml", drawn)

    def _front(self, words: Words) -> bytes:
        first = {"studies": cards(self._engine, self._store, words)}
        none = "" if first["studies"] else f"<p>{_said(words, 'board.empty')}</p>"
        body = f'<h1>{_said(words, "board.studies")}</h1>{none}<ul id="cards"></ul>'
        return self._page(words.say("board.studies"), body, "/live", first, words, "/dashboard")

    def _study(self, name: str, words: Words) -> bytes:
        row = self._row(name)
        at = quote(row.name, safe="")
        heads = "".join(_head(by, words) for by in _HEADS)
        figure = html.escape(f"/study/{at}/ratio.svg?lang={words.language}")
        body = _STUDY.format(
            name=html.escape(row.name),
            title=html.escape(str(row.spec.get("title") or row.spec.get("task") or "")),
            figure=figure,
            heads=heads,
            report=html.escape(f"/answer/{at}?lang={words.language}"),
            **{key: _said(words, f"board.{key}") for key in _STUDY_WORDS},
        )
        first = self._state(name, words)
        return self._page(row.name, body, f"/live/{at}", first, words, f"/dashboard/studies/{row.study_id}")

    def _missing(self, why: str, words: Words) -> bytes:
        return self._page(why, f"<h1>{html.escape(why)}</h1>", "/live", {"studies": []}, words, "/dashboard")

    def _page(
        self, title: str, body: str, live: str, first: dict[str, Any], words: Words, optuna: str
    ) -> bytes:
        other = "en" if words.language == "zh" else "zh"
        leave = f'<form method="post" action="/logout"><button>{_said(words, "board.leave")}</button></form>'
        said = json.dumps({key: words.say(f"board.say.{key}") for key in _SAID}, ensure_ascii=False)
        return _PAGE.format(
            tag={"en": "en", "zh": "zh-Hans"}[words.language],
            title=html.escape(title),
            live=html.escape(f"{live}?lang={words.language}"),
            said=html.escape(said),
            first=_inside_script(first),
            body=body,
            home=html.escape(f"/?lang={words.language}"),
            front=_said(words, "board.front"),
            other=other,
            other_name={"en": "English", "zh": "中文"}[other],
            optuna=html.escape(optuna),
            optuna_name=_said(words, "board.optuna"),
            leave=leave if self._has_login else "",
        ).encode()


class _Found:
    """What is at an address, with a mark by which a browser asks for news only."""

    def __init__(self, status: str, kind: str, body: bytes) -> None:
        self.status, self.kind, self.body = status, kind, body

    def answer(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with the whole, or that nothing has changed."""
        mark = f'"{hashlib.sha256(self.body).hexdigest()[:24]}"'
        headers = [
            ("Content-Type", self.kind),
            ("Content-Security-Policy", _POLICY),
            ("Cache-Control", "private, no-cache"),
            ("ETag", mark),
        ]
        if self.status.startswith("200") and environ.get("HTTP_IF_NONE_MATCH", "") == mark:
            start_response("304 Not Modified", headers)
            return []
        start_response(self.status, [*headers, ("Content-Length", str(len(self.body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [self.body]


def _html(body: bytes) -> _Found:
    return _Found("200 OK", _HTML, body)


def _json(value: Any) -> _Found:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _Found("200 OK", "application/json", text.encode())


def _inside_script(value: Any) -> str:
    """Return JSON that cannot end the element that holds it."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _head(by: str, words: Words) -> str:
    button = f'<button type="button">{_said(words, f"board.head.{by}")}</button>'
    kind = "" if by in {"kind", "loss"} else ' class="number"'
    return f'<th scope="col" data-by="{by}"{kind}>{button}</th>'


def _said(words: Words, key: str) -> str:
    return html.escape(words.say(key))


_STUDY_WORDS = (
    "answer",
    "figure_alt",
    "report_link",
    "confirmation",
    "curves",
    "parallel",
    "parallel_note",
    "trials",
    "trials_note",
    "at_work",
)
_PAGE = """<!DOCTYPE html>
<html lang="{tag}">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title} · hpo</title>
<link rel="stylesheet" href="/own/hpo.css">
<script src="/own/hpo.js" defer></script>
</head>
<body data-live="{live}" data-words="{said}">
<header>
<a class="name" href="{home}">{front}</a>
<a href="?lang={other}" hreflang="{other}" lang="{other}">{other_name}</a>
<a href="{optuna}">{optuna_name}</a>
{leave}
</header>
<main>
{body}
<p id="said" class="said soft" role="status"></p>
</main>
<script id="first" type="application/json">{first}</script>
</body>
</html>
"""
_STUDY = """<div class="row"><h1>{name}</h1><span id="state" class="badge"></span></div>
<div class="soft">{title}</div>
<div id="progress"></div>
<div id="counted" class="soft"></div>
<section aria-labelledby="h-answer"><h2 id="h-answer">{answer}</h2>
<ul id="answer" aria-live="polite"></ul>
<figure hidden><a href="{figure}">
<img id="zones" data-from="{figure}" alt="{figure_alt}" width="720" height="470"></a></figure>
<p class="no-print"><a href="{report}">{report_link}</a></p>
</section>
<section id="confirmation" aria-labelledby="h-confirmed" hidden><h2 id="h-confirmed">{confirmation}</h2>
<ul id="confirmed"></ul></section>
<section aria-labelledby="h-curves"><h2 id="h-curves">{curves}</h2><div id="curves"></div></section>
<section aria-labelledby="h-parallel"><h2 id="h-parallel">{parallel}</h2>
<p class="soft">{parallel_note}</p><div id="parallel"></div></section>
<section aria-labelledby="h-trials"><h2 id="h-trials">{trials}</h2><p class="soft">{trials_note}</p>
<div class="scroll" tabindex="0" role="group" aria-labelledby="h-trials"><table>
<thead><tr>{heads}</tr></thead><tbody id="trials"></tbody></table></div></section>
<section aria-labelledby="h-workers"><h2 id="h-workers">{at_work}</h2><ul id="workers"></ul></section>
"""
