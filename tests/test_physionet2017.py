"""The PhysioNet 2017 reader, as a folder and as the archive, and on the complete real set."""

from __future__ import annotations

import csv
import io
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
from makers import physionet2017 as maker
from published import Shelf
from sklearn.model_selection import train_test_split

from finetune.datasets.base import TEST, TRAIN, VALIDATION, WindowSet
from finetune.datasets.physionet2017 import READER
from finetune.errors import DataError, MissingDataError
from finetune.tasks import PHYSIONET2017_CLASSES

TASK = "physionet2017"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maker.write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "physionet2017"))


def reference_split(names: list[str], labels: list[int]) -> dict[int, list[str]]:
    """The split as the reference computes it, on the records themselves."""
    rest, test, rest_labels, _ = train_test_split(
        names, labels, test_size=0.1, random_state=42, stratify=labels
    )
    train, validation = train_test_split(rest, test_size=0.1 / 0.9, random_state=42, stratify=rest_labels)
    return {TRAIN: train, VALIDATION: validation, TEST: test}


def split_of(windows: WindowSet) -> dict[int, list[str]]:
    return {code: windows.groups[windows.split == code].tolist() for code in (TRAIN, VALIDATION, TEST)}


def test_the_split_is_the_references_in_its_own_order(root: Path) -> None:
    windows = READER.read(root, TASK)

    labels = [PHYSIONET2017_CLASSES.index(label) for label in maker.LABELS.values()]
    assert split_of(windows) == reference_split(list(maker.LABELS), labels)
    assert (windows.records_found, windows.records_expected) == (60, 8528)
    assert windows.notes == ("60 of 8528 records are in the folder",)


def test_records_are_padded_with_zeros_to_61_s(root: Path) -> None:
    import wfdb

    windows = READER.read(root, TASK)

    assert windows.signal.shape == (60, 18_300)
    assert (windows.signal.dtype, windows.labels.dtype, windows.rate_hz) == (np.float32, np.int64, 300)
    for name, signal, label in zip(windows.groups, windows.signal, windows.labels, strict=True):
        expected = wfdb.rdsamp(str(root / "training2017" / name))[0][:, 0].astype(np.float32)
        np.testing.assert_array_equal(signal[: len(expected)], expected)
        assert not signal[len(expected) :].any()
        assert PHYSIONET2017_CLASSES[label] == maker.LABELS[name]


@pytest.mark.parametrize("reference_inside", [False, True])
def test_the_archive_gives_the_same_as_the_folder(root: Path, tmp_path: Path, reference_inside: bool) -> None:
    zipped = maker.write_zip(tmp_path / "zipped", reference_inside=reference_inside)

    from_folder, from_zip = READER.read(root, TASK), READER.read(zipped, TASK)

    np.testing.assert_array_equal(from_folder.signal, from_zip.signal)
    np.testing.assert_array_equal(from_folder.groups, from_zip.groups)
    assert len(READER.files(zipped, TASK)) == 2 - reference_inside
    assert len(READER.files(root, TASK)) == 121


def test_labels_are_found_inside_the_folder_too(root: Path) -> None:
    (root / "REFERENCE-v3.csv").rename(root / "training2017" / "REFERENCE-v3.csv")

    assert READER.read(root, TASK).records_found == 60


def test_records_without_files_are_left_out_and_counted(root: Path) -> None:
    for suffix in (".hea", ".mat"):
        (root / "training2017" / f"A00011{suffix}").unlink()

    windows = READER.read(root, TASK)

    assert windows.records_found == 59
    assert "A00011" not in windows.groups


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A00001,N\nA00002,X\n", "line 2 is 'A00002,X'; expected a new record and one of N A O ~"),
        ("A00001,N\nA00001,N\n", "line 2 is 'A00001,N'"),
        ("A00001,N\nA000", "line 2 is 'A000'"),
    ],
)
def test_a_broken_line_of_the_labels_is_named(root: Path, text: str, message: str) -> None:
    (root / "REFERENCE-v3.csv").write_text(text)

    with pytest.raises(DataError, match=message):
        READER.read(root, TASK)


def test_too_few_records_to_split_are_told(root: Path) -> None:
    (root / "REFERENCE-v3.csv").write_text("A00001,N\nA00005,A\n")

    with pytest.raises(DataError, match="2 PhysioNet 2017 records cannot be split by class"):
        READER.read(root, TASK)


@pytest.mark.parametrize("bytes_left", [10, 24, 5000])
def test_a_truncated_signal_file_is_named(root: Path, bytes_left: int) -> None:
    path = root / "training2017" / "A00003.mat"
    path.write_bytes(path.read_bytes()[:bytes_left])

    with pytest.raises(DataError, match=rf"A00003\.mat has {bytes_left} bytes; expected"):
        READER.read(root, TASK)


def test_a_truncated_header_is_named(root: Path) -> None:
    (root / "training2017" / "A00003.hea").write_text("A00003 1 300")

    with pytest.raises(DataError, match=r"A00003\.hea is no WFDB header"):
        READER.read(root, TASK)


def test_a_record_longer_than_61_s_is_named(root: Path) -> None:
    maker.write_record(root / "training2017", "A00003", 18_301)

    with pytest.raises(DataError, match=r"A00003\.hea has 18301 samples at 300 Hz; expected 1 to 18300"):
        READER.read(root, TASK)


def test_half_a_record_is_named(root: Path) -> None:
    (root / "training2017" / "A00003.mat").unlink()

    with pytest.raises(DataError, match=r"A00003\.mat is missing"):
        READER.read(root, TASK)


@pytest.mark.parametrize("keep", [0.0, 0.5, 0.99])
def test_a_truncated_archive_is_named(tmp_path: Path, keep: float) -> None:
    root = maker.write_zip(tmp_path)
    path = root / "training2017.zip"
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    with pytest.raises(DataError, match=r"training2017\.zip cannot be read .* expected a whole zip archive"):
        READER.read(root, TASK)


def test_a_damaged_member_of_the_archive_is_named(tmp_path: Path) -> None:
    root = maker.write_zip(tmp_path)
    path = root / "training2017.zip"
    with zipfile.ZipFile(path) as archive:
        first = archive.getinfo("training2017/A00001.mat").header_offset
    content = bytearray(path.read_bytes())
    content[first + 200 : first + 300] = bytes(100)
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"training2017\.zip: A00001\.mat cannot be unpacked"):
        READER.read(root, TASK)


def test_missing_records_and_labels_are_missing_data(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="hpo data get physionet2017"):
        READER.files(tmp_path, TASK)
    (root / "REFERENCE-v3.csv").unlink()
    with pytest.raises(MissingDataError, match=r"no REFERENCE-v3\.csv"):
        READER.read(root, TASK)


# --- the complete real set ---


@pytest.mark.real_data
def test_the_complete_set_is_split_as_in_the_reference(published: Shelf, hpo_data: Path) -> None:
    root = hpo_data / "physionet2017"
    rows = list(csv.reader(io.StringIO((root / "REFERENCE-v3.csv").read_text())))
    windows = published.windows(TASK)

    labels = [PHYSIONET2017_CLASSES.index(label) for _, label in rows]
    assert split_of(windows) == reference_split([name for name, _ in rows], labels)
    counts = [np.bincount(windows.labels[windows.split == code]).tolist() for code in range(3)]
    assert counts == [[4060, 606, 1933, 223], [508, 76, 241, 28], [508, 76, 241, 28]]
    assert (windows.records_found, windows.records_expected, windows.notes) == (8528, 8528, ())
    assert np.isfinite(windows.signal).all()


@pytest.mark.real_data
def test_real_samples_are_those_of_the_wfdb_package(hpo_data: Path) -> None:
    import wfdb

    root = hpo_data / "physionet2017" / "sample"
    windows = READER.read(root, TASK)

    for name, signal in zip(windows.groups, windows.signal, strict=True):
        expected = wfdb.rdsamp(str(root / "training2017" / name))[0][:, 0].astype(np.float32)
        np.testing.assert_array_equal(signal[: len(expected)], expected)


@pytest.mark.real_data
def test_the_complete_set_is_read_in_3_gb_and_each_file_once(published: Shelf) -> None:
    found = published.get(TASK)

    assert found.peak_gb < 3
    assert found.opened == len(READER.files(published.root(TASK), TASK))
