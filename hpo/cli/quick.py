"""What is said and read before typer's machinery is loaded: that a command starts, and ``hpo status``.

To build all commands and to check five words takes typer a quarter of a second of CPU, more than all the rest
of a glance. Whatever is not as plain as this is left to it: help, faults, abbreviations, completion.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hpo.report.language import Words

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


def words_of(typed: Sequence[str]) -> Words:
    """Return the words of the language that a command or HPO_LANG asks for, whatever else is wrong."""
    from hpo.report.language import SPOKEN

    asked = [after for word, after in pairwise([*typed, ""]) if word == "--lang"]
    asked += [word.removeprefix("--lang=") for word in typed if word.startswith("--lang=")]
    return SPOKEN["zh" if [os.environ.get("HPO_LANG"), *asked][-1] == "zh" else "en"]


def say_starting(typed: Sequence[str]) -> None:
    """Say on standard error that the command of these words is starting."""
    command = next((word for word in typed if not word.startswith("-")), "")
    line = words_of(typed).say("doing.starting", command=f"hpo {command}".strip())
    sys.stderr.write(f"{line} ...\n")
    sys.stderr.flush()
