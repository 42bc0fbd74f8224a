"""WESAD, PTB and CPSC 2018, on files of their publishers' layout: what each reader decides by itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from makers import cpsc2018, ppg_bp, ptb, wesad

from finetune.datasets.base import TEST, TRAIN, VALIDATION, WindowSet
from finetune.datasets.cpsc2018 import READER as CPSC2018
from finetune.datasets.ppg_bp import READER as PPG_BP
from finetune.datasets.ptb import READER as PTB
from finetune.datasets.wesad import READER as WESAD
from finetune.errors import DataError
from finetune.tasks import CPSC2018_CLASSES


def units_of(windows: WindowSet, split: int) -> set[str]:
    return set(windows.groups[windows.split == split].tolist())


def test_a_minute_of_wesad_lies_in_one_condition(tmp_path: Path) -> None:
    windows = WESAD.read(wesad.write(tmp_path), "wesad")
    of_s3 = windows.groups == "S3"
    bvp = wesad.subject_content("S3")["signal"]["wrist"]["BVP"].ravel().astype(np.float32)

    # Baseline from second 10 to 130, stress from 150 to 245, amusement from 265 to 355; a window every 30 s.
    assert windows.labels[of_s3].tolist() == [0, 0, 1, 1, 2]
    np.testing.assert_array_equal(windows.signal[of_s3][0], bvp[30 * 64 : 90 * 64])
    np.testing.assert_array_equal(windows.signal[of_s3][2], bvp[150 * 64 : 210 * 64])
    assert [len(units_of(windows, split)) for split in (TRAIN, VALIDATION, TEST)] == [12, 1, 2]
    assert (windows.records_found, windows.records_expected, windows.notes) == (15, 15, ())


def test_a_person_of_wesad_without_any_condition_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "wesad"
    path = wesad.write_content(root, "S2", wesad.subject_content("S2", ((0, 80), (4, 80))))

    with pytest.raises(DataError, match=r"S2\.pkl: has no minute in one condition") as caught:
        WESAD.read(root, "wesad")
    assert str(path) in str(caught.value)


def test_ptb_parts_people_by_class_and_reads_full_windows(tmp_path: Path) -> None:
    root = ptb.write(tmp_path)
    ptb.write_record(root, 90, 900, "n/a")
    ptb.write_record(root, 91, 910, "Myocardial infarction", samples=9_000)
    windows = PTB.read(root, "ptb")
    parts = [units_of(windows, split) for split in (TRAIN, VALIDATION, TEST)]

    assert windows.signal.shape[1:] == (10_000,)
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert "patient090" not in set().union(*parts)
    for split in (VALIDATION, TEST):
        assert set(windows.labels[windows.split == split].tolist()) == {0, 1, 2}
    of_first = windows.groups == "patient001"
    assert windows.labels[of_first].tolist() == [0, 0]  # a healthy control, 21 s
    assert any("1 of 45 records are of people without a reason" in note for note in windows.notes)
    lead = np.frombuffer((root / "patient001/s0010_re.dat").read_bytes(), "<i2").reshape(-1, 12)[:, 1]
    np.testing.assert_allclose(windows.signal[of_first].ravel(), lead[:20_000] / 2000, rtol=1e-6)


def test_ptb_gives_all_twelve_leads(tmp_path: Path) -> None:
    windows = PTB.with_leads(PTB.all_leads).read(ptb.write(tmp_path), "ptb")

    assert windows.signal.shape[1:] == (12, 10_000)


def test_ptb_refuses_other_leads(tmp_path: Path) -> None:
    root = ptb.write(tmp_path)
    header = root / "patient003/s0030_re.hea"
    header.write_text(header.read_text().replace(" avr", " avx"))

    with pytest.raises(DataError, match=r"s0030_re\.hea: leads i, ii, iii, avx"):
        PTB.read(root, "ptb")


def test_cpsc2018_takes_the_first_ten_seconds_and_several_labels(tmp_path: Path) -> None:
    root = cpsc2018.write(tmp_path)
    windows = CPSC2018.read(root, "cpsc2018")
    rows = {name: row for row, name in enumerate(windows.groups.tolist())}
    short, two = windows.signal[rows["A0003"]], windows.labels[rows["A0002"]]

    assert windows.signal.shape == (20, 5000)
    assert np.abs(short[:4000]).max() > 0
    assert (short[4000:] == 0).all()
    assert [CPSC2018_CLASSES[place] for place in np.flatnonzero(two)] == ["59118001", "164884008"]
    assert windows.notes == ("20 of 6877 records are in the folder",)


def test_cpsc2018_refuses_a_record_without_a_known_code(tmp_path: Path) -> None:
    root = cpsc2018.write(tmp_path)
    cpsc2018.write_record(root, 5, "10370003")

    with pytest.raises(DataError, match=r"A0005\.hea: none of the nine codes"):
        CPSC2018.read(root, "cpsc2018")


def test_ppg_bp_gives_every_piece_its_persons_pressure(tmp_path: Path) -> None:
    root = ppg_bp.write(tmp_path)
    windows = {task: PPG_BP.read(root, task) for task in ("ppg_bp_sbp", "ppg_bp_dbp")}
    of_four = windows["ppg_bp_sbp"].groups == "4"
    piece = np.array((root / "Data File/0_subject/4_2.txt").read_text().split(), np.float32)

    assert windows["ppg_bp_sbp"].labels[of_four].tolist() == [[104.0]] * 3
    assert windows["ppg_bp_dbp"].labels[of_four].tolist() == [[62.0]] * 3
    np.testing.assert_array_equal(windows["ppg_bp_sbp"].signal[of_four][1], piece)
    parts = [units_of(windows["ppg_bp_sbp"], split) for split in (TRAIN, VALIDATION, TEST)]
    assert [len(part) for part in parts] == [16, 2, 2]


@pytest.mark.parametrize("value", [None, "n/a", 0, 1200, "12o"])
def test_a_pressure_that_is_none_is_refused(tmp_path: Path, value: object) -> None:
    root = ppg_bp.write(tmp_path)
    rows = ppg_bp.people_rows(range(2, 22))
    rows[5][4] = value
    ppg_bp.write_table(root / ppg_bp.TABLE, rows)

    with pytest.raises(DataError, match=r"Systolic Blood Pressure\(mmHg\) of person 5 is"):
        PPG_BP.read(root, "ppg_bp_sbp")
