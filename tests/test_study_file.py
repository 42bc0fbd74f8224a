"""Study files: what a good one gives, and what a bad one is told."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import SpecError, UnknownStudyError
from hpo.study import (
    Configuration,
    PublishedResult,
    Recipe,
    StudySpec,
    load_spec,
    parse_spec,
    shipped_studies,
    studies_folder,
)

GOOD = """\
name: mine
task: bidmc_rr
backbone: {name: cmssl_tiny_ppg}
space:
  lr: {low: 1e-5, high: 1e-2}
  backbone_lr: {low: 1e-6, high: 1e-2}
  loss: [mse, l1]
baseline: {name: published, lr: 1e-4, backbone_lr: 1e-5, loss: mse}
"""


def good_spec() -> StudySpec:
    spec, faults = parse_spec(GOOD)
    assert spec is not None, faults
    return spec


def faults_of(text: str) -> list[str]:
    spec, faults = parse_spec(text)
    assert spec is None
    return [f"{fault.line}: {fault.text}" for fault in faults]


def only_fault_of(text: str) -> str:
    faults = faults_of(text)
    assert len(faults) == 1, faults
    return faults[0]


def test_a_loss_stands_once_in_a_list() -> None:
    assert only_fault_of(GOOD.replace("[mse, l1]", "[mse, l1, mse]")) == "7: mse twice; expected it once"


@pytest.mark.parametrize("name", shipped_studies())
def test_every_shipped_study_loads_and_is_named_as_its_file(name: str) -> None:
    spec = load_spec(name)

    assert spec.name == name
    assert spec.title
    assert spec.space.lr.source
    assert spec.space.backbone_lr.source
    assert (spec.baseline.lr, spec.baseline.backbone_lr) == (1e-4, 1e-5)


def test_the_four_first_studies_are_shipped() -> None:
    assert {"bidmc_rr", "bidmc_hr", "synthetic_rr", "synthetic_hr"} <= set(shipped_studies())


def test_the_hand_tuned_runs_of_bidmc_hr_are_known_configurations() -> None:
    known = load_spec("bidmc_hr").known

    assert {round(one.lr / one.backbone_lr, 1) for one in known} == {10.0, 8.3, 6.7, 5.0, 3.3}


def test_shipped_studies_are_found_from_any_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert load_spec("bidmc_rr").task == "bidmc_rr"


def test_a_study_can_be_a_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(GOOD)

    assert load_spec(str(file)).name == "mine"


def test_an_unknown_study_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownStudyError, match=r"unknown study 'bidmc_r'.*did you mean bidmc_rr"):
        load_spec("bidmc_r")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UnknownStudyError, match=r"nothing\.yaml.*No such file"):
        load_spec(str(tmp_path / "nothing.yaml"))


def test_a_shipped_file_must_be_named_as_its_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "other.yaml").write_text(GOOD)
    monkeypatch.setattr("hpo.study.studies_folder", lambda: tmp_path)

    with pytest.raises(SpecError, match=r"other.yaml:1: name is 'mine'; expected 'other'"):
        load_spec("other")


def test_all_faults_of_a_file_are_told_at_once_with_their_lines(tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        GOOD.replace("task: bidmc_rr", "task: bidmc_rrr")
        .replace("backbone: {name: cmssl_tiny_ppg}", "backbone: {name: cmsl_tiny_ppg}")
        .replace("lr: {low: 1e-5, high: 1e-2}", "lr: {low: 1e-2, high: 1e-5}", 1)
        .replace("[mse, l1]", "[mse, l3]")
        + "bugdet: {trials: 3}\n"
    )

    with pytest.raises(SpecError) as caught:
        load_spec(str(file))

    lines = str(caught.value).splitlines()
    expected = [
        (2, "unknown task 'bidmc_rrr'", "did you mean bidmc_rr"),
        (3, "unknown backbone 'cmsl_tiny_ppg'", "did you mean cmssl_tiny_ppg"),
        (5, "space.lr: low 0.01 is not below high 1e-05", "expected low < high"),
        (7, "unknown loss 'l3'", "did you mean"),
        (9, "unknown key 'bugdet'", "did you mean budget"),
    ]
    assert len(lines) == len(expected)
    for line, (number, what, hint) in zip(lines, expected, strict=True):
        assert line.startswith(f"{file}:{number}: {what}")
        assert hint in line


@pytest.mark.parametrize(
    ("good", "bad", "told"),
    [
        ("lr: {low: 1e-5, high: 1e-2}", "lr: {low: 0, high: 1e-2}", "5: space.lr: low is 0.0; expected"),
        ("lr: {low: 1e-5, high: 1e-2}", "lr: {low: -1, high: 1e-2}", "5: space.lr: low is -1.0; expected"),
        ("lr: {low: 1e-5, high: 1e-2}", "lr: {low: 1e-5}", "5: missing key 'space.lr.high'"),
        ("lr: {low: 1e-5, high: 1e-2}", "lr: {low: .nan, high: 1}", "5: space.lr.low is nan; expected"),
        ("[mse, l1]", "[mse, bce]", "7: loss 'bce' does not fit task 'bidmc_rr'; expected one of mse"),
        ("[mse, l1]", "[]", "7: space.loss is []; expected"),
        (
            "baseline: {name: published, lr: 1e-4",
            "baseline: {name: published, lr: 1",
            "8: baseline.lr 1.0 is out",
        ),
        ("loss: mse}", "loss: huber}", "8: loss 'huber' is not in space.loss; expected one of mse, l1"),
        ("name: mine", "name: mine\nrecipe: {epochs: -1}", "2: recipe.epochs is -1; expected greater than 0"),
        ("name: mine", "name: mine\nmode: full_finetunin", "2: mode is 'full_finetunin'; expected"),
        (
            "cmssl_tiny_ppg",
            "heartgpt_ecg",
            "3: backbone 'heartgpt_ecg' is for ecg signals, task 'bidmc_rr' has ppg",
        ),
        (
            "cmssl_tiny_ppg",
            "heartgpt_ppg",
            "3: weights 'builtin' for backbone 'heartgpt_ppg'; expected the path",
        ),
        ("name: mine", "name: a b", "1: name is 'a b'; expected"),
        (
            "name: mine",
            "name: mine\nname: yours",
            "2: duplicate key 'name'; expected it once (first on line 1)",
        ),
        ("name: mine", "name: mine\nspace: {seed: {low: 5, high: 2}}", "5: duplicate key 'space'"),
        ("name: mine", "name: [mine", "2: not YAML"),
        ("name: mine", "name: &a mine\ntitle: *a", "2: not YAML: aliases are not read here"),
        ("name: mine", "name: mine\n? [a, b]\n: c", "2: not YAML: a key is no word"),
        ("[mse, l1]", "mse", "7: space.loss is 'mse'; expected a list"),
        (
            "name: mine",
            "name: mine\nrecipe: {epochs: true}",
            "2: recipe.epochs: it is true; expected a number",
        ),
        ("name: mine", "name: mine\nrecipe: {epochs: 1:30}", "2: recipe.epochs is '1:30'; expected integer"),
        ("name: mine", "name: mine\nsampler: {seed: yes}", "2: sampler.seed is 'yes'; expected integer"),
        ("name: mine", "name: mine\nrecipe: fast", "2: recipe is 'fast'; expected"),
        (
            "name: mine",
            "name: mine\nreplicate: {top: 0, seeds: 2}",
            "2: replicate.top is 0; expected greater",
        ),
        (
            "name: mine",
            "name: mine\nknown: [{nme: x, lr: 1e-4, backbone_lr: 1e-4, loss: l1}]",
            "known[0].nme",
        ),
    ],
)
def test_a_bad_value_is_told_with_its_line_and_what_was_expected(good: str, bad: str, told: str) -> None:
    faults = faults_of(GOOD.replace(good, bad, 1))

    assert any(told in fault for fault in faults), faults


@pytest.mark.parametrize(("written", "seed"), [("010", 10), ("0x10", 16), ("+7", 7), ("'8'", 8)])
def test_a_number_is_the_one_that_a_person_reads(written: str, seed: int) -> None:
    spec, _ = parse_spec(GOOD + f"sampler: {{seed: {written}}}\n")

    assert spec is not None
    assert spec.sampler.seed == seed


@pytest.mark.parametrize("name", ["no", "2024-01-01", "12:30", "1e5x"])
def test_a_word_is_a_word(name: str) -> None:
    spec, faults = parse_spec(GOOD.replace("name: mine", f"name: mine\ntitle: {name}", 1))

    assert spec is not None, faults
    assert spec.title == name


def test_a_file_without_a_baseline_says_so() -> None:
    assert only_fault_of(GOOD.split("baseline")[0]) == "1: missing key 'baseline'; expected it here"


def test_a_known_configuration_outside_the_space_is_a_fault() -> None:
    text = GOOD + "known: [{name: x, lr: 1e-1, backbone_lr: 1e-5, loss: l1}]\n"

    assert only_fault_of(text) == "9: known[0].lr 0.1 is outside the space; expected 1e-05 to 0.01"


@pytest.mark.parametrize("text", ["", "- a\n- b\n", "just words", "\x00"])
def test_a_file_that_is_no_study_is_one_line(text: str) -> None:
    assert only_fault_of(text)


def test_a_binary_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"\xff\xfe\xff")

    with pytest.raises(SpecError, match="not a text file in UTF-8"):
        load_spec(str(file))


def test_numbers_without_a_dot_are_numbers() -> None:
    assert good_spec().space.lr.low == 1e-5


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_yaml_is_a_study_or_gets_its_faults_told(value: object) -> None:
    spec, faults = parse_spec(yaml.safe_dump(value))

    assert (spec is None) == bool(faults)


@given(
    st.sampled_from(sorted(set(yaml.safe_load(GOOD)) | {"recipe", "known", "inputs", "title"})),
    st.text(max_size=5),
)
def test_any_value_of_any_key_is_read_or_told(key: str, value: str) -> None:
    spec, faults = parse_spec(yaml.safe_dump(yaml.safe_load(GOOD) | {key: value}))

    assert (spec is None) == bool(faults)


def test_a_spec_survives_json() -> None:
    spec = load_spec("bidmc_hr")

    again = StudySpec.model_validate(json.loads(spec.model_dump_json()))

    assert again == spec
    assert again.fingerprint() == spec.fingerprint()


def test_the_fingerprint_ignores_texts_and_the_budget() -> None:
    spec = good_spec()
    reworded = spec.model_copy(
        update={
            "name": "other",
            "title": "words",
            "notes": "words",
            "published": (PublishedResult(name="x", metrics={"mae": 1.0}, source="y"),),
            "budget": spec.budget.model_copy(update={"trials": 7}),
            "baseline": spec.baseline.model_copy(update={"source": "elsewhere"}),
        }
    )

    assert reworded.fingerprint() == spec.fingerprint()
    assert spec.differences(reworded) == []


@pytest.mark.parametrize(
    ("part", "change", "told"),
    [
        ("recipe", {"epochs": 3}, "recipe.epochs: 20 here, 3 there"),
        ("backbone", {"weights": "none"}, "backbone.weights: builtin here, none there"),
        ("validation", {"kind": "grouped_folds"}, "validation.kind: reference here, grouped_folds there"),
        ("inputs", {"train_subjects": 5}, "inputs.train_subjects: None here, 5 there"),
        ("inputs", {"every": 4}, "inputs.every: nothing here, 4 there"),
        ("sampler", {"kind": "random"}, "sampler.kind: ratio here, random there"),
        ("pruner", {"kind": "none"}, "pruner.kind: improvement here, none there"),
        ("baseline", {"lr": 2e-4}, "baseline.lr: 0.0001 here, 0.0002 there"),
    ],
)
def test_the_fingerprint_knows_what_changes_a_result(part: str, change: dict[str, object], told: str) -> None:
    spec = good_spec()
    other = spec.model_copy(update={part: getattr(spec, part).model_copy(update=change)})

    assert other.fingerprint() != spec.fingerprint()
    assert [str(one) for one in spec.differences(other)] == [told]


def test_key_order_and_number_spelling_do_not_change_the_fingerprint() -> None:
    values = yaml.safe_load(GOOD.replace("1e-5", "0.00001"))
    reordered = yaml.safe_dump(values, sort_keys=True)

    spec, _ = parse_spec(reordered)

    assert spec is not None
    assert spec.fingerprint() == good_spec().fingerprint()


def test_a_spec_gives_the_run_of_a_configuration() -> None:
    spec = good_spec().model_copy(update={"recipe": Recipe(epochs=7, patience=2)})

    run = spec.run_spec(Configuration(lr=1e-3, backbone_lr=1e-4, loss="l1", seed=12))

    assert (run.inputs.task, run.inputs.samples, run.inputs.folds) == ("bidmc_rr", 1250, None)
    assert (run.recipe.epochs, run.recipe.patience) == (7, 2)
    assert (run.lr, run.backbone_lr, run.loss, run.seed) == (1e-3, 1e-4, "l1", 12)
    assert run.fold is None


def test_grouped_folds_reach_the_run() -> None:
    spec = good_spec()
    folded = spec.model_copy(
        update={"validation": spec.validation.model_copy(update={"kind": "grouped_folds", "k": 5})}
    )

    assert folded.run_spec(Configuration(1e-3, 1e-4, "l1", 12)).fold == 2


def test_the_ratio_is_the_heads_rate_over_the_backbones() -> None:
    assert Configuration(lr=1e-3, backbone_lr=1e-4, loss="l1", seed=0).ratio == pytest.approx(10)


def test_reading_a_study_loads_neither_torch_nor_optuna_nor_pandas(tmp_path: Path) -> None:
    code = (
        "import sys, hpo.study; hpo.study.load_spec('bidmc_rr');"
        "print(*{'torch', 'optuna', 'pandas', 'sqlalchemy'} & set(sys.modules))"
    )
    environment = os.environ | {"PYTHONPATH": str(studies_folder().parent)}

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )

    assert (done.stdout, done.stderr, done.returncode) == ("\n", "", 0)


# --- a rate that is fixed, or one of a few


def with_rates(lr: str, backbone_lr: str) -> str:
    text = GOOD.replace("lr: {low: 1e-5, high: 1e-2}", f"lr: {lr}", 1)
    return text.replace("backbone_lr: {low: 1e-6, high: 1e-2}", f"backbone_lr: {backbone_lr}", 1)


def test_a_rate_may_be_a_number_or_a_list() -> None:
    spec, faults = parse_spec(with_rates("1e-4", "[3e-5, 1e-5]"))

    assert spec is not None, faults
    assert (spec.space.lr.values, spec.space.backbone_lr.values) == ((1e-4,), (1e-5, 3e-5))
    assert StudySpec.model_validate_json(spec.model_dump_json()) == spec
    assert spec.fingerprint() != good_spec().fingerprint()


@pytest.mark.parametrize(
    ("lr", "told"),
    [
        ("fast", "5: space.lr: it is 'fast'; expected a rate, a list of rates, or {low: ..., high: ...}"),
        ("[]", "5: space.lr: it is []; expected a rate, a list of rates, or {low: ..., high: ...}"),
        ("[1e-4, quick]", "5: space.lr: [0.0001, 'quick']; expected numbers alone"),
        ("true", "5: space.lr: it is True; expected a rate, a list of rates, or {low: ..., high: ...}"),
        ("0", "5: space.lr: low is 0.0; expected a number above 0 (the range is logarithmic)"),
        ("1e-3", "8: baseline.lr 0.0001 is outside the space; expected 0.001"),
    ],
)
def test_a_wrong_rate_is_told_in_the_users_words(lr: str, told: str) -> None:
    text = GOOD.replace("lr: {low: 1e-5, high: 1e-2}", f"lr: {lr}", 1)

    assert told in faults_of(text)


@pytest.mark.parametrize("kind", ["ratio", "gp", "tpe", "random"])
def test_every_sampler_keeps_to_the_rates_that_a_study_lists(kind: str) -> None:
    from hpo.search import PastTrial, suggest

    spec, _ = parse_spec(
        with_rates("1e-4", "[1e-5, 1e-4, 1e-3]") + f"sampler: {{kind: {kind}, startup_trials: 6}}\n"
    )
    assert spec is not None
    past: list[PastTrial] = []
    for slot in range(10):
        found = suggest(spec, slot, past)
        past.append(PastTrial(slot, found, "finished", 2.0 + slot % 3, 3, curve=(3.0, 2.5, 2.0 + slot % 3)))

    assert {trial.configuration.lr for trial in past} == {1e-4}
    assert {trial.configuration.backbone_lr for trial in past} <= {1e-5, 1e-4, 1e-3}
    assert len({trial.configuration.backbone_lr for trial in past}) > 1
