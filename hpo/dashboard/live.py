"""What our own pages show of a database, as JSON values: a few queries that do not grow with the study.

Texts are in the reader's language already; the page's script only puts them into their places.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from hpo.analysis.zones import Zones
from hpo.dashboard.kept import AnswerStore
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import COMPLETE, StudyRow, tried
from hpo.numbers import percent, rate, ratio, rounded
from hpo.reading.findings import Findings
from hpo.reading.foreign import foreign_trials
from hpo.reading.standing import ATTACHED_S, attached_workers, best_trial, budget, known_task, pace
from hpo.report.answer import answer_lines, no_answer
from hpo.report.language import Words
from hpo.report.naming import loss_words
from hpo.report.zones import good_words
from hpo.storage import reading
from hpo.storage.tables import curve, slots
from hpo.study.choices import value_words
from hpo.study.recipe import SEARCHABLE

MOST_BEST, MOST_RECENT, MOST_CURVES = 100, 100, 40
"""Trials that a page shows: the best, the latest ended; and the curves of the latest."""


def cards(engine: sa.Engine, store: AnswerStore, words: Words) -> list[dict[str, Any]]:
    """Return one card for each study: those that are worked on, then the latest, confirmations last."""
    workers = attached_workers(engine)
    found = [_card(engine, row, store, workers, words) for row in Ledger(engine).studies()]
    return sorted(found, key=lambda card: (not card["running"], card["confirms"], -card["created"]))


def _card(
    engine: sa.Engine,
    row: StudyRow,
    store: AnswerStore,
    workers: list[dict[str, Any]],
    words: Words,
) -> dict[str, Any]:
    kept = store.get(row.name)
    return {
        "name": row.name,
        "title": str(row.spec.get("title") or ""),
        "task": str(row.spec.get("task") or ""),
        "created": row.created_at,
        "confirms": bool(row.confirms),
        **_progress(engine, row, kept, words),
        "workers": words.count("board.workers", sum(one["study"] == row.name for one in workers)),
        "good": _good(kept, words),
        "resolved": _resolved(kept, words),
    }


def _good(kept: Findings | None, words: Words) -> list[str]:
    good = good_words(kept, words) if kept and not kept.row.confirms else None
    return [] if good is None else [good]


def _progress(engine: sa.Engine, row: StudyRow, kept: Findings | None, words: Words) -> dict[str, Any]:
    """Return how far a study is: numbers for the bar, and words."""
    counts = Ledger(engine).counts(row.study_id)
    total = budget(counts)
    foreign = foreign_trials(engine, row.study_id)
    best, left_s = best_trial(engine, row.study_id), pace(engine, row.study_id)["remaining_s"]
    is_over = counts.finished + counts.failed >= total
    state: str = row.state
    if state == "open" and not counts.running:
        state = "done" if is_over else "waits"
    task = known_task(row)
    state = state if task else "unknown"
    return {
        "state": state,
        "state_words": words.say(f"board.state.{state}"),
        "finished": counts.finished,
        "failed": counts.failed,
        "running": counts.running,
        "total": total,
        "counted": words.count("board.finished", counts.finished, total=total),
        "foreign": words.count("status.foreign", foreign) if foreign else "",
        "left": "" if is_over or not left_s or not counts.running else _left(left_s, words),
        "best": _value(best["validation_loss"], task.unit if task else "", kept)
        if best and not row.confirms
        else "",
    }


def _resolved(kept: Findings | None, words: Words) -> str:
    zones: Zones | None = kept.answer.zones if kept and not kept.row.confirms else None
    return words.say("board.resolved", share=percent(zones.resolved)) if zones else ""


def _left(seconds: float, words: Words) -> str:
    """Return how long it will take, as a range: the rate of the last hour, half as fast or as it is."""
    minutes = max(1, math.ceil(seconds / 60))
    key, low = ("board.left.minutes", minutes) if minutes < 60 else ("board.left.hours", minutes // 60)
    return words.say(key, low=low, high=2 * low)


def _value(value: float, unit: str, kept: Findings | None) -> str:
    """Return one run's loss, in the digits of the answer where there is one."""
    return rounded(value, kept.answer.noise.seed_sd if kept else None, unit)


def study_state(engine: sa.Engine, row: StudyRow, store: AnswerStore, words: Words) -> dict[str, Any]:
    """Return everything that a study's page brings up to date."""
    kept, task = store.get(row.name), known_task(row)
    shown, unit = _shown(engine, row), task.unit if task else ""
    workers = attached_workers(engine, row.name)
    return {
        **_progress(engine, row, kept, words),
        "answer": _answer(row, kept, words),
        "figure": 0 if row.confirms else store.mark(row.name),
        "trials": [_trial(one, unit, kept, words) for one in shown.values()],
        "losses": list(_space(row).get("loss", [])),
        "choices": _choices(row),
        "curves": _curves(engine, row, shown),
        "workers": [_worker(one, words) for one in workers],
        "confirmed": store.confirmed(row.name, words) if task else [],
    }


def _answer(row: StudyRow, kept: Findings | None, words: Words) -> list[str]:
    if row.confirms:
        return no_answer(row, words)
    return answer_lines(kept, words.language) if kept else [words.say("board.answer.waits")]


def _space(row: StudyRow) -> Mapping[str, Any]:
    """Return the space of a study as it is stored; nothing of one that is not known here."""
    return row.spec["space"] if known_task(row) else {}


def _choices(row: StudyRow) -> dict[str, list[str]]:
    """Return the values of each key that the study searches beside rates and loss, as they are written."""
    space = _space(row)
    return {name: [value_words(one) for one in space[name]] for name in SEARCHABLE if space.get(name)}


def _shown(engine: sa.Engine, row: StudyRow) -> dict[int, Mapping[str, Any]]:
    """Return the trials to show by their numbers: under way, failed, the latest ended and the best."""
    mine = sa.select(slots).where(slots.c.study_id == row.study_id)
    is_complete = (slots.c.state == "done") & slots.c.end.in_(COMPLETE)
    queries = (
        mine.where(slots.c.state == "running").order_by(slots.c.slot).limit(200),
        mine.where(slots.c.state == "failed").order_by(slots.c.slot.desc()).limit(50),
        mine.where(slots.c.state == "done").order_by(slots.c.ended_at.desc()).limit(MOST_RECENT),
        mine.where(is_complete).order_by(slots.c.value, slots.c.slot).limit(MOST_BEST),
    )
    with reading(engine) as connection:
        rows = [one for query in queries for one in connection.execute(query).mappings()]
    return {int(one["slot"]): dict(one) for one in rows}


def _trial(one: Mapping[str, Any], unit: str, kept: Findings | None, words: Words) -> dict[str, Any]:
    config = tried(one["config"]) or {}
    lr, backbone_lr = float(config.get("lr", math.nan)), float(config.get("backbone_lr", math.nan))
    kind = str(one["end"] if one["state"] == "done" else one["state"])
    kind = "complete" if kind in COMPLETE else kind
    value = one["value"] if one["value"] is not None and math.isfinite(one["value"]) else None
    rates = [rate(lr), rate(backbone_lr), ratio(lr / backbone_lr)] if config else ["", "", ""]
    return {
        "number": int(one["slot"]),
        "kind": kind,
        "kind_words": words.name("board.trial", kind),
        "lr": lr if config else None,
        "backbone_lr": backbone_lr if config else None,
        "ratio": lr / backbone_lr if config else None,
        "shown": rates,
        "loss": config.get("loss", ""),
        "choices": {name: value_words(one) for name, one in config.get("choices", {}).items()},
        "loss_words": loss_words(config.get("loss", ""), config.get("choices", {}), words),
        "seed": config.get("seed"),
        "value": value,
        "value_words": "" if value is None else _value(value, unit, kept),
        "epochs": one["epochs"],
    }


def _curves(engine: sa.Engine, row: StudyRow, shown: Mapping[int, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the validation losses by epoch of the trials under way and of the latest others."""
    ended = sorted(
        shown, key=lambda slot: (shown[slot]["state"] != "running", -(shown[slot]["ended_at"] or 0))
    )
    wanted = ended[:MOST_CURVES]
    query = (
        sa.select(curve.c.slot, curve.c.epoch, curve.c.validation_loss)
        .where(curve.c.study_id == row.study_id, curve.c.slot.in_(wanted))
        .order_by(curve.c.slot, curve.c.epoch)
    )
    points: dict[int, list[list[float]]] = {}
    with reading(engine) as connection:
        for slot, epoch, loss in connection.execute(query):
            if loss is not None and math.isfinite(loss):
                points.setdefault(int(slot), []).append([int(epoch), float(f"{loss:.4g}")])
    return [
        {"number": slot, "state": shown[slot]["state"], "points": found} for slot, found in points.items()
    ]


def _worker(one: Mapping[str, Any], words: Words) -> dict[str, str]:
    """Return who works on what, and whether it has been silent for long."""
    at = "" if one["number"] is None else words.say("board.worker.trial", **_at(one))
    silent_s = float(one["silent_s"])
    return {
        "name": f"{one['host']} {one['pid']}",
        "device": str(one["device"]),
        "does": at or words.say("board.worker.idle"),
        "silent": words.say("board.worker.silent", n=round(silent_s / 60))
        if silent_s > ATTACHED_S / 2
        else "",
    }


def _at(one: Mapping[str, Any]) -> dict[str, Any]:
    return {"number": one["number"], "epoch": one["epoch"]}
