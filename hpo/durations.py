"""Lengths of time as a person says them. Light: what prints a table needs no worker."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Return ``seconds`` as a person says it: ``40 s``, ``12 min``, ``3 h 05 min``."""
    return " ".join(filter(None, number_and_unit(seconds)))


def number_and_unit(seconds: float) -> tuple[str, str]:
    """Return a time as its number and unit; hours with minutes are a number without one."""
    if seconds < 90:
        return f"{seconds:.0f}", "s"
    minutes = round(seconds / 60)
    return (f"{minutes}", "min") if minutes < 90 else (f"{minutes // 60} h {minutes % 60:02d} min", "")
