"""The test split is out of a search's reach: by what it holds, and by a seal while it works."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path

import analytic_trainer
import pytest
from small_study import NAME, Place

from finetune.data.prepared import load_test
from finetune.data.seal import refuse_when_sealed, sealed_test_split
from finetune.errors import SealedError
from finetune.spec import InputSpec
from hpo.search import Suggester
from hpo.search.settled import Settler
from hpo.worker import work
from hpo.worker.session import TRAINER_CALLS, Settings

INPUTS = InputSpec("synthetic_rr")


def test_a_worker_holds_a_trainers_calls_and_nothing_else(place: Place) -> None:
    assert hasattr(analytic_trainer, "score_test")  # the module could; what a worker gets of it cannot

    trainer = place.settings().open_trainer()

    held = {name for name in dir(trainer) if not name.startswith("_")}
    assert held <= set(TRAINER_CALLS)
    assert not any("test" in name or "score" in name for name in TRAINER_CALLS)


def test_the_doorway_of_finetune_has_no_way_to_the_test_split() -> None:
    doorway = importlib.import_module("finetune.api")
    trainer = Settings(Path(), Path()).open_trainer()

    ways = [name for name in dir(doorway) if "score" in name.lower() and name != "TestScores"]
    assert ways == []
    assert {name for name in dir(trainer) if not name.startswith("_")} == set(TRAINER_CALLS)


def by_the_second_door(place: Place) -> None:
    door = importlib.import_module("finetune.test_split")
    door.score_trivial(INPUTS, data_dir=place.folder, cache_dir=place.folder)


def by_the_second_door_with_weights(place: Place) -> None:
    door = importlib.import_module("finetune.test_split")
    door.score_test(None, place.folder, data_dir=place.folder, cache_dir=place.folder, device="cpu")


def by_the_reader(place: Place) -> None:
    reader = importlib.import_module("finetune.data.prepared")
    reader.load_test(INPUTS, place.folder, place.folder)


WAYS = [by_the_second_door, by_the_second_door_with_weights, by_the_reader]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("owner", "step"), [(Suggester, "suggest"), (Settler, "settle")])
def test_a_search_that_tries_to_read_the_test_split_cannot(
    way: Callable[[Place], None],
    owner: type,
    step: str,
    place: Place,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place.open(4)
    refused = []
    honest = getattr(owner, step)

    def peeking(self: object, *args: object) -> object:
        with pytest.raises(SealedError):
            way(place)
        refused.append(step)
        return honest(self, *args)

    monkeypatch.setattr(owner, step, peeking)
    work(place.url, [NAME], settings=place.settings())

    assert refused
    assert place.counts().free == 0


def test_the_seal_is_off_when_the_work_has_ended(place: Place) -> None:
    place.open(2)

    work(place.url, [NAME], settings=place.settings())

    refuse_when_sealed()  # raises while the seal is on


def test_a_seal_within_a_seal_keeps_the_outer_one(tmp_path: Path) -> None:
    with sealed_test_split():
        with sealed_test_split():
            pass
        with pytest.raises(SealedError, match="sealed while a search works"):
            load_test(INPUTS, tmp_path, tmp_path)
