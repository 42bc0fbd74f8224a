"""Short tables for a terminal: studies, data sets. Light: no pandas, no torch, no database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from finetune.api import DataStatus
from hpo.worker.progress import duration


def columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return ``rows``, the first of them the header, as lines with aligned columns."""
    widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def status_lines(studies: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return where each study stands, one line each."""
    header = ("study", "state", "finished", "complete", "pruned", "failed", "running", "trials/h", "left")
    return columns([(*header, "best", "remarks"), *(_status_row(study) for study in studies)])


def _status_row(study: Mapping[str, Any]) -> tuple[str, ...]:
    best = study["best"]
    loss = f"{best['validation_loss']:.4g} {study['unit']}".strip() if best else "-"
    counts = (str(study[key]) for key in ("complete", "pruned", "failed", "running"))
    remarks = ["synthetic signals"] * study["synthetic"] + [f"partial: {study['partial']}"] * bool(
        study["partial"]
    )
    remarks += ["unknown to this version"] * (not study.get("known_here", True))
    foreign = study.get("foreign_trials", 0)
    remarks += [f"{foreign} trials of another tool do not count"] * bool(foreign)
    remarks += [] if study.get("subjects_known", True) else ["subjects not known"]
    left_s = study["remaining_s"]
    return (
        study["study"],
        study["state"],
        f"{study['finished']}/{study['budget']}",
        *counts,
        f"{study['trials_per_hour']:.3g}",
        "-" if left_s is None or study["state"] != "open" else duration(left_s),
        f"{loss} (trial {best['number']}, ratio {best['ratio']:.3g})" if best else loss,
        ", ".join(remarks),
    )


def failure_lines(study: Mapping[str, Any], *, whole: bool) -> list[str]:
    """Return why each slot of a study failed for good: its last line, or the ``whole`` of its traceback."""
    lines = []
    for failure in study["failures"]:
        text = failure["message"].strip()
        told = f"\n{text}".replace("\n", "\n    ") if whole else f" {text.rpartition(chr(10))[2][:200]}"
        why = f"{failure['end']} in its last of {failure['attempts']} attempts, by {failure['worker']}"
        lines += f"{study['study']} trial {failure['number']} failed for good, {why}:{told}".split("\n")
    return lines


def worker_lines(workers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what each worker does, one line each."""
    header = ("worker", "host", "device", "study", "trial", "epoch", "last sign of life")
    return columns([header, *(_worker_row(worker) for worker in workers)])


def _worker_row(worker: Mapping[str, Any]) -> tuple[str, ...]:
    doing = ("-" if worker[key] is None else str(worker[key]) for key in ("study", "number", "epoch"))
    seen = f"{duration(worker['silent_s'])} ago"
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
