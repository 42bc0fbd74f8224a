"""Numbers as texts, in every language the same."""

from __future__ import annotations

import math


def about(value: float, unit: str = "") -> str:
    """Return a value with two digits and its unit."""
    return f"{value:.2g} {unit}".rstrip()


def with_error(value: float, error: float | None, unit: str = "", *, sign: str = "") -> str:
    """Return a value with as many digits as its standard error has any use for: ``0.450 ± 0.077 bpm``.

    The error has two digits, the value no more decimal places than that, and four digits without an error.
    ``sign`` is ``+`` where a positive value shows its sign.
    """
    if error is None or not (math.isfinite(error) and error > 0):
        return f"{value:{sign}.4g} {unit}".rstrip()
    places = 1 - math.floor(math.log10(float(f"{error:.1e}")))
    if not 0 <= places <= 6:
        return f"{value:{sign}.4g} ± {error:.2g} {unit}".rstrip()
    return f"{value:{sign}.{places}f} ± {error:.{places}f} {unit}".rstrip()
