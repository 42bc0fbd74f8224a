"""What stands in a column that ought to hold JSON."""

from __future__ import annotations

import json
from typing import Any


def parsed(value: object) -> Any:
    """Return what a column of JSON holds, of which a driver gives the text or the value; None for no JSON."""
    if not isinstance(value, str | bytes):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return None
