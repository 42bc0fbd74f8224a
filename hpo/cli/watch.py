"""The command that looks on: where studies stand, who works on what, again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import sleep
from typing import Annotated, Any

import typer

from hpo.cli.terminal import (
    Given,
    Json,
    Named,
    Storage,
    database,
    print_json,
    print_lines,
    shown,
    the_study,
    url_of,
)

Look = Callable[[], tuple[list[dict[str, Any]], list[dict[str, Any]]]]
"""Gives the studies and the attached workers as they are now."""


def watch(
    given: Given = None,
    study: Named = None,
    storage: Storage = None,
    every: Annotated[
        float, typer.Option("--every", min=0.2, metavar="S", help="Seconds between two looks.")
    ] = 2.0,
    as_json: Json = False,
) -> None:
    """Watch the studies of a database, or one, until no trial is left; Ctrl-C only ends the watching."""
    from hpo.reading.standing import attached_workers, overview

    url = url_of(storage)
    name = the_study(given, study, "watch") if given or study else None
    with database(url) as engine:

        def look() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
            return overview(engine, url, name), attached_workers(engine, name)

        if as_json:
            studies, workers = look()
            print_json({"storage": shown(url), "studies": studies, "workers": workers})
            return
        try:
            _watch(look, every)
        except KeyboardInterrupt:
            print_lines(["no longer watched; the work goes on"], is_result=False)


def _watch(look: Look, every_s: float) -> None:
    """Show what ``look`` sees until nothing is left to do; on a terminal in place, elsewhere each change."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console, last = Console(), ""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            studies, workers = look()
            text = "\n".join(picture_lines(studies, workers))
            if console.is_terminal:
                live.update(Text(text, no_wrap=True, overflow="ellipsis"), refresh=True)
            elif text != last:
                print_lines([*text.splitlines(), ""])
            last = text
            if not any(map(has_work, studies)):
                break
            sleep(every_s)
    if console.is_terminal:
        print_lines(last.splitlines())
    print_lines(["no trial is left to run"], is_result=False)


def has_work(study: Mapping[str, Any]) -> bool:
    """Return whether a study has trials that run, or that a worker could run."""
    is_open = study["state"] == "open" and study["finished"] + study["failed"] < study["budget"]
    return bool(is_open or study["running"])


def picture_lines(studies: Sequence[Mapping[str, Any]], workers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what is shown at one look: a block a study, a line a worker, of 80 columns."""
    from hpo.worker.progress import duration

    lines = []
    for one in studies:
        left_s, best = one["remaining_s"], one["best"]
        left = f", about {duration(left_s)} left" if left_s and has_work(one) else ""
        counts = f"{one['finished']}/{one['budget']} finished ({one['pruned']} pruned)"
        failed = f", {one['failed']} failed" if one["failed"] else ""
        lines.append(f"{one['study']} ({one['state']}): {counts}{failed}, {one['running']} running{left}")
        if best:
            unit = f" {one['unit']}" if one["unit"] else ""
            which = f"(trial {best['number']}, ratio {best['ratio']:.3g})"
            lines.append(f"  best {best['validation_loss']:.4g}{unit} {which}")
    for one in workers:
        doing = f"trial {one['number']} epoch {one['epoch']}" if one["number"] is not None else "has no trial"
        study = f"{one['study']} " if one["study"] else ""
        lines.append(f"  {one['host']} {one['device']}: {study}{doing}, seen {duration(one['silent_s'])} ago")
    return lines or ["no study in this database"]
