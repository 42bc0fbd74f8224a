"""A database that may only be read: what looks at it answers, what writes to it is refused with a line."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from small_study import NAME, Place

from hpo.cli.app import main
from hpo.dashboard import PageKeeper
from hpo.dashboard.kept import AnswerStore
from hpo.errors import StorageError
from hpo.ledger.ledger import Ledger
from hpo.storage import open_engine, writing
from hpo.storage.tables import studies
from hpo.worker import work

TRIALS = 3


def mounted(source: Path, at: Path) -> bool:
    """Show the folder ``source`` at ``at`` for reading only, as root can; False where nobody lets us."""
    at.mkdir()
    bound = subprocess.run(["mount", "--bind", str(source), str(at)], check=False, capture_output=True)
    if bound.returncode:
        return False
    subprocess.run(["mount", "-o", "remount,ro,bind", str(at)], check=True)
    return True


@pytest.fixture
def source(tmp_path: Path) -> Place:
    """A finished study that can be written."""
    (tmp_path / "source").mkdir()
    place = Place(tmp_path / "source")
    place.open(TRIALS)
    work(place.url, [NAME], below=TRIALS, settings=place.settings())
    return place


@pytest.fixture
def shown(source: Place, tmp_path: Path) -> Iterator[Path]:
    """Its file as one sees it who may only read it: on a mount as root, by modes as anybody else."""
    at = tmp_path / "shown"
    if os.geteuid():
        source.folder.chmod(0o555)
        (source.folder / "hpo.db").chmod(0o444)
        yield source.folder / "hpo.db"
        source.folder.chmod(0o755)
    elif mounted(source.folder, at):
        yield at / "hpo.db"
        subprocess.run(["umount", str(at)], check=True)
    else:
        pytest.skip("needs the right to mount")


READING = {
    "status": ["status"],
    "one": ["status", NAME, "--json"],
    "studies": ["studies"],
    "watch": ["watch"],
    "watch_one": ["watch", NAME, "--json"],
    "report": ["report", NAME, "--out", "OUT"],
    "summary": ["report", "--all", "--out", "OUT"],
    "export": ["export", NAME, "--to", "csv", "--out", "OUT"],
    "figure": ["figure", "ratio", "--study", NAME, "--out", "OUT/ratio.svg"],
    "compare": ["compare", NAME, NAME],
    "copy": ["copy", "--study", NAME, "--to", "OUT.db"],
}
WRITING = {
    "run": ["run", NAME, "--trials", "9"],
    "submit": ["submit", "synthetic_rr"],
    "worker": ["worker"],
    "stop": ["stop", NAME],
    "delete": ["delete", "--study", NAME, "--yes"],
    "rename": ["rename", "--study", NAME, "--to", "other"],
    "alert": ["alert", "--once", "--alert", "exec:true"],
    "pause": ["pause", NAME],
}


@pytest.mark.parametrize("command", READING)
def test_what_looks_answers(
    command: str, shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(shown.parent.iterdir())
    words = [word.replace("OUT", str(tmp_path / "out")) for word in READING[command]]

    assert main([*words, "--storage", str(shown)]) == 0, capsys.readouterr().err
    assert sorted(shown.parent.iterdir()) == before


def test_the_dashboard_works_out_answers(shown: Path) -> None:
    engine = open_engine(f"sqlite:///{shown}", create=False)
    answers = AnswerStore(engine)
    PageKeeper(engine, answers).refresh()
    found = answers.get(NAME)
    engine.dispose()

    assert found is not None
    assert found.counts.finished == TRIALS


@pytest.mark.parametrize("command", WRITING)
def test_what_writes_is_refused_with_a_line(
    command: str, shown: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()

    cache = ["--cache", str(tmp_path)] if command in {"run", "submit", "worker"} else []
    assert main([*WRITING[command], "--storage", str(shown), *cache]) == 2
    told = [line for line in capsys.readouterr().err.splitlines() if not line.endswith(" ...")]
    assert len(told) == 1
    assert "can only be read here" in told[0]


def test_what_somebody_else_writes_meanwhile_is_seen(source: Place, shown: Path) -> None:
    if not os.geteuid():
        looks = open_engine(f"sqlite:///{shown}", create=False)
        assert [row.state for row in Ledger(looks).studies()] == ["open"]
        writes = open_engine(source.url)
        with writing(writes) as connection:
            connection.execute(sa.update(studies).values(state="paused"))

        assert [row.state for row in Ledger(looks).studies()] == ["paused"], "from the log"
        writes.dispose()
        assert [row.state for row in Ledger(looks).studies()] == ["paused"], "from the file"
        looks.dispose()


def test_a_log_that_was_not_closed_is_never_passed_over(source: Place, tmp_path: Path) -> None:
    if os.geteuid():
        pytest.skip("needs the right to mount")
    writes = open_engine(source.url)
    with writing(writes) as connection:
        connection.execute(sa.update(studies).values(state="paused"))
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("hpo.db", "hpo.db-wal"):
        shutil.copyfile(source.folder / name, copied / name)
    writes.dispose()
    at = tmp_path / "shown"
    if not mounted(copied, at):
        pytest.skip("needs the right to mount")

    with pytest.raises(StorageError, match="a log that was not closed"):
        open_engine(f"sqlite:///{at / 'hpo.db'}", create=False)
    subprocess.run(["umount", str(at)], check=True)


def test_a_database_of_an_older_version_is_refused_where_it_cannot_be_brought_up_to_date(
    source: Place, shown: Path
) -> None:
    if os.geteuid():
        pytest.skip("needs the right to mount")
    engine = open_engine(source.url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE hpo_alembic_version SET version_num = '0001'"))
    engine.dispose()

    with pytest.raises(StorageError, match="older version"):
        open_engine(f"sqlite:///{shown}", create=False)
