"""Confirmation: the choice is frozen, its arms run on fresh seeds, then the test split is opened once.

    request -> FrozenChoice (its hash is stored) -> one ledger study a mode, kind ``confirm``, run by the same
    workers as any search -> a look at the test split is recorded -> every run is scored -> scores are stored

The same command again goes on where it was stopped, and shows what is stored once there is something: the
test split is not opened again.
"""

from __future__ import annotations

import sqlalchemy as sa
from rich.console import Console

from finetune import test_split
from hpo.confirm.arms import Request, decide, refuse_used_seeds
from hpo.confirm.runs import ConfirmationRuns
from hpo.confirm.scoring import TestScorer, score_once
from hpo.confirm.verdicts import Look
from hpo.errors import MismatchError, Said, UnknownStudyError, UsageError
from hpo.ledger.choice import FrozenChoice
from hpo.ledger.choice_book import ChoiceBook, StoredChoice
from hpo.ledger.ledger import Ledger
from hpo.reading.findings import Findings, find_out
from hpo.study import keep_defaults, load_spec
from hpo.worker import Settings, check_fits, settled
from hpo.worker.progress import Says, said_if_slow


def confirm(
    engine: sa.Engine,
    url: str,
    name_or_file: str,
    request: Request,
    *,
    workers: int | None,
    settings: Settings,
    console: Console,
    words: Says,
    scorer: TestScorer = test_split,
) -> StoredChoice:
    """Confirm a study's choice, or find it confirmed; returns the choice, whose scores are stored.

    Raises :class:`UsageError` while the study is running, for seeds that are not fresh and for too few
    trials; :class:`MismatchError` when spec, data or code are not the study's;
    :class:`hpo.errors.Interrupted` on a signal: the same command goes on.
    """
    name = refuse_another_spec(Ledger(engine), name_or_file, settings)
    with said_if_slow(words.say("doing.answer", study=name), console.print):
        findings = find_out(engine, name)
    refuse_running(findings)
    refuse_used_seeds(findings, request)
    book, row = ChoiceBook(engine), findings.row
    stored = book.find(row.study_id, request.key(findings))
    if stored is None or stored.scored_at is None:
        check_fits(row, findings.spec, settings)
        stored = stored or book.freeze(row.study_id, decide(findings, request), request.key(findings))
    if stored.scored_at is None:
        for line in warnings_before(Ledger(engine), stored.choice, words):
            console.print(line, highlight=False, markup=False)
        runs = ConfirmationRuns(engine, url, findings, stored.choice, settings)
        runs.run(workers, console, words)
        found = score_once(
            Ledger(engine), row, stored.choice, runs.ended(), scorer, settings, console.print, words
        )
        book.store_scores(row.study_id, stored.choice.choice_hash, found)
        runs.clear()
    return next(one for one in book.all(row.study_id) if one.choice == stored.choice)


def warnings_before(ledger: Ledger, choice: FrozenChoice, words: Says) -> list[str]:
    """Return what a person would want to know before the runs begin: that so few seeds can say nothing."""
    look = Look(ledger.look_number(choice.fingerprint, choice.data_hash, choice.choice_hash))
    if len(choice.seeds) >= look.min_seeds:
        return []
    return [words.say("confirm.few_seeds", n=len(choice.seeds), look=look.number, least=look.min_seeds)]


def refuse_another_spec(ledger: Ledger, name_or_file: str, settings: Settings) -> str:
    """Return the study's name; :class:`MismatchError` when its file is no longer what was searched."""
    try:
        spec = settled(load_spec(name_or_file), settings.data_dir)
    except UnknownStudyError:
        return ledger.study(name_or_file).name  # made from a file elsewhere: the database has its spec
    row = ledger.study(spec.name)
    spec = keep_defaults(spec, row.spec)
    if row.fingerprint != spec.fingerprint():
        changes = Said.listed((str(one) for one in spec.differences(row.known_spec())), "; ")
        raise MismatchError(
            Said(
                "the study {name!r} was searched with another spec ({changes})",
                name=spec.name,
                changes=changes,
            ),
            "the spec of the search",
            "undo the change, or search again under another name",
        )
    return row.name


def refuse_running(findings: Findings) -> None:
    """Raise :class:`UsageError` for a study that is no search, or has trials under way."""
    row, counts = findings.row, findings.counts
    if row.kind != "search":
        raise UsageError(
            Said("{name!r} is a {kind}, not a search", name=row.name, kind=row.kind),
            "a study that hpo run has made",
        )
    if counts.running:
        raise UsageError(
            Said(
                "{name} is still running ({running} trials under way, {finished} finished)",
                name=row.name,
                running=counts.running,
                finished=counts.finished,
            ),
            "a study at rest, so that the choice is final",
            Said("wait until hpo status --study {name} shows none running, or interrupt it", name=row.name),
        )
