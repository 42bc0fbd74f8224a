"""Fixtures that many tests share."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from fixtures_db import (  # noqa: F401 - fixtures
    database_url,
    empty_url,
    engine,
    ledger,
    postgres_server,
    postgres_template,
    postgres_url,
    ready_postgres_url,
    ready_sqlite_url,
    sqlite_url,
)
from published import Shelf
from small_study import Place

from hpo.analysis import look, modes, posterior
from hpo.worker import WorkSummary, work

# No law hangs on how fast a machine is.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def draw_little(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(look, "PARTICLES", 32)
    patch.setattr(modes, "GUESSES", 0)
    patch.setattr(modes, "BEST", 1)
    for name, count in {"MOVES": 1, "LAST_MOVES": 2, "BASIN_MOVES": 1}.items():
        patch.setattr(posterior, name, count)


@pytest.fixture(scope="module", autouse=True)
def _posterior_of_few_draws(request: pytest.FixtureRequest) -> Iterator[None]:
    """An answer in a third of its time where a test needs one and does not judge how well it is calibrated.

    A file that judges the model says ``pytestmark = pytest.mark.whole_posterior``, and marks its tests that
    do not with ``few_draws``.
    """
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("whole_posterior") is None:
            draw_little(patch)
        yield


@pytest.fixture(autouse=True)
def _few_draws(request: pytest.FixtureRequest) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("few_draws") is not None:
            draw_little(patch)
        yield


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches and confirmations work in this process: one of a worker takes seconds to import its modules.

    For tests that do not judge what workers are to each other and to their parent.
    """

    def run(url: str, study: str, *, total: int, workers: int | None, **given: Any) -> WorkSummary:
        assert workers == 1
        return work(url, [study], below=total, **given)

    for name in ("hpo.search_here", "hpo.confirm.runs"):
        monkeypatch.setattr(importlib.import_module(name), "run_local", run)


@pytest.fixture(scope="session")
def hpo_data() -> Path:
    """The folder with the publishers' files; tests that need it are skipped without it."""
    folder = os.environ.get("HPO_DATA")
    if not folder:
        pytest.skip("HPO_DATA is not set")
    return Path(folder)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """A database and a data folder of this test's own; many a file has a ``place`` with more in it."""
    return Place(tmp_path)


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """An empty cache folder of this test's own."""
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def session_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def shared_cache_dir(session_dir: Path) -> Path:
    """A cache folder that all tests of the session share, for data that are slow to prepare."""
    return session_dir / "shared-cache"


@pytest.fixture(scope="session")
def published(session_dir: Path, hpo_data: Path) -> Shelf:
    """The publishers' windows, read once."""
    return Shelf(session_dir / "published", hpo_data)
