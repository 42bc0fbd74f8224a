"""Numbers and lengths of time as texts, in every language the same, with no more digits than they deserve."""

from __future__ import annotations

import math


def about(value: float, unit: str = "") -> str:
    """Return a value with two digits and its unit."""
    return f"{_plain(value, 2)} {unit}".rstrip()


def quantity(value: float, unit: str = "") -> str:
    """Return a measured value with four digits and its unit: ``2.522 bpm``, ``25310 ms``."""
    return f"{_plain(value, 4)} {unit}".rstrip()


def rate(value: float) -> str:
    """Return a learning rate with two digits: ``6.3e-4``, ``1e-5``, ``0.05``."""
    mantissa, exponent = f"{value:.1e}".split("e")
    if 0.01 <= float(f"{mantissa}e{exponent}") < 10:
        return f"{value:.2g}"
    return f"{float(mantissa):g}e{int(exponent)}"


def ratio(value: float) -> str:
    """Return a ratio of rates with two digits: ``0.082``, ``90``, ``1200``, ``2e-5``."""
    return _plain(value, 2) if 1e-3 <= value < 1e5 else rate(value)


def percent(share: float) -> str:
    """Return a share as whole per cent: ``6 %``."""
    return f"{100 * share:.0f} %"


def duration(seconds: float) -> str:
    """Return ``seconds`` as a person says it: ``40 s``, ``12 min``, ``3 h 05 min``."""
    return " ".join(filter(None, number_and_unit(seconds)))


def number_and_unit(seconds: float) -> tuple[str, str]:
    """Return a time as its number and unit; hours with minutes are a number without one."""
    if seconds < 90:
        return f"{seconds:.0f}", "s"
    minutes = round(seconds / 60)
    return (f"{minutes}", "min") if minutes < 90 else (f"{minutes // 60} h {minutes % 60:02d} min", "")


def rounded(value: float, error: float | None, unit: str = "") -> str:
    """Return a value with as many digits as its error has any use for, without the error."""
    places = _places(error)
    return f"{_plain(value, 4) if places is None else format(value, f'.{places}f')} {unit}".rstrip()


def with_error(value: float, error: float | None, unit: str = "", *, sign: str = "") -> str:
    """Return a value with as many digits as its standard error has any use for: ``0.450 ± 0.077 bpm``.

    The error has two digits, the value no more decimal places than that, and four digits without an error.
    ``sign`` is ``+`` where a positive value shows its sign.
    """
    if error is None or not (math.isfinite(error) and error > 0):
        return f"{_plain(value, 4, sign)} {unit}".rstrip()
    places = _places(error)
    if places is None:
        return f"{_plain(value, 4, sign)} ± {_plain(error, 2)} {unit}".rstrip()
    return f"{value:{sign}.{places}f} ± {error:.{places}f} {unit}".rstrip()


def within(mean: float, low: float, high: float, unit: str = "", *, sign: str = "") -> str:
    """Return a value with its interval, in as many digits as the interval has any use for.

    ``1.58 [0.70, 2.63] bpm``: two digits of half its width; ``sign`` as in :func:`with_error`.
    """
    places = _places((high - low) / 2)
    shown = (
        _plain(one, 4, sign) if places is None else f"{round(one, places) + 0.0:{sign}.{places}f}"
        for one in (mean, low, high)
    )
    return "{} [{}, {}] {}".format(*shown, unit).rstrip()


def _places(error: float | None) -> int | None:
    """Return the decimal places at which an error has two digits; None where there are too many or none."""
    if error is None or not (math.isfinite(error) and error > 0):
        return None
    places = 1 - math.floor(math.log10(float(f"{error:.1e}")))
    return places if 0 <= places <= 6 else None


def _plain(value: float, digits: int, sign: str = "") -> str:
    """Return a value with so many digits and no exponent where it is of ordinary size."""
    text = f"{value:{sign}.{digits}g}"
    return f"{float(text):{sign}.0f}" if "e+" in text and abs(value) < 1e6 else text
