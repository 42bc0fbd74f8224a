"""A search ends early when its ratio is known; a new study begins where others ended."""

from __future__ import annotations

import pytest
from rich.console import Console
from small_study import NAME, Place, small_spec

from hpo.errors import UnknownStudyError, UsageError
from hpo.ledger.ledger import Ledger
from hpo.search.settled import EVERY
from hpo.search.warm import warm_settings
from hpo.search_here import Launched, launch, read_spec
from hpo.storage import open_engine
from hpo.study import StudySpec
from hpo.worker import work

KNOWN = {"budget": {"trials": 60, "known_within": 300.0}, "pruner": {"kind": "none"}}


def search(place: Place, spec: StudySpec, total: int, **options: object) -> Launched:
    console = Console(stderr=True, quiet=True)
    settings = place.settings()
    return launch(
        spec,
        place.url,
        total=total,
        workers=1,
        settings=settings,
        console=console,
        **options,  # type: ignore[arg-type]
    )


def begun(place: Place, trials: int, **parts: object) -> Place:
    """The same study with its first trials, by this process: quicker than the command's workers."""
    place.open(trials, **parts)
    work(place.url, [str(parts.get("name", NAME))], settings=place.settings())
    return place


@pytest.mark.usefixtures("one_process")
def test_a_search_ends_when_its_ratio_is_known_and_a_narrower_wish_goes_on(place: Place) -> None:
    launched = search(place, small_spec(**KNOWN), 60)
    first, trials = launched.findings.counts, place.trials()

    again = search(place, small_spec(**KNOWN), 60)
    left = len(place.slots())
    narrower = search(place, small_spec(pruner={"kind": "none"}), first.finished + 3)

    assert launched.known_within == 300.0
    assert first.finished < 60
    assert first.finished % EVERY == 0
    assert first.free == first.running == 0
    assert [trial.number for trial in trials] == list(range(first.finished))
    assert again.did_nothing
    assert again.findings.counts.finished == left == first.finished
    assert narrower.findings.counts.finished == first.finished + 3


def test_without_the_wish_a_search_spends_its_budget(place: Place) -> None:
    begun(place, 8, pruner={"kind": "none"})

    assert search(place, small_spec(pruner={"kind": "none"}), 30).findings.counts.finished == 30


@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_a_factor_that_is_none_is_refused(factor: float) -> None:
    with pytest.raises(UsageError, match="factor above 1"):
        read_spec("synthetic_rr", known_within=factor)


@pytest.mark.usefixtures("one_process")
def test_a_new_study_begins_with_the_leaders_of_another(place: Place) -> None:
    begun(place, 20, name="before")

    search(place, small_spec(), 8, warm_start=["before"])

    engine = open_engine(place.url)
    expected = warm_settings(engine, ["before"], small_spec().space)
    ledger = Ledger(engine)
    assert ledger.study(NAME).fingerprint == small_spec().fingerprint()
    engine.dispose()
    rows = [row for row in place.slots() if row.origin == "transferred"]
    assert [row.slot for row in rows] == [2, 3, 4]
    assert [(r.config["lr"], r.config["backbone_lr"], r.config["loss"]) for r in rows] == [
        (one.lr, one.backbone_lr, one.loss) for one in expected
    ]
    assert rows[0].config["lr"] == pytest.approx(1e-3, rel=9)


@pytest.mark.usefixtures("one_process")
def test_resuming_a_warm_study_adds_no_leaders(place: Place) -> None:
    begun(place, 20, name="before")
    search(place, small_spec(), 8, warm_start=["before"])

    resumed = search(place, small_spec(), 12, warm_start=["before"])

    assert resumed.findings.counts.finished == 12
    assert sum(row.origin == "transferred" for row in place.slots()) == 3


def test_leaders_outside_the_space_are_moved_to_its_edge(place: Place) -> None:
    begun(place, 20, name="before")
    narrow = {"lr": {"low": 1e-5, "high": 2e-5}, "backbone_lr": {"low": 1e-7, "high": 2e-7}, "loss": ["l1"]}
    engine = open_engine(place.url)

    found = warm_settings(engine, ["before"], small_spec(space=narrow, known=[], baseline=_baseline()).space)

    engine.dispose()
    assert {(one.lr, one.backbone_lr) for one in found} == {(2e-5, 2e-7)}


def _baseline() -> dict[str, object]:
    return {"name": "default", "lr": 1e-5, "backbone_lr": 1e-7, "loss": "l1"}


def test_a_study_that_has_nothing_to_start_from_is_refused(place: Place) -> None:
    place.open(5, name="empty")
    engine = open_engine(place.url)

    with pytest.raises(UsageError, match="no complete trial"):
        warm_settings(engine, ["empty"], small_spec().space)
    with pytest.raises(UnknownStudyError):
        warm_settings(engine, ["nothing"], small_spec().space)
    engine.dispose()
