"""What is said and read before typer's machinery is loaded: that a command starts, and ``hpo status``.

To build all commands and to check five words takes typer a quarter of a second of CPU, more than all the rest
of a glance. Whatever is not as plain as this is left to it: help, faults, abbreviations, completion.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

_WITH_VALUE = {"--study": "study", "--storage": "storage", "--lang": "lang"}


def status_words(words: Sequence[str]) -> dict[str, Any] | None:
    """Return the arguments of ``hpo status`` if these are its words in full; None for typer to read them."""
    if not words or words[0] != "status" or "_HPO_COMPLETE" in os.environ:
        return None
    found: dict[str, Any] = {"given": None, "study": None, "as_json": False}
    found |= {"storage": os.environ.get("HPO_STORAGE") or None, "lang": os.environ.get("HPO_LANG") or "en"}
    rest = iter(words[1:])
    for word in rest:
        option, is_joined, value = word.partition("=")
        if word == "--json":
            found["as_json"] = True
        elif option in _WITH_VALUE:
            given = value if is_joined else next(rest, None)
            if given is None or (not is_joined and given.startswith("-")):
                return None
            found[_WITH_VALUE[option]] = given
        elif word.startswith("-") or found["given"] is not None:
            return None
        else:
            found["given"] = word
    return found


def say_starting(words: Sequence[str]) -> None:
    """Say on standard error that the command of these words is starting, in the language it was asked in."""
    from hpo.report.language import SPOKEN

    languages = [os.environ.get("HPO_LANG", "")]
    languages += [word.removeprefix("--lang=") for word in words if word.startswith("--lang=")]
    languages += [value for option, value in pairwise(words) if option == "--lang"]
    spoken = [own for name, own in SPOKEN.items() if name in languages]
    command = next((word for word in words if not word.startswith("-")), "")
    line = (spoken or [SPOKEN["en"]])[-1].say("doing.starting", command=f"hpo {command}".strip())
    sys.stderr.write(f"{line} ...\n")
    sys.stderr.flush()
