"""A happening as a message: values for a program, one or two sentences for a person."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from finetune.api import FinetuneError
from hpo.alerts.delivery import Message
from hpo.errors import HpoError
from hpo.ledger.ledger import Ledger
from hpo.ledger.outbox import AlertKind, Due
from hpo.ledger.values import Counts, StudyRow
from hpo.numbers import duration
from hpo.reading.activity import failed_slots
from hpo.reading.standing import best_trial, standing
from hpo.report.answer import answer_lines
from hpo.report.language import SPOKEN, Language


def message_of(
    engine: sa.Engine, row: StudyRow, due: Due, url: str, stuck_s: float, language: Language
) -> Message:
    """Return what a target is told of a happening."""
    what, counts = due.happening, Ledger(engine).counts(row.study_id)
    answer = _answer(engine, row, language) if what.kind is AlertKind.ENDED else []
    text = _text(engine, row, due, counts, stuck_s, language)
    body: dict[str, Any] = {
        "id": due.alert_id,
        "event": what.kind.value,
        "attempt": due.attempt,
        "at": datetime.fromtimestamp(what.at, UTC).isoformat(timespec="seconds"),
        "study": row.name,
        "trial": what.slot,
        "text": " ".join([text, *answer[:1]]),
        "answer": answer,
        "standing": {**standing(row, counts, url), "best": best_trial(engine, row.study_id)},
    }
    title = SPOKEN[language].say(f"alert.title.{what.kind.value}", study=row.name)
    return Message(due.alert_id, title, body["text"], body)


def trial_message(language: Language = "en") -> Message:
    """Return a message that says that alerts arrive."""
    words = SPOKEN[language]
    text = words.say("alert.test")
    body = {"id": "test", "event": "test", "attempt": 1, "study": "", "trial": None, "text": text}
    return Message("test", words.say("alert.title.test"), text, body)


def _answer(engine: sa.Engine, row: StudyRow, language: Language) -> list[str]:
    """Return the answer in words; nothing for a study that this version cannot read."""
    from hpo.reading.findings import find_out  # with pandas

    try:
        return answer_lines(find_out(engine, row.name), language)
    except (HpoError, FinetuneError):
        return []


def _text(
    engine: sa.Engine, row: StudyRow, due: Due, counts: Counts, stuck_s: float, language: Language
) -> str:
    words, what = SPOKEN[language], due.happening
    if what.kind is AlertKind.ENDED:
        given = {"complete": counts.complete, "pruned": counts.pruned, "failed": counts.failed}
        said = [words.count(f"count.{kind}", n) for kind, n in given.items() if n or kind == "complete"]
        return words.say("alert.ended", study=row.name, counts=words.listed(said))
    if what.kind is AlertKind.STUCK:
        given = {"waiting": counts.free, "running": counts.running}
        return words.say("alert.stuck", study=row.name, time=duration(stuck_s), **given)
    why = next((one for one in failed_slots(engine, row.study_id) if one.number == what.slot), None)
    last = why.message.strip().rpartition("\n")[2][:200] if why else ""
    return words.say("alert.failed", study=row.name, number=what.slot, why=last)
