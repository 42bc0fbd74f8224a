"""Short tables for a terminal: studies, data sets. Light: no pandas, no torch, no database."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hpo.numbers import duration, quantity, ratio
from hpo.report.language import SPOKEN, Language, Words

if TYPE_CHECKING:
    from finetune.api import DataStatus


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return ``rows``, the first of them the header, as lines with aligned columns."""
    widths = [max(_width(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(
            cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    ]


def _width(text: str) -> int:
    """Return how many columns of a terminal a text takes: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(sign) in "WF" else 1 for sign in text)


_STATUS = ("study", "state", "finished", "complete", "pruned", "failed", "running", "pace", "left")
_WORKER = ("worker", "host", "device", "study", "trial", "epoch", "seen")


def status_lines(studies: Sequence[Mapping[str, Any]], language: Language = "en") -> list[str]:
    """Return where each study stands, one line each."""
    words = SPOKEN[language]
    header = tuple(words.say(f"status.head.{name}") for name in (*_STATUS, "best", "remarks"))
    return columns([header, *(_status_row(study, words) for study in studies)])


def _status_row(study: Mapping[str, Any], words: Words) -> tuple[str, ...]:
    best, left_s = study["best"], study["remaining_s"]
    loss = quantity(best["validation_loss"], study["unit"]) if best else "-"
    if best:
        loss = words.say("status.best", loss=loss, number=best["number"], ratio=ratio(best["ratio"]))
    return (
        study["study"],
        state_words(study, words),
        f"{study['finished']}/{study['budget']}",
        *(str(study[key]) for key in ("complete", "pruned", "failed", "running")),
        quantity(float(f"{study['trials_per_hour']:.3g}")),
        "-" if left_s is None or study["state"] != "open" else duration(left_s),
        loss,
        words.say("list.comma").join(_remarks(study, words)),
    )


def has_work(study: Mapping[str, Any]) -> bool:
    """Return whether a study has trials that run, or that a worker could run."""
    is_open = study["state"] == "open" and study["finished"] + study["failed"] < study["budget"]
    return bool(is_open or study["running"])


def state_words(study: Mapping[str, Any], words: Words) -> str:
    """Return the state of a study; an open one of which all trials have ended is finished."""
    is_done = study["state"] == "open" and not has_work(study)
    return words.say(f"status.state.{'done' if is_done else study['state']}")


def _remarks(study: Mapping[str, Any], words: Words) -> list[str]:
    remarks = [words.say("label.synthetic")] * study["synthetic"]
    remarks += [words.say("label.partial", part=study["partial"])] * bool(study["partial"])
    remarks += [] if study.get("known_here", True) else [words.say("label.unknown")]
    foreign = study.get("foreign_trials", 0)
    remarks += [words.count("status.foreign", foreign)] * bool(foreign)
    return remarks + ([] if study.get("subjects_known", True) else [words.say("label.subjects_unknown")])


def failure_lines(study: Mapping[str, Any], *, whole: bool, language: Language = "en") -> list[str]:
    """Return why each slot of a study failed for good: its last line, or the ``whole`` of its traceback."""
    lines = []
    for failure in study["failures"]:
        text = failure["message"].strip()
        told = f"\n{text}".replace("\n", "\n    ") if whole else f" {text.rpartition(chr(10))[2][:200]}"
        given = {key: failure[key] for key in ("number", "end", "attempts", "worker")}
        said = SPOKEN[language].say("status.failure", study=study["study"], **given)
        lines += f"{said}{told}".split("\n")
    return lines


def worker_lines(workers: Sequence[Mapping[str, Any]], language: Language = "en") -> list[str]:
    """Return what each worker does, one line each."""
    words = SPOKEN[language]
    header = tuple(words.say(f"status.head.{name}") for name in _WORKER)
    return columns([header, *(_worker_row(worker, words) for worker in workers)])


def _worker_row(worker: Mapping[str, Any], words: Words) -> tuple[str, ...]:
    doing = ("-" if worker[key] is None else str(worker[key]) for key in ("study", "number", "epoch"))
    seen = words.say("status.ago", time=duration(worker["silent_s"]))
    return (worker["worker"], worker["host"], worker["device"], *doing, seen)


def study_lines(shipped: Sequence[Mapping[str, Any]], stored: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the shipped studies and those of the database."""
    rows = [
        ("shipped", "task", "trials", "what"),
        *((s["study"], s["task"], str(s["trials"]), s["title"]) for s in shipped),
    ]
    if not stored:
        return [*columns(rows), "", "in the database: none"]
    return [*columns(rows), "", "in the database:", *status_lines(stored)]


def data_lines(sets: Sequence[DataStatus]) -> list[str]:
    """Return what is there of each data set."""
    rows = [("data set", "state", "records", "size", "licence", "tasks")]
    for one in sets:
        records = ", ".join([f"{one.found} of {one.expected}", *(f"no {table}" for table in one.lacks)])
        rows.append((one.name, one.state, records, _room(one), one.licence, ", ".join(one.tasks)))
    return columns(rows)


def _room(one: DataStatus) -> str:
    """Return what the files of a set take here; of a set that is not here, what it takes to fetch."""
    if one.bytes:
        return _size(one.bytes)
    return f"- ({_size(one.whole_bytes)} to fetch)" if one.whole_bytes else "-"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
