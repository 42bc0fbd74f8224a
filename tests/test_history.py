"""What a worker reads of the trials before it."""

from __future__ import annotations

import pytest
import sqlalchemy as sa
from ledger_play import make_study, outcome, report, take

from hpo.ledger.ledger import Ledger
from hpo.search import history
from hpo.search.history import Past


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Curves of two trials of a kind are held."""
    monkeypatch.setattr(history, "MAX_CURVES", 2)


def end(ledger: Ledger, study_id: int, kind: str) -> None:
    """Run the next trial for two epochs to that end."""
    study = next(row for row in ledger.studies() if row.study_id == study_id)
    claim = take(ledger, study)
    report(ledger, claim, 1, 3.0 + claim.slot)
    report(ledger, claim, 2, 2.0 + claim.slot)
    ledger.finish(claim, outcome(2.0 + claim.slot, end=kind, epochs=2))


def with_curves(known: Past) -> list[int]:
    return [trial.slot for trial in known.refresh() if trial.curve]


def test_only_the_latest_curves_of_each_kind_are_held(ledger: Ledger, engine: sa.Engine) -> None:
    study = make_study(ledger, 9)
    for kind in ("pruned", "finished", "finished", "pruned", "patience", "pruned"):
        end(ledger, study.study_id, kind)

    known = Past(study.study_id, engine, with_curves=True)
    assert with_curves(known) == [2, 3, 4, 5]
    assert [trial.value for trial in known.refresh()] == [2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    assert known.ended[2].curve == (5.0, 4.0)


def test_a_worker_that_was_there_from_the_start_knows_what_a_late_one_reads(
    ledger: Ledger, engine: sa.Engine
) -> None:
    study = make_study(ledger, 9)
    early = Past(study.study_id, engine, with_curves=True)
    for kind in ("finished", "pruned", "finished", "pruned", "finished", "pruned"):
        end(ledger, study.study_id, kind)
        early.refresh()

    late = Past(study.study_id, engine, with_curves=True)
    assert late.refresh() == early.refresh()
    assert with_curves(late) == [2, 3, 4, 5]
