"""Commands of the service: workers that attach to a shared database, and studies that are handed to them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from hpo.cli.alert import STUCK_AFTER, AlertTo, StuckAfter, alerts_while
from hpo.cli.terminal import (
    AllowPartial,
    CacheDir,
    Code,
    DataDir,
    Deterministic,
    Device,
    Given,
    GivenOrFile,
    Json,
    KnownWithin,
    Lang,
    Named,
    Storage,
    Timeout,
    Trials,
    WarmStart,
    check_file_is_there,
    database,
    doing,
    language_of,
    options_again,
    print_json,
    print_lines,
    print_said,
    shown,
    the_study,
    url_of,
)
from hpo.errors import Interrupted, Said
from hpo.numbers import quantity

if TYPE_CHECKING:
    from hpo.ledger.values import StudyState
    from hpo.worker import Event

fleet_app = typer.Typer(help="Workers on other machines.")

GivenStudies = Annotated[
    list[str] | None,
    typer.Argument(metavar="STUDY...", help="Serve only these studies [all open ones].", show_default=False),
]
Studies = Annotated[
    list[str] | None,
    typer.Option("--study", metavar="NAME", help="The same as STUDY; may be repeated."),
]


def worker(
    given: GivenStudies = None,
    study: Studies = None,
    storage: Storage = None,
    forever: Annotated[
        bool, typer.Option("--forever", help="Stay when there is no work, and wait for new studies.")
    ] = False,
    timeout: Timeout = None,
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    code: Code = None,
    device: Device = "auto",
    deterministic: Deterministic = False,
    alert: AlertTo = None,
    stuck_after: StuckAfter = STUCK_AFTER,
    as_json: Json = False,
) -> None:
    """Serve the open studies of a database with one worker. Until there is no work."""
    from hpo.fleet.seats import own_device
    from hpo.search_here import make_settings
    from hpo.worker import work
    from hpo.worker.alive import showing_alive

    settings, url = make_settings(data, cache, device, timeout), url_of(storage)
    check_file_is_there(url)
    names = [*(given or ()), *(study or ())]
    served = f"serves {', '.join(names) if names else 'every open study'} of {shown(url)}"
    until = "until it is stopped" if forever else "until there is no work"
    told = alerts_while(url, names, alert, stuck_after, os.environ.get("HPO_LANG") or "en")
    alive = os.environ.get("HPO_ALIVE")
    shown_alive = showing_alive(Path(alive) if alive else None)
    with shown_alive, told, own_device(device, settings.cache_dir / "seats") as mine:
        here = replace(settings, device=mine)
        summary = work(
            url,
            names,
            forever=forever,
            settings=here,
            on_event=partial(_print_event, f"{served} {until}"),
        )
    if as_json:
        print_json({"ended": summary.ended, "ends": dict(summary.ends)})
    else:
        done = ", ".join(f"{count} {end}" for end, count in summary.ends.items()) or "no trial"
        print_lines([f"this worker ended ({summary.ended.replace('_', ' ')}): {done}"])
    if summary.ended == "interrupted":
        raise Interrupted


def _print_event(does: str, event: Event) -> None:
    """Print what a person who watches a worker's log wants: what it ``does``, and all but single epochs."""
    if event.kind == "epoch":
        return
    where = "" if event.slot is None else f"trial {event.slot}"
    value = "" if event.value is None else f", best {quantity(event.value)}"
    what = {"attached": f"this worker, {event.worker}, {does}", "idle": "no run for this worker:"}
    words = [event.study, where, what.get(event.kind, event.kind) + value, event.text]
    with suppress(OSError):  # a log on a disk that is full: the work goes on
        print_lines([shown(" ".join(filter(None, words)))], is_result=False)


def submit(
    given: GivenOrFile = None,
    study: Named = None,
    trials: Trials = None,
    priority: Annotated[int, typer.Option("--priority", metavar="P", help="Higher is served earlier.")] = 0,
    storage: Storage = None,
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    code: Code = None,
    allow_partial: AllowPartial = False,
    known_within: KnownWithin = None,
    warm_start: WarmStart = None,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Register a study, or more trials of it, for workers to run."""
    from hpo.ledger.ledger import Ledger
    from hpo.reading.standing import attached_workers
    from hpo.report.language import SPOKEN
    from hpo.search_here import check_at_least_one, make_settings, read_spec, warm_from
    from hpo.worker import open_study

    check_at_least_one("--trials", trials)
    url, name = url_of(storage), the_study(given, study, "submit")
    spec = read_spec(name, url=url, allow_partial=allow_partial, known_within=known_within)
    total = trials or spec.budget.trials
    settings = make_settings(data, cache, "auto", None)
    words = SPOKEN[language_of(lang)]
    with doing(words.say("doing.reading", study=spec.name)):
        warm = warm_from(url, warm_start or (), spec)
        row = open_study(url, spec, settings, total=total, warm=warm)
    with database(url) as engine:
        Ledger(engine).set_priority(row.study_id, priority)
        counts = Ledger(engine).counts(row.study_id, below=total)
        attached = len({one["worker"] for one in attached_workers(engine)})
    if as_json:
        found = {"study": row.name, "storage": shown(url), "budget": total, "priority": priority}
        found["partial"] = row.data.get("partial", "")
        print_json(found | {"finished": counts.finished, "failed": counts.failed, "workers": attached})
        return
    status = f"hpo status{options_again(url)}"
    alone = "next: hpo worker --storage {url}   (on each machine; several are fine)"
    one, many = "1 worker is attached; next: {command}", "{n} workers are attached; next: {command}"
    if not attached:
        then = Said(alone, url=shlex.quote(shown(url)))
    else:
        then = Said(one, command=status) if attached == 1 else Said(many, n=attached, command=status)
    failed = Said(", {n} failed for good", n=counts.failed) if counts.failed else ""
    part = row.data.get("partial")
    label = Said("{study} [partial: {part}]", study=row.name, part=part) if part else row.name
    given_out = {"label": label, "finished": counts.finished, "total": total, "failed": failed}
    standing = "{label}: {finished} of {total} trials are finished{failed}; priority {priority}"
    print_said([Said(standing, **given_out, priority=priority), then], lang)


def stop(
    given: Given = None,
    study: Named = None,
    storage: Storage = None,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """End a study. No slot is given out, and running trials are given back at their next epoch."""
    _set_state(the_study(given, study, "stop"), storage, "stopped", lang, as_json)


def pause(
    given: Given = None,
    study: Named = None,
    storage: Storage = None,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Hold a study until it is resumed. No slot is given out; running trials end."""
    _set_state(the_study(given, study, "pause"), storage, "paused", lang, as_json)


def resume(
    given: Given = None,
    study: Named = None,
    storage: Storage = None,
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Go on with a study that was paused or stopped."""
    _set_state(the_study(given, study, "resume"), storage, "open", lang, as_json)


def _set_state(name: str, storage: str | None, state: StudyState, lang: str, as_json: bool) -> None:
    from hpo.ledger.ledger import Ledger

    url = url_of(storage)
    with database(url) as engine:
        ledger = Ledger(engine)
        row = ledger.study(name)
        ledger.set_state(row.study_id, state)
    if as_json:
        print_json({"study": name, "storage": shown(url), "was": row.state, "state": state})
        return
    command = f"hpo resume {name}{options_again(url)}"
    again = "" if state == "open" else Said("; to go on: {command}", command=command)
    states = {"was": Said(row.state), "now": Said(state)}
    print_said([Said("{study} was {was} and is {now}{again}", study=name, **states, again=again)], lang)


@fleet_app.command("slurm")
def slurm(
    workers: Annotated[int, typer.Option("--workers", metavar="N", help="Jobs of one worker each.")],
    given: GivenStudies = None,
    study: Studies = None,
    storage: Storage = None,
    gpus_per_worker: Annotated[
        int, typer.Option("--gpus-per-worker", metavar="N", help="GPUs of each job.")
    ] = 0,
    cpus_per_worker: Annotated[
        int, typer.Option("--cpus-per-worker", metavar="N", help="Cores of each job.")
    ] = 1,
    memory_gib: Annotated[int, typer.Option("--memory-gib", metavar="N", help="Memory of each job.")] = 8,
    hours: Annotated[float, typer.Option("--hours", metavar="H", help="Time limit of each job.")] = 24.0,
    partition: Annotated[str | None, typer.Option("--partition", help="Slurm partition.")] = None,
    account: Annotated[str | None, typer.Option("--account", help="Slurm account.")] = None,
    logs: Annotated[
        Path, typer.Option("--logs", metavar="DIR", help="Of the jobs, on a disk that all nodes see.")
    ] = Path("slurm-logs"),
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    code: Code = None,
    device: Device = "auto",
    deterministic: Deterministic = False,
    as_json: Json = False,
) -> None:
    """Submit workers to Slurm. They are queued again when they are pre-empted."""
    from hpo.fleet.slurm import SlurmRequest, submit_workers
    from hpo.search_here import make_settings

    request = SlurmRequest(
        workers, logs, gpus_per_worker, cpus_per_worker, memory_gib, hours, partition, account
    )
    settings = make_settings(data.absolute(), cache, device, None)
    jobs: Sequence[str] = submit_workers(url_of(storage), [*(given or ()), *(study or ())], settings, request)
    if as_json:
        print_json({"jobs": list(jobs)})
    else:
        print_lines(
            [
                f"submitted {len(jobs)} workers: {', '.join(jobs)}",
                f"next: hpo status{options_again(url_of(storage))}",
            ]
        )
