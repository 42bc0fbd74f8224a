"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

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

# No law hangs on how fast a machine is.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


@pytest.fixture(scope="session")
def hpo_data() -> Path:
    """The folder with the publishers' files; tests that need it are skipped without it."""
    folder = os.environ.get("HPO_DATA")
    if not folder:
        pytest.skip("HPO_DATA is not set")
    return Path(folder)


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    """An empty cache folder of this test's own."""
    return tmp_path / "cache"


@pytest.fixture(scope="session")
def shared_cache_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder that all tests of the session share, for data that are slow to prepare."""
    return tmp_path_factory.mktemp("shared-cache")
