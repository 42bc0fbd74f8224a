"""What every reader of a data set owes, whatever its format: one suite, one line a reader.

A case that writes its own files in the publisher's format runs everywhere; a case on real files needs
HPO_DATA. Faults of a format are tested with its reader.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from bidmc_files import write_bidmc
from makers import cpsc2018, csn, physionet2017, ppg_bp, ppg_dalia, ptb, ptbxl, uci_bp, wesad
from published import Shelf

from finetune.data.download import data_status
from finetune.datasets import READERS, find_reader
from finetune.datasets.base import TRAIN, Reader, WindowSet
from finetune.errors import DataError, MissingDataError, UnknownNameError
from finetune.tasks import TASKS, Task


@dataclass(frozen=True)
class Case:
    """One task on one set of files."""

    task: str
    label_range: tuple[float, float]
    """Every label lies in it, in the task's unit."""
    write: Callable[[Path], object] | None = None
    """Writes the data set's folder into a data folder; None: the real files below HPO_DATA are read."""
    kind: str = "made"
    """In the test's name, where one data set comes in several forms."""


def write_small_bidmc(data_dir: Path) -> object:
    return write_bidmc(data_dir, [20, 42, 11, 8])


CASES = [
    Case("synthetic_hr", (40, 150), lambda data_dir: None),
    Case("synthetic_rr", (5, 35), lambda data_dir: None),
    Case("bidmc_hr", (30, 220), write_small_bidmc),
    Case("bidmc_rr", (0, 66), write_small_bidmc),
    Case("bidmc_rr_30s", (2, 66), write_small_bidmc),
    Case("bidmc_hr", (30, 220)),
    Case("bidmc_rr", (0, 66)),
    Case("bidmc_rr_30s", (2, 66)),
    Case("ppg_dalia_hr", (30, 220), ppg_dalia.write),
    Case("ppg_dalia_rr", (0.1, 0.5), ppg_dalia.write),
    Case("uci_sbp", (30, 220), uci_bp.write),
    Case("uci_dbp", (30, 220), uci_bp.write),
    Case("uci_sbp", (30, 220), uci_bp.write_raw, "made-raw"),
    Case("uci_dbp", (30, 220), uci_bp.write_raw, "made-raw"),
    Case("ptb-xl", (0, 1), ptbxl.write),
    Case("ptb-xl", (0, 1)),
    Case("physionet2017", (0, 3), physionet2017.write),
    Case("physionet2017", (0, 3), physionet2017.write_zip, "made-zip"),
    Case("ppg_bp_sbp", (20, 300), ppg_bp.write),
    Case("ppg_bp_dbp", (20, 300), ppg_bp.write),
    Case("wesad", (0, 2), wesad.write),
    Case("ptb", (0, 2), ptb.write),
    Case("cpsc2018", (0, 1), cpsc2018.write),
    Case("csn", (0, 1), csn.write),
    Case("csn", (0, 1)),
]


RATES_HZ = {
    "bidmc": 125,
    "ppg_dalia": 64,
    "uci_bp": 125,
    "ptb-xl": 100,
    "physionet2017": 300,
    "ppg_bp": 1000,
    "wesad": 64,
    "ptb": 1000,
    "cpsc2018": 500,
    "csn": 500,
    "synthetic": 125,
}

FAULTS = ("truncated", "empty", "foreign", "pointer")
"""Half of the file, nothing of it, the page that a server sends in its place, what git-lfs leaves there."""


def as_param(case: Case) -> object:
    kind = "real" if case.write is None else case.kind
    marks = [pytest.mark.real_data] if case.write is None else []
    return pytest.param(case, id=f"{case.task}-{kind}", marks=marks)


ECGS = [as_param(case) for case in CASES if TASKS[case.task].signal == "ecg"]
QUICK = [as_param(case) for case in CASES if case.write is not None or not case.task.startswith("bidmc")]
MADE = [as_param(case) for case in CASES if case.write is not None and not TASKS[case.task].synthetic]


@dataclass(frozen=True)
class Subject:
    """A case with its files in place."""

    case: Case
    task: Task
    reader: Reader
    root: Path
    windows: WindowSet


@pytest.fixture(scope="module", params=[as_param(case) for case in CASES])
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    case: Case = request.param
    task = TASKS[case.task]
    reader = find_reader(task.dataset)
    if case.write is None:
        shelf: Shelf = request.getfixturevalue("published")
        return Subject(case, task, reader, shelf.root(case.task), shelf.windows(case.task))
    data_dir = tmp_path_factory.mktemp(task.dataset)
    case.write(data_dir)
    root = data_dir / reader.folder
    return Subject(case, task, reader, root, reader.read(root, task.name))


def test_it_is_the_reader_that_the_task_names(subject: Subject) -> None:
    assert subject.reader.name == subject.task.dataset
    assert subject.reader.version >= 1


def test_its_files_are_there_sorted_and_inside_its_folder(subject: Subject) -> None:
    files = list(subject.reader.files(subject.root, subject.task.name))

    assert files == sorted(files)
    assert all(path.is_file() and path.is_relative_to(subject.root) for path in files)


def test_every_array_has_a_row_a_window(subject: Subject) -> None:
    windows = subject.windows

    count = len(windows.signal)
    assert count > 0
    assert windows.signal.ndim == 2
    assert len(windows.labels) == len(windows.groups) == len(windows.split) == count


def test_a_window_is_as_long_as_the_task_says(subject: Subject) -> None:
    windows = subject.windows

    assert windows.signal.shape[1] == round(subject.task.window_s * windows.rate_hz)


def test_the_rate_is_the_publisher_s(subject: Subject) -> None:
    assert subject.windows.rate_hz == RATES_HZ[subject.task.dataset]


@pytest.mark.parametrize("subject", ECGS, indirect=True, scope="module")
def test_an_ecg_is_in_millivolts(subject: Subject) -> None:
    """A beat is about 1 mV high: ADC units (1000 to the mV) or volts would lie far outside."""
    heights = np.ptp(subject.windows.signal, axis=1)

    assert 0.2 < np.median(heights) < 5


def test_types_are_the_agreed_ones(subject: Subject) -> None:
    windows = subject.windows

    assert windows.signal.dtype == np.float32
    assert windows.split.dtype == np.int8
    assert windows.groups.dtype.kind == "U"
    if subject.task.kind == "multiclass":
        assert windows.labels.dtype == np.int64
        assert windows.labels.ndim == 1
    else:
        assert windows.labels.dtype == np.float32
        assert windows.labels.shape[1] == subject.task.outputs


def test_no_value_is_missing(subject: Subject) -> None:
    windows = subject.windows

    assert np.isfinite(windows.signal).all()
    assert np.isfinite(windows.labels).all()


def test_labels_lie_in_the_range_of_their_unit(subject: Subject) -> None:
    labels, (low, high) = subject.windows.labels, subject.case.label_range

    assert low <= labels.min()
    assert labels.max() <= high
    if subject.task.kind == "multilabel":
        assert set(np.unique(labels)) <= {0, 1}


def test_no_unit_is_in_two_splits(subject: Subject) -> None:
    windows = subject.windows
    pairs = set(zip(windows.groups.tolist(), windows.split.tolist(), strict=True))

    assert len(pairs) == len(set(windows.groups.tolist()))
    assert set(windows.split.tolist()) <= {0, 1, 2}
    assert (windows.split == TRAIN).any()


def test_found_records_are_counted_against_the_publisher_s(subject: Subject) -> None:
    windows = subject.windows

    assert 0 < windows.records_found <= windows.records_expected
    if windows.records_found < windows.records_expected:
        assert windows.notes, "the first note says which records are missing"
    assert all("\n" not in note for note in windows.notes)


@pytest.mark.parametrize("subject", QUICK, indirect=True, scope="module")
def test_the_same_files_give_the_same_bytes(subject: Subject) -> None:
    once, again = subject.windows, subject.reader.read(subject.root, subject.task.name)

    for part in ("signal", "labels", "groups", "split"):
        assert getattr(once, part).tobytes() == getattr(again, part).tobytes()
    assert once.notes == again.notes


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("subject", MADE, indirect=True, scope="module")
def test_a_bad_file_of_each_kind_is_one_line_that_names_it_and_says_what_to_do(
    subject: Subject, fault: str, tmp_path: Path
) -> None:
    for name in one_of_each_kind(subject):
        root = tmp_path / name.replace("/", "-") / subject.reader.folder
        shutil.copytree(subject.root, root)
        spoil(root / name, fault)

        with pytest.raises(DataError) as caught:
            subject.reader.read(root, subject.task.name)
        assert Path(name).stem in str(caught.value), caught.value
        assert "hpo data get" in str(caught.value)
        assert "\n" not in str(caught.value)
        assert {"foreign": "a web page", "pointer": "a pointer of git-lfs"}.get(fault, "") in str(
            caught.value
        )


def one_of_each_kind(subject: Subject) -> list[str]:
    """Return the last file of each kind; the files of one kind have the same name but for numbers."""
    files = subject.reader.files(subject.root, subject.task.name)
    kinds = {re.sub(r"\d+", "#", path.name): path for path in files}
    return [path.relative_to(subject.root).as_posix() for path in kinds.values()]


def spoil(path: Path, fault: str) -> None:
    whole = path.read_bytes()
    content = {
        "truncated": whole[: len(whole) // 2 + 1],
        "empty": b"",
        "foreign": b"<html><body>404 Not Found</body></html>\n",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
    }
    path.write_bytes(content[fault])


@pytest.mark.parametrize("task", sorted(name for name, task in TASKS.items() if not task.synthetic))
def test_an_empty_folder_is_missing_data_in_one_line(task: str, tmp_path: Path) -> None:
    reader = find_reader(TASKS[task].dataset)

    with pytest.raises(MissingDataError, match="hpo data get") as caught:
        reader.files(tmp_path / reader.folder, task)
    assert "\n" not in str(caught.value)


def test_every_task_has_a_reader_in_the_registry() -> None:
    assert {task.dataset for task in TASKS.values()} == set(READERS)


def test_every_task_is_read_here_from_files_that_the_tests_write() -> None:
    assert {case.task for case in CASES if case.write is not None} == set(TASKS)


def test_an_unknown_data_set_offers_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown data set 'bidcm'.*did you mean bidmc"):
        find_reader("bidcm")


def hide(root: Path) -> int:
    """Put what Macs, notebooks and rsync leave beside every file of a data set; return how many files."""
    junk = b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(4000)
    count = 0
    for path in [path for path in root.rglob("*") if path.is_file()]:
        for place in (
            path.with_name(f"._{path.name}"),
            path.with_name(f".{path.name}"),
            path.parent / ".ipynb_checkpoints" / path.name,
            path.parent / "__MACOSX" / path.name,
        ):
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(junk)
            count += 1
    return count


@pytest.mark.parametrize("case", MADE)
def test_hidden_files_are_no_data(case: Case, tmp_path: Path) -> None:
    assert case.write is not None
    case.write(tmp_path)
    task = TASKS[case.task]
    reader = find_reader(task.dataset)
    root = tmp_path / reader.folder
    clean, files = reader.read(root, task.name), reader.files(root, task.name)
    status = data_status(tmp_path)

    assert hide(root) > 0

    found = reader.read(root, task.name)
    assert reader.files(root, task.name) == files
    assert (found.records_found, found.notes) == (clean.records_found, clean.notes)
    np.testing.assert_array_equal(found.signal, clean.signal)
    np.testing.assert_array_equal(found.labels, clean.labels)
    assert found.groups.tolist() == clean.groups.tolist()
    assert data_status(tmp_path) == status
