"""Study files of any content: one line a fault, never a traceback, never a number that cannot be meant."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.study import parse_spec, shipped_studies, studies_folder
from hpo.study.yaml_lines import LONGEST

TEXT = (studies_folder() / "synthetic_hr.yaml").read_text()


def changed(path: tuple[str, ...], value: object) -> str:
    document = yaml.safe_load(TEXT)
    part = document
    for key in path[:-1]:
        part = part.setdefault(key, {})
    part[path[-1]] = value
    return yaml.safe_dump(document)


NUMBERS = [
    *(("inputs", key) for key in ("samples", "train_subjects", "every")),
    *(("recipe", key) for key in ("epochs", "batch_size", "patience", "weight_decay", "max_grad_norm")),
    *(("pruner", key) for key in ("warmup_epochs", "startup_trials")),
    *(("sampler", key) for key in ("startup_trials", "seed")),
    ("budget", "trials"),
    ("space", "lr", "high"),
    ("space", "backbone_lr", "high"),
    ("baseline", "lr"),
    ("baseline", "backbone_lr"),
]


@pytest.mark.parametrize("path", NUMBERS, ids=".".join)
@pytest.mark.parametrize("value", [10**12, 1e300, -1, float("inf"), float("nan")], ids=str)
def test_every_number_has_bounds(path: tuple[str, ...], value: float) -> None:
    if path[-1] == "max_grad_norm" and value == 10**12:
        return  # a norm that never clips is meant
    spec, faults = parse_spec(changed(path, value))

    assert spec is None
    assert any(path[-1] in fault.text or str(value)[:4] in fault.text for fault in faults), faults


def test_a_rate_that_no_float_has_is_refused() -> None:
    spec, faults = parse_spec(changed(("space", "lr", "low"), 1e-300))

    assert spec is None
    assert "expected at least 1e-30" in faults[0].text


@pytest.mark.parametrize("name", shipped_studies())
def test_the_shipped_studies_are_within_the_bounds(name: str) -> None:
    spec, faults = parse_spec((studies_folder() / f"{name}.yaml").read_text())

    assert spec is not None, faults


BOMBS = {
    "deep lists": "[" * 5000,
    "deep mappings": "{a: " * 3000,
    "deep and closed": "name: " + "[" * 2000 + "]" * 2000,
    "aliases": "a: &a [1]\nb: [*a, *a]\n",
    "an alias of itself": "a: &a [*a]\n",
    "huge": "# " + "x" * LONGEST,
    "a date that is none": "name: 2020-13-45\n",
    "a number of 5,000 digits": "name: " + "9" * 5000,
    "bytes that are none": "name: !!binary x\n",
    "a Python object": "name: !!python/object/apply:os.system [true]\n",
    "a set": "name: !!set {a}\n",
    "two documents": "a: 1\n---\nb: 2\n",
    "a key that is a list": "? [a, b]\n: 1\n",
    "a tab": "name:\tx\n\ty: 1\n",
    "control characters": "name: \x00\x07\n",
    "nothing": "",
    "a merge": "<<: {a: 1}\nname: x\n",
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_file_that_is_made_to_break_is_a_line_a_fault(bomb: str) -> None:
    spec, faults = parse_spec(BOMBS[bomb])

    assert spec is None
    assert faults
    assert all(len(fault.text) < 2000 for fault in faults)


LINES = TEXT.splitlines()
JUNK = st.one_of(
    st.sampled_from(
        ["1e400", "-0", "~", "!!float x", "[1, 2", "{a: b}", "&a", "*a", "'", '"', "2020-99-99", "0x", "1_0"]
    ),
    st.text(max_size=12),
    st.floats().map(str),
    st.integers().map(str),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, len(LINES) - 1), st.integers(0, 2), JUNK), min_size=1, max_size=4))
def test_any_change_of_a_study_is_a_study_or_faults_with_lines(changes: list[tuple[int, int, str]]) -> None:
    lines = list(LINES)
    for place, how, junk in changes:
        key = lines[place].partition(":")[0]
        lines[place] = [f"{key}: {junk}", f"{lines[place]}{junk}", junk][how]
    spec, faults = parse_spec("\n".join(lines))

    assert (spec is None) == bool(faults)
    assert all(1 <= fault.line <= len(lines) + 20 and fault.text for fault in faults)
