"""The command that measures this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.terminal import (
    CacheDir,
    DataDir,
    Deterministic,
    Device,
    GivenOrFile,
    Json,
    Named,
    print_json,
    print_lines,
    the_study,
)


def bench(
    given: GivenOrFile = None,
    study: Named = None,
    seconds: Annotated[
        float, typer.Option("--seconds", min=5, metavar="S", help="For each number of workers.")
    ] = 15,
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    device: Device = "auto",
    deterministic: Deterministic = False,
    as_json: Json = False,
) -> None:
    """Measure how fast this machine searches. Trials an hour, overhead, workers and slots to use."""
    from hpo.bench import bench_lines, measure, to_json
    from hpo.search_here import make_settings, read_spec

    found = measure(
        read_spec(the_study(given or study or "synthetic_rr", study, "bench"), allow_partial=False),
        make_settings(data, cache, device, None, "auto"),
        seconds=seconds,
        notify=lambda text: print_lines([text], is_result=False),
    )
    if as_json:
        print_json(to_json(found))
    else:
        print_lines(bench_lines(found))
