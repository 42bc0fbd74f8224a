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
    doing,
    print_json,
    print_lines,
    the_study,
    url_of,
)


def export(
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The model folder to be made.")],
    given: Given = None,
    study: Named = None,
    to: Annotated[
        str,
        typer.Option("--to", metavar="FORMAT", help="model, csv, mlflow, tensorboard or wandb (offline)."),
    ] = "model",
    storage: Storage = None,
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    code: Code = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Write the best model, or the whole study for other programs. Confirmed, or trained again."""
    from rich.console import Console

    from hpo.models import export_best
    from hpo.search_here import make_settings

    study = the_study(given, study, "export --out DIR")
    url, settings = url_of(storage), make_settings(data, cache, device, None)
    if to != "model":
        _export_records(url, study, to, out, as_json)
        return
    with database(url) as engine:
        made = export_best(engine, url, study, out, settings, Console(stderr=True))
    if as_json:
        print_json(made.to_json())
        return
    print_lines([f"{made.said}; written: {', '.join(str(file) for file in made.files)}"])
    place, code = f"--model {shlex.quote(str(out))}", out / "code"
    if any(file.is_relative_to(code) for file in made.files):
        place += f" --code {shlex.quote(str(code))}"
    print_lines([f"next: hpo predict {place} --input FILE --rate HZ"])


def _export_records(url: str, study: str, to: str, out: Path, as_json: bool) -> None:
    """Write a whole study, its curves and its answer in a format of others."""
    from hpo.reading.findings import find_out
    from hpo.records.formats import check_format, export_records

    check_format(to)
    with database(url) as engine, doing(f"{study}: reading the study"):
        findings = find_out(engine, study)
    with doing(f"{study}: writing {len(findings.trials)} trials"):
        files = [str(file) for file in export_records(findings, url, to, out)]
    if as_json:
        print_json({"study": study, "to": to, "files": files})
    else:
        several = f" and {len(files) - 1} beside it" if len(files) > 1 else ""
        print_lines([f"written: {files[0]}{several}" if files else "no trial yet: nothing to write"])


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
    """Print a model's predictions for a signal. As CSV, one line a window."""
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
