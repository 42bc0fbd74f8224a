"""Keys of a recipe searched as choices: from the study file to the answer in words."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import analytic_trainer
import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import CategoricalDistribution
from rich.console import Console
from small_study import NAME, Place, small_spec

from hpo.analysis import answer
from hpo.analysis.box import Box, Lattice
from hpo.analysis.evidence import gather
from hpo.analysis.landscape import draw_landscapes, draw_lowest
from hpo.analysis.likelihood import Problem, covariance, own_variance, problem_of
from hpo.analysis.matters import Mattering
from hpo.analysis.surrogate import Fit, Surrogate
from hpo.confirm import confirm
from hpo.confirm.arms import Request, arms
from hpo.confirm.confirmed import confirmation_of
from hpo.dashboard.kept import AnswerStore
from hpo.dashboard.live import study_state
from hpo.diary.file import read_diary
from hpo.errors import UsageError
from hpo.ledger.values import Peers
from hpo.reading.findings import Findings, find_out
from hpo.records.study import record_of
from hpo.report.answer import answer_lines
from hpo.report.confirmed import confirmation_lines
from hpo.report.figures.all import DRAWN, draw_figure
from hpo.report.language import SPOKEN, Language
from hpo.report.markdown import markdown
from hpo.report.side_by_side import table as side_by_side
from hpo.search import suggest
from hpo.search.history import PastTrial
from hpo.search.pruning import UnderWay, goes_on
from hpo.search.sampler import RatioSampler
from hpo.search.warm import warm_settings
from hpo.storage import open_engine
from hpo.study import Configuration, Pruner, StudySpec, parse_spec
from hpo.study.choices import Choices
from hpo.study.setting import Setting
from hpo.worker import work

pytestmark = pytest.mark.whole_posterior

FILE = """name: mine
task: synthetic_rr
backbone: {name: cmssl_tiny_ppg}
recipe: {epochs: 6}
space:
  lr: {low: 1e-6, high: 1e-1}
  backbone_lr: {low: 1e-7, high: 1e-2}
  loss: [mse, l1]
  CHOICES
baseline: {name: default, lr: 1e-4, backbone_lr: 1e-5, loss: mse}
"""
SPACE = {
    "lr": {"low": 1e-5, "high": 1e-2},
    "backbone_lr": {"low": 1e-6, "high": 1e-3},
    "loss": ["mse", "l1"],
    "layer_decay": [1, 0.75, 0.5],
    "batch_size": [64, 128],
}
NO_CURVES = pd.DataFrame({"number": [], "epoch": [], "validation_loss": []})


def read(choices: str, named: str = "") -> tuple[StudySpec | None, list[tuple[int, str]]]:
    text = FILE.replace("CHOICES", choices).replace("loss: mse}", f"loss: mse{named}}}")
    spec, faults = parse_spec(text)
    return spec, [(fault.line, fault.text) for fault in faults]


# --- the study file


def test_a_space_lists_values_of_a_recipes_keys() -> None:
    spec, faults = read("layer_decay: [1, 0.75]\n  lp_epochs: [0, 3]")

    assert spec is not None, faults
    assert spec.space.choices == {"head_epochs": (0, 3), "layer_decay": (1.0, 0.75)}
    assert spec.baseline.choices == {"head_epochs": 0, "layer_decay": 1.0}  # as a recipe has them
    assert parse_spec(FILE.replace("CHOICES\n", "\n"))[0] is not None
    assert StudySpec.model_validate(spec.model_dump(mode="json")) == spec


def test_a_trial_runs_with_the_recipe_of_its_choices() -> None:
    spec, _ = read("layer_decay: [1, 0.75]\n  dropout: [null, 0.1]")
    assert spec is not None

    run = spec.run_spec(
        Configuration.at(Setting(1e-3, 1e-4, "l1", Choices(layer_decay=0.75, dropout=0.1)), 3)
    )

    assert (run.recipe.layer_decay, run.recipe.dropout, run.recipe.epochs) == (0.75, 0.1, 6)


@pytest.mark.parametrize("written", ["[0.75]", "0.75"])
def test_a_single_value_is_the_same_study_as_one_in_the_recipe(written: str) -> None:
    listed, _ = read(f"layer_decay: {written}")
    fixed, _ = parse_spec(
        FILE.replace("epochs: 6", "epochs: 6, layer_decay: 0.75").replace("CHOICES\n", "\n")
    )

    assert listed is not None
    assert fixed is not None
    assert listed.fingerprint() == fixed.fingerprint()


WRONG = [
    ("layer_decai: [1, 0.5]", "", 9, "did you mean layer_decay"),
    ("epochs: [3, 6]", "", 9, "unknown key 'space.epochs'"),
    (
        "layer_decay: [1, 1.5]",
        "",
        9,
        "space.layer_decay[1]: layer_decay is 1.5; expected less than or equal to 1",
    ),
    ("schedule: [constant, slow]", "", 9, "expected 'constant', 'cosine' or 'one_cycle'"),
    ("batch_size: [1, 2, 3, 4, 5, 6, 7]", "", 9, "7 values; expected 2 to 6"),
    ("batch_size: []", "", 9, "0 values; expected 2 to 6"),
    ("batch_size: [64, 64]", "", 9, "64 twice"),
    ("head_epochs:\n    - 0\n    - 6", "", 11, "head_epochs 6 of 6 epochs"),
    ("label_smoothing: [0, 0.1]", "", 9, "label_smoothing 0.1 of a regression"),
    (
        "batch_size: [32, 128]",
        "",
        10,
        "batch_size is missing, and a recipe's own 64 is not in space.batch_size",
    ),
    ("batch_size: [32, 128]", ", batch_size: 64", 10, "batch_size 64 is not in space.batch_size"),
    ("batch_size: [64, 128]", ", layer_decay: 1", 10, "layer_decay is not searched"),
    (
        "layer_decay: [1, .9, .8, .7, .6, .5]\n  batch_size: [16, 32, 64, 128, 256, 512]",
        "",
        9,
        "72 combinations",
    ),
]


@pytest.mark.parametrize(("choices", "named", "line", "said"), WRONG, ids=[case[0][:20] for case in WRONG])
def test_what_is_wrong_with_choices_is_told_with_its_line(
    choices: str, named: str, line: int, said: str
) -> None:
    spec, faults = read(choices, named)

    assert spec is None
    assert len(faults) == 1, faults
    assert said in faults[0][1]
    assert faults[0][0] == line


def test_a_key_in_recipe_and_space_is_refused() -> None:
    text = FILE.replace("epochs: 6", "epochs: 6, layer_decay: 1").replace("CHOICES", "layer_decay: [1, 0.5]")

    spec, faults = parse_spec(text)

    assert spec is None
    assert [(fault.line, fault.text) for fault in faults] == [
        (9, "space.layer_decay is in recipe too; expected it in one of them")
    ]


def test_layers_of_an_encoder_that_names_none_cannot_differ() -> None:
    factory = "backbone: {factory: mine.py:build}"
    text = FILE.replace("backbone: {name: cmssl_tiny_ppg}", factory).replace(
        "CHOICES", "layer_decay: [1, 0.5]"
    )

    spec, faults = parse_spec(text)

    assert spec is None
    assert "layer_decay 0.5 of an encoder without groups; expected backbone.groups" in faults[0].text
    assert parse_spec(text.replace(":build}", ":build, groups: mine.py:layers}"))[0] is not None


# --- the model


def space(**choices: list[Any]) -> Any:
    own = {name: value for name, value in SPACE.items() if name in {"lr", "backbone_lr", "loss"}}
    return small_spec(space={**own, **choices}, known=[]).space


def table(size: int, noise: float, effect: float, seed: int = 0, **choices: list[Any]) -> pd.DataFrame:
    """Return complete trials at random places; the second value of layer_decay is better by ``effect``."""
    rng = np.random.default_rng(seed)
    lr, backbone_lr = rng.uniform(-5, -2, size), rng.uniform(-6, -3, size)
    loss = rng.integers(0, 2, size)
    picked = {
        name: [values[i] for i in rng.integers(0, len(values), size)] for name, values in choices.items()
    }
    value = 1 + 0.3 * (1 - np.exp(-((lr + 3.2) ** 2) - (lr - backbone_lr - 1.3) ** 2)) - 0.05 * (loss == 1)
    if effect:
        value -= effect * (np.array(picked["layer_decay"]) == choices["layer_decay"][1])
    rows: dict[str, Any] = {
        "number": np.arange(size),
        "state": "complete",
        "origin": "search",
        "lr": 10**lr,
        "backbone_lr": 10**backbone_lr,
        "ratio": 10 ** (lr - backbone_lr),
        "loss": [("mse", "l1")[place] for place in loss],
        "seed": np.arange(size),
        "fold": None,
        "value": value + noise * rng.standard_normal(size),
        "end": "finished",
        "best_epoch": 5,
        "epochs": 20,
    }
    return pd.DataFrame(rows | picked)


CHOSEN: dict[str, list[Any]] = {"layer_decay": [1.0, 0.75, 0.5], "batch_size": [64, 128]}


def problem() -> tuple[Problem, Box]:
    box = Box.of(space(**CHOSEN))
    evidence = gather(table(24, 0.05, 0.1, **CHOSEN), NO_CURVES, box)
    common, groups = 0.1 * np.ones((24, 1)), np.arange(24) % 3
    return problem_of(evidence.x, evidence.y, np.zeros(24), common, groups, box)[0], box


def test_the_slopes_of_the_density_are_right_with_choices() -> None:
    known, _ = problem()
    z = 0.5 * np.random.default_rng(1).standard_normal(len(known.prior.mean))

    _, slopes = known.objective(z)

    step = 1e-5 * np.eye(len(z))
    rises = [(known.objective(z + one)[0] - known.objective(z - one)[0]) / 2e-5 for one in step]
    np.testing.assert_allclose(slopes, rises, rtol=1e-4, atol=1e-5)


def test_a_choice_has_a_level_and_a_share_of_the_bumps() -> None:
    known, _ = problem()
    theta = known.theta(np.zeros(len(known.prior.mean)))
    theta[-4:] = np.log(0.5), np.log(0.2), 0.0, 3.0  # s and rho of layer_decay and batch_size

    found = covariance(theta, known.pairs)

    same = known.pairs.same_choice
    assert np.linalg.eigvalsh(found).min() > -1e-9
    np.testing.assert_allclose(np.diag(found), own_variance(theta, 2))
    near = np.exp(-5) < found  # all are: the level is shared
    assert near.all()
    flat = theta.copy()
    flat[1] = -20.0  # no bumps: levels alone
    levels = covariance(flat, known.pairs) - covariance(flat, known.pairs).min()
    expected = 0.25 * same[..., 0] + 0.04 * same[..., 1] + np.exp(2 * theta[0]) * known.pairs.same_loss
    np.testing.assert_allclose(levels, expected - expected.min(), atol=1e-9)


def test_the_landscape_on_the_lattice_is_the_surrogates() -> None:
    known, box = problem()
    rng = np.random.default_rng(2)
    fits = [Fit.of(known, 0.4 * rng.standard_normal(len(known.prior.mean))) for _ in range(3)]
    surrogate, lattice = Surrogate(known, fits, 0.0, 1.0), Lattice.of(box, 0.5)

    mean, _ = draw_landscapes(surrogate, lattice, np.random.default_rng(0))

    assert len(mean) == 12
    for place in (0, 5, 11):
        asked = surrogate.expected(lattice.points(place)).reshape(lattice.feasible.shape)
        np.testing.assert_allclose(mean[place][lattice.feasible], asked[lattice.feasible], atol=1e-5)


def test_draws_scatter_as_the_surrogate_says() -> None:
    known, box = problem()
    z = 0.4 * np.random.default_rng(3).standard_normal(len(known.prior.mean))
    surrogate, lattice = Surrogate(known, [Fit.of(known, z)] * 600, 0.0, 1.0), Lattice.of(box, 1.0)

    _, draws = draw_landscapes(surrogate, lattice, np.random.default_rng(0))

    for place in (1, 6, 10):
        mean, sd = surrogate.posterior(lattice.points(place))
        inside = lattice.feasible.ravel()
        drawn = draws[:, place].reshape(600, -1)[:, inside]
        assert np.abs((drawn.mean(axis=0) - mean[inside]) / sd[inside]).max() < 5 / np.sqrt(600)
        np.testing.assert_allclose(drawn.std(axis=0), sd[inside], rtol=0.15)


def test_the_lowest_of_the_draws_are_those_of_all_draws() -> None:
    known, box = problem()
    z = 0.4 * np.random.default_rng(3).standard_normal((4, len(known.prior.mean)))
    surrogate = Surrogate(known, [Fit.of(known, row) for row in z], 1.0, 2.0)
    lattice = Lattice.of(box, 0.5)

    mean, draws = draw_landscapes(surrogate, lattice, np.random.default_rng(5))
    same, lowest, each = draw_lowest(surrogate, lattice, np.random.default_rng(5))

    np.testing.assert_array_equal(same, mean)
    np.testing.assert_array_equal(lowest[:, 0], draws.min(axis=1))
    np.testing.assert_array_equal(each, draws.min(axis=(2, 3)))


@pytest.fixture(scope="module")
def told() -> Any:
    """The answer of 90 trials with a choice that matters and one that does not."""
    asked = space(**CHOSEN)
    default = Setting(1e-4, 1e-5, "mse", Choices(layer_decay=1.0, batch_size=64))
    return answer(table(90, 0.02, 0.15, **CHOSEN), NO_CURVES, asked, default, 2.0)


def test_the_answer_names_the_best_value_and_what_others_cost(told: Any) -> None:
    assert told.choice.choices["layer_decay"] == 0.75
    decay = told.options["layer_decay"]
    assert (decay.best, decay.standing) == (0.75, Mattering.MATTERS)
    for one in decay.values:
        assert one.cost.low <= (0.0 if one.value == 0.75 else 0.15) <= one.cost.high


def test_a_choice_that_does_not_matter_is_not_said_to(told: Any) -> None:
    size = told.options["batch_size"]

    assert size.standing is not Mattering.MATTERS
    assert all(abs(one.cost.value) < 0.05 for one in size.values)
    assert told.noise.shares["batch_size"] < 0.05 < told.noise.shares["layer_decay"]
    assert abs(sum(told.noise.shares.values()) - 1) < 1e-9


def test_a_value_without_complete_trials_is_noted() -> None:
    rows = table(12, 0.02, 0.0, layer_decay=[1.0])

    found = answer(rows, NO_CURVES, space(layer_decay=[1.0, 0.5]), None, 2.0)

    assert [note.name for note in found.notes if note.kind.value == "one_value"] == ["layer_decay 1"]


# --- the sampler


def test_the_sampler_finds_the_best_value_of_a_choice() -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=RatioSampler(seed=1, choices=("decay",), n_startup_trials=8))

    def loss(trial: optuna.Trial) -> float:
        lr = trial.suggest_float("lr", 1e-5, 1e-2, log=True)
        backbone_lr = trial.suggest_float("backbone_lr", 1e-6, 1e-3, log=True)
        decay = trial.suggest_categorical("decay", [1.0, 0.75, 0.5])
        return float((np.log10(lr) + 3) ** 2 + (np.log10(backbone_lr) + 4) ** 2 + (decay != 0.75))

    study.optimize(loss, n_trials=24)

    first = {trial.params["decay"] for trial in study.trials[:8]}
    later = [trial.params["decay"] for trial in study.trials[12:]]
    assert first == {1.0, 0.75, 0.5}
    assert later.count(0.75) > len(later) / 2


@pytest.mark.parametrize("kind", ["ratio", "tpe", "gp", "random"])
def test_every_sampler_suggests_choices(kind: str) -> None:
    spec = small_spec(space=SPACE, sampler={"kind": kind, "startup_trials": 4}, known=[])
    past: list[PastTrial] = []
    for slot in range(7):
        found = suggest(spec, slot, past)
        assert set(found.choices) == {"layer_decay", "batch_size"}
        assert all(value in spec.space.choices[name] for name, value in found.choices.items())
        curve = tuple(2.0 + slot / 10 + 1 / epoch for epoch in range(1, 7))
        past.append(PastTrial(slot, found, "finished", curve[-1], 6, curve=curve))


def test_a_head_that_trains_alone_first_is_given_time() -> None:
    pruner = Pruner(kind="median", warmup_epochs=2, startup_trials=1)

    def goes(head: int, epoch: int) -> bool:
        at = Setting(1e-3, 1e-4, "mse", Choices(head_epochs=head))
        run = UnderWay("search", Configuration.at(at, 0), epoch, 10, True, (9.0,))
        return goes_on(pruner, run, peers=lambda: Peers(5, 1.0), prospects=lambda: None)

    assert [goes(0, epoch) for epoch in (2, 3)] == [True, False]
    assert [goes(3, epoch) for epoch in (2, 3, 5, 6)] == [True, True, True, False]


# --- one search, from its worker to its words


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, Findings]:
    place = Place(tmp_path_factory.mktemp("choices"))
    place.open(24, space=SPACE, known=[])
    work(place.url, [NAME], below=24, settings=place.settings())
    engine = open_engine(place.url)
    return place, find_out(engine, NAME)


def test_plain_optuna_reads_the_choices_of_a_trial(searched: tuple[Place, Findings]) -> None:
    place, _ = searched

    trials = place.trials()

    assert len(trials) == 24
    assert {trial.params["layer_decay"] for trial in trials} == {1.0, 0.75, 0.5}
    assert trials[0].params["batch_size"] == 64
    assert trials[0].distributions["layer_decay"] == CategoricalDistribution((1.0, 0.75, 0.5))


def test_the_runs_of_a_search_have_what_their_trials_chose(searched: tuple[Place, Findings]) -> None:
    _, findings = searched
    complete = findings.trials[findings.trials["end"] == "finished"]

    lr, slow = np.log10(complete["lr"].astype(float)), np.log10(complete["backbone_lr"].astype(float))
    bowl = 2 + 0.3 * (lr + 3) ** 2 + 0.2 * (lr - slow - 1) ** 2 + 0.2 * (complete["loss"] == "mse")
    left = complete["value"].astype(float) - bowl - 3 * np.exp(-3)
    np.testing.assert_allclose(left, -0.5 * (complete["layer_decay"] == 0.75), atol=0.02)


def test_the_answer_says_choices_in_both_languages(searched: tuple[Place, Findings]) -> None:
    _, findings = searched
    choice = findings.answer.choice
    assert choice is not None

    english, chinese = "\n".join(answer_lines(findings)), "\n".join(answer_lines(findings, "zh"))

    said = f"layer_decay {choice.choices['layer_decay']:g}"
    assert f"the loss {choice.loss} with " in english
    assert said in english
    assert said in chinese
    for name in ("layer_decay", "batch_size"):
        assert f"{name} " in english
        assert set(findings.answer.to_json()["answer"]["choices"]) == {"layer_decay", "batch_size"}
        assert name in findings.answer.to_json()["options"] or findings.answer.zones is None


def test_records_have_a_column_for_each_choice(searched: tuple[Place, Findings]) -> None:
    place, findings = searched

    record = record_of(findings, place.url)

    assert record.choices == ("batch_size", "layer_decay")
    assert all(trial.parameters["layer_decay"] in {1.0, 0.75, 0.5} for trial in record.trials)


def test_a_confirmation_runs_what_was_chosen(searched: tuple[Place, Findings]) -> None:
    _, findings = searched
    choice = findings.answer.choice
    assert choice is not None

    first, *others = arms(findings, 1)

    assert first.choices == choice.choices
    assert first.configuration(1_000_000, 1e-5).choices == choice.choices
    baseline = next(arm for arm in others if arm.role == "baseline")
    assert baseline.choices == {"layer_decay": 1.0, "batch_size": 64}
    assert (
        findings.spec.run_spec(first.configuration(1, 1e-5)).recipe.layer_decay
        == choice.choices["layer_decay"]
    )


def test_a_confirmation_of_other_choices_is_another(searched: tuple[Place, Findings]) -> None:
    _, findings = searched

    other = replace(findings, trials=findings.trials.assign(layer_decay=0.5))

    assert Request().key(other) != Request().key(findings)


@pytest.mark.usefixtures("one_process")
def test_a_confirmation_goes_through_with_choices(searched: tuple[Place, Findings]) -> None:
    place, _ = searched
    engine = open_engine(place.url)
    request = Request(top=1, seeds=2)

    stored = confirm(
        engine,
        place.url,
        NAME,
        request,
        workers=1,
        settings=place.settings(),
        console=Console(quiet=True),
        words=SPOKEN["en"],
        scorer=analytic_trainer,
    )

    found = confirmation_of(engine, stored)
    chosen = found.arms[0].arm.choices
    assert set(chosen) == {"layer_decay", "batch_size"}
    assert found.to_json()["arms"][0]["choices"] == chosen
    assert f"layer_decay {chosen['layer_decay']:g}" in "\n".join(confirmation_lines(found))


def test_a_study_starts_from_the_leaders_of_one_with_choices(searched: tuple[Place, Findings]) -> None:
    place, _ = searched
    engine = open_engine(place.url)
    mine = small_spec(space={**SPACE, "layer_decay": [1, 0.75, 0.5], "batch_size": [64, 128]}, known=[])

    found = warm_settings(engine, [NAME], mine.space)
    without = warm_settings(engine, [NAME], small_spec(known=[]).space)

    assert all(set(setting.choices) == {"layer_decay", "batch_size"} for setting in found)
    assert all(setting.choices == {} for setting in without)


def test_a_diary_names_choices_or_has_a_recipes_own(tmp_path: Path) -> None:
    spec = small_spec(space=SPACE, known=[])
    file = tmp_path / "diary.csv"
    with file.open("w", newline="") as opened:
        csv.writer(opened).writerows(
            [("lr", "backbone_lr", "loss", "layer_decay"), (1e-3, 1e-4, "l1", 0.75), (1e-3, 1e-4, "l1", "")]
        )

    rows = read_diary(file, spec).rows

    assert [row.choices for row in rows] == [
        {"layer_decay": 0.75, "batch_size": 64},
        {"layer_decay": 1.0, "batch_size": 64},
    ]
    file.write_text(file.read_text().replace("0.75", "0.7"))
    with pytest.raises(
        UsageError, match=r"diary.csv:2: column layer_decay: 0.7; expected one of 1, 0.75, 0.5"
    ):
        read_diary(file, spec)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_pages_and_pictures_show_a_study_with_choices(
    searched: tuple[Place, Findings], language: Language
) -> None:
    _, findings = searched

    page = markdown(findings, language=language)
    told = side_by_side(findings, findings, language)

    assert "layer_decay" in page
    assert ("64 or 128" if language == "en" else "64或128") in page
    assert any("layer_decay" in row[1] for row in told)
    assert all(draw_figure(name, findings, None, language).axes for name in DRAWN)


def test_the_live_page_has_an_axis_for_each_choice(searched: tuple[Place, Findings]) -> None:
    place, findings = searched
    engine = open_engine(place.url)

    found = study_state(engine, findings.row, AnswerStore(engine), SPOKEN["en"])

    assert found["choices"] == {"batch_size": ["64", "128"], "layer_decay": ["1", "0.75", "0.5"]}
    first = next(one for one in found["trials"] if one["number"] == 0)
    assert first["choices"] == {"layer_decay": "1", "batch_size": "64"}
    assert first["loss_words"].startswith("mse with ")
