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
    print_json,
    print_lines,
)
from hpo.errors import UsageError


def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder, or one without these files.")],
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Of the study.")] = "my_study",
    as_json: Json = False,
) -> None:
    """Write a study file, an encoder and a data stub that run as they are."""
    from hpo.starter import write_starter

    written = write_starter(folder, name)
    if as_json:
        print_json({"study": name, "files": [str(file) for file in written]})
        return
    study, data, code = (
        shlex.quote(str(folder / part)) for part in ("study.yaml", "make_windows.py", "code")
    )
    print_lines([f"written: {', '.join(map(str, written))}"])
    print_lines(
        [
            f"next: python {data}",
            f"      hpo check {study} --code {code}",
            f"      hpo run {study} --code {code} --trials 8",
        ]
    )


def check(
    study: Annotated[str, typer.Argument(metavar="NAME_OR_FILE", help="A shipped study or a YAML file.")],
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    code: Code = None,
    device: Device = "auto",
    allow_partial: AllowPartial = False,
    as_json: Json = False,
) -> None:
    """Look at the data, the encoder and the recipe of a study, and say what the first trial will cost."""
    from hpo.report.checked import checked_lines, is_ready
    from hpo.search_here import check_study, make_settings, read_spec

    began = time.monotonic()
    settings = make_settings(data, cache, device, None)
    spec, summary, found = check_study(read_spec(study, allow_partial=allow_partial), settings)
    if as_json:
        values = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in vars(found).items()
        }
        print_json({**values, "ready": is_ready(found.faults), "data": vars(summary)})
    else:
        print_lines(checked_lines(spec, summary, found, time.monotonic() - began))
    if not is_ready(found.faults):
        raise UsageError(f"{spec.name} is not ready: {', '.join(found.faults)}", "none of them", "see above")
