"""Commands that take the answer home: a model folder, and what it says of a signal."""

from __future__ import annotations

import math
import shlex
from pathlib import Path
from typing import Annotated

import typer

from hpo.cli.terminal import (
    CacheDir,
    Code,
    DataDir,
    Device,
    Given,
    Json,
    Named,
    Storage,
    database,
    print_json,
    print_lines,
    the_study,
    url_of,
)


def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The model folder to be made.")],
    given: Given = None,
    study: Named = None,
    storage: Storage = None,
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    code: Code = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the best configuration's model: the confirmed one, or one trained again."""
    from rich.console import Console

    from hpo.models import export_best
    from hpo.search_here import make_settings

    study = the_study(given, study, "export --out DIR")
    url, settings = url_of(storage), make_settings(data, cache, device, None)
    with database(url) as engine:
        made = export_best(engine, url, study, out, settings, Console(stderr=True))
    if as_json:
        print_json(made.to_json())
        return
    print_lines([f"{made.said}; written: {', '.join(str(file) for file in made.files)}"])
    print_lines([f"next: hpo predict --model {shlex.quote(str(out))} --input FILE --rate HZ"])


def predict(
    model: Annotated[Path, typer.Option("--model", metavar="DIR", help="A folder of hpo export.")],
    file: Annotated[Path, typer.Option("--input", metavar="FILE", help="A .csv, a .npy, or a WFDB record.")],
    rate: Annotated[
        float | None, typer.Option("--rate", metavar="HZ", help="Sampling rate; a WFDB record knows its own.")
    ] = None,
    column: Annotated[
        str | None,
        typer.Option(
            "--column",
            metavar="NAME",
            help="Column or lead, where there are several; a list with commas for a model of several.",
        ),
    ] = None,
    stride: Annotated[
        float | None,
        typer.Option("--stride", metavar="S", help="Seconds between windows [2 for PPG, a window for ECG]."),
    ] = None,
    device: Device = "auto",
    code: Code = None,
    as_json: Json = False,
) -> None:
    """Print a model's predictions for a signal as CSV, one line a window."""
    import csv
    import io

    from finetune.api import predict_signal

    said = predict_signal(model, file, rate_hz=rate, column=column, stride_s=stride, device=device)
    if as_json:
        rows = [[None if math.isnan(value) else float(value) for value in row] for row in said.values]
        starts = [float(start) for start in said.start_s]
        print_json(
            {"columns": list(said.columns), "window_s": said.window_s, "start_s": starts, "values": rows}
        )
        return
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["start_s", "end_s", *said.columns])
    for start, values in zip(said.start_s, said.values, strict=True):
        shown = ["" if math.isnan(value) else f"{value:.6g}" for value in values]
        writer.writerow([f"{start:g}", f"{start + said.window_s:g}", *shown])
    print_lines(text.getvalue().splitlines())
