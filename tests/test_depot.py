"""Checkpoints in an object store: whole or not there, waited for, deleted, and enough for another machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from small_study import NAME, Place

from hpo.checkpoints import Checkpoints, Depot, DepotAwayError, is_depot, parse_depot, plain_folder
from hpo.cli.app import main
from hpo.errors import StorageError, UsageError
from hpo.search_here import make_settings
from hpo.worker import Event, checkpoints_of, work
from hpo.worker.stop import Stop


class Moody(MemoryFileSystem):
    """A store that can be away, and that can refuse."""

    protocol = "moody"
    store: dict[str, Any] = {}  # noqa: RUF012 - as its parent's
    pseudo_dirs = [""]  # noqa: RUF012
    cachable = False
    mood: Callable[[str], None] = staticmethod(lambda call: None)

    def put_file(self, *args: Any, **kwargs: Any) -> Any:
        self.mood("put")
        return super().put_file(*args, **kwargs)

    def get_file(self, *args: Any, **kwargs: Any) -> Any:
        self.mood("get")
        return super().get_file(*args, **kwargs)

    def rm_file(self, path: str) -> None:
        self.mood("delete")
        super().rm_file(path)


fsspec.register_implementation("moody", Moody, clobber=True)


@pytest.fixture(autouse=True)
def _emptied() -> Iterator[None]:
    yield
    for kind in (Moody, MemoryFileSystem):
        kind.store.clear()
        kind.pseudo_dirs[:] = [""]
    Moody.mood = staticmethod(lambda call: None)


def file(folder: Path, text: str, name: str = "last.pt") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)
    return folder / name


def in_store() -> list[str]:
    return sorted(MemoryFileSystem.store)


# --- a folder of a store


def test_a_file_comes_back_as_it_was_sent_and_what_is_not_there_is_told(tmp_path: Path) -> None:
    depot = Depot("memory://bucket/study") / "0"
    depot.send(file(tmp_path / "a", "epoch 3"))

    assert depot.fetch("last.pt", tmp_path / "b") is True
    assert (tmp_path / "b/last.pt").read_text() == "epoch 3"
    assert depot.fetch("best.safetensors", tmp_path / "b") is False
    assert in_store() == ["/bucket/study/0/last.pt"]  # and nothing under another name


def test_a_file_that_was_half_sent_leaves_the_one_before_whole(tmp_path: Path) -> None:
    depot = Depot("moody://bucket/0")
    depot.send(file(tmp_path / "a", "epoch 3"))

    def cut(call: str) -> None:
        raise ConnectionResetError("the other side went away")

    Moody.mood = staticmethod(cut)
    with pytest.raises(DepotAwayError, match="ConnectionResetError: the other side went away"):
        depot.send(file(tmp_path / "a", "epoch 4"))
    Moody.mood = staticmethod(lambda call: None)

    assert depot.fetch("last.pt", tmp_path / "b")
    assert (tmp_path / "b/last.pt").read_text() == "epoch 3"


def test_deleting_what_is_not_there_is_no_fault(tmp_path: Path) -> None:
    depot = Depot("memory://bucket/study")
    depot.delete(["last.pt"])
    depot.delete_all()
    (depot / "0").send(file(tmp_path, "x"))
    depot.delete_all()

    assert in_store() == []


def test_a_probe_leaves_nothing() -> None:
    Depot("memory://bucket/study").probe()

    assert in_store() == []


@pytest.mark.parametrize(
    ("error", "raised"),
    [
        (PermissionError("Access Denied"), UsageError),
        (FileNotFoundError("The specified bucket does not exist"), UsageError),
        (ConnectionRefusedError("refused"), DepotAwayError),
        (TimeoutError(), DepotAwayError),
        (OSError(16, "SlowDown: reduce your request rate"), DepotAwayError),
        (ZeroDivisionError("ours"), ZeroDivisionError),
    ],
)
def test_what_waiting_mends_is_told_from_what_it_does_not(
    error: Exception, raised: type[Exception], tmp_path: Path
) -> None:
    def fail(call: str) -> None:
        raise error

    Moody.mood = staticmethod(fail)

    with pytest.raises(raised):
        Depot("moody://bucket").send(file(tmp_path, "x"))


def test_signatures_in_addresses_are_not_told(tmp_path: Path) -> None:
    def fail(call: str) -> None:
        raise ConnectionError("no answer from https://x.test/bucket/last.pt?sig=SECRET&more")

    Moody.mood = staticmethod(fail)

    with pytest.raises(DepotAwayError) as caught:
        Depot("moody://bucket").send(file(tmp_path, "x"))
    assert "SECRET" not in str(caught.value)


# --- addresses


@pytest.mark.parametrize("address", ["/shared/kept", "file:///shared/kept", "local:///shared/kept"])
def test_a_path_and_a_file_address_are_folders(address: str, place: Place) -> None:
    study = place.open(1)
    kept = checkpoints_of(place.url, study, place.settings(checkpoints=address))

    assert not is_depot(address)
    assert plain_folder(address) == Path("/shared/kept")
    assert (kept.depot, kept.folder.parent) == (None, Path("/shared/kept"))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://key:SECRET@bucket/x", "without a password or a query"),
        ("memory://bucket/x?token=SECRET", "without a password or a query"),
        ("s4://bucket/x", "fsspec does not know"),
        ("memory:///x", "an address such as s3://bucket/folder"),
    ],
)
def test_what_cannot_be_a_place_is_refused_in_one_line_without_its_secret(
    address: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HPO_CHECKPOINTS", address)

    with pytest.raises(UsageError, match=said) as caught:
        make_settings(tmp_path, tmp_path, "cpu", None)
    assert "SECRET" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_store_whose_package_is_missing_is_told_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "s3fs"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, "s3", raising=False)

    with pytest.raises(UsageError, match=r"pip install 'hpo\[s3\]'"):
        parse_depot("s3://bucket/x")


def test_a_database_s_address_says_where_not_with_what(place: Place) -> None:
    kept = Checkpoints(place.folder, Depot("s3://bucket/study"))

    assert kept.address(3, place.folder / "3/best.safetensors") == "s3://bucket/study/3/best.safetensors"


# --- a study's checkpoints


def test_weights_are_fetched_where_they_are_not(tmp_path: Path) -> None:
    depot = Depot("memory://bucket/study")
    there, here = Checkpoints(tmp_path / "a", depot), Checkpoints(tmp_path / "b", depot)
    best = file(there.of(2), "weights", "best.safetensors")
    there.keep(2, best)

    found = here.find(2, there.address(2, best))

    assert found is not None
    assert found.read_text() == "weights"
    assert here.find(3, there.address(3, best)) is None


def test_a_confirmation_keeps_its_weights_and_a_search_nothing(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "a", Depot("memory://bucket/study"))
    for slot in (0, 1):
        for name in ("last.pt", "best.safetensors"):
            kept.keep(slot, file(kept.of(slot), "x", name))

    kept.clear(0, keeps_weights=True)
    kept.clear(1, keeps_weights=False)

    assert in_store() == ["/bucket/study/0/best.safetensors"]
    assert [path.name for path in kept.of(0).iterdir()] == ["best.safetensors"]
    assert not kept.of(1).exists()


def test_another_attempt_takes_the_store_s_not_what_lies_on_its_machine(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "a", Depot("memory://bucket/study"))
    kept.keep(0, file(kept.of(0), "best of 4", "best.safetensors"))
    kept.keep(0, file(kept.of(0), "epoch 4"))
    for name in ("last.pt", "best.safetensors"):
        file(kept.of(0), "epoch 2, of a worker that was here before", name)

    kept.prepare(0, is_first=False)

    assert (kept.of(0) / "last.pt").read_text() == "epoch 4"
    assert (kept.of(0) / "best.safetensors").read_text() == "best of 4"


# --- a worker


def killed_at(slot: int, epoch: int, stop: Stop) -> Callable[[Event], None]:
    """Return what asks a worker to end in an epoch of a trial."""

    def see(event: Event) -> None:
        if (event.kind, event.slot, event.epoch) == ("epoch", slot, epoch):
            stop.request("interrupted")

    return see


def table(place: Place) -> list[tuple[Any, ...]]:
    """Return what must not depend on who ran a trial, and when."""
    return [(row.slot, row.config, row.end, row.value, row.best_epoch, row.epochs) for row in place.slots()]


def test_another_machine_goes_on_from_the_last_epoch_with_the_same_table(tmp_path: Path) -> None:
    calm, place = Place(tmp_path / "calm"), Place(tmp_path / "moved")
    for each in (calm, place):
        each.folder.mkdir()
        each.behave()
        each.open(4)
    work(calm.url, [NAME], settings=calm.settings())

    kept: dict[str, Any] = {"checkpoints": "memory://bucket/here"}
    stop = Stop()
    first = place.settings(cache_dir=tmp_path / "a", **kept)
    work(place.url, [NAME], settings=first, on_event=killed_at(1, 4, stop), stop=stop)
    left = in_store()
    trained: list[int] = []

    def see(event: Event) -> None:
        if (event.kind, event.slot) == ("epoch", 1):
            trained.append(event.epoch)

    second = place.settings(cache_dir=tmp_path / "b", **kept)
    work(place.url, [NAME], settings=second, on_event=see)

    assert [name.rpartition("/")[2] for name in left] == ["last.pt"]
    assert trained == [4, 5, 6]  # the fourth had been reported, but not been kept
    assert [row.attempt for row in place.slots()] == [1, 2, 1, 1]
    assert place.epochs_of(1) == [1, 2, 3, 4, 5, 6]
    assert table(place) == table(calm)
    assert in_store() == []


def test_a_store_that_is_away_is_told_and_waited_out(place: Place) -> None:
    place.open(2)
    calls: list[str] = []

    def away(call: str) -> None:
        calls.append(call)
        if 4 <= len(calls) <= 7:
            raise ConnectionError("no route to host")

    Moody.mood = staticmethod(away)
    told: list[str] = []
    work(
        place.url,
        [NAME],
        settings=place.settings(checkpoints="moody://bucket"),
        on_event=lambda event: told.append(event.text) if event.kind == "waiting" else None,
    )

    assert place.counts().finished == 2
    assert place.ends_of_attempts(0) == ["finished"]
    what = "the store of the checkpoints cannot be used now (ConnectionError: no route to host); waiting, 0 s"
    assert told[0].startswith(what)
    assert told[-1].startswith("the store of the checkpoints is back after")


def test_patience_with_a_store_ends_and_the_trial_is_given_back(place: Place) -> None:
    place.open(1)

    def away(call: str) -> None:
        if call == "put":
            raise ConnectionError("no route to host")

    Moody.mood = staticmethod(away)
    settings = place.settings(checkpoints="moody://bucket", patience_s=0.3)

    with pytest.raises(StorageError, match="the store of the checkpoints could not be used for"):
        work(place.url, [NAME], settings=settings)
    assert place.ends_of_attempts(0) == ["interrupted"]
    assert place.counts().free == 1


def test_a_signal_ends_the_wait_for_a_store(place: Place) -> None:
    place.open(1)
    stop = Stop()

    def away(call: str) -> None:
        if call == "put":
            stop.request("interrupted")
            raise ConnectionError("no route to host")

    Moody.mood = staticmethod(away)
    summary = work(place.url, [NAME], settings=place.settings(checkpoints="moody://bucket"), stop=stop)

    assert summary.ended == "interrupted"
    assert place.ends_of_attempts(0) == ["interrupted"]


def test_a_store_that_refuses_ends_the_worker_before_its_first_trial(place: Place) -> None:
    place.open(1)

    def refuse(call: str) -> None:
        raise PermissionError("Access Denied")

    Moody.mood = staticmethod(refuse)

    with pytest.raises(UsageError, match=r"moody://bucket cannot be used \(PermissionError: Access Denied"):
        work(place.url, [NAME], settings=place.settings(checkpoints="moody://bucket"))
    assert place.slots()[0].attempt == 0


# --- whole studies


def test_what_a_study_left_in_a_store_is_renamed_copied_and_deleted_with_it(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HPO_CHECKPOINTS", "memory://bucket/here")
    monkeypatch.setenv("HPO_CACHE", str(place.folder / "cache"))
    monkeypatch.setenv("HPO_STORAGE", place.url)
    place.open(2)
    stop = Stop()
    settings = place.settings(checkpoints="memory://bucket/here")
    work(place.url, [NAME], settings=settings, on_event=killed_at(0, 2, stop), stop=stop)

    assert main(["rename", "--study", NAME, "--to", "other"]) == 0
    renamed = in_store()
    assert main(["copy", "--study", "other", "--to", f"sqlite:///{place.folder}/b.db"]) == 0
    copied = in_store()
    assert main(["delete", "--study", "other", "--yes"]) == 0
    left = in_store()

    assert [name.split("/")[3].startswith("other-") for name in renamed] == [True]
    assert len(copied) == 2
    assert left == sorted(set(copied) - set(renamed))
