"""The whole report: one page that needs nothing else, every picture, two languages, confirmed or not."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import analytic_trainer
import numpy as np
import optuna
import pandas as pd
import pytest
import sqlalchemy as sa
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.text import Text
from optuna.importance import FanovaImportanceEvaluator, PedAnovaImportanceEvaluator
from optuna.trial import create_trial
from rich.console import Console
from small_study import NAME, Place, finished_study

from finetune.api import find_task
from hpo.analysis import importance as importance_module
from hpo.analysis.importance import fanova, ped_anova
from hpo.analysis.values import Answer, Noise, Note, NoteKind
from hpo.analysis.zones import Standing, WorthSource, Zone, Zones
from hpo.cli.app import main
from hpo.confirm import confirm
from hpo.confirm.arms import Request
from hpo.confirm.confirmed import Confirmation, judge, newest_confirmation
from hpo.confirm.verdicts import Look
from hpo.ledger.choice import Arm
from hpo.ledger.choice_book import Score, Scores
from hpo.reading.findings import Findings, Label, find_out
from hpo.report.answer import answer_lines
from hpo.report.confirmed import verdict_words
from hpo.report.figures.all import Style, draw_figure, figure_words, figures, render
from hpo.report.figures.search import importances_figure
from hpo.report.html import curves_csv, report_files, write_report
from hpo.report.language import SPOKEN, Language
from hpo.report.markdown import markdown
from hpo.report.page import report_page
from hpo.report.side_by_side import differences, statements, table
from hpo.storage import open_engine
from hpo.study import Space

SEARCHED = {"ratio", "zones", "rates", "curves", "seeds", "importances"}


NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e-?\d+)?")


class Links(HTMLParser):
    """Collects what a page refers to."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.links: list[str] = []
        self.feed(page.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.sources += [str(given["src"])] if "src" in given else []
        self.links += [str(given["href"])] if "href" in given else []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_study(tmp_path_factory.mktemp("searched"), total=30)


@pytest.fixture(scope="module")
def engine(place: Place) -> Iterator[sa.Engine]:
    engine = open_engine(place.url)
    yield engine
    engine.dispose()


@pytest.fixture(scope="module")
def findings(engine: sa.Engine) -> Findings:
    return find_out(engine, NAME)


@pytest.fixture(scope="module")
def page(findings: Findings, place: Place) -> dict[str, bytes]:
    return report_files(findings, place.url)


def classified(kind: str, seeds: int = 6) -> Confirmation:
    """Return a confirmation of a classification task: 40 records with 2 windows each, by formula."""
    task, rng = (
        find_task({"multiclass": "physionet2017", "multilabel": "ptb-xl"}[kind]),
        np.random.default_rng(0),
    )
    truth = rng.integers(0, task.outputs, 80)
    hot = np.eye(task.outputs)[truth]
    labels = truth[:, None].astype(float) if kind == "multiclass" else hot
    arms = [
        Arm("chosen", "choice", "full_finetuning", 1e-3, 1e-4, task.losses[0]),
        Arm("default", "baseline", "full_finetuning", 1e-4, 1e-5, task.losses[0]),
        Arm("class prior", "trivial", None),
    ]
    scores = []
    for place, sure in enumerate((0.8, 0.5, 0.0)):
        for seed in range(seeds):
            said = sure * hot + (1 - sure) * rng.dirichlet(np.ones(task.outputs), 80)
            scores.append(Score(place, seed, dict.fromkeys(task.metrics, 0.5), said.astype(np.float32)))
    found = Scores(labels, np.repeat([f"r{n:02d}" for n in range(40)], 2), tuple(scores))
    results = tuple(judge(task, arms, found, range(seeds), Look(1)))
    return Confirmation(
        "small",
        task,
        "0" * 64,
        0.0,
        1.0,
        tuple(range(seeds)),
        Look(1),
        1,
        results,
        (),
        (Label("synthetic"),),
        found,
    )


def test_the_page_needs_nothing_but_itself(page: dict[str, bytes]) -> None:
    links = Links(page["report.html"])

    assert len(links.sources) == len(SEARCHED)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in links.sources)
    assert set(links.links) == {"trials.csv", "curves.csv"} <= set(page)
    assert b"<script" not in page["report.html"]
    assert b"prefers-color-scheme: dark" in page["report.html"]
    assert b"@media print" in page["report.html"]


def test_a_browser_fetches_nothing_that_a_study_names_and_shows_all_that_is_in_the_page(
    tmp_path: Path,
) -> None:
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[dev]'")
    chromium = os.environ.get("HPO_TEST_CHROMIUM") or shutil.which("chromium")
    if chromium is None:
        pytest.skip("needs chromium: apt-get install chromium")
    spy = socket.create_server(("127.0.0.1", 0))
    address = f"http://127.0.0.1:{spy.getsockname()[1]}/p.png"
    text = f"![spy]({address})\n\n![ratio](ratio.png)\n\n| a | b |\n|---|--:|\n| 1 | 2 |\n"
    picture = (
        b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><style>rect{fill:red}</style></svg>'
    )
    file = tmp_path / "report.html"
    file.write_bytes(report_page("t", text, {"ratio": picture}))

    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = opened.new_page()
        view.goto(file.as_uri(), wait_until="load", timeout=120_000)
        widths = view.evaluate("[...document.images].map(image => image.naturalWidth)")
        styled = view.evaluate("getComputedStyle(document.querySelectorAll('td')[1]).textAlign")
        line = view.evaluate("getComputedStyle(document.querySelector('td')).borderTopWidth")
        opened.close()

    spy.settimeout(0)
    with spy, pytest.raises(BlockingIOError):
        spy.accept()
    assert widths == [0, 9]
    assert (styled, line) == ("right", "1px")


def test_every_picture_is_there_as_png_and_svg(page: dict[str, bytes]) -> None:
    for name in SEARCHED:
        assert page[f"{name}.png"].startswith(b"\x89PNG")
        assert b"<svg" in page[f"{name}.svg"]
        assert f"]({name}.png)" in page["report.md"].decode()


def test_a_picture_drawn_twice_has_the_same_bytes(findings: Findings) -> None:
    first, second = (render(draw_figure("curves", findings), "svg") for _ in range(2))

    assert first == second


def test_the_methods_name_n_seeds_spread_hardware_versions_and_the_command(page: dict[str, bytes]) -> None:
    method = page["report.md"].decode().split("## How this was made")[1]

    assert re.search(r"Search: 30 trials of \d+ configurations with \d+ different seeds", method)
    assert "Spread: one configuration with another seed differs by" in method
    assert "Hardware: cpu (" in method
    assert "torch " in method
    assert "the test split was not opened" in method
    assert "`hpo run small --trials 30`, then `hpo report --study small`" in method


@pytest.mark.parametrize(
    ("language", "told"),
    [
        ("en", "subjects 10 % (the fold that validates), seeds 40 %, configurations 50 %"),
        ("zh", "受试者（即验证折）10 %，随机种子 40 %，配置 50 %"),
    ],
)
def test_on_folds_the_variance_is_split_into_subjects_seeds_and_configurations(
    findings: Findings, language: Language, told: str
) -> None:
    shares = {"lr": 0.2, "backbone_lr": 0.2, "loss": 0.1, "seed": 0.4, "fold": 0.1}
    answer = replace(findings.answer, noise=Noise(0.3, "model", 0, shares))

    text = markdown(replace(findings, answer=answer), language=language)

    assert told in text
    assert "In three parts" not in markdown(findings)


def test_chinese_says_the_same_numbers_line_by_line(findings: Findings) -> None:
    english, chinese = answer_lines(findings), answer_lines(findings, "zh")

    assert len(english) == len(chinese)
    for line, said in zip(english, chinese, strict=True):
        assert sorted(NUMBER.findall(said)) == sorted(NUMBER.findall(line)), (line, said)
        assert re.search(r"[\u4e00-\u9fff]", said)


def test_the_chinese_report_is_chinese(findings: Findings) -> None:
    text = markdown(findings, sorted(SEARCHED), language="zh")

    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["结论", "对照", "试验", "方法"]
    assert "[模拟信号]" in text
    assert b'<html lang="zh-Hans">' in report_page(NAME, text, {}, "zh")


@pytest.mark.usefixtures("one_process")
def test_a_confirmation_brings_its_pictures_and_its_arms(place: Place, tmp_path: Path) -> None:
    engine, console = open_engine(place.url), Console(quiet=True)
    request = Request(top=1, seeds=6)
    confirm(
        engine,
        place.url,
        NAME,
        request,
        workers=1,
        settings=place.settings(),
        console=console,
        words=SPOKEN["en"],
        scorer=analytic_trainer,
    )
    found, findings = newest_confirmation(engine, NAME), find_out(engine, NAME)

    files = write_report(findings, place.url, tmp_path / "out", confirmation=found)
    chinese = markdown(findings, [], found, "zh")

    names = {file.name for file in files}
    assert {f"{name}.png" for name in SEARCHED | {"predicted", "bland_altman", "subjects"}} <= names
    text = (tmp_path / "out" / "report.md").read_text()
    assert "## Confirmation on the test split" in text
    assert "the test split has been looked at once" in text
    assert found is not None
    assert f"| {verdict_words(found, found.arms[0], SPOKEN['en'])} |" in text
    assert "## 测试集上的确认" in chinese
    assert f"| {verdict_words(found, found.arms[0], SPOKEN['zh'])} |" in chinese
    engine.dispose()


@pytest.mark.parametrize("kind", ["multiclass", "multilabel"])
def test_a_classification_has_curves_and_a_confusion(findings: Findings, kind: str) -> None:
    drawn = figures(findings, classified(kind))

    assert set(drawn) == SEARCHED | {"roc", "confusion", "subjects"}
    assert len(drawn["roc"].axes) == 2
    for name in ("roc", "confusion", "subjects"):
        file = render(drawn[name], "png")
        assert file.startswith(b"\x89PNG")


@pytest.mark.parametrize("state", ["running", "pruned", "diverged"])
def test_a_poor_study_has_every_picture_all_the_same(findings: Findings, state: str) -> None:
    trials, value = findings.trials.head(3), {"running": np.nan, "pruned": 3.0, "diverged": np.nan}[state]
    shown = "running" if state == "running" else "pruned"
    poor = trials.assign(state=shown, end=None if state == "running" else state, value=value)
    none = Answer({}, None, findings.trivial, notes=(Note(NoteKind.ALL_PRUNED, 3),))

    study = replace(findings, trials=poor, answer=none)
    drawn = figures(study)

    assert set(drawn) == SEARCHED
    assert all(render(drawn[name], "png").startswith(b"\x89PNG") for name in ("rates", "curves"))
    assert "these trials cannot say how much seeds differ" in markdown(study, list(drawn))


def test_two_studies_side_by_side_say_what_differs(findings: Findings) -> None:
    recipe = findings.spec.recipe.model_copy(update={"epochs": 9})
    other = replace(findings, spec=findings.spec.model_copy(update={"recipe": recipe}))

    assert differences(findings, findings) == []
    assert differences(findings, other) == ["recipe.epochs: 6 | 9"]
    said = " ".join(statements(findings, other))
    assert "+0.000 ±" in said
    assert "not more than its error" in said
    assert all(len(row) == 3 for row in table(findings, other))


@pytest.mark.parametrize("importance", [ped_anova, fanova])
def test_an_importance_needs_trials_that_differ_and_sums_to_one(
    findings: Findings, importance: Callable[[pd.DataFrame, Space], dict[str, float]]
) -> None:
    space = findings.spec.space
    rng = np.random.default_rng(0)
    lr = 10 ** rng.uniform(-6, -1, 60)
    trials = pd.DataFrame({"state": "complete", "lr": lr, "loss": "l1", "value": np.log10(lr) ** 2})
    trials = trials.assign(backbone_lr=10 ** rng.uniform(-7, -2, 60), seed=range(60))

    found = importance(trials, space)

    assert sum(found.values()) == pytest.approx(1)
    assert max(found, key=lambda name: found[name]) == "lr"
    assert importance(trials.head(5), space) == {}
    assert importance(trials.assign(value=1.0), space) == {}


def tried(space: Space, count: int) -> pd.DataFrame:
    """Return complete trials whose losses hang on every axis of a space."""
    rng = np.random.default_rng(count)
    lr, backbone_lr = 10 ** rng.uniform(-6, -1, count), 10 ** rng.uniform(-7, -2, count)
    named = {name: rng.integers(len(values), size=count) for name, values in space.choices.items()}
    found = pd.DataFrame({"state": "complete", "lr": lr, "backbone_lr": backbone_lr, "seed": range(count)})
    found["loss"] = [space.loss[place] for place in rng.integers(len(space.loss), size=count)]
    for name, places in named.items():
        found[name] = pd.Series([space.choices[name][place] for place in places], dtype=object)
    found["value"] = np.log10(lr) ** 2 + np.log10(backbone_lr) + sum(named.values()) + rng.normal(size=count)
    return found


SEVERAL = {"loss": ["l1", "mse", "smooth_l1"], "dropout": [None, 0.1], "weight_decay": [0, 0.01, 0.1]}


@pytest.mark.parametrize("more", [{}, SEVERAL], ids=["rates", "choices"])
def test_the_importances_are_optunas(findings: Findings, more: dict[str, Any]) -> None:
    space = Space.model_validate({**findings.spec.space.model_dump(exclude_unset=True), **more})
    trials = tried(space, 80)
    study = optuna.create_study()
    axes = importance_module._distributions(space)
    for row in trials.to_dict("records"):
        params = {name: row[name] for name in axes}
        study.add_trial(create_trial(params=params, distributions=axes, value=row["value"]))

    for ours, theirs in (
        (fanova, FanovaImportanceEvaluator(seed=0)),
        (ped_anova, PedAnovaImportanceEvaluator()),
    ):
        told = theirs.evaluate(study)
        shares = {name: value / sum(told.values()) for name, value in told.items()}
        assert ours(trials, space) == pytest.approx(shares, rel=1e-9, abs=1e-12)


def test_the_forest_of_a_large_study_takes_so_many_trials_of_all_of_it(
    findings: Findings, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = findings.spec.space
    trials = tried(space, 90)
    some = trials.iloc[np.linspace(0, 89, 30).round().astype(int)]
    whole, less = fanova(trials, space), fanova(some, space)
    monkeypatch.setattr(importance_module, "MOST_TRIALS", 30)

    assert fanova(trials, space) == less != whole


def test_a_language_that_there_is_not_is_the_users_fault(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main(["report", "--study", NAME, "--storage", place.url, "--lang", "fr"])

    assert status == 2
    assert "no language 'fr'; expected en or zh" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(SEARCHED))
@pytest.mark.parametrize(("kind", "magic"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("png", b"\x89PNG")])
def test_a_figure_is_drawn_by_its_name_into_a_file(
    place: Place, tmp_path: Path, name: str, kind: str, magic: bytes
) -> None:
    file = tmp_path / f"one.{kind}"

    status = main(["figure", name, "--study", NAME, "--storage", place.url, "--out", str(file)])

    assert status == 0
    assert file.read_bytes().startswith(magic)
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["rato", "--out", "a.pdf"], "no figure 'rato'"),
        (["ratio", "--out", "a.jpeg"], "a .pdf, .svg or .png file"),
        (["ratio", "--out", "a.pdf", "--style", "poster"], "no style 'poster'"),
        (["ratio", "--out", "a.pdf", "--lang", "fr"], "no language 'fr'"),
    ],
)
def test_a_figure_that_cannot_be_is_the_users_fault(
    place: Place, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    status = main(["figure", *words, "--study", NAME, "--storage", place.url])

    assert status == 2
    assert told in capsys.readouterr().err


def texts(figure: Figure) -> str:
    return "\n".join(text.get_text() for text in figure.findobj(Text))


@pytest.mark.parametrize("style", ["screen", "paper"])
def test_every_figure_says_that_its_signals_are_synthetic(findings: Findings, style: Style) -> None:
    for name in SEARCHED:
        assert "synthetic signals" in texts(draw_figure(name, findings, style=style)), name


def test_a_figure_may_be_named_behind_its_study(place: Place, tmp_path: Path) -> None:
    file = tmp_path / "ratio.svg"
    words = ["--storage", place.url, "--out", str(file)]

    assert main(["figure", NAME, "ratio", *words]) == 0
    assert file.exists()


def test_figures_are_chinese_where_a_font_is_there_and_english_with_a_word_where_not(
    findings: Findings, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    for font, told in ((None, "ratio lr / backbone_lr"), ("DejaVu Sans", "比值 lr / backbone_lr")):
        monkeypatch.setattr("hpo.report.figures.all.chinese_font", lambda font=font: font)

        assert told in texts(draw_figure("ratio", findings, language="zh"))
        text = markdown(findings, [], None, "zh", figures_in=figure_words("zh").language)
        assert ("图为英文" in text) is (font is None)


@pytest.mark.parametrize(
    ("name", "told"), [("zones", "too few"), ("rates", "too few"), ("importances", "too few")]
)
def test_too_few_trials_are_words_in_a_figure_and_no_map_and_no_bar(
    findings: Findings, name: str, told: str
) -> None:
    few = Note(NoteKind.FEW_COMPLETE, 9, 10)
    answer = Answer({"complete": 9}, findings.answer.best, findings.trivial, notes=(few,))

    drawn = draw_figure(name, replace(findings, answer=answer))

    assert told in texts(drawn)
    assert not drawn.findobj(QuadMesh)
    assert all(not axes.containers for axes in drawn.axes)


def test_the_seed_is_no_knob_that_mattered(findings: Findings) -> None:
    shares = {"lr": 0.4, "backbone_lr": 0.3, "loss": 0.1, "seed": 0.2}
    answer = replace(findings.answer, notes=(), noise=Noise(0.3, "model", 0, shares))
    optunas = {"ped_anova": {"lr": 0.5, "backbone_lr": 0.2, "loss": 0.1, "seed": 0.2}}

    drawn = importances_figure(replace(findings, answer=answer), optunas, SPOKEN["en"])

    ours, theirs = drawn.axes[0].containers
    assert [text.get_text() for text in drawn.axes[0].get_yticklabels()][-1] == "luck: the seed"
    assert ours[3].get_width() == pytest.approx(0.2)
    assert np.isnan(theirs[3].get_width())


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("style", ["screen", "paper"])
def test_no_legend_is_wider_than_its_figure(findings: Findings, language: Language, style: Style) -> None:
    good, worse = Standing.AS_GOOD, Standing.WORSE
    sure = (Zone(-4, -1, good), Zone(-1, 3, Standing.OPEN), Zone(3, 6, worse))
    likely = (Zone(-4, 1, good), Zone(1, 6, worse))  # every entry that there can be
    zones = Zones(sure, 0.0086, WorthSource.SEED_SD, likely)
    named = findings.spec.baseline.model_copy(update={"name": "published default"})
    spec = findings.spec.model_copy(update={"baseline": named})
    study = replace(findings, spec=spec, answer=replace(findings.answer, zones=zones))

    for name in sorted(SEARCHED):
        drawn = draw_figure(name, study, language=language, style=style)
        render(drawn, "png")
        for legend in drawn.legends:
            assert legend.get_window_extent().width <= drawn.bbox.width, name


def test_the_table_of_curves_is_what_pandas_writes() -> None:
    losses = [0.1, float("nan"), float("inf"), 3.0, 1e-20, 1e22]
    rows = {"number": range(6), "epoch": [1] * 6, "train_loss": losses, "validation_loss": losses[::-1]}
    curves = pd.DataFrame(rows)

    assert curves_csv(curves) == curves.to_csv(index=False)
    assert curves_csv(curves.head(0)) == curves.head(0).to_csv(index=False)
