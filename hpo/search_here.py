"""What is behind ``hpo run``: one study, created or resumed, worked on up to its budget on this machine."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from platformdirs import user_cache_path
from rich.console import Console

from finetune.api import Checked, DataSummary, Slots, check_run, describe_data
from hpo.checkpoints import is_depot, parse_depot
from hpo.errors import Said, UnknownStudyError, UsageError
from hpo.fleet import check_device, run_local
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import Counts, StudyRow
from hpo.reading.standing import best_trial, is_there, known_task
from hpo.report.language import SPOKEN, Language, Words
from hpo.storage import open_engine
from hpo.study import LONGEST_NAME, STUDY_NAME, Configuration, StudySpec, load_spec, stored_spec
from hpo.study.setting import Setting
from hpo.worker import Settings, check_is_same, depot_of, open_study, reach, settled
from hpo.worker.progress import Display, Progress, said_if_slow

if TYPE_CHECKING:
    from hpo.reading.findings import Findings


@dataclass(frozen=True)
class Launched:
    """What came of one study."""

    findings: Findings
    total: int
    """Finished trials that were asked for."""
    did_nothing: bool
    """They were there already, or the ratio was known."""

    @property
    def known_within(self) -> float | None:
        """The factor within which the best ratio is known, where the budget asks for that; None while not."""
        within, curve = self.findings.spec.budget.known_within, self.findings.answer.curve
        is_known = within is not None and curve is not None and curve.is_known_within(within)
        return within if is_known else None


def launch(
    spec: StudySpec,
    url: str,
    total: int,
    workers: int | None,
    settings: Settings,
    console: Console,
    *,
    warm_start: Sequence[str] = (),
    language: Language = "en",
) -> Launched:
    """Work on the study until ``total`` trials are finished, the clock runs out or a signal comes.

    Progress goes to ``console``. ``workers=None`` takes one process a core, or one a GPU. Raises
    :class:`hpo.errors.Interrupted` on a signal, and what the user can mend.
    """
    warm, depot = warm_from(url, warm_start, spec), depot_of(settings)
    if depot is not None:
        reach(depot.probe, settings.patience_s, console.print)
    words = SPOKEN[language]
    with said_if_slow(words.say("doing.reading", study=spec.name), console.print):
        opened = open_study(url, spec, settings, total=total, warm=warm)
    name = opened.name
    engine = open_engine(url, create=False)
    try:
        row = Ledger(engine).study(name)
        counts = Ledger(engine).counts(row.study_id)
        if counts.finished >= total or spec.budget.known_within is not None:
            with said_if_slow(words.say("doing.answer", study=name), console.print):
                before = Launched(_found(engine, opened), total, did_nothing=True)
            if before.known_within is not None:
                Ledger(engine).drop_free_slots(row.study_id)
            if before.known_within is not None or counts.finished >= total:
                return before
        with Display(_progress(engine, row, counts, total, words), console) as display:
            run_local(
                url,
                name,
                total=total,
                workers=workers,
                settings=settings,
                on_event=display.take,
                fingerprint=opened.fingerprint,
            )
        with said_if_slow(words.say("doing.answer", study=name), console.print):
            return Launched(_found(engine, opened), total, did_nothing=False)
    finally:
        engine.dispose()


def _found(engine: sa.Engine, opened: StudyRow) -> Findings:
    from hpo.reading.findings import find_out  # with pandas and SciPy: not for a check

    name = opened.name
    try:
        check_is_same(Ledger(engine).study(name), opened.fingerprint)
        return find_out(engine, name)
    except UnknownStudyError as error:
        raise UsageError(
            Said("the study {name!r} was deleted with another tool while it was searched", name=name),
            "a study that stays",
            "type the same command to begin it anew",
        ) from error


def check_study(spec: StudySpec, settings: Settings) -> tuple[StudySpec, DataSummary, Checked]:
    """Return the study with what its files say, its data, and what a few steps of its baseline show."""
    spec = settled(spec, settings.data_dir)
    run = spec.run_spec(Configuration.at(spec.baseline, spec.space.seed.low))
    data_dir, cache_dir = settings.data_dir, settings.cache_dir
    summary = describe_data(run.inputs, data_dir=data_dir, cache_dir=cache_dir)
    found = check_run(run, data_dir=data_dir, cache_dir=cache_dir, device=settings.device)
    return spec, summary, found


def warm_from(url: str, studies: Sequence[str], spec: StudySpec) -> list[Setting]:
    """Return the leaders of other studies of the database, for a new study to begin with."""
    if not studies:
        return []
    from hpo.search.warm import warm_settings  # with SciPy

    engine = open_engine(url, create=False)
    try:
        return warm_settings(engine, studies, spec.space)
    finally:
        engine.dispose()


def _progress(engine: sa.Engine, row: StudyRow, counts: Counts, total: int, words: Words) -> Progress:
    """Return how far the study is, which needs no answer."""
    best, partial, task = best_trial(engine, row.study_id), row.data.get("partial"), known_task(row)
    return Progress(
        row.name + (f" [partial: {partial}]" if partial else ""),
        total,
        task.unit if task else "",
        counts.complete,
        counts.pruned,
        counts.failed,
        best["validation_loss"] if best else None,
        best["number"] if best else None,
        words=words,
    )


@dataclass(frozen=True)
class SpecOptions:
    """What a command line changes of a study's file."""

    as_name: str | None = None
    allow_partial: bool = False
    known_within: float | None = None


def read_specs(names: Sequence[str], url: str, options: SpecOptions) -> list[StudySpec]:
    """Return the studies of those names or files; raises as :func:`read_spec` does."""
    if options.as_name is not None and len(names) > 1:
        raise UsageError(
            Said("--as {as_name} names {n_names} studies", as_name=options.as_name, n_names=len(names)),
            "one study",
        )
    partial, within = options.allow_partial, options.known_within
    return [
        read_spec(name, url=url, name=options.as_name, allow_partial=partial, known_within=within)
        for name in names
    ]


def read_spec(
    name_or_file: str,
    *,
    url: str | None = None,
    name: str | None = None,
    allow_partial: bool = False,
    known_within: float | None = None,
) -> StudySpec:
    """Return the study of that name or file, as another study ``name`` if that is given.

    One that is not shipped is looked for in the database ``url``. Raises UsageError, and what ``load_spec``
    raises.
    """
    spec = _found_spec(name_or_file, url)
    if name is not None:
        spec = _renamed(spec, name)
    if allow_partial:
        spec = spec.model_copy(update={"inputs": spec.inputs.model_copy(update={"allow_partial": True})})
    if known_within is not None:
        if known_within <= 1:
            raise UsageError(
                Said("--known-within is {known_within:g}", known_within=known_within),
                "a factor above 1",
                "type: --known-within 1.5",
            )
        budget = spec.budget.model_copy(update={"known_within": known_within})
        spec = spec.model_copy(update={"budget": budget})
    return spec


def _renamed(spec: StudySpec, name: str) -> StudySpec:
    check_name("--as", name)
    return StudySpec.model_validate({**spec.model_dump(exclude_unset=True), "name": name})


def check_name(option: str, name: str) -> None:
    """Raise :class:`UsageError` for what cannot be a study's name."""
    if not re.fullmatch(STUDY_NAME, name) or len(name) > LONGEST_NAME:
        expected = Said(
            "up to {longest_name} letters, digits, _, . and -, the first a letter or a digit",
            longest_name=LONGEST_NAME,
        )
        raise UsageError(Said("{option} is {name!r}", option=option, name=name), expected)


def _found_spec(name_or_file: str, url: str | None) -> StudySpec:
    """Return the study of a file, a shipped one, or one of the database, as next commands name it."""
    try:
        return load_spec(name_or_file)
    except UnknownStudyError:
        stored = None if url is None else _stored_spec(url, name_or_file)
        if stored is None:
            raise
        return stored


def _stored_spec(url: str, name: str) -> StudySpec | None:
    """Return the search of that name in the database; None where there is none, or no database."""
    if not is_there(url):
        return None
    engine = open_engine(url, create=False)
    try:
        rows = {row.name: row for row in Ledger(engine).studies() if row.kind == "search"}
    finally:
        engine.dispose()
    return stored_spec(name, rows[name].spec) if name in rows else None


def make_settings(
    data: Path, cache: Path | None, device: str, timeout: str | None, slots: str = "auto"
) -> Settings:
    """Return the settings of this machine; raises :class:`UsageError` for a word that is none."""
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device):
        raise UsageError(
            Said("unknown device {device!r}", device=device),
            "cpu, cuda, cuda:N or auto",
            "type: --device auto",
        )
    check_device(device)
    return Settings(
        data,
        cache or _usual_cache(),
        device,
        parse_slots(slots),
        timeout_s=None if timeout is None else parse_duration(timeout),
        patience_s=patience_s(),
        checkpoints=_checkpoints(),
    )


def _checkpoints() -> str | None:
    """Return HPO_CHECKPOINTS; raises :class:`UsageError` for what cannot be a place."""
    address = os.environ.get("HPO_CHECKPOINTS") or None
    if address is not None and is_depot(address):
        parse_depot(address)
    return address


def _usual_cache() -> Path:
    """Return the user's own folder for caches; raises :class:`UsageError` for a user without a home."""
    if os.path.expanduser("~").startswith("~"):  # noqa: PTH111 - Path.expanduser raises RuntimeError instead
        what = "there is no home folder for the prepared windows (HOME is not set)"
        raise UsageError(what, "a folder that can be written", "type: --cache DIR, or set HPO_CACHE")
    return user_cache_path("hpo")


def patience_s() -> float:
    """Return how long the database may be away: HPO_PATIENCE, or ten minutes; raises :class:`UsageError`."""
    return parse_duration(os.environ.get("HPO_PATIENCE") or "10m", "HPO_PATIENCE")


def parse_slots(text: str) -> Slots:
    """Return what ``--slots`` names; raises :class:`UsageError`."""
    if text == "auto":
        return "auto"
    if text == "graph":
        return "graph"
    if not text.isdecimal() or int(text) < 1:
        expected = "a whole number of at least 1, graph or auto"
        raise UsageError(Said("--slots is {text!r}", text=text), expected, "type: --slots auto")
    return int(text)


def parse_duration(text: str, name: str = "--timeout") -> float:
    """Return the seconds of ``90s``, ``30m``, ``2h`` or ``1d``; :class:`UsageError` says ``name``.

    A number without its unit is refused: whoever types 4 may mean minutes or hours.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    seconds = float(found[1]) * {"s": 1, "m": 60, "h": 3600, "d": 86400}[found[2]] if found else 0.0
    if seconds <= 0:
        is_bare = re.fullmatch(r"\d+(\.\d+)?", text.strip()) and float(text) > 0
        meant = f"{text.strip()}m" if is_bare else "30m"
        next_step = Said(
            "type: {name}{sign}{meant}", name=name, sign="=" if name.isupper() else " ", meant=meant
        )
        raise UsageError(
            Said("{name} is {text!r}", name=name, text=text),
            "a time with its unit, such as 90s, 30m or 2h",
            next_step,
        )
    return seconds


def check_at_least_one(option: str, value: int | None) -> None:
    """Raise :class:`UsageError` when a count is zero or negative."""
    if value is not None and value < 1:
        raise UsageError(
            Said("{option} is {value}", option=option, value=value),
            "a whole number of at least 1",
            Said("type: {option} 2", option=option),
        )
