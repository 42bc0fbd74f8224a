"""What is somebody's is readable by its owner alone, from the moment it is made."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_study import NAME, Place
from test_checkpoint import SPEC, fresh

from finetune.engine.checkpoint import Kept, Progress, State, save_state
from hpo.cli.app import main
from hpo.storage import open_engine, writing
from hpo.worker import work


@pytest.fixture(autouse=True)
def generous() -> Iterator[None]:
    """A person whose files everybody may write."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes_below(folder: Path) -> dict[str, int]:
    """Return the mode of each file and folder in ``folder``, by its path there."""
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in sorted(folder.rglob("*"))
    }


def test_a_database_and_its_log_are_their_owners(tmp_path: Path) -> None:
    engine = open_engine(f"sqlite:///{tmp_path / 'hpo.db'}")
    with writing(engine):
        found = modes_below(tmp_path)
    engine.dispose()

    assert found == {"hpo.db": 0o600, "hpo.db-shm": 0o600, "hpo.db-wal": 0o600}


def test_a_database_that_a_link_leads_to_is_its_owners(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
    open_engine(f"sqlite:///{tmp_path / 'link.db'}").dispose()

    assert modes_below(tmp_path)["real.db"] == 0o600


def test_a_database_that_is_there_keeps_the_mode_that_somebody_gave_it(tmp_path: Path) -> None:
    file = tmp_path / "hpo.db"
    open_engine(f"sqlite:///{file}").dispose()
    file.chmod(0o640)

    open_engine(f"sqlite:///{file}").dispose()

    assert stat.S_IMODE(file.stat().st_mode) == 0o640


def test_checkpoints_and_the_folders_made_for_them_are_their_owners(tmp_path: Path) -> None:
    model, optimizer = fresh(1)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state = State(Progress(1, 1, 1.0, {}, 1.0), weights, optimizer.state_dict())
    save_state(tmp_path / "all" / "slot", SPEC, state, Kept(0, ""), weights)

    assert modes_below(tmp_path) == {
        "all": 0o700,
        "all/slot": 0o700,
        "all/slot/best.safetensors": 0o600,
        "all/slot/last.pt": 0o600,
    }


@pytest.mark.parametrize("to", ["csv", "mlflow", "tensorboard", "wandb"])
def test_a_study_written_for_another_program_is_its_owners(to: str, tmp_path: Path) -> None:
    if to != "csv":
        pytest.importorskip(to)
    place = Place(tmp_path)
    place.open(3)
    work(place.url, [NAME], below=3, settings=place.settings())
    out = tmp_path / "out"

    assert main(["export", NAME, "--to", to, "--out", str(out), "--storage", place.url]) == 0

    assert stat.S_IMODE(out.stat().st_mode) == 0o700
    if to == "csv":
        assert set(modes_below(out).values()) == {0o600}
