"""Confirmation: frozen before it runs, fresh seeds, one look at the test split."""

from __future__ import annotations

import gzip
import json
import shutil
import sqlite3
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import analytic_trainer
import optuna
import pytest
import sqlalchemy as sa
from rich.console import Console
from small_study import NAME, Place, small_spec

from hpo.confirm import confirm, warnings_before
from hpo.confirm.arms import Request, arms, decide
from hpo.confirm.confirmed import ArmResult, Confirmation, confirmation_of, newest_confirmation
from hpo.confirm.verdicts import Doubt, Finding, Look
from hpo.errors import MismatchError, UnknownStudyError, UsageError
from hpo.ledger.choice import Arm, FrozenChoice
from hpo.ledger.choice_book import ChoiceBook, StoredChoice
from hpo.reading.findings import find_out
from hpo.report.answer import answer_lines
from hpo.report.confirmed import arm_name, confirmation_lines, headline
from hpo.report.language import SPOKEN
from hpo.storage import open_engine
from hpo.storage.tables import slots
from hpo.study import Configuration
from hpo.worker import work

REQUEST = Request(top=2, seeds=6)
pytestmark = pytest.mark.usefixtures("one_process")  # but for the confirmation that tests only look at


def search(place: Place, trials: int = 12, **parts: object) -> sa.Engine:
    place.open(trials, **parts)
    work(place.url, [NAME], settings=place.settings())
    return open_engine(place.url)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that has ended, to be copied."""
    place = Place(tmp_path_factory.mktemp("searched"))
    search(place).dispose()
    return place.folder


@pytest.fixture
def engine(place: Place, searched: Path) -> Iterator[sa.Engine]:
    shutil.copytree(searched, place.folder, dirs_exist_ok=True)
    engine = open_engine(place.url)
    yield engine
    engine.dispose()


def confirmed(
    place: Place, engine: sa.Engine, request: Request = REQUEST, study: str = NAME, **changes: Any
) -> StoredChoice:
    settings, console = place.settings(**changes), Console(quiet=True)
    return confirm(
        engine,
        place.url,
        study,
        request,
        workers=1,
        settings=settings,
        console=console,
        words=SPOKEN["en"],
        scorer=analytic_trainer,
    )


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, sa.Engine, Confirmation]]:
    """A confirmation that tests only look at."""
    place = Place(tmp_path_factory.mktemp("confirmed"))
    engine = search(place)
    yield place, engine, confirmation_of(engine, confirmed(place, engine))
    engine.dispose()


def runs(engine: sa.Engine, place: Place, kind: str) -> list[Configuration]:
    studies = [study.study_id for study in place.ledger().studies() if study.kind == kind]
    with engine.connect() as connection:
        query = sa.select(slots.c.config).where(slots.c.study_id.in_(studies), slots.c.state == "done")
        return [Configuration(**config) for config in connection.execute(query).scalars()]


def looks(place: Place) -> int:
    ledger = place.ledger()
    return len(ledger.test_looks(ledger.study(NAME).study_id))


Shared = tuple[Place, sa.Engine, Confirmation]


def arm_of(found: Confirmation, role: str) -> ArmResult:
    return next(result for result in found.arms if result.arm.role == role)


def test_the_arms_are_leaders_the_default_the_diary_and_what_knows_less(shared: Shared) -> None:
    _, _, found = shared

    roles = [result.arm.role for result in found.arms if result.arm.role != "luckiest"]

    assert roles == ["choice", "choice", "baseline", "diary", "from_scratch", "linear_probing", "trivial"]
    assert arm_of(found, "baseline").arm.ratio == pytest.approx(10)
    assert arm_of(found, "linear_probing").arm.lr == 1e-3
    assert arm_of(found, "linear_probing").arm.ratio is None


def test_from_scratch_is_the_same_encoder_without_weights_at_one_rate(shared: Shared) -> None:
    place, _, found = shared
    choice, scratch = found.arms[0].arm, arm_of(found, "from_scratch").arm

    specs = [study.spec for study in place.ledger().studies() if study.kind == "confirm"]

    assert (scratch.lr, scratch.backbone_lr, scratch.loss) == (choice.lr, choice.lr, choice.loss)
    weights = {spec["backbone"]["weights"] for spec in specs}
    assert weights == {"builtin", "none"}
    (without,) = [spec for spec in specs if spec["backbone"]["weights"] == "none"]
    assert without["mode"] == "full_finetuning"
    assert without["backbone"]["name"] == "cmssl_tiny_ppg"


def test_a_study_without_weights_has_no_arm_from_scratch(place: Place) -> None:
    engine = search(place, backbone={"name": "cmssl_tiny_ppg", "weights": "none"})

    roles = [arm.role for arm in arms(find_out(engine, NAME), top=1)]

    assert "from_scratch" not in roles
    assert "linear_probing" in roles
    engine.dispose()


@pytest.mark.parametrize("lucky", [True, False])
def test_the_luckiest_trial_is_an_arm_unless_it_is_one_already(engine: sa.Engine, lucky: bool) -> None:
    findings = find_out(engine, NAME)
    choice = findings.answer.choice
    assert choice is not None
    trials = findings.trials.copy()
    complete = trials.index[trials["state"] == "complete"]
    trials.loc[complete[0], ["lr", "backbone_lr", "loss", "value"]] = (
        [3e-6, 1e-7, "l1", 0.1] if lucky else [choice.lr, choice.backbone_lr, choice.loss, 0.1]
    )

    named = arms(replace(findings, trials=trials), top=1)

    luckiest = [(arm.lr, arm.backbone_lr, arm.loss) for arm in named if arm.role == "luckiest"]
    assert luckiest == ([(3e-6, 1e-7, "l1")] if lucky else [])


def test_every_arm_runs_on_the_same_fresh_seeds(shared: Shared) -> None:
    place, engine, found = shared
    tuning = {run.seed for run in runs(engine, place, "search")}

    seeds_of: dict[int, list[int]] = {}
    for score in found.scores.scores:
        seeds_of.setdefault(score.arm, []).append(score.seed)

    assert set(map(tuple, seeds_of.values())) == {tuple(range(1_000_000, 1_000_006))}
    assert tuning.isdisjoint(range(1_000_000, 1_000_006))
    assert {run.seed for run in runs(engine, place, "confirm")} == set(range(1_000_000, 1_000_006))


def test_the_test_split_is_opened_once_and_shown_again_without_a_look(shared: Shared) -> None:
    place, engine, found = shared
    place.behave(data_hash="the data are gone")  # nothing but what is stored may be read

    again = confirmation_of(engine, confirmed(place, engine))

    place.behave()
    assert looks(place) == found.test_looks == 1
    assert again.to_json() == found.to_json()


def test_the_differences_are_those_of_the_runs_on_the_same_seeds(shared: Shared) -> None:
    _, _, found = shared
    mae = {(score.arm, score.seed): score.metrics["mae"] for score in found.scores.scores}

    beside = found.arms[0].against_baseline

    assert beside is not None
    baseline = [result.arm.role for result in found.arms].index("baseline")
    gaps = [mae[0, seed] - mae[baseline, seed] for seed in found.seeds]
    assert beside.difference == pytest.approx(sum(gaps) / len(gaps), abs=1e-6)
    assert beside.low < beside.difference < beside.high < 0
    assert beside.p_unadjusted == pytest.approx(2 / 2**6)


def test_the_json_has_what_was_promised(shared: Shared) -> None:
    _, _, found = shared

    told = json.loads(json.dumps(found.to_json(), allow_nan=False))

    assert {"choice_hash", "test_looks", "arms", "published"} <= set(told)
    for arm in told["arms"]:
        keys = {"name", "lr", "backbone_lr", "ratio", "loss", "seeds", "subjects", "metrics"}
        assert keys | {"against_baseline"} <= set(arm)
        assert all(set(metric) == {"mean", "low", "high"} for metric in arm["metrics"].values())
    assert {"difference", "low", "high", "p", "verdict"} <= set(told["arms"][0]["against_baseline"])
    by_role = {arm["role"]: arm for arm in told["arms"]}
    assert by_role["baseline"]["against_baseline"] is None
    assert by_role["trivial"]["seeds"] == 0
    assert told["arms"][0]["subjects"] == 6
    assert (told["look"], told["alpha"]) == (1, 0.025)
    beside = told["arms"][0]["against_baseline"]
    assert beside["verdict"] == told["verdict"] == found.finding.value
    assert (beside["pairs"], beside["failed"], beside["baseline_failed"]) == (6, 0, 0)
    assert beside["failure_rate_not_excluded"] == 0.5


def test_the_words_name_the_looks_the_subjects_and_the_smallest_effect(shared: Shared) -> None:
    _, _, found = shared

    lines = confirmation_lines(found)

    assert lines[0].startswith(f"{NAME} [synthetic signals]: on the test split the choice ")
    assert "6 seeds in pairs, from 1000000 on, and 6 subjects of the test split" in "\n".join(lines)
    assert "would be called real four times in five" in "\n".join(lines)
    assert "6 seeds cannot exclude failure rates under 50 %" in "\n".join(lines)
    assert "look 2 needs p at most 0.025, so 7 seeds" in "\n".join(lines)
    assert lines[-1].endswith(
        "look 1 at the test split of this study and its data, which has been looked at once."
    )


def test_the_published_default_has_a_chinese_name(shared: Shared) -> None:
    own = arm_of(shared[2], "baseline")
    published = replace(own, arm=replace(own.arm, name="published default"))

    assert arm_name(replace(shared[2], arms=(own,)), 0, SPOKEN["zh"]) == own.arm.name
    assert arm_name(replace(shared[2], arms=(published,)), 0, SPOKEN["zh"]) == "已发表的默认设置"


def test_the_newest_confirmation_is_found_by_the_studys_name(shared: Shared) -> None:
    _, engine, found = shared

    newest = newest_confirmation(engine, NAME)

    assert newest is not None
    assert newest.choice_hash == found.choice_hash


def test_only_the_chosen_arms_weights_are_kept(shared: Shared) -> None:
    place, _, found = shared

    kept = list(place.folder.glob(f"hpo.db.checkpoints/{NAME}.confirm-*/*/best.safetensors"))

    lr = found.arms[0].arm.lr
    assert len(kept) == 6
    assert all(json.loads(file.read_text())[0] == lr for file in kept)


def test_more_seeds_are_another_confirmation_and_the_look_is_counted(place: Place, engine: sa.Engine) -> None:
    first = confirmed(place, engine, Request(top=1, seeds=1))
    second = confirmed(place, engine, Request(top=1, seeds=2))

    assert first.choice.choice_hash != second.choice.choice_hash
    assert confirmation_of(engine, second).test_looks == looks(place) == 2
    assert "looked at 2 times" in confirmation_lines(confirmation_of(engine, second))[-1]
    assert [confirmation_of(engine, one).look for one in (first, second)] == [Look(1), Look(2)]


def rename(place: Place, engine: sa.Engine, name: str) -> None:
    with engine.begin() as connection:
        for table in ("hpo_study", "studies"):
            column = "name" if table == "hpo_study" else "study_name"
            query = sa.text(f"update {table} set {column} = :new where {column} = :old")
            connection.execute(query, {"new": name, "old": NAME})


def test_a_renamed_study_and_its_copy_spend_from_the_same_five_percent(
    place: Place, engine: sa.Engine
) -> None:
    first = confirmation_of(engine, confirmed(place, engine, Request(top=1, seeds=1)))
    rename(place, engine, "other")
    search(place).dispose()  # the same spec and data again, under the old name

    second = confirmation_of(engine, confirmed(place, engine, Request(top=1, seeds=2)))

    assert first.look == Look(1)
    assert (second.look, second.test_looks) == (Look(2), 2)


def test_a_deleted_studys_looks_stay_spent(place: Place, engine: sa.Engine) -> None:
    confirmed(place, engine, Request(top=1, seeds=1))
    optuna.delete_study(study_name=NAME, storage=place.url)
    again = search(place)

    found = confirmation_of(again, confirmed(place, again, Request(top=1, seeds=2)))

    assert (found.look, found.test_looks) == (Look(2), 2)
    again.dispose()


def test_other_data_have_looks_of_their_own(place: Place, engine: sa.Engine) -> None:
    ledger, row = place.ledger(), place.ledger().study(NAME)

    ledger.record_test_look(row.study_id, "a", "w", {})
    ledger.record_test_look(row.study_id, "a", "w", {})
    ledger.record_test_look(row.study_id, "b", "w", {})

    data = row.data["data_hash"]
    assert [ledger.look_number(row.fingerprint, data, choice) for choice in "abc"] == [1, 2, 3]
    assert ledger.look_number(row.fingerprint, "other data", "c") == 1
    assert ledger.look_number("other spec", data, "c") == 1
    assert ledger.looks_spent(row.fingerprint, data) == 2


def test_an_interrupted_look_is_one_look(
    place: Place, engine: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = analytic_trainer.score_test

    def broken(*args: Any, **kwargs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(analytic_trainer, "score_test", broken)
    with pytest.raises(KeyboardInterrupt):
        confirmed(place, engine, Request(top=1, seeds=1))
    monkeypatch.setattr(analytic_trainer, "score_test", honest)

    found = confirmation_of(engine, confirmed(place, engine, Request(top=1, seeds=1)))

    assert (found.look, found.test_looks) == (Look(1), 1)


def test_a_diverged_run_is_a_failed_seed_whatever_weights_it_left(place: Place, engine: sa.Engine) -> None:
    request = Request(top=1, seeds=6)
    findings = find_out(engine, NAME)
    frozen = decide(findings, request)
    wild = replace(frozen.arms[0], lr=5e-2)  # the analytic loss is NaN from its second epoch
    ChoiceBook(engine).freeze(
        findings.row.study_id, replace(frozen, arms=(wild, *frozen.arms[1:])), request.key(findings)
    )

    found = confirmation_of(engine, confirmed(place, engine, request))

    assert found.arms[0].arm.lr == 5e-2
    assert (found.arms[0].seeds, found.arms[0].failed) == (0, 6)
    assert found.finding == Finding.ALL_FAILED
    assert "nothing can be said: all runs of the choice" in headline(found, SPOKEN["en"])
    assert all(score.arm != 0 for score in found.scores.scores)


def test_a_confirmation_of_before_opens_with_its_hash_and_its_look(tmp_path: Path) -> None:
    """tests/data/confirmed_0002.sql.gz: made by the code of schema 0002, two confirmations of one study."""
    dump = gzip.decompress((Path(__file__).parent / "data" / "confirmed_0002.sql.gz").read_bytes())
    with sqlite3.connect(tmp_path / "hpo.db") as database:
        database.executescript(dump.decode())
    engine = open_engine(f"sqlite:///{tmp_path / 'hpo.db'}")

    found = newest_confirmation(engine, NAME)

    assert found is not None
    assert found.choice_hash == "db2199fb923dd444e49b5b9f6735e7fdf21d563c069878f3314d52ac637715d1"
    assert (found.look, found.test_looks) == (Look(2), 2)
    assert [result.arm.role for result in found.arms] == [
        "choice",
        "choice",
        "baseline",
        "diary",
        "linear_probing",
        "trivial",
    ]
    beside = found.arms[0].against_baseline
    assert beside is not None
    assert beside.difference == pytest.approx(-0.1818761626879374)
    assert beside.p == 0.03125
    assert beside.doubt == Doubt.FEW_SEEDS  # six seeds were enough for a first look
    engine.dispose()


def test_fewer_than_six_seeds_are_never_called_real(place: Place, engine: sa.Engine) -> None:
    found = confirmation_of(engine, confirmed(place, engine, Request(top=1, seeds=2)))

    assert "the choice cannot be told from the published default" in headline(found, SPOKEN["en"])
    assert any("With 2 seeds no p can be under 0.5" in line for line in confirmation_lines(found))


@pytest.mark.parametrize(("seeds", "told"), [(5, ["look 1 at the test split needs at least 6"]), (6, [])])
def test_too_few_seeds_are_told_before_they_run(
    place: Place, engine: sa.Engine, seeds: int, told: list[str]
) -> None:
    arm = Arm("choice 1", "choice", "full_finetuning", 1e-4, 1e-5, "mse")
    choice = FrozenChoice(NAME, "f", "d", (arm,), tuple(range(1_000_000, 1_000_000 + seeds)))

    said = warnings_before(place.ledger(), choice, SPOKEN["en"])
    assert len(said) == len(told)
    assert all(part in line for part, line in zip(told, said, strict=True))


def test_the_runs_of_a_confirmation_name_no_choice(shared: Shared) -> None:
    place, engine, _ = shared
    own = next(study.name for study in place.ledger().studies() if study.kind == "confirm")

    assert answer_lines(find_out(engine, own)) == [
        f"{own}: the runs of a confirmation of {NAME}, on seeds that its search never had. "
        f"They choose nothing; what they show: hpo report {NAME}"
    ]
    with pytest.raises(UnknownStudyError, match=f"one of its studies: {NAME}; did you mean {NAME}"):
        place.ledger().study(NAME[:-1])


def test_the_choice_is_stored_before_anything_runs(place: Place, engine: sa.Engine) -> None:
    place.behave(faults={"0": ("data", 1)})  # the first confirmation run ends the command

    with pytest.raises(Exception, match=r"bidmc_01_Signals\.csv is broken"):
        confirmed(place, engine, Request(top=1, seeds=1))

    row = place.ledger().study(NAME)
    (stored,) = ChoiceBook(engine).all(row.study_id)
    assert stored.scored_at is None
    assert looks(place) == 0
    place.behave()
    assert confirmed(place, engine, Request(top=1, seeds=1)).choice == stored.choice


# --- what is refused


def refused(place: Place, engine: sa.Engine, request: Request = REQUEST, **changes: Any) -> str:
    """Return why a confirmation is refused, with nothing frozen and nothing looked at."""
    with pytest.raises((UsageError, MismatchError)) as caught:
        confirmed(place, engine, request, **changes)
    row = place.ledger().study(NAME)
    assert ChoiceBook(engine).all(row.study_id) == []
    assert looks(place) == 0
    return str(caught.value)


def test_a_running_study_is_refused(place: Place, engine: sa.Engine) -> None:
    ledger = place.ledger()
    row = ledger.study(NAME)
    ledger.add_slots(row.study_id, 13)
    worker = ledger.register_worker("host", 1, "cpu", {})
    claim = ledger.claim(row.study_id, worker, lease_s=60)
    assert claim is not None

    assert "small is still running (1 trials under way" in refused(place, engine)


def test_seeds_of_the_search_are_refused(place: Place, engine: sa.Engine) -> None:
    assert "such as 9995, belong to the search; expected fresh seeds" in refused(
        place, engine, replace(REQUEST, first_seed=9995)
    )


def test_a_changed_spec_is_refused(place: Place, engine: sa.Engine, tmp_path: Path) -> None:
    changed = small_spec(recipe={"epochs": 7}).model_dump(mode="json")
    file = tmp_path / "small.yaml"
    file.write_text(json.dumps(changed))

    assert "was searched with another spec (recipe.epochs: 7 here, 6 there" in refused(
        place, engine, study=str(file)
    )


def test_other_data_are_refused(place: Place, engine: sa.Engine) -> None:
    place.behave(data_hash="another")

    assert "data: another here, analytic there" in refused(place, engine)


def test_too_few_trials_are_refused(place: Place) -> None:
    engine = search(place, trials=2)

    assert "small has 2 complete trials: too few to choose from" in refused(place, engine)
    engine.dispose()


def test_a_confirmation_is_not_confirmed(shared: Shared) -> None:
    place, engine, found = shared

    with pytest.raises(UsageError, match="is a confirm, not a search"):
        confirmed(place, engine, study=f"{NAME}.confirm-{found.choice_hash[:8]}")
