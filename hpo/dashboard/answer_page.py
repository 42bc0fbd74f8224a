"""The answer of a study as a web page of its own: ``/answer/<study>`` of the dashboard."""

from __future__ import annotations

import html
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import quote

import sqlalchemy as sa

from finetune.api import FinetuneError
from hpo.confirm.confirmed import newest_confirmation
from hpo.dashboard.glance import glance
from hpo.dashboard.reader import language_of
from hpo.errors import MismatchError, UnknownStudyError
from hpo.ledger.choice_book import ChoiceBook
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Counts
from hpo.reading.foreign import foreign_trials
from hpo.report.html import answer_html
from hpo.report.language import SPOKEN, Language
from hpo.report.page import page

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; frame-ancestors 'self'"


class AnswerPages:
    """Serves ``/answer`` (all studies) and ``/answer/<study>``; everything else is the app's.

    A page is worked out again when a trial has ended since, by whatever tool, or a confirmation was scored.
    """

    def __init__(self, app: WSGIApplication, engine: sa.Engine) -> None:
        self._app = app
        self._engine = engine
        self._pages: dict[tuple[str, Language], tuple[tuple[Counts, int, float], bytes]] = {}
        self._lock = threading.Lock()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer with a page of ours, 404 for an unknown study, or what the app says."""
        path = environ.get("PATH_INFO", "").rstrip("/")
        if path != "/answer" and not path.startswith("/answer/"):
            return self._app(environ, start_response)
        name = path.removeprefix("/answer").lstrip("/").encode("latin-1").decode("utf-8", "replace")
        status, language = "200 OK", language_of(environ)
        try:
            body = self._page(name, language) if name else self._list(language)
        except (UnknownStudyError, MismatchError, FinetuneError) as error:
            why = html.escape(str(error))
            status, body = "404 Not Found", page("no such study", f"<h1>404</h1><p>{why}</p>", language)
        headers = [("Content-Type", "text/html; charset=utf-8"), ("Content-Security-Policy", _POLICY)]
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [body]

    def _page(self, name: str, language: Language) -> bytes:
        ledger = Ledger(self._engine)
        study_id = ledger.study(name).study_id
        scored = [one.scored_at or 0.0 for one in ChoiceBook(self._engine).all(study_id)]
        foreign = foreign_trials(self._engine, study_id)
        state = ledger.counts(study_id), foreign, max(scored, default=0.0)
        with self._lock:
            known = self._pages.get((name, language))
            if known is None or known[0] != state:
                confirmation = newest_confirmation(self._engine, name)
                known = state, answer_html(glance(self._engine, name), confirmation, _TRIALS, language)
                self._pages[name, language] = known
        return known[1]

    def _list(self, language: Language) -> bytes:
        names = [study.name for study in Ledger(self._engine).studies()]
        rows = [f'<li><a href="{_address(name, language)}">{html.escape(name)}</a></li>' for name in names]
        words = SPOKEN[language]
        back = f'<a href="{_TRIALS}">{words.say("page.to_dashboard")}</a>'
        title = words.say("page.answers")
        return page(title, f"<h1>{title}</h1><ul>{''.join(rows)}</ul><p>{back}</p>", language)


def _address(name: str, language: Language) -> str:
    return f"/answer/{quote(name, safe='')}" + ("" if language == "en" else f"?lang={language}")


_TRIALS = "/dashboard"
