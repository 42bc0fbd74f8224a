"""The dashboard in a real browser: log in, open a study, see its history, note and figure, fail to delete."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_study import NAME, Place, finished_study
from web import TOKEN, served

from hpo.cli.app import main
from hpo.dashboard import Access, PageKeeper, build
from hpo.storage import open_engine

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install '.[dev]'")
CHROMIUM = os.environ.get("HPO_TEST_CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="needs chromium: apt-get install chromium"),
]
WAIT_MS = 120_000


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return finished_study(tmp_path_factory.mktemp("study"), total=14)


@pytest.fixture(scope="module")
def address(place: Place) -> Iterator[str]:
    """A dashboard for the whole network, as far as its door is concerned."""
    engine = open_engine(place.url)
    PageKeeper(engine).refresh()
    with served(build(place.url, engine, Access("0.0.0.0", token=TOKEN))) as port:
        yield f"http://localhost:{port}"
    engine.dispose()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        # No sandbox: in a container, and as root, chromium cannot make one.
        opened = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def stranger(browser: playwright.Browser) -> Iterator[playwright.Page]:
    """A page of somebody who has not logged in; a script that fails in it fails the test."""
    context = browser.new_context(viewport={"width": 1300, "height": 1000})
    context.set_default_timeout(WAIT_MS)
    page, faults = context.new_page(), list[str]()
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda said: faults.append(said.text) if "Content Security" in said.text else None)
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def page(stranger: playwright.Page, address: str) -> playwright.Page:
    """A page of somebody who opened the printed address."""
    stranger.goto(f"{address}/?token={TOKEN}")
    return stranger


def test_a_person_logs_in_with_the_form(stranger: playwright.Page, address: str) -> None:
    answer = stranger.goto(f"{address}/dashboard/studies/1")
    assert answer is not None
    assert answer.status == 401
    stranger.get_by_label("Token").fill("a guess of the token")
    stranger.get_by_role("button", name="Log in").click()
    stranger.get_by_role("alert").filter(has_text="This is not the token.").wait_for()
    stranger.get_by_label("Token").fill(TOKEN)
    stranger.get_by_role("button", name="Log in").click()

    stranger.get_by_text(f"{NAME} (id=1)").wait_for()
    assert stranger.evaluate("document.cookie") == ""


def test_the_printed_address_logs_in_and_the_list_shows_the_study(
    page: playwright.Page, address: str
) -> None:
    page.get_by_role("link", name=NAME).wait_for()

    assert TOKEN not in page.url
    assert page.url == f"{address}/"


def test_a_study_shows_its_history_and_the_ratio_curve(page: playwright.Page, address: str) -> None:
    page.goto(f"{address}/dashboard/studies/1")
    page.get_by_role("heading", name="History").wait_for()
    page.locator("[id*=history] .scatterlayer .point").first.wait_for()
    figure = page.locator(".js-plotly-plot", has_text="loss against the ratio")
    figure.locator(".scatterlayer .point").first.wait_for()

    assert figure.get_by_text("ratio lr / backbone_lr").count() == 1
    assert figure.get_by_text("synthetic signals").count() == 1


def test_a_study_shows_its_answer_as_a_note_that_leads_to_the_report(
    page: playwright.Page, address: str
) -> None:
    page.goto(f"{address}/dashboard/studies/1/note")
    page.get_by_role("heading", name="The answer so far").wait_for()
    page.get_by_text("Published default").first.wait_for()
    page.get_by_role("link", name="The whole answer").click()
    page.get_by_role("heading", name="The answer", exact=False).first.wait_for()

    assert page.url == f"{address}/answer/{NAME}"
    assert page.locator("img").first.evaluate("picture => picture.naturalWidth") > 300


def test_a_trial_shows_its_curve_and_metrics(page: playwright.Page, address: str) -> None:
    page.goto(f"{address}/dashboard/studies/1/trials?numbers=0")
    page.get_by_text("Trial 0 (trial_id=1)").wait_for()

    assert page.get_by_text("Intermediate Values").count() == 1
    assert page.get_by_text("metrics").count() >= 1
    assert page.get_by_text("ratio").count() >= 1


def test_nobody_can_delete_a_study_in_the_page(page: playwright.Page, address: str, place: Place) -> None:
    page.goto(f"{address}/dashboard")
    page.get_by_text(NAME, exact=False).first.wait_for()
    status = page.evaluate(
        "fetch('/api/studies/1', {method: 'DELETE', body: '{}'}).then(answer => answer.status)"
    )

    assert status == 403
    assert not page.locator("[aria-label='delete study']").first.is_visible()
    assert place.counts().finished == 14


def test_our_page_of_a_study_works_by_keyboard_at_a_telephones_width(
    page: playwright.Page, address: str
) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"{address}/?lang=en")
    page.get_by_role("link", name=NAME).press("Enter")
    page.locator("#answer li").first.wait_for()
    page.locator("#trials tr").first.wait_for()
    page.get_by_role("button", name="validation").press("Enter")
    values = page.locator("#trials tr td:nth-child(7)").all_inner_texts()
    numbers = [float(value.split()[0]) for value in values if value]

    assert numbers == sorted(numbers)
    assert page.locator("svg.plot path").count() > 14
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


# --- for everybody: axe-core on each of our pages, in both languages, light and dark, wide and narrow

AXE = importlib.util.find_spec("axe_playwright_python")


@pytest.fixture(scope="module")
def reports(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reports")
    for language in ("en", "zh"):
        words = ["report", NAME, "--storage", place.url, "--out", str(folder / language)]
        assert main([*words, "--lang", language]) == 0
    return folder


def faults_of(page: playwright.Page) -> list[str]:
    """Return what axe-core finds wrong with a page, of any weight."""
    assert AXE is not None
    assert AXE.origin is not None
    page.evaluate(Path(AXE.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:100]}" for one in found]


@pytest.mark.skipif(AXE is None, reason="needs axe-core: pip install '.[dev]'")
@pytest.mark.parametrize(("scheme", "width"), [("light", 1300), ("dark", 390)])
def test_our_pages_have_no_violation_of_axe(
    browser: playwright.Browser, address: str, reports: Path, scheme: Any, width: int
) -> None:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.set_default_timeout(WAIT_MS)
    page, found = context.new_page(), dict[str, list[str]]()
    page.goto(f"{address}/")
    found["login"] = faults_of(page)
    page.goto(f"{address}/?token={TOKEN}")
    for language in ("en", "zh"):
        page.goto(f"{address}/?lang={language}")
        page.get_by_role("link", name=NAME).wait_for()
        found[f"front {language}"] = faults_of(page)
        page.get_by_role("link", name=NAME).click()
        page.locator("#trials tr").first.wait_for()
        page.locator("svg.plot path").first.wait_for()
        found[f"study {language}"] = faults_of(page)
        for name, where in {
            "answer": f"{address}/answer/{NAME}?lang={language}",
            "answers": f"{address}/answer?lang={language}",
            "report": (reports / language / "report.html").as_uri(),
            "missing": f"{address}/nowhere?lang={language}",
        }.items():
            page.goto(where)
            found[f"{name} {language}"] = faults_of(page)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, name
            assert page.evaluate("document.documentElement.lang").startswith(language), name
    context.close()

    assert {name: faults for name, faults in found.items() if faults} == {}


def test_a_page_prints_without_anything_cut_off(browser: playwright.Browser, reports: Path) -> None:
    context = browser.new_context(viewport={"width": 718, "height": 1000})  # A4 less its margins
    page = context.new_page()
    page.goto((reports / "en" / "report.html").as_uri())
    page.emulate_media(media="print")

    assert page.evaluate("document.documentElement.scrollWidth") <= 718
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    context.close()


def test_whoever_logs_out_in_the_page_sees_the_login(page: playwright.Page, address: str) -> None:
    page.goto(f"{address}/?lang=en")
    page.get_by_role("button", name="Log out").click()

    page.get_by_label("Token").wait_for()


def test_no_other_site_can_read_through_the_visitor_s_session(
    page: playwright.Page, address: str, tmp_path: Path
) -> None:
    (tmp_path / "evil.html").write_text("<p>evil</p>")
    page.goto((tmp_path / "evil.html").as_uri())
    read = page.evaluate(
        "url => fetch(url, {credentials: 'include'}).then(() => 'read', () => 'refused')",
        f"{address}/api/studies",
    )

    assert read == "refused"
