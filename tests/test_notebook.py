"""The notebook of the documentation runs from top to bottom, and shows what a notebook should."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from small_study import NAME, Place

from hpo.worker import work

NOTEBOOK = Path(__file__).resolve().parent.parent / "docs" / "notebooks" / "study.ipynb"


def shown(cell: Any) -> set[str]:
    """Return the kinds of data that a cell shows."""
    return {kind for output in cell["outputs"] for kind in output.get("data", {})}


def test_the_notebook_is_kept_without_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]

    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs_and_shows_answer_tables_and_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat", reason="needs nbclient: pip install '.[dev]'")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    place = Place(tmp_path)
    place.open(14)
    work(place.url, [NAME], settings=place.settings())
    monkeypatch.setenv("HPO_STORAGE", place.url)
    monkeypatch.setenv("HPO_STUDY", NAME)
    notebook = nbformat.read(NOTEBOOK, as_version=4)

    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3").execute(cwd=str(tmp_path))

    kinds = [shown(cell) for cell in notebook.cells if cell.cell_type == "code"]
    studies, study, zones, figure, trials, choice = kinds
    assert "text/html" in studies & study & zones & trials
    assert "image/png" in figure
    assert "text/plain" in choice
    said = [one["text"] for cell in notebook.cells for one in cell.get("outputs", []) if "text" in one]
    assert said == [], "no warning of a library stands beside a result"
    page = next(one["data"]["text/html"] for one in notebook.cells[2]["outputs"])
    assert "data:image/svg+xml;base64," in "".join(page)
