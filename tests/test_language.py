"""Values become words at the edge, in two languages with the same keys, and no word is ever read back."""

from __future__ import annotations

import ast
import json
import pickle
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from string import Formatter
from typing import Any, get_args

import pytest
from rich.console import Console
from small_study import NAME, Place, small_spec

from hpo import errors
from hpo.analysis.matters import Mattering
from hpo.analysis.values import Against, NoteKind
from hpo.analysis.zones import Standing
from hpo.cli.app import main
from hpo.confirm.verdicts import Doubt, Finding
from hpo.errors import Said, UsageError
from hpo.fleet.child import _fault, _packed
from hpo.report.chinese import CHINESE
from hpo.report.chinese_faults import FAULTS
from hpo.report.english import ENGLISH
from hpo.report.figures.all import DRAWN
from hpo.report.language import SPOKEN, Words
from hpo.report.zones import SURE_OR_LIKELY
from hpo.search_here import launch
from hpo.storage import open_engine
from hpo.worker import work

HPO = Path(__file__).resolve().parent.parent / "hpo"
MODULES = sorted(path for path in HPO.rglob("*.py") if "migrations" not in path.parts)


def fields(sentence: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(sentence) if name is not None}


def test_both_tables_have_the_same_keys() -> None:
    assert ENGLISH.keys() - CHINESE.keys() == set()
    assert CHINESE.keys() - ENGLISH.keys() == set()


def test_a_sentence_has_the_same_parts_in_both_languages() -> None:
    may_miss = {key: {"n"} if key.endswith((".one", ".many")) else set() for key in ENGLISH}

    assert [
        key
        for key, unsaid in may_miss.items()
        if fields(ENGLISH[key]) - unsaid != fields(CHINESE[key]) - unsaid
    ] == []


@pytest.mark.parametrize("table", [ENGLISH, CHINESE], ids=["en", "zh"])
def test_what_is_counted_can_be_one_and_many(table: Mapping[str, str]) -> None:
    stems = {
        key.removesuffix(".one").removesuffix(".many") for key in table if key.endswith((".one", ".many"))
    }

    assert {f"{stem}.{number}" for stem in stems for number in ("one", "many")} <= table.keys()


@pytest.mark.parametrize(
    "keys",
    [
        *([f"note.{kind.value}.{n}" for n in ("one", "many")] for kind in NoteKind),
        *([f"figure.zone.{standing.value}"] for standing in Standing),
        *(
            [f"figure.likely.{standing.value}", *SURE_OR_LIKELY[standing]]
            for standing in Standing
            if standing is not Standing.OPEN
        ),
        *([f"confirmed.choice.{finding.value}", f"verdict.{finding.value}"] for finding in Finding),
        *([f"doubt.{doubt.value}"] for doubt in Doubt),
        *([f"arm.{role}"] for role in ("choice", "luckiest", "from_scratch", "linear_probing", "trivial")),
        *([f"answer.{against}"] for against in get_args(Against)),
        *([f"caption.{name}"] for name in DRAWN),
        ["matters.matters", "matters.does_not_matter", "matters.open"],
    ],
    ids=lambda keys: keys[0],
)
def test_every_value_of_the_core_has_its_words(keys: list[str]) -> None:
    assert set(keys) <= ENGLISH.keys()
    assert len(Mattering) == 3


# --- keys that are said are in the table, and those in the table are said


def said_in(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield each key that a module says, up to its first computed part, and whether it is counted."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if node.func.attr not in {"say", "count", "name"}:
            continue
        first = node.args[0]
        for one in [first.body, first.orelse] if isinstance(first, ast.IfExp) else [first]:
            if isinstance(one, ast.Constant) and isinstance(one.value, str):
                dot = "." if node.func.attr == "name" else ""
                yield one.value + dot, node.func.attr == "count"
            elif isinstance(one, ast.JoinedStr) and isinstance(one.values[0], ast.Constant):
                yield str(one.values[0].value), node.func.attr == "count"


SAID = {key for path in MODULES for key in said_in(path)}


def test_whatever_is_said_is_in_the_table() -> None:
    unknown = {
        key
        for key, is_counted in SAID
        if not key.endswith(".") and (f"{key}.one" if is_counted else key) not in ENGLISH
    }

    said = {key for key in unknown if not any(known.startswith(key) for known in ENGLISH)}
    assert {key for key in said if "." in key} == set()  # of text.count("@") we know nothing


def mentioned_in(path: Path) -> Iterator[str]:
    """Yield each text of a module, of a computed one its beginning."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_whatever_is_in_the_table_is_said() -> None:
    modules = [path for path in MODULES if path.stem not in {"english", "chinese"}]
    whole = {text for path in modules for text in mentioned_in(path)}
    named = {key for key, _ in SAID if key.endswith(".")}
    begins = tuple(named | {text for text in whole if re.fullmatch(r"(?:[a-z_]+\.)+", text)})
    stems = {key: key.removesuffix(".one").removesuffix(".many") for key in ENGLISH}

    assert [key for key, stem in stems.items() if stem not in whole and not key.startswith(begins)] == []


# --- what errors say

WORDY = re.compile(r"[A-Za-z]{2}")
FAULTY = {"Said", "Fault", "file_fault", "at"} | {
    name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.UserError)
}
ENGLISH_ONLY = {"cuda:0"}  # names


def faults_in(tree: ast.Module) -> Iterator[tuple[ast.Call, ast.expr]]:
    """Yield what a module's errors are made of, with the names and alternatives that stand for it."""
    given: dict[str, list[ast.expr]] = {}
    for node in ast.walk(tree):
        for target in node.targets if isinstance(node, ast.Assign) else []:
            several = isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple)
            pairs = zip(target.elts, node.value.elts, strict=False) if several else [(target, node.value)]
            for name, value in pairs:
                given.setdefault(ast.unparse(name), []).extend(alternatives(value))
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in FAULTY:
            said = (
                node.args[:1] if node.func.id == "Said" else [*node.args, *(k.value for k in node.keywords)]
            )
            for one in (part for argument in said for part in alternatives(argument)):
                for part in given.get(one.id, [one]) if isinstance(one, ast.Name) else [one]:
                    yield node, part


def value_of(keyword: ast.keyword) -> ast.expr:
    return keyword.value


def alternatives(node: ast.expr) -> list[ast.expr]:
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else getattr(node, "elts", None)
    return [node] if parts is None else [one for part in parts for one in alternatives(part)]


def untold(source: str) -> list[str]:
    """Return what errors of a module say that no table has: made of f-strings, or without a translation."""
    found = []
    for call, part in faults_in(ast.parse(source)):
        if isinstance(part, ast.JoinedStr):
            found.append(f"{call.lineno}: {ast.unparse(part)}")
        if isinstance(part, ast.Constant) and isinstance(part.value, str):
            plain = (
                "".join(text for text, *_ in Formatter().parse(part.value)) if call.keywords else part.value
            )
            if WORDY.search(plain) and part.value not in {*FAULTS, *ENGLISH_ONLY}:
                found.append(f"{call.lineno}: {part.value}")
    return found


def test_every_error_is_told_in_chinese() -> None:
    told = {path.name: untold(path.read_text(encoding="utf-8")) for path in MODULES}

    assert {name: found for name, found in told.items() if found} == {}


@pytest.mark.parametrize(
    "planted",
    [
        'raise UsageError("no such thing as this")',
        'raise UsageError(f"no study is named {name}")',
        'what = Said("this is new: {name}", name=name)\nraise UsageError(what)',
        'more = "a new word"\nraise UsageError("no study is named", more if more else "one")',
    ],
)
def test_the_guard_sees_an_error_that_is_not_told(planted: str) -> None:
    assert untold(planted) != []


def test_an_error_has_the_same_parts_in_both_languages() -> None:
    def put_in(sentence: str) -> set[str]:
        return fields(sentence) if "{low: ..." not in sentence else set()

    assert [english for english, chinese in FAULTS.items() if put_in(english) != put_in(chinese)] == []


def test_a_translated_error_is_raised_somewhere() -> None:
    root = HPO.parent
    modules = [*MODULES, *sorted((root / "finetune").rglob("*.py"))]
    said = {text for path in modules if path.stem != "chinese_faults" for text in mentioned_in(path)}

    assert [english for english in FAULTS if english not in said and not english.startswith("{part0}")] == []


def test_an_error_keeps_its_parts_between_processes() -> None:
    near = Said.listed(["bidmc_hr", "bidmc_rr"], " or ")
    error = UsageError(
        Said("no study {name!r}", name="{x}"), "a {brace}", Said("did you mean {near}?", near=near)
    )

    again = pickle.loads(pickle.dumps(error))

    assert str(again) == str(error)
    assert SPOKEN["zh"].fault(again) == SPOKEN["zh"].fault(error) != str(error)
    assert SPOKEN["en"].fault(error) == str(error)
    assert (
        _fault({"kind": "UsageError", "parts": [_packed(part) for part in parts_of(error)]}).args
        == error.args
    )


def parts_of(error: errors.UserError) -> list[str]:
    return [error.what, error.expected, error.next_step]


# --- no module reads a sentence

READING = {
    "startswith",
    "endswith",
    "replace",
    "removeprefix",
    "removesuffix",
    "partition",
    "rpartition",
    "split",
    "find",
}
MACHINES = {
    # what is read here was written by machines or typed by a person: formats, no sentences
    ("alerts/delivery.py", "*"),
    ("cli/app.py", "--lang="),
    ("cli/terminal.py", "sqlite:///"),
    ("dashboard/login.py", "*"),
    ("dashboard/door.py", "*"),
    ("dashboard/front.py", "*"),
    ("dashboard/kept_studies.py", "*"),  # addresses
    ("dashboard/optunas.py", "*"),
    ("dashboard/__init__.py", " "),
    ("dashboard/answer_page.py", "/answer"),
    ("dashboard/answer_page.py", "/answer/"),
    ("dashboard/answering.py", "*"),
    ("dashboard/reader.py", "zh"),
    ("diary/file.py", "*"),
    ("fleet/seats.py", "*"),
    ("fleet/machine.py", "*"),
    ("fleet/__init__.py", "cuda"),
    ("storage/schema.py", "*"),
    ("storage/address.py", "*"),
    ("storage/engine.py", "*"),
    ("cli/quick.py", "*"),
    ("storage/mounts.py", "*"),
    ("search_here.py", "re"),
    ("study/yaml_lines.py", "*"),
    ("report/page.py", "body.replace(f'src=\"{name}.png\"', f'src=\"data:image/svg+xml;base64,{inside}\"')"),
    ("report/page.py", "body.replace(wide, wide.replace('>', ' tabindex=\"0\">', 1))"),
    ("report/page.py", ' tabindex="0">'),
    ("report/html.py", "nan"),
    ("worker/__init__.py", "out of memory"),
    ("worker/__init__.py", "can't allocate memory"),
}


def readings(source: str, *, is_core: bool) -> list[str]:
    """Return each place of a module that reads a sentence: searches, cuts, compares or replaces words of one.

    ``is_core``: where sentences are made or what they are made of, any rewriting of a text is one.
    """
    tree = ast.parse(source)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    found = {told: None for node in ast.walk(tree) for told in _reading(node, set(), is_core=is_core)}
    for scope in [tree, *functions]:
        lines = _lines_of(scope)
        found |= {told: None for node in ast.walk(scope) for told in _reading(node, lines, is_core=is_core)}
    return list(found)


def _lines_of(scope: ast.Module | ast.FunctionDef) -> set[str]:
    """Return the names to which a scope's own statements give lines for a person."""
    own = scope.body if isinstance(scope, ast.Module) else [scope]
    nodes = [
        node
        for one in own
        if isinstance(scope, ast.FunctionDef) or not _defines(one)
        for node in ast.walk(one)
    ]
    return {
        target.id
        for node in nodes
        if isinstance(node, ast.Assign) and _gives_lines(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _defines(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef)


def _gives_lines(node: ast.expr) -> bool:
    """Return whether an expression is lines for a person: what ``..._lines`` and ``say`` return."""
    if isinstance(node, ast.IfExp):
        return _gives_lines(node.body) or _gives_lines(node.orelse)
    name = node.func if isinstance(node, ast.Call) else None
    text = name.attr if isinstance(name, ast.Attribute) else name.id if isinstance(name, ast.Name) else ""
    return text.endswith(("_lines", "_words")) or text in {"say", "headline"}


def _reading(node: ast.AST, lines: set[str], *, is_core: bool) -> Iterator[str]:
    if isinstance(node, ast.Import) and any(name.name == "re" for name in node.names):
        yield "re"
    if isinstance(node, ast.Subscript):
        of = node.value
        if _gives_lines(of) or (isinstance(of, ast.Name) and of.id in lines):
            yield ast.unparse(node)
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
        texts = [one.value for one in sides if isinstance(one, ast.Constant) and isinstance(one.value, str)]
        yield from (text for text in texts if " " in text and text not in get_args(Against))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READING:
        texts = [
            one.value for one in node.args if isinstance(one, ast.Constant) and isinstance(one.value, str)
        ]
        yield from (text for text in texts if re.search(r"[A-Za-z\u4e00-\u9fff]{2}", text))
        is_rewriting = node.func.attr == "replace" and len(node.args) > 1
        if is_rewriting and is_core and not texts:
            yield ast.unparse(node)


def read_in(path: Path) -> list[str]:
    """Return the places of a module that read a sentence, but for what machines wrote."""
    place = path.relative_to(HPO).as_posix()
    is_core = place.startswith(("report/", "analysis/", "reading/", "confirm/", "search/"))
    allowed = {literal for module, literal in MACHINES if module == place}
    found = readings(path.read_text(encoding="utf-8"), is_core=is_core)
    return [f"{place}: {one}" for one in found if "*" not in allowed and one not in allowed]


def test_no_module_reads_a_sentence() -> None:
    assert [one for path in MODULES for one in read_in(path)] == []


@pytest.mark.parametrize(
    "planted",
    [
        'enough = "needs at least" not in " ".join(notes)',
        'if words.startswith("cannot"):\n    pass',
        'said = words.replace("told apart", "told apart from the default", 1)',
        "lines = confirmation_lines(found)\nsaid = [lines[0], *lines[1 + arms :]]",
        'kept = [line for line in lines if not line.startswith("published: ")]',
        "import re",
        "label = label.replace(english, chinese)",
        'if headline(found) == "no better than a constant":\n    pass',
        'first = words.say("answer.none")[:20]',
    ],
)
def test_the_guard_sees_a_sentence_that_is_read(planted: str) -> None:
    assert readings(planted, is_core=True) != []


# --- and so rewording changes no answer


@pytest.fixture
def gibberish(monkeypatch: pytest.MonkeyPatch) -> None:
    table = {
        key: " ".join(["Xq", *(f"{{{name}}}" for name in sorted(fields(sentence), reverse=True))])
        for key, sentence in ENGLISH.items()
    }
    monkeypatch.setitem(SPOKEN, "en", Words("en", table))  # type: ignore[arg-type]


KNOWN = {"budget": {"trials": 60, "known_within": 300.0}, "pruner": {"kind": "none"}}
TEXTS = {"notes", "statement", "storage", "differences", "files", "frozen_at", "scored_at"}


def decided(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[Any]:
    """Search until the ratio is known, report and compare; return all that was decided, without texts."""
    folder.mkdir()
    place = Place(folder)
    place.open(60, **KNOWN)  # by this process, whose words are reworded
    work(place.url, [NAME], settings=place.settings())
    launched = launch(
        small_spec(**KNOWN),
        place.url,
        total=60,
        workers=1,
        settings=place.settings(),
        console=Console(quiet=True),
    )
    outcomes: list[Any] = [launched.known_within, launched.findings.counts.finished]
    out, storage = str(folder / "out"), ["--storage", place.url, "--json"]
    for words in (["report", "--study", NAME, "--out", out], ["compare", NAME, NAME]):
        assert main([*words, *storage]) == 0
        outcomes.append(_values(json.loads(capsys.readouterr().out)))
    engine = open_engine(place.url)
    engine.dispose()
    outcomes.append([(row.slot, row.config, row.value) for row in place.slots()])
    return outcomes


def _values(found: Any) -> Any:
    if isinstance(found, dict):
        return {key: _values(value) for key, value in found.items() if key not in TEXTS}
    return [_values(value) for value in found] if isinstance(found, list) else found


@pytest.mark.usefixtures("one_process")
def test_rewording_changes_no_answer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> None:
    worded = decided(tmp_path / "worded", capsys)
    request.getfixturevalue("gibberish")

    assert decided(tmp_path / "gibberish", capsys) == worded
