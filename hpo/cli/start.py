"""The commands for a start: a study, an encoder and data that run, and a look at them before a search."""

from __future__ import annotations

import math
import shlex
import time
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.terminal import (
    AllowPartial,
    CacheDir,
    Code,
    DataDir,
    Device,
    Json,
    Lang,
    doing,
    language_of,
    print_json,
    print_lines,
)
from hpo.errors import Said, UsageError


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one without these files.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the study.")] = "my_study",
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Write a study, an encoder and data that run as they are."""
    from hpo.report.language import SPOKEN
    from hpo.starter import write_starter

    words = SPOKEN[language_of(lang)]
    written = write_starter(folder, name)
    if as_json:
        print_json({"study": name, "files": [str(file) for file in written]})
        return
    study, data, code = (
        shlex.quote(str(folder / part)) for part in ("study.yaml", "make_windows.py", "code")
    )
    print_lines([words.say("files.written", files=", ".join(map(str, written)))])
    first, *then = (
        f"python {data}",
        f"hpo check {study} --code {code}",
        f"hpo run {study} --code {code} --trials 8",
    )
    print_lines([words.say("next.report", command=first)])
    print_lines([words.say("next.then", command=command) for command in then])


def check(
    study: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help="A shipped study or a YAML file.")],
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    code: Code = None,
    device: Device = "auto",
    allow_partial: AllowPartial = False,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Look at a study's data, encoder and recipe, and at its cost."""
    from hpo.report.checked import checked_lines, is_ready
    from hpo.report.language import SPOKEN
    from hpo.search_here import check_study, make_settings, read_spec

    began = time.monotonic()
    settings = make_settings(data, cache, device, None)
    language = language_of(lang)
    asked = read_spec(study, allow_partial=allow_partial)
    with doing(SPOKEN[language].say("doing.check", study=asked.name)):
        spec, summary, found = check_study(asked, settings)
    if as_json:
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in vars(found).items()
        }
        print_json({**values, "ready": is_ready(found.faults), "data": vars(summary)})
    else:
        lines = checked_lines(spec, summary, found, time.monotonic() - began, language)
        print_lines(lines, is_prose=True)
    if not is_ready(found.faults):
        raise UsageError(
            Said("{name} is not ready: {faults}", name=spec.name, faults=", ".join(found.faults)),
            "none of them",
            "see above",
        )
