"""The PTB-XL reader, on the publisher's layout and on its real records."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from makers import ptbxl as maker
from makers.wfdb_files import write_dat_record
from published import Shelf

from finetune.datasets import with_leads
from finetune.datasets.base import TEST, TRAIN, VALIDATION
from finetune.datasets.ptbxl import READER
from finetune.errors import DataError, MissingDataError, SettingError
from finetune.tasks import PTB_XL_CLASSES

TASK = "ptb-xl"


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return maker.write(tmp_path_factory.mktemp("data"))


@pytest.fixture
def root(pristine: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(pristine, tmp_path / "ptb-xl"))


def test_folds_1_to_8_train_9_validates_10_tests(root: Path) -> None:
    windows = READER.read(root, TASK)

    assert windows.signal.shape == (40, 1000)
    assert (windows.signal.dtype, windows.rate_hz) == (np.float32, 100)
    assert np.bincount(windows.split).tolist() == [32, 4, 4]
    patients = [set(windows.groups[windows.split == code]) for code in (TRAIN, VALIDATION, TEST)]
    assert patients[1:] == [{"1009", "1019"}, {"1010", "1020"}]
    assert not patients[0] & (patients[1] | patients[2])


def test_labels_are_the_superclasses_of_diagnostic_codes_of_any_likelihood(root: Path) -> None:
    labels = READER.read(root, TASK).labels

    found = [{PTB_XL_CLASSES[i] for i in np.flatnonzero(row)} for row in labels[[0, 8, 16, 24]]]
    assert found == [{"NORM"}, {"MI", "STTC"}, {"HYP", "CD"}, set()]


def test_lead_ii_is_read_in_millivolts(root: Path) -> None:
    import wfdb

    signal = READER.read(root, TASK).signal[0]

    np.testing.assert_array_equal(
        signal, wfdb.rdsamp(str(maker.stem_of(root, 0)))[0][:, 1].astype(np.float32)
    )


def test_listed_records_that_are_not_there_make_the_set_partial(root: Path) -> None:
    for suffix in (".hea", ".dat"):
        maker.stem_of(root, 7).with_suffix(suffix).unlink()

    windows = READER.read(root, TASK)

    assert (windows.records_found, windows.records_expected) == (39, 21_799)
    assert "1 of its records are not in the folder, the first records100/00000/00007_lr" in windows.notes[0]
    assert len(READER.files(root, TASK)) == 2 + 2 * 39


def edit_table(root: Path, row: int, old: str, new: str) -> None:
    path = root / "ptbxl_database.csv"
    lines = path.read_text().splitlines()
    assert old in lines[row]
    lines[row] = lines[row].replace(old, new)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    ("row", "old", "new", "message"),
    [
        (0, "strat_fold", "fold", "ptbxl_database.csv has no column strat_fold"),
        (3, ",3,records100", ",,records100", "column strat_fold of record 2 is empty"),
        (3, ",3,records100", ",11,records100", "strat_fold 11 of record 2; expected 1 to 10"),
        (1, "{'NORM': 100.0,", "{'NORM': 100.0", "scp_codes of record 0 cannot be read"),
        (1, "1001.0", "1009.0", "patient 1009 is in two splits"),
        (2, "1,", "0,", "record 0 is there twice"),
        (2, "00001_lr", "00000_lr", "record 1 is there twice"),
        (2, "1002.0", "1,002.0", "line 3 has"),
    ],
)
def test_a_hole_in_the_table_is_named(root: Path, row: int, old: str, new: str, message: str) -> None:
    edit_table(root, row, old, new)

    with pytest.raises(DataError, match=message):
        READER.read(root, TASK)


def test_a_truncated_table_is_named(root: Path) -> None:
    path = root / "ptbxl_database.csv"
    path.write_bytes(path.read_bytes()[:-60])

    with pytest.raises(DataError, match="is the file truncated"):
        READER.read(root, TASK)


def test_an_empty_table_is_named(root: Path) -> None:
    (root / "scp_statements.csv").write_text("")

    with pytest.raises(DataError, match=r"scp_statements\.csv cannot be read"):
        READER.read(root, TASK)


def test_statements_with_other_superclasses_are_named(root: Path) -> None:
    path = root / "scp_statements.csv"
    path.write_text(path.read_text().replace("MI,IMI", "XX,IMI"))

    with pytest.raises(DataError, match="superclasses differ in MI, XX"):
        READER.read(root, TASK)


def test_a_truncated_signal_file_is_named(root: Path) -> None:
    path = maker.stem_of(root, 5).with_suffix(".dat")
    path.write_bytes(path.read_bytes()[:-10])

    with pytest.raises(DataError, match=r"00005_lr\.dat has 23990 bytes; expected 24000 for 1000 samples"):
        READER.read(root, TASK)


def test_changed_samples_are_noticed_by_their_checksum(root: Path) -> None:
    path = maker.stem_of(root, 5).with_suffix(".dat")
    content = bytearray(path.read_bytes())
    content[24 * 100 + 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(DataError, match=r"00005_lr\.dat: the samples of lead II are not as written"):
        READER.read(root, TASK)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"00005_lr\.hea is empty; expected a WFDB header"),
        ("00005_lr 12 100 1000\n00005_lr.dat 16", r"00005_lr\.hea is no WFDB header"),
        ("00005_lr 12 100 1000\n00005_lr.dat 16 1000.0(0)/mV 16 0 0 0 0 I\n", "describes 1 signals of 12"),
        ("00005_lr 1 100 1000\n00005_lr.dat 212 1000.0(0)/mV 16 0 0 0 0 I\n", "no WFDB header of 16-bit"),
        ("00005_lr 1 100 1000\n00005_lr.dat 16 1000.0(0)/uV 16 0 0 0 0 I\n", "unit 'uV'"),
        ("\x00\x01garbage", r"00005_lr\.hea is no WFDB header"),
    ],
)
def test_a_broken_header_is_named(root: Path, text: str, message: str) -> None:
    maker.stem_of(root, 5).with_suffix(".hea").write_text(text)

    with pytest.raises(DataError, match=message):
        READER.read(root, TASK)


def test_a_record_at_another_rate_is_named(root: Path) -> None:
    write_dat_record(maker.stem_of(root, 5), np.zeros((12, 5000), np.int16), 500)

    with pytest.raises(DataError, match=r"00005_lr\.hea has 12 leads of 5000 samples at 500 Hz"):
        READER.read(root, TASK)


def test_samples_marked_invalid_are_named(root: Path) -> None:
    write_dat_record(maker.stem_of(root, 5), np.full((12, 1000), -32768, np.int16), 100)

    with pytest.raises(DataError, match="lead II has samples marked invalid"):
        READER.read(root, TASK)


def test_half_a_record_is_named(root: Path) -> None:
    maker.stem_of(root, 5).with_suffix(".hea").unlink()

    with pytest.raises(DataError, match=r"00005_lr\.hea is missing"):
        READER.files(root, TASK)


def test_missing_tables_and_records_are_missing_data(root: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match=r"no ptbxl_database\.csv"):
        READER.files(tmp_path, TASK)
    shutil.rmtree(root / "records100")
    with pytest.raises(MissingDataError, match="no PTB-XL record at 100 Hz"):
        READER.files(root, TASK)


@pytest.mark.real_data
def test_the_500_real_records_have_their_known_superclasses_and_folds(published: Shelf) -> None:
    windows = published.windows(TASK)

    counts = dict(zip(PTB_XL_CLASSES, windows.labels.sum(axis=0).tolist(), strict=True))
    assert counts == {"NORM": 297, "MI": 73, "STTC": 96, "HYP": 40, "CD": 78}
    assert len(set(windows.groups)) == 466
    assert (windows.records_found, windows.records_expected) == (500, 21_799)
    assert windows.notes == ("500 of 21799 records: 21299 are not in ptbxl_database.csv",)


@pytest.mark.real_data
def test_real_samples_are_those_of_the_wfdb_package(published: Shelf, hpo_data: Path) -> None:
    import pandas as pd
    import wfdb

    root = hpo_data / "ptb-xl"
    table = pd.read_csv(root / "ptbxl_database.csv")
    tested = table[table["strat_fold"] == 10]
    windows = published.windows(TASK)

    mine = windows.signal[windows.split == TEST]
    for signal, name in zip(mine, tested["filename_lr"], strict=True):
        np.testing.assert_array_equal(signal, wfdb.rdsamp(str(root / name))[0][:, 1].astype(np.float32))


@pytest.mark.real_data
def test_all_leads_are_those_of_wfdb_and_lead_ii_is_among_them(published: Shelf, hpo_data: Path) -> None:
    import wfdb

    root = hpo_data / "ptb-xl"
    one, all_of_them = published.windows(TASK), READER.with_leads(READER.all_leads).read(root, "ptb-xl")

    assert all_of_them.signal.shape == (len(one.signal), 12, 1000)
    np.testing.assert_array_equal(all_of_them.signal[:, 1], one.signal)
    record = wfdb.rdrecord(str(root / "records100/00000/00001_lr"))
    assert [name.upper() for name in record.sig_name] == [name.upper() for name in READER.all_leads]


def test_a_lead_that_is_not_there_is_told_with_those_that_are() -> None:
    with pytest.raises(SettingError, match="lead 'V7' of ptb-xl; expected some of I, II"):
        with_leads(READER, ("II", "V7"))
