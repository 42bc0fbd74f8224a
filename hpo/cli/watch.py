"""The command that looks on: where studies stand, who works on what, again and again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import sleep
from typing import Annotated, Any

import typer

from hpo.cli.listing import has_work, state_words
from hpo.cli.terminal import (
    Given,
    Json,
    Lang,
    Named,
    Storage,
    database,
    language_of,
    print_json,
    print_lines,
    shown,
    the_study,
    url_of,
)
from hpo.numbers import duration, quantity, ratio
from hpo.report.language import SPOKEN, Language, Words

Look = Callable[[], tuple[list[dict[str, Any]], list[dict[str, Any]]]]
"""Gives the studies and the attached workers as they are now."""


def watch(
    given: Given = None,
    study: Named = None,
    storage: Storage = None,
    every: Annotated[
        float, typer.Option("--every", min=0.2, metavar="S", help="Seconds between two looks.")
    ] = 2.0,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Watch studies live until no trial is left. Ctrl-C only ends the watching."""
    from hpo.reading.standing import attached_workers, overview

    url, language = url_of(storage), language_of(lang)
    name = the_study(given, study, "watch") if given or study else None
    with database(url) as engine:

        def look() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
            return overview(engine, url, name), attached_workers(engine, name)

        if as_json:
            studies, workers = look()
            print_json({"storage": shown(url), "studies": studies, "workers": workers})
            return
        try:
            _watch(look, every, language)
        except KeyboardInterrupt:
            print_lines([SPOKEN[language].say("watch.ended")], is_result=False)


def _watch(look: Look, every_s: float, language: Language) -> None:
    """Show what ``look`` sees until nothing is left to do; on a terminal in place, elsewhere each change."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    console, last = Console(), ""
    with Live(console=console, auto_refresh=False, transient=True) as live:
        while True:
            studies, workers = look()
            text = "\n".join(picture_lines(studies, workers, language))
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
    print_lines([SPOKEN[language].say("watch.over")], is_result=False)


def picture_lines(
    studies: Sequence[Mapping[str, Any]], workers: Sequence[Mapping[str, Any]], language: Language = "en"
) -> list[str]:
    """Return what is shown at one look: a block a study, a line a worker, of 80 columns."""
    words = SPOKEN[language]
    lines = [line for one in studies for line in _study_lines(one, words)]
    return lines + [_worker_line(one, words) for one in workers] or [words.say("watch.none")]


def _study_lines(one: Mapping[str, Any], words: Words) -> list[str]:
    left_s, best = one["remaining_s"], one["best"]
    given = {"finished": one["finished"], "total": one["budget"], "pruned": one["pruned"]}
    counts = [words.say("progress.finished", **given)]
    counts += [words.say("progress.failed", n=one["failed"])] * bool(one["failed"])
    counts.append(words.say("watch.running", n=one["running"]))
    if left_s and has_work(one):
        counts.append(words.say("watch.left", time=duration(left_s)))
    said, state = words.say("list.comma").join(counts), state_words(one, words)
    lines = [words.say("watch.study", study=one["study"], state=state, counts=said)]
    if best:
        loss = quantity(best["validation_loss"], one["unit"])
        given = {"loss": loss, "number": best["number"], "ratio": ratio(best["ratio"])}
        lines.append(f"  {words.say('watch.best', **given)}")
    return lines


def _worker_line(one: Mapping[str, Any], words: Words) -> str:
    is_idle = one["number"] is None
    doing = words.say("watch.idle" if is_idle else "watch.trial", number=one["number"], epoch=one["epoch"])
    given = {"host": one["host"], "device": one["device"], "time": duration(one["silent_s"])}
    study = f"{one['study']} " if one["study"] else ""
    return f"  {words.say('watch.worker', doing=f'{study}{doing}', **given)}"
