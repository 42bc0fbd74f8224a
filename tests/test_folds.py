"""Grouped folds: drawn with the seed, kept with the trial, compared with their like."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from small_study import NAME, Place

from hpo.reading.frames import trials_frame
from hpo.storage import open_engine
from hpo.study import Configuration, load_spec
from hpo.worker import work

FOLDS = {"kind": "grouped_folds", "k": 3}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    place = Place(tmp_path)
    place.open(16, validation=FOLDS, replicate={"top": 1, "seeds": 2})
    work(place.url, [NAME], settings=place.settings())
    return place


def trials(place: Place) -> pd.DataFrame:
    engine = open_engine(place.url)
    frame = trials_frame(engine, place.ledger().study(NAME).study_id)
    engine.dispose()
    return frame


def test_every_trial_has_the_fold_of_its_seed_in_our_tables_and_in_optunas(place: Place) -> None:
    frame = trials(place)

    assert set(frame["origin"]) == {"baseline", "known", "search", "replicate"}
    assert list(frame["fold"]) == list(frame["seed"] % 3)
    assert [trial.user_attrs["fold"] for trial in place.trials()] == list(frame["fold"])
    assert frame["fold"].nunique() == 3


def test_a_run_is_compared_with_runs_of_its_own_fold_only(place: Place) -> None:
    ledger, frame = place.ledger(), trials(place)
    row = ledger.study(NAME)
    ledger.add_slots(row.study_id, 17)
    worker = ledger.register_worker("host", 1, "cpu", row.versions)
    claim = ledger.claim(row.study_id, worker, lease_s=60)
    assert claim is not None

    counts = {fold: ledger.peers_at(replace(claim, fold=fold), 1).count for fold in range(3)}

    assert counts == Counter(frame["fold"])


def test_the_shipped_study_on_folds_is_the_reference_study_otherwise() -> None:
    folds, reference = load_spec("bidmc_hr_folds"), load_spec("bidmc_hr")

    differing = {one.key for one in folds.differences(reference)}

    assert differing == {"validation.kind", "replicate.top", "replicate.seeds"}
    assert folds.run_spec(Configuration(1e-4, 1e-5, "mse", 7)).fold == 7 % 5
