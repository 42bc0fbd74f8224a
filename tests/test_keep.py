"""Whole studies: begun again, deleted, given another name, copied into another database, known or not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import analytic_trainer
import optuna
import pandas as pd
import pytest
import sqlalchemy as sa
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file
from small_study import NAME, Place, small_spec
from test_cli import complaint

from finetune.api import CheckpointError
from finetune.backbones.cmssl_files import BUILTIN
from hpo.cli.app import main
from hpo.errors import MismatchError, UsageError
from hpo.fleet import run_local
from hpo.ledger.whole_studies import contents, copy_study, delete_study, rename_study
from hpo.reading.frames import attempts_frame, curves_frame, trials_frame
from hpo.search_here import launch, read_spec
from hpo.storage import open_engine, parse_url, writing
from hpo.storage.tables import metadata, studies
from hpo.study import StudySpec, keep_defaults, load_spec
from hpo.worker import Event, open_study, work
from hpo.worker.session import open_ledger


def run(place: Place, total: int, on_event: Callable[[Event], None] = lambda event: None) -> None:
    work(place.url, [NAME], below=total, settings=place.settings(), on_event=on_event)


def rows_in(url: str) -> dict[str, int]:
    """Return how many rows each table of studies holds."""
    engine = open_engine(url)
    names = set(metadata.tables) - {"hpo_worker"} | {"studies", "study_user_attributes", "trials"}
    names |= {"trial_params", "trial_values", "trial_intermediate_values", "trial_user_attributes"}
    with engine.connect() as connection:
        found = {
            name: int(connection.execute(sa.text(f"SELECT count(*) FROM {name}")).scalar_one())
            for name in sorted(names)
        }
    engine.dispose()
    return found


# --- begun again


def test_a_study_that_came_to_nothing_gives_way_to_another_spec(place: Place) -> None:
    place.open(4, recipe={"epochs": 3})
    with open_ledger(place.url) as ledger:
        claim = ledger.claim(ledger.study(NAME).study_id, "w", lease_s=60)
        assert claim is not None
        ledger.give_back(claim)

    place.open(5)
    run(place, 5)

    assert place.counts().finished == 5
    assert max(place.epochs_of(0)) == 6


@pytest.mark.parametrize("is_finished", [True, False])
def test_a_study_with_a_finished_or_running_trial_does_not_give_way(place: Place, is_finished: bool) -> None:
    place.open(2)
    if is_finished:
        run(place, 1)
    else:
        with open_ledger(place.url) as ledger:
            assert ledger.claim(ledger.study(NAME).study_id, "w", lease_s=60) is not None

    with pytest.raises(MismatchError, match=r"epochs: 3 here, 6 there.*--as small-2 --warm-start small"):
        place.open(2, recipe={"epochs": 3})


def test_weights_that_cannot_be_used_are_told_before_the_study_is_there(
    tmp_path: Path,
) -> None:
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(b"no checkpoint")
    spec = StudySpec.model_validate(
        {**small_spec().model_dump(), "backbone": {"name": "cmssl", "weights": str(broken)}}
    )

    with pytest.raises(CheckpointError, match=r"broken\.ckpt"):
        open_study(f"sqlite:///{tmp_path}/a.db", spec, Place(tmp_path).settings(doorway="finetune.api"))
    with open_ledger(f"sqlite:///{tmp_path}/a.db") as ledger:
        assert ledger.studies() == []


def test_a_command_whose_study_another_has_begun_anew_ends_and_says_so(place: Place) -> None:
    asked = place.open(4, recipe={"epochs": 3})
    place.open(4)

    with pytest.raises(
        MismatchError, match=r"another command has begun the study 'small' anew.*--as small-2"
    ):
        run_local(
            place.url,
            NAME,
            total=4,
            workers=1,
            settings=place.settings(),
            fingerprint=asked.fingerprint,
        )
    assert place.counts().finished == 0


def test_an_answer_is_that_of_the_study_that_was_asked_for(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*_: object, **__: object) -> None:
        place.open(2)
        run(place, 2)

    monkeypatch.setattr("hpo.search_here.run_local", meanwhile)

    with pytest.raises(MismatchError, match="another command has begun the study 'small' anew"):
        launch(small_spec(recipe={"epochs": 3}), place.url, 2, 1, place.settings(), Console(quiet=True))


def test_weights_that_were_replaced_are_no_longer_the_studys(tmp_path: Path) -> None:
    place, weights = Place(tmp_path), tmp_path / "w.safetensors"
    shutil.copy(BUILTIN / "cmssl_tiny_ppg.safetensors", weights)
    spec = small_spec(
        task="synthetic_hr",
        inputs={"train_subjects": 2, "every": 40},
        backbone={"name": "cmssl", "weights": str(weights)},
        mode="linear_probing_cached",
        recipe={"epochs": 1},
        known=[],
    )
    settings = place.settings(doorway="finetune.api")
    made = open_study(place.url, spec, settings, total=2)
    work(place.url, [NAME], below=1, settings=settings)
    save_file({**load_file(weights), "extra": torch.zeros(1)}, weights)

    with pytest.raises(CheckpointError, match=r"not the file that the study was made with.*put"):
        work(place.url, [NAME], settings=settings)
    assert (made.fingerprint, place.counts().finished, place.counts().free) == (spec.fingerprint(), 1, 1)


# --- another version


def test_another_engine_is_refused_with_the_one_command_that_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.open(3)
    run(place, 3)
    place.open(3)
    open_study(place.url, small_spec(name="small-2"), place.settings())
    monkeypatch.setattr(analytic_trainer, "ENGINE_VERSION", "newer")

    with pytest.raises(MismatchError, match=r"engine: newer here, analytic there") as refused:
        place.open(4)
    assert refused.value.next_step == "type: hpo run --study small --as small-3 --warm-start small"


def test_where_only_the_samplers_default_changed_a_study_keeps_its_own() -> None:
    whole = small_spec().model_dump()
    given = {key: value for key, value in whole.items() if key not in {"sampler", "pruner"}}
    now = StudySpec.model_validate(given)
    stored = StudySpec.model_validate(
        {**given, "sampler": {"kind": "tpe", "startup_trials": 7}, "pruner": {"kind": "median"}}
    )

    kept = keep_defaults(now, stored.model_dump(mode="json"))
    assert kept.fingerprint() == stored.fingerprint()

    asked = StudySpec.model_validate({**given, "sampler": {"kind": "random"}})
    kept = keep_defaults(asked, stored.model_dump(mode="json"))
    assert (kept.sampler.kind, kept.sampler.startup_trials, kept.pruner.kind) == ("random", 7, "median")


def test_a_study_made_with_another_default_goes_on(place: Place) -> None:
    given = {key: value for key, value in small_spec().model_dump().items() if key != "sampler"}
    before = StudySpec.model_validate({**given, "sampler": {"kind": "tpe", "startup_trials": 4}})
    open_study(place.url, before, place.settings(), total=2)
    run(place, 2)

    row = open_study(place.url, StudySpec.model_validate(given), place.settings(), total=4)
    run(place, 4)

    assert row.spec["sampler"]["kind"] == "tpe"
    assert place.counts().finished == 4


def test_one_unknown_study_leaves_all_others_as_ever(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    place.open(6)
    run(place, 6)
    make_unknown(place, "of-a-task", task="ecg_of_tomorrow")
    make_unknown(place, "of-a-loss", space={**small_spec().model_dump()["space"], "loss": ["of_tomorrow"]})
    make_unknown(place, "of-an-encoder", backbone={"name": "next_year", "weights": "builtin"})
    capsys.readouterr()

    assert main(["status", "--storage", place.url, "--json"]) == 0
    found = {one["study"]: one for one in json.loads(capsys.readouterr().out)["studies"]}
    assert found[NAME]["known_here"]
    assert (found[NAME]["finished"], found["of-a-task"]["task"]) == (6, "ecg_of_tomorrow")
    assert not any(one["known_here"] for name, one in found.items() if name != NAME)
    for words in (["status"], ["studies"]):
        assert main([*words, "--storage", place.url]) == 0
        assert capsys.readouterr().out.count("unknown to this version") == 3
    assert main(["report", "--all", "--storage", place.url, "--out", str(place.folder / "all")]) == 0
    told = capsys.readouterr().out
    assert "of-a-task" in told
    assert "unknown" in told
    assert "'of_tomorrow'" in complaint(capsys, "report", "--study", "of-a-loss", "--storage", place.url)
    events: list[Event] = []
    with pytest.raises(MismatchError):
        work(place.url, settings=place.settings(), on_event=events.append)
    assert any("of-a-task cannot be served here" in event.text for event in events)


def make_unknown(place: Place, name: str, **changes: object) -> None:
    """Make a study as a version of tomorrow might leave it."""
    open_study(place.url, small_spec(name=name), place.settings(), total=2)
    engine = open_engine(place.url)
    with writing(engine) as connection:
        spec = {**small_spec(name=name).model_dump(mode="json"), **changes}
        connection.execute(sa.update(studies).where(studies.c.name == name).values(spec=spec))
    engine.dispose()


# --- deleted, renamed


def test_a_deleted_study_leaves_no_row_and_its_neighbour_all(database_url: str, tmp_path: Path) -> None:
    place = Place(tmp_path, database_url)
    open_study(place.url, small_spec(name="neighbour"), place.settings(), total=2)
    before = rows_in(place.url)
    place.open(4)
    run(place, 4)

    engine = open_engine(place.url)
    assert contents(engine, NAME).trials == 4
    delete_study(engine, NAME)
    engine.dispose()

    assert rows_in(place.url) == before


def test_a_study_at_work_is_neither_deleted_nor_renamed(place: Place) -> None:
    place.open(2)
    with open_ledger(place.url) as ledger:
        assert ledger.claim(ledger.study(NAME).study_id, "w", lease_s=60) is not None
    engine = open_engine(place.url)

    for change in (lambda: delete_study(engine, NAME), lambda: rename_study(engine, NAME, "other")):
        with pytest.raises(UsageError, match=r"run 1 trial of 'small'.*hpo stop --study small"):
            change()
    engine.dispose()
    assert place.counts().running == 1


def test_delete_asks_first(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.open(3)
    run(place, 2)
    words = ["delete", "--study", NAME, "--storage", place.url]

    told = complaint(capsys, *words)
    assert "small with 2 finished trials" in told
    assert "--yes" in told
    assert place.counts().finished == 2
    assert main([*words, "--yes"]) == 0
    with open_ledger(place.url) as ledger:
        assert ledger.studies() == []


def test_a_renamed_study_goes_on_under_its_new_name(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    place.open(3)
    run(place, 2)
    open_study(place.url, small_spec(name="taken"), place.settings())

    words = ["rename", "--study", NAME, "--storage", place.url, "--to"]
    assert "taken" in complaint(capsys, *words, "taken")
    assert "--to is" in complaint(capsys, *words, "no name")
    assert main([*words, "better"]) == 0
    open_study(place.url, small_spec(name="better"), place.settings(), total=4)
    work(place.url, ["better"], settings=place.settings())

    with open_ledger(place.url) as ledger:
        row = ledger.study("better")
        assert ledger.counts(row.study_id).finished == 4
        assert row.spec["name"] == "better"
        assert ledger.find(NAME) is None


# --- copied


@pytest.mark.postgres
@pytest.mark.parametrize("way", ["to the server", "from the server"])
def test_a_study_moves_to_another_database_in_mid_search_and_goes_on(
    ready_postgres_url: str, sqlite_url: str, tmp_path: Path, way: str
) -> None:
    urls = [sqlite_url, ready_postgres_url]
    here, there = (Place(tmp_path, url) for url in (urls if way == "to the server" else urls[::-1]))
    open_study(there.url, small_spec(name="another"), there.settings(), total=1)
    work(there.url, ["another"], settings=there.settings())
    here.open(12)
    run(here, 8)
    with open_ledger(here.url) as ledger:
        claim = ledger.claim(ledger.study(NAME).study_id, "at work", lease_s=60)
    assert claim is not None

    source, target = open_engine(here.url), open_engine(there.url)
    copy_study(source, target, NAME)
    before, after = frames(source), frames(target)
    before["trials"]["state"] = before["trials"]["state"].replace("running", "waiting")
    for name in ("trials", "curves"):
        pd.testing.assert_frame_equal(after[name], before[name])
    ends = [None if end is None else str(end) for end in after["attempts"]["end"]]
    assert ends == [*(str(end) for end in before["attempts"]["end"][:-1]), "interrupted"]
    source.dispose()
    target.dispose()

    run(there, 12)
    assert there.counts().finished == 12
    assert here.counts().finished == 8
    moved, kept = optunas_trials(there), optunas_trials(here)
    assert [trial.number for trial in moved] == list(range(12))
    assert [trial.value for trial in moved[:8]] == [trial.value for trial in kept[:8]]


def optunas_trials(place: Place) -> list[optuna.trial.FrozenTrial]:
    storage = optuna.storages.RDBStorage(parse_url(place.url).render_as_string(hide_password=False))
    trials = optuna.load_study(study_name=NAME, storage=storage).trials
    storage.remove_session()
    storage.engine.dispose()
    return trials


def frames(engine: sa.Engine) -> dict[str, pd.DataFrame]:
    with engine.connect() as connection:
        query = sa.select(studies.c.study_id).where(studies.c.name == NAME)
        study_id = int(connection.execute(query).scalar_one())
    made: dict[str, Callable[[sa.Engine, int], pd.DataFrame]] = {
        "trials": trials_frame,
        "curves": curves_frame,
        "attempts": attempts_frame,
    }
    return {name: make(engine, study_id) for name, make in made.items()}


def test_copy_does_not_touch_a_study_of_the_same_name_there(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.open(2)
    run(place, 2)
    other = Place(place.folder, f"sqlite:///{place.folder}/other.db")
    other.open(1)
    words = ["copy", "--study", NAME, "--storage", place.url, "--to", other.url]

    assert "already" in complaint(capsys, *words)
    assert other.counts().free == 1
    assert main([*words, "--as", "copied"]) == 0
    with open_ledger(other.url) as ledger:
        assert sorted(row.name for row in ledger.studies()) == ["copied", NAME]
    assert parse_url(other.url).database in capsys.readouterr().out


def test_as_makes_a_new_study_of_the_same_file() -> None:
    spec = read_spec("synthetic_rr", name="again")
    assert spec.name == "again"
    assert spec.fingerprint() == load_spec("synthetic_rr").fingerprint()
    with pytest.raises(UsageError, match="--as is 'no name'"):
        read_spec("synthetic_rr", name="no name")
