"""The command that searches: one study, several, or a group of them, one after another."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.alert import STUCK_AFTER, AlertTo, StuckAfter, alerts_while
from hpo.cli.terminal import (
    AllowPartial,
    CacheDir,
    Code,
    DataDir,
    Deterministic,
    Device,
    Json,
    KnownWithin,
    Lang,
    SomeOrFiles,
    Storage,
    Timeout,
    Trials,
    WarmStart,
    Workers,
    language_of,
    options_again,
    print_json,
    print_lines,
    print_where_hpo_is,
    shown,
    some_studies,
    url_of,
)
from hpo.errors import Said, UsageError, UserError

if TYPE_CHECKING:
    from hpo.reading.findings import Findings
    from hpo.report.language import Language
    from hpo.search_here import Launched
    from hpo.study import StudySpec


AsName = Annotated[
    str | None,
    typer.Option("--as", metavar="NAME", help="Begin a new study of that name with the same file."),
]


LogTo = Annotated[
    list[str] | None,
    typer.Option(
        "--log-to",
        metavar="FORMAT",
        help="Write records while it runs: mlflow, tensorboard or wandb; may be repeated.",
    ),
]
LogDir = Annotated[Path, typer.Option("--log-dir", metavar="DIR", help="Where --log-to writes to.")]


def run(
    studies: SomeOrFiles = None,
    study: Annotated[
        list[str] | None,
        typer.Option("--study", metavar="NAME_OR_FILE", help="The same as STUDY; may be repeated."),
    ] = None,
    trials: Trials = None,
    storage: Storage = None,
    workers: Workers = None,
    timeout: Timeout = None,
    data: DataDir = Path("data"),
    cache: CacheDir = None,
    code: Code = None,
    device: Device = "auto",
    deterministic: Deterministic = False,
    slots: Annotated[
        str, typer.Option("--slots", metavar="N|graph|auto", help="Runs at a time on a device.")
    ] = "auto",
    allow_partial: AllowPartial = False,
    known_within: KnownWithin = None,
    warm_start: WarmStart = None,
    as_name: AsName = None,
    alert: AlertTo = None,
    stuck_after: StuckAfter = STUCK_AFTER,
    log_to: LogTo = None,
    log_dir: LogDir = Path("records"),
    lang: Lang = "en",
    as_json: Json = False,
) -> None:
    """Search up to a budget and print the answer. Creates or resumes."""
    from rich.console import Console

    from hpo.cli.groups import expand
    from hpo.report.told import to_json
    from hpo.search_here import SpecOptions, check_at_least_one, launch, make_settings, read_specs

    check_at_least_one("--trials", trials)
    check_at_least_one("--workers", workers)
    url, console, language = url_of(storage), Console(stderr=True), language_of(lang)
    names = expand(some_studies(studies, study, "run"))
    options = SpecOptions(as_name, allow_partial, known_within)
    specs = read_specs(names, url, options)
    settings = make_settings(data, cache, device, timeout, slots)
    deadline = None if settings.timeout_s is None else time.monotonic() + settings.timeout_s

    def search(spec: StudySpec) -> dict[str, Any]:
        left_s = None if deadline is None else max(1.0, deadline - time.monotonic())
        mine, total = replace(settings, timeout_s=left_s), trials or spec.budget.trials
        with _recording(url, spec, log_to or (), log_dir) as finish:
            launched = launch(
                spec, url, total, workers, mine, console, warm_start=warm_start or (), language=language
            )
            finish(launched.findings)
        again = options_again(url, data, cache, device, code)
        is_late = deadline is not None and time.monotonic() >= deadline
        print_outcome(launched, again, options_again(url), language, is_late=is_late, as_json=as_json)
        return to_json(launched.findings, url)

    with alerts_while(url, [spec.name for spec in specs], alert, stuck_after, lang):
        _search_all(specs, search, language, as_json)


@contextmanager
def _recording(
    url: str, spec: StudySpec, log_to: Sequence[str], log_dir: Path
) -> Iterator[Callable[[Findings], None]]:
    """Write the records of a study that were asked for while the block runs; call what is given then."""
    if not log_to:
        yield lambda findings: None
        return
    from hpo.records.live import open_record, recording

    def say(text: str) -> None:
        print_lines([f"{spec.name}: {text}"], is_result=False)

    records = {to: open_record(to, spec.name, spec.fingerprint(), log_dir) for to in log_to}
    with recording(url, spec.name, records, say) as finish:
        yield finish


def _search_all(specs: Sequence[StudySpec], search: Any, language: Language, as_json: bool) -> None:
    """Search one study, or each of several, and print what came of them as JSON if that was asked for."""
    if len(specs) == 1:
        found = search(specs[0])
        if as_json:
            print_json(found)
        return
    studies, failed = _each(specs, search, language)
    if as_json:
        print_json({"studies": studies, "not_run": failed})
    if failed:
        what = Said(
            "{n_failed} of {n_specs} studies were not run: {failed}",
            n_failed=len(failed),
            n_specs=len(specs),
            failed=", ".join(failed),
        )
        raise UsageError(what, next_step="the reasons are above")


def _each(
    specs: Sequence[StudySpec], search: Any, language: Language
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Search every study; one that cannot be searched (no data, say) does not stop the others."""
    from hpo.report.language import SPOKEN

    words = SPOKEN[language]
    studies, failed = [], {}
    for spec in specs:
        try:
            studies.append(search(spec))
        except UserError as error:
            failed[spec.name] = shown(str(error))
            said = words.say("run.not_run", study=spec.name, why=shown(words.fault(error)))
            print_lines([said], is_result=False)
    return studies, failed


def print_outcome(
    launched: Launched, option: str, storage: str, language: Language, *, is_late: bool, as_json: bool
) -> None:
    """Print the answer of one study and what to type next; with ``as_json`` only that nothing was done."""
    from hpo.report.answer import answer_lines, next_steps, run_command
    from hpo.report.language import SPOKEN

    words, findings, total = SPOKEN[language], launched.findings, launched.total
    name, finished = findings.row.name, findings.counts.finished
    if launched.known_within is not None:
        known = words.say("known.within", factor=f"{launched.known_within:g}", trials=finished)
        print_lines([words.say("run.known", study=name, known=known)], is_result=not as_json)
    elif launched.did_nothing:
        said = words.say("run.nothing", study=name, finished=finished, total=total)
        print_lines([said], is_result=not as_json)
    if as_json:
        return
    print_lines(answer_lines(findings, language), is_prose=True)
    if finished < total and launched.known_within is None:
        failed = findings.counts.failed
        is_over = finished + failed >= total  # those slots are closed: the same command would do nothing
        again = run_command(findings, total + failed if is_over else total, option)
        given = {"finished": finished, "total": total, "failed": failed, "command": again}
        key = "run.stopped.failed" if is_over else "run.stopped.late" if is_late else "run.stopped"
        print_lines([words.say(key, **given)])
    print_lines(next_steps(findings, option, language, storage))
    print_where_hpo_is(language)
