"""Confirmation: the choice is frozen, its arms run on fresh seeds, then the test split is opened once.

    request -> FrozenChoice (its hash is stored) -> one ledger study a mode, kind ``confirm``, run by the same
    workers as any search -> a look at the test split is recorded -> every run is scored -> scores are stored

The same command again goes on where it was stopped, and shows what is stored once there is something: the
test split is not opened again.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Sequence

import numpy as np
import sqlalchemy as sa
from rich.console import Console

from finetune.api import TestScores
from hpo.confirm.arms import Request, decide, refuse_used_seeds
from hpo.confirm.runs import ArmRun, ConfirmationRuns
from hpo.errors import MismatchError, UnknownStudyError, UsageError
from hpo.ledger.choice import FrozenChoice
from hpo.ledger.choice_book import ChoiceBook, Score, Scores, StoredChoice
from hpo.ledger.ledger import Ledger
from hpo.ledger.values import StudyRow
from hpo.reading.findings import Findings, find_out
from hpo.study import StudySpec, load_spec
from hpo.worker import Settings, check_fits

Notify = Callable[[str], None]


def confirm(
    engine: sa.Engine,
    url: str,
    name_or_file: str,
    request: Request,
    *,
    workers: int | None,
    settings: Settings,
    console: Console,
) -> StoredChoice:
    """Confirm a study's choice, or find it confirmed; returns the choice, whose scores are stored.

    Raises :class:`UsageError` while the study is running, for seeds that are not fresh and for too few
    trials; :class:`MismatchError` when spec, data or code are not the study's;
    :class:`hpo.errors.Interrupted` on a signal: the same command goes on.
    """
    findings = find_out(engine, refuse_another_spec(Ledger(engine), name_or_file))
    refuse_running(findings)
    refuse_used_seeds(findings, request)
    book, row = ChoiceBook(engine), findings.row
    stored = book.find(row.study_id, request.key(findings))
    if stored is None or stored.scored_at is None:
        check_fits(row, findings.spec, settings)
        stored = stored or book.freeze(row.study_id, decide(findings, request), request.key(findings))
    if stored.scored_at is None:
        runs = ConfirmationRuns(engine, url, findings, stored.choice, settings)
        runs.run(workers, console)
        found = score_once(Ledger(engine), row, stored.choice, runs.ended(), settings, console.print)
        book.store_scores(row.study_id, stored.choice.choice_hash, found)
        runs.clear()
    return next(one for one in book.all(row.study_id) if one.choice == stored.choice)


def refuse_another_spec(ledger: Ledger, name_or_file: str) -> str:
    """Return the study's name; :class:`MismatchError` when its file is no longer what was searched."""
    try:
        spec = load_spec(name_or_file)
    except UnknownStudyError:
        return ledger.study(name_or_file).name  # made from a file elsewhere: the database has its spec
    row = ledger.study(spec.name)
    if row.fingerprint != spec.fingerprint():
        changes = "; ".join(spec.differences(StudySpec.model_validate(row.spec)))
        raise MismatchError(
            f"the study {spec.name!r} was searched with another spec ({changes})",
            "the spec of the search",
            "undo the change, or search again under another name",
        )
    return row.name


def refuse_running(findings: Findings) -> None:
    """Raise :class:`UsageError` for a study that is no search, or has trials under way."""
    row, counts = findings.row, findings.counts
    if row.kind != "search":
        raise UsageError(f"{row.name!r} is a {row.kind}, not a search", "a study that hpo run has made")
    if counts.running:
        raise UsageError(
            f"{row.name} is still running ({counts.running} trials under way, {counts.finished} finished)",
            "a study at rest, so that the choice is final",
            f"wait until hpo status --study {row.name} shows none running, or interrupt it",
        )


def score_once(
    ledger: Ledger,
    row: StudyRow,
    choice: FrozenChoice,
    runs: Sequence[ArmRun],
    settings: Settings,
    notify: Notify,
) -> Scores:
    """Record a look at the test split, then score every run that has weights, and the trivial predictor."""
    what = {"arms": [arm.name for arm in choice.arms], "seeds": list(choice.seeds)}
    looker = f"{socket.gethostname()}-{os.getpid()}"
    looks = ledger.record_test_look(row.study_id, choice.choice_hash, looker, what)
    notify(f"{row.name}: opening the test split, look {looks} of this study; {len(runs)} runs to score")
    doorway = settings.open_doorway()
    data, cache, device = settings.data_dir, settings.cache_dir, settings.device
    found = [
        (
            run.arm,
            run.seed,
            doorway.score_test(run.spec, run.weights, data_dir=data, cache_dir=cache, device=device),
        )
        for run in runs
        if run.weights is not None
    ]
    folds = {run.seed: run.spec.fold for run in runs}
    constants = {
        fold: doorway.score_trivial(runs[0].spec.inputs, data_dir=data, cache_dir=cache, fold=fold)
        for fold in set(folds.values())
    }
    trivial = [place for place, arm in enumerate(choice.arms) if arm.mode is None]
    found += [(arm, seed, constants[fold]) for arm in trivial for seed, fold in folds.items()]
    return _gathered(found)


def _gathered(found: list[tuple[int, int, TestScores]]) -> Scores:
    """Return all scores on their common labels; every run saw the same test windows."""
    first = found[0][2]
    assert all(scored.groups == first.groups for _, _, scored in found)
    return Scores(
        np.asarray(first.labels, dtype=np.float64),
        np.asarray(first.groups, dtype=np.str_),
        tuple(
            Score(arm, seed, scored.metrics, np.asarray(scored.predictions, dtype=np.float32))
            for arm, seed, scored in found
        ),
    )
