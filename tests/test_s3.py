"""Checkpoints in S3, by a server on loopback: a worker is killed on one machine, another goes on elsewhere.

Needs s3fs and moto's server (``pip install 's3fs' 'moto[server]'``), which the other tests do without.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from small_study import NAME, Place
from test_depot import file, table

from hpo.checkpoints import Depot, DepotAwayError
from hpo.errors import UsageError
from hpo.worker import Event, work

pytestmark = [
    pytest.mark.skipif(find_spec("s3fs") is None or find_spec("moto") is None, reason="needs s3fs and moto"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the client's libraries
]

WORKER = """
import sys
from pathlib import Path
from small_study import NAME, Place
from hpo.worker import work
folder, cache = map(Path, sys.argv[1:])
place = Place(folder)
work(place.url, [NAME], settings=place.settings(cache_dir=cache, checkpoints="s3://shelf/hpo", lease_s=2.0))
"""


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """An S3 server, its bucket ``shelf``, and the environment in which its clients find it."""
    import boto3

    port = free_port()
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        keys = {"AWS_ACCESS_KEY_ID": "name", "AWS_SECRET_ACCESS_KEY": "SECRET"}
        place = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in {**keys, **place}.items():
            patch.setenv(name, value)
        for _ in range(300):
            with socket.socket() as one:
                if one.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        boto3.client("s3").create_bucket(Bucket="shelf")
        yield place["AWS_ENDPOINT_URL"]
    server.terminate()
    server.wait(timeout=30)


def keys() -> list[str]:
    import boto3

    found = boto3.client("s3").list_objects_v2(Bucket="shelf").get("Contents", [])
    return [str(one["Key"]) for one in found]


def test_a_file_goes_and_comes_back_and_goes_away(s3: str, tmp_path: Path) -> None:
    depot = Depot("s3://shelf/files")
    depot.probe()
    (depot / "0").send(file(tmp_path / "a", "epoch 3"))

    assert keys() == ["files/0/last.pt"]
    assert (depot / "0").fetch("last.pt", tmp_path / "b")
    assert (tmp_path / "b/last.pt").read_text() == "epoch 3"
    assert not (depot / "1").fetch("last.pt", tmp_path / "b")
    depot.copy_to(Depot("s3://shelf/copy"))
    (depot / "0").delete(["last.pt", "best.safetensors"])
    assert keys() == ["copy/0/last.pt"]
    Depot("s3://shelf/copy").delete_all()
    assert keys() == []


def test_a_bucket_that_is_not_there_is_told_and_not_made(s3: str) -> None:
    with pytest.raises(UsageError, match="s3://nowhere/x cannot be used"):
        Depot("s3://nowhere/x").probe()


def test_a_server_that_is_not_there_is_waited_for(
    s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import s3fs

    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    s3fs.S3FileSystem.clear_instance_cache()

    with pytest.raises(DepotAwayError) as caught:
        Depot("s3://shelf/x").send(file(tmp_path, "x"))
    s3fs.S3FileSystem.clear_instance_cache()
    assert "SECRET" not in str(caught.value)


def test_a_killed_worker_s_trial_goes_on_on_another_machine(s3: str, tmp_path: Path) -> None:
    calm, place = Place(tmp_path / "calm"), Place(tmp_path / "moved")
    for each in (calm, place):
        each.folder.mkdir()
        each.open(3)
    work(calm.url, [NAME], settings=calm.settings())

    place.behave(epoch_s=0.5)
    path = os.pathsep.join(filter(None, sys.path))
    words = [sys.executable, "-c", WORKER, str(place.folder), str(tmp_path / "a")]
    worker = subprocess.Popen(words, env={**os.environ, "PYTHONPATH": path})
    while len(place.epochs_of(0)) < 4 and worker.poll() is None:
        time.sleep(0.05)
    worker.kill()
    worker.wait()
    place.behave()
    trained: list[int] = []

    def see(event: Event) -> None:
        if (event.kind, event.slot) == ("epoch", 0):
            trained.append(event.epoch)

    second = place.settings(cache_dir=tmp_path / "b", checkpoints="s3://shelf/hpo", lease_s=2.0)
    work(place.url, [NAME], settings=second, on_event=see)

    assert trained in ([4, 5, 6], [5, 6])  # reported, but killed before it was kept; or kept
    assert place.slots()[0].attempt == 2
    assert place.epochs_of(0) == [1, 2, 3, 4, 5, 6]
    assert table(place) == table(calm)
    assert keys() == []
    assert b"SECRET" not in (place.folder / "hpo.db").read_bytes()
