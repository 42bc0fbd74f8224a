"""Downloads from a real server on this machine: whole, resumed, refused, and not repeated."""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from bidmc_files import write_subject
from makers import physionet2017, ptbxl

from finetune.data import transfer
from finetune.data.download import data_status, get_data
from finetune.data.publishers import SOURCES
from finetune.errors import DataError, SettingError, UnknownNameError
from finetune.spec import DataStatus
from finetune.tasks import TASKS
from hpo.cli.datasets import fetch
from hpo.cli.listing import data_lines


@dataclass
class Publisher:
    """Files served over HTTP with Range; ``aborts`` makes the server hang up after so many bytes."""

    files: dict[str, bytes] = field(default_factory=dict)
    aborts: dict[str, list[int]] = field(default_factory=dict)
    honours_range: bool = True
    redirects: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, str]] = field(default_factory=list)
    """(path, Range header) of every request."""
    url: str = ""

    def sums(self) -> None:
        """Publish the list of checksums of everything there is."""
        lines = [f"{hashlib.sha256(content).hexdigest()} {path}\n" for path, content in self.files.items()]
        self.files["SHA256SUMS.txt"] = "".join(lines).encode()

    def asked_for(self, path: str) -> list[str]:
        return [header for name, header in self.requests if name == path]


def handler_of(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, header = self.path.lstrip("/"), self.headers.get("Range", "")
            publisher.requests.append((path, header))
            if path in publisher.redirects:
                self.send_response(302)
                self.send_header("Location", publisher.redirects[path])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if path not in publisher.files:
                self.send_error(404)
                return
            content = publisher.files[path]
            start = int(header.removeprefix("bytes=").rstrip("-")) if header else 0
            if header and publisher.honours_range:
                if start >= len(content):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(content)}")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
                content = content[start:]
            else:
                self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            hang_up_after = publisher.aborts.get(path)
            if hang_up_after:
                self.wfile.write(content[: hang_up_after.pop(0)])
                self.close_connection = True
            else:
                self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Keep the test's output clean."""

    return Handler


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    publisher = Publisher()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_of(publisher)) as server:
        publisher.url = f"http://127.0.0.1:{server.server_address[1]}/"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield publisher
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transfer, "FIRST_WAIT_S", 0.001)


SIGNALS = "bidmc_csv/bidmc_08_Signals.csv"


@pytest.fixture
def bidmc(publisher: Publisher, tmp_path: Path) -> Publisher:
    """A publisher with one subject of BIDMC and a file that nobody asked for."""
    write_subject(tmp_path / "published", 8)
    for path in sorted((tmp_path / "published/bidmc_csv").iterdir()):
        publisher.files[f"bidmc_csv/{path.name}"] = path.read_bytes()
    publisher.files["LICENSE"] = b"ODC-By"
    publisher.files["bidmc08.dat"] = b"another format of the same"
    publisher.sums()
    return publisher


def test_a_data_set_is_fetched_whole_and_byte_for_byte(bidmc: Publisher, tmp_path: Path) -> None:
    messages: list[str] = []
    status = get_data("bidmc_rr", tmp_path, base_url=bidmc.url, notify=messages.append)

    root = tmp_path / "bidmc"
    fetched = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert fetched == set(bidmc.files) - {"bidmc08.dat"}
    assert all((root / path).read_bytes() == bidmc.files[path] for path in fetched)
    assert (status.state, status.found, status.expected) == ("partial", 1, 53)
    assert "licence ODC-By 1.0" in messages[0]
    assert "Pimentel" in messages[0]


def test_files_that_are_there_and_right_are_not_fetched_again(bidmc: Publisher, tmp_path: Path) -> None:
    get_data("bidmc", tmp_path, base_url=bidmc.url)
    (tmp_path / "bidmc/bidmc_csv/bidmc_08_Breaths.csv").write_text("spoilt")
    bidmc.requests.clear()

    get_data("bidmc", tmp_path, base_url=bidmc.url)
    assert [path for path, _ in bidmc.requests] == ["SHA256SUMS.txt", "bidmc_csv/bidmc_08_Breaths.csv"]
    restored = (tmp_path / "bidmc/bidmc_csv/bidmc_08_Breaths.csv").read_bytes()
    assert restored == bidmc.files["bidmc_csv/bidmc_08_Breaths.csv"]


def test_a_gzipped_copy_counts_as_there(bidmc: Publisher, tmp_path: Path) -> None:
    write_subject(tmp_path / "bidmc", 8, gzipped=True)

    get_data("bidmc", tmp_path, base_url=bidmc.url)
    assert not bidmc.asked_for(SIGNALS)


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(bidmc: Publisher, tmp_path: Path) -> None:
    bidmc.aborts[SIGNALS] = [100_000, 50_000]

    get_data("bidmc", tmp_path, base_url=bidmc.url)
    assert (tmp_path / "bidmc" / SIGNALS).read_bytes() == bidmc.files[SIGNALS]
    assert bidmc.asked_for(SIGNALS) == ["", "bytes=100000-", "bytes=150000-"]


def test_a_call_that_failed_is_gone_on_from_by_the_next(bidmc: Publisher, tmp_path: Path) -> None:
    bidmc.aborts[SIGNALS] = [1000] * transfer.TRIES
    with pytest.raises(
        DataError, match=r"Signals\.csv stopped: the connection broke; .*; the same command again goes on"
    ) as caught:
        get_data("bidmc", tmp_path, base_url=bidmc.url)
    target = tmp_path / "bidmc" / SIGNALS
    had = target.with_name(target.name + ".part").stat().st_size
    existed = target.exists()

    get_data("bidmc", tmp_path, base_url=bidmc.url)
    assert "\n" not in str(caught.value)
    assert not existed
    assert had == 1000 * transfer.TRIES
    assert bidmc.asked_for(SIGNALS)[-1] == f"bytes={had}-"
    assert target.read_bytes() == bidmc.files[SIGNALS]
    assert not list(tmp_path.rglob("*.part"))


def test_a_server_without_ranges_is_fetched_from_the_start(bidmc: Publisher, tmp_path: Path) -> None:
    bidmc.aborts[SIGNALS], bidmc.honours_range = [100_000], False

    get_data("bidmc", tmp_path, base_url=bidmc.url)
    assert (tmp_path / "bidmc" / SIGNALS).read_bytes() == bidmc.files[SIGNALS]


def test_a_part_longer_than_the_file_is_thrown_away(bidmc: Publisher, tmp_path: Path) -> None:
    part = tmp_path / "bidmc" / f"{SIGNALS}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(b"x" * (len(bidmc.files[SIGNALS]) + 7))

    get_data("bidmc", tmp_path, base_url=bidmc.url)
    assert (tmp_path / "bidmc" / SIGNALS).read_bytes() == bidmc.files[SIGNALS]


def test_a_part_that_is_already_whole_is_used(bidmc: Publisher, tmp_path: Path) -> None:
    part = tmp_path / "bidmc" / f"{SIGNALS}.part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bidmc.files[SIGNALS])

    get_data("bidmc", tmp_path, base_url=bidmc.url)
    assert (tmp_path / "bidmc" / SIGNALS).read_bytes() == bidmc.files[SIGNALS]
    assert len(bidmc.asked_for(SIGNALS)) == 1


def test_a_wrong_checksum_is_refused_and_leaves_no_file(bidmc: Publisher, tmp_path: Path) -> None:
    bidmc.files[SIGNALS] = b"tampered with"

    with pytest.raises(DataError, match=r"Signals\.csv has another content than its publisher's checksum"):
        get_data("bidmc", tmp_path, base_url=bidmc.url)
    left = [path.name for path in (tmp_path / "bidmc").rglob("*") if "Signals" in path.name]
    assert not left


def test_a_file_that_the_publisher_lost_is_one_clear_line(bidmc: Publisher, tmp_path: Path) -> None:
    del bidmc.files[SIGNALS]

    with pytest.raises(DataError, match=r"Signals\.csv answers 404") as caught:
        get_data("bidmc", tmp_path, base_url=bidmc.url)
    assert "\n" not in str(caught.value)


def test_a_publisher_that_cannot_be_reached_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"SHA256SUMS\.txt stopped") as caught:
        get_data("bidmc", tmp_path, base_url="http://127.0.0.1:1/")
    assert "\n" not in str(caught.value)


def test_a_list_that_cannot_be_fetched_leaves_the_old_one(bidmc: Publisher, tmp_path: Path) -> None:
    get_data("bidmc", tmp_path, base_url=bidmc.url)
    before = (tmp_path / "bidmc/SHA256SUMS.txt").read_bytes()

    with pytest.raises(DataError):
        get_data("bidmc", tmp_path, base_url="http://127.0.0.1:1/")
    assert (tmp_path / "bidmc/SHA256SUMS.txt").read_bytes() == before


def test_a_path_that_leads_out_of_the_folder_is_never_written(bidmc: Publisher, tmp_path: Path) -> None:
    bidmc.files["bidmc_csv/../../evil.csv"] = b"evil"
    bidmc.sums()

    get_data("bidmc", tmp_path / "data", base_url=bidmc.url)
    assert not list(tmp_path.rglob("evil.csv"))


# --- archives ---


def zipped(members: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return stream.getvalue()


@pytest.fixture
def dalia(publisher: Publisher) -> Publisher:
    """A publisher with two subjects of PPG-DaLiA: a zip file in a zip file, as UCI serves it."""
    inner = {f"PPG_FieldStudy/S{n}/S{n}.pkl": f"subject {n}".encode() for n in (1, 2)}
    inner["PPG_FieldStudy/S1/S1_E4.zip"] = zipped({"BVP.csv": b"1"})
    publisher.files["ppg+dalia.zip"] = zipped({"readme.pdf": b"read me", "data.zip": zipped(inner)})
    return publisher


def test_an_archive_is_unpacked_recorded_and_removed(dalia: Publisher, tmp_path: Path) -> None:
    messages: list[str] = []
    status = get_data("ppg_dalia_hr", tmp_path, base_url=dalia.url, notify=messages.append)

    root = tmp_path / "ppg_dalia"
    files = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert files == {
        "PPG_FieldStudy/S1/S1.pkl",
        "PPG_FieldStudy/S2/S2.pkl",
        "SHA256SUMS.txt.ppg_dalia",
    }
    assert (root / "PPG_FieldStudy/S2/S2.pkl").read_bytes() == b"subject 2"
    assert (status.state, status.found, status.expected) == ("partial", 2, 15)
    assert "gives no checksum" in messages[-1]
    assert (
        hashlib.sha256(dalia.files["ppg+dalia.zip"]).hexdigest()
        in (root / "SHA256SUMS.txt.ppg_dalia").read_text()
    )


def test_an_archive_whose_files_are_there_is_not_fetched_again(dalia: Publisher, tmp_path: Path) -> None:
    get_data("ppg_dalia", tmp_path, base_url=dalia.url)
    get_data("ppg_dalia", tmp_path, base_url=dalia.url)
    fetched_once = len(dalia.requests)
    (tmp_path / "ppg_dalia/PPG_FieldStudy/S1/S1.pkl").write_bytes(b"spoilt")
    get_data("ppg_dalia", tmp_path, base_url=dalia.url)

    assert fetched_once == 1
    assert len(dalia.requests) == 2
    assert (tmp_path / "ppg_dalia/PPG_FieldStudy/S1/S1.pkl").read_bytes() == b"subject 1"


def test_a_broken_archive_is_refused_and_removed(dalia: Publisher, tmp_path: Path) -> None:
    dalia.files["ppg+dalia.zip"] = dalia.files["ppg+dalia.zip"].replace(b"subject 1", b"subject X")

    with pytest.raises(DataError, match=r"ppg\+dalia\.zip of ppg_dalia is broken"):
        get_data("ppg_dalia", tmp_path, base_url=dalia.url)
    assert not [path for path in (tmp_path / "ppg_dalia").rglob("*") if path.is_file()]


def encrypted(archive: bytes) -> bytes:
    """Return a zip file whose members say that they are encrypted (bit 0 of their flags)."""
    content = bytearray(archive)
    for sign, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        at = content.find(sign)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(sign, at + 4)
    return bytes(content)


def packed_oddly(archive: bytes) -> bytes:
    """Return a zip file of a kind of compression that nobody knows."""
    content = bytearray(archive)
    for sign, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        at = content.find(sign)
        content[at + place] = 77
    return bytes(content)


PLAIN = {"PPG_FieldStudy/S1/S1.pkl": b"subject 1"}
ODD = {
    "encrypted": (encrypted(zipped(PLAIN)), "encrypted"),
    "of unknown compression": (packed_oddly(zipped(PLAIN)), "compression"),
    "a page": (b"<!DOCTYPE html><html>Sign in</html>", "it is a web page"),
    "nothing": (b"", "it is an empty file"),
}


@pytest.mark.parametrize("kind", ODD)
def test_an_archive_that_cannot_be_opened_is_one_clear_line(
    kind: str, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.files["ppg+dalia.zip"], word = ODD[kind]

    with pytest.raises(DataError, match=r"ppg\+dalia\.zip of ppg_dalia is broken") as caught:
        get_data("ppg_dalia", tmp_path, base_url=publisher.url)

    assert word in str(caught.value)
    assert not [path for path in (tmp_path / "ppg_dalia").rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    ("address", "word"),
    [
        ("ftp://127.0.0.1/", "addresses of this kind"),
        ("file:///etc/", "addresses of this kind"),
        ("nowhere", "no web address"),
        ("http://", "no web address"),
    ],
)
def test_an_address_that_is_none_is_told_as_such(address: str, word: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=word):
        get_data("bidmc", tmp_path, base_url=address)


def test_a_redirection_in_a_circle_is_told_as_such(publisher: Publisher, tmp_path: Path) -> None:
    publisher.redirects["SHA256SUMS.txt"] = "/SHA256SUMS.txt"
    with pytest.raises(DataError, match="redirected in a circle"):
        get_data("bidmc", tmp_path, base_url=publisher.url)

    publisher.redirects["SHA256SUMS.txt"] = "ftp://127.0.0.1/x"
    with pytest.raises(DataError, match="redirected to one"):
        get_data("bidmc", tmp_path, base_url=publisher.url)


def test_more_than_is_published_ends_the_session(
    publisher: Publisher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transfer, "MOST_MORE", 1000)
    publisher.files["x"] = bytes(1_200)
    with transfer.Transfer(publisher.url, tmp_path, "x", 100) as session:
        assert session.fetch("x", None).stat().st_size == 1_200

    publisher.files["x"] = bytes(1_201)
    with (
        transfer.Transfer(publisher.url, tmp_path, "x", 100) as session,
        pytest.raises(DataError, match="far more has been sent than is published"),
    ):
        session.fetch("x", None)


def test_a_transfer_that_trickles_is_broken_off_and_gone_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(transfer.time, "monotonic", lambda: now[0])
    pace = transfer._Pace("http://x")
    for _ in range(100):
        now[0] += 1
        pace.take(2 * transfer.SLOWEST_BYTES_S)

    def trickle() -> None:
        for _ in range(130):
            now[0] += 1
            pace.take(transfer.SLOWEST_BYTES_S // 2)

    with pytest.raises(transfer.NetworkError, match="bytes in 6"):
        trickle()


def test_an_archive_without_the_data_is_refused(publisher: Publisher, tmp_path: Path) -> None:
    publisher.files["38671886"] = zipped({"other.txt": b"nothing of use"})

    with pytest.raises(DataError, match="holds no file of uci_bp"):
        get_data("uci_sbp", tmp_path, base_url=publisher.url)


# --- the command ---


def test_the_command_prints_licence_citation_progress_and_what_is_there_then(
    bidmc: Publisher, tmp_path: Path
) -> None:
    """On a terminal, because there is a progress bar on nothing else."""
    bidmc.aborts[SIGNALS] = [100_000]
    reader, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    words = ["data", "get", "bidmc_rr", "--data", str(tmp_path), "--base-url", bidmc.url]
    command = [sys.executable, "-m", "hpo", *words]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=terminal, text=True, timeout=120)
    os.close(terminal)
    shown = os.read(reader, 1 << 16).decode()
    os.close(reader)

    assert ran.returncode == 0, shown
    assert "licence ODC-By 1.0; cite Pimentel et al., IEEE TBME 64(8):1914-1923, 2016" in shown
    assert "0 files are there, fetching 4" in shown
    assert re.search(r"bidmc: +\d+%\|", shown)
    assert "/153M" in shown
    assert ["bidmc", "partial", "1", "of", "53"] in [line.split()[:5] for line in ran.stdout.splitlines()]


def test_a_task_with_two_forms_of_its_data_fetches_the_cleaned_one_only(
    publisher: Publisher, tmp_path: Path
) -> None:
    members = {f"data/uci2_dataset/signal_fold_{number}.mat": b"a fold" for number in range(3)}
    publisher.files["38671886"] = zipped(members)

    (status,) = fetch("uci_dbp", tmp_path, publisher.url, print)

    assert (status.name, status.state) == ("uci_bp", "complete")
    assert [path for path, _ in publisher.requests] == ["38671886"]


@pytest.mark.parametrize(
    ("name", "path", "members", "member"),
    [
        ("uci_bp_raw", "cuff+less+blood+pressure+estimation.zip", ("Part_1.mat",), "Part_1.mat"),
        ("ppg_dalia", "ppg+dalia.zip", ("PPG_FieldStudy/S1/S1.pkl",), "PPG_FieldStudy/S1/S1.pkl"),
        ("uci_bp", "38671886", ("uci2_dataset/signal_fold_0.mat",), "uci2_dataset/signal_fold_0.mat"),
    ],
)
def test_an_archive_that_breaks_off_is_gone_on_from(
    publisher: Publisher, tmp_path: Path, name: str, path: str, members: tuple[str, ...], member: str
) -> None:
    publisher.files[path] = zipped({each: bytes(range(256)) * 400 for each in members})
    publisher.aborts[path] = [30_000]

    status = get_data(name, tmp_path, base_url=publisher.url)

    assert status.found == 1
    assert publisher.asked_for(path) == ["", "bytes=30000-"]
    assert (tmp_path / SOURCES[name].folder / member).read_bytes() == bytes(range(256)) * 400


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("ptb-xl", ("records100/00000/00001_lr.dat", "records100/00000/00001_lr.hea", "ptbxl_database.csv")),
        ("physionet2017", ("training2017.zip", "REFERENCE-v3.csv")),
        ("csn", ("WFDBRecords/01/010/JS00001.mat", "WFDBRecords/01/010/JS00001.hea")),
    ],
)
def test_physionet_s_lists_are_followed_for_what_the_reader_needs_and_no_more(
    publisher: Publisher, tmp_path: Path, name: str, files: tuple[str, ...]
) -> None:
    unwanted = ("records500/00000/00001_hr.dat", "sample2017.zip", "validation.zip", "index.html")
    for path in (*files, *unwanted):
        publisher.files[path] = path.encode()
    publisher.sums()

    get_data(name, tmp_path, base_url=publisher.url)

    root = tmp_path / SOURCES[name].folder
    there = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    assert there == {*files, "SHA256SUMS.txt"}


# --- names, folders, status ---


def status_of(name: str, data_dir: Path) -> DataStatus:
    return next(status for status in data_status(data_dir) if status.name == name)


def test_an_unknown_data_set_offers_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean .*bidmc"):
        get_data("bidcm", tmp_path)


def test_synthetic_data_need_no_fetching(tmp_path: Path) -> None:
    assert get_data("synthetic_rr", tmp_path).state == "complete"


def test_a_folder_that_cannot_be_written_is_one_clear_line(bidmc: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(SettingError, match="cannot write to") as caught:
        get_data("bidmc", tmp_path / "file", base_url=bidmc.url)
    assert "\n" not in str(caught.value)


def test_every_task_has_a_source(tmp_path: Path) -> None:
    listed = {task for status in data_status(tmp_path) for task in status.tasks}

    assert listed == set(TASKS)


def test_an_empty_folder_has_nothing_but_the_synthetic_set(tmp_path: Path) -> None:
    states = {status.name: status.state for status in data_status(tmp_path)}

    assert states.pop("synthetic") == "complete"
    assert set(states.values()) == {"missing"}


def test_status_counts_complete_records_only(tmp_path: Path) -> None:
    write_subject(tmp_path / "bidmc", 8)
    write_subject(tmp_path / "bidmc", 9, gzipped=True)
    (tmp_path / "bidmc/bidmc_csv/bidmc_09_Breaths.csv").unlink()

    status = status_of("bidmc", tmp_path)
    assert (status.state, status.found) == ("partial", 1)
    assert status.bytes > 1_000_000


@pytest.mark.parametrize("write", [physionet2017.write, physionet2017.write_zip])
def test_status_counts_the_records_of_the_archive_and_of_the_folder(
    tmp_path: Path, write: Callable[[Path], Path]
) -> None:
    write(tmp_path)

    assert status_of("physionet2017", tmp_path).found == physionet2017.COUNT


def test_status_says_what_a_missing_set_takes_to_fetch(tmp_path: Path) -> None:
    lines = dict(line.split(maxsplit=1) for line in data_lines(data_status(tmp_path))[1:])

    assert re.search(r"missing +0 of 4 +- \(3\.4 GB to fetch\) +CC BY", lines["uci_bp_raw"])
    assert re.search(r"missing +0 of 15 +- +CC BY", lines["ppg_dalia"])


def test_status_names_the_tables_that_are_not_there(tmp_path: Path) -> None:
    (physionet2017.write(tmp_path) / "REFERENCE-v3.csv").unlink()
    (ptbxl.write(tmp_path) / "scp_statements.csv").unlink()

    assert status_of("physionet2017", tmp_path).lacks == ("REFERENCE-v3.csv",)
    assert status_of("ptb-xl", tmp_path).lacks == ("scp_statements.csv",)
    assert "60 of 8528, no REFERENCE-v3.csv" in data_lines(data_status(tmp_path))[6]


def test_a_set_without_its_labels_is_not_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    few = replace(SOURCES["physionet2017"], expected=physionet2017.COUNT)
    monkeypatch.setitem(SOURCES, "physionet2017", few)
    root = physionet2017.write(tmp_path)

    whole = status_of("physionet2017", tmp_path).state
    (root / "REFERENCE-v3.csv").rename(root / "training2017" / "REFERENCE-v3.csv")
    inside = status_of("physionet2017", tmp_path).state
    (root / "training2017" / "REFERENCE-v3.csv").unlink()
    assert (whole, inside, status_of("physionet2017", tmp_path).state) == ("complete", "complete", "partial")


@pytest.mark.real_data
def test_status_tells_the_complete_real_sets_from_the_partial(hpo_data: Path) -> None:
    found = {status.name: (status.state, status.found) for status in data_status(hpo_data)}

    assert found["bidmc"] == ("complete", 53)
    assert found["physionet2017"] == ("complete", 8528)
    assert found["ptb-xl"] == ("partial", 500)
    assert found["csn"] == ("partial", 4)


@pytest.mark.parametrize("name", sorted(set(SOURCES) - {"synthetic"}))
def test_every_source_names_a_publisher_a_licence_and_whom_to_cite(name: str) -> None:
    source = SOURCES[name]

    assert source.url.startswith("https://")
    assert source.url.endswith("/")
    assert source.licence
    assert "20" in source.citation
    assert bool(source.wanted) != bool(source.archive)


@pytest.mark.real_data
def test_the_real_files_have_the_publisher_s_checksums_and_none_is_fetched(
    hpo_data: Path, publisher: Publisher, tmp_path: Path
) -> None:
    publisher.files["SHA256SUMS.txt"] = (hpo_data / "bidmc/SHA256SUMS.txt").read_bytes()
    (tmp_path / "bidmc").mkdir()
    for name in ("bidmc_csv", "LICENSE", "README", "RECORDS"):
        (tmp_path / "bidmc" / name).symlink_to(hpo_data / "bidmc" / name)

    status = get_data("bidmc", tmp_path, base_url=publisher.url)
    assert (status.state, status.found) == ("complete", 53)
    assert [path for path, _ in publisher.requests] == ["SHA256SUMS.txt"]
