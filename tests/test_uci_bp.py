"""The UCI blood-pressure reader in both forms, and its labels against an independent measurement."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from makers import uci_bp as maker
from makers.waves import arterial_wave

from finetune.datasets import uci_raw
from finetune.datasets.base import TEST, TRAIN, VALIDATION
from finetune.datasets.blood_pressure import window_pressure
from finetune.datasets.uci_bp import READER
from finetune.datasets.uci_raw import contiguous_split, read_raw
from finetune.errors import DataError, MissingDataError

SYSTOLIC, DIASTOLIC = 0, 1

# --- the cleaned form ---


def test_the_three_files_are_train_validation_and_test(tmp_path: Path) -> None:
    windows = READER.read(maker.write(tmp_path), "uci_sbp")

    assert windows.signal.shape == (36, 625)
    assert (windows.signal.dtype, windows.rate_hz) == (np.float32, 125)
    assert windows.split.tolist() == [TRAIN] * 12 + [VALIDATION] * 12 + [TEST] * 12
    expected = [110 + row + number for number in range(3) for row in range(12)]
    assert windows.labels[:, 0].tolist() == expected
    assert windows.groups[[0, 3, 35]].tolist() == ["Part_4_0", "Part_4_1", "Part_1_3"]
    assert (windows.records_found, windows.records_expected) == (3, 3)
    assert any(note.startswith("files 0, 1 and 2 train, validate and test") for note in windows.notes)


def test_the_diastolic_task_reads_the_other_column(tmp_path: Path) -> None:
    windows = READER.read(maker.write(tmp_path), "uci_dbp")

    assert windows.labels[:4, 0].tolist() == [60, 60.5, 61, 61.5]


def test_patients_named_in_two_files_are_kept_apart_and_told(tmp_path: Path) -> None:
    root = maker.write(tmp_path)
    maker.write_fold(root, 1, maker.fold_content(0))

    windows = READER.read(root, "uci_sbp")

    by_split = [set(windows.groups[windows.split == code]) for code in (TRAIN, VALIDATION, TEST)]
    assert not by_split[0] & by_split[1]
    assert any("4 names of patients are in more than one file" in note for note in windows.notes)


def test_rows_with_gaps_are_dropped_and_told(tmp_path: Path) -> None:
    root, content = maker.write(tmp_path), maker.fold_content(2)
    content["signal"][1, 5], content["SP"][2, 0] = np.nan, np.nan
    maker.write_fold(root, 2, content)

    windows = READER.read(root, "uci_sbp")

    assert len(windows.signal) == 34
    assert "signal_fold_2.mat: 2 of 12 windows dropped (gaps in signal or SP)" in windows.notes


def test_a_missing_file_makes_the_set_partial(tmp_path: Path) -> None:
    root = maker.write(tmp_path)
    (root / "uci2_dataset" / "signal_fold_2.mat").unlink()

    windows = READER.read(root, "uci_sbp")

    assert (windows.records_found, windows.records_expected) == (2, 3)
    assert windows.notes[0] == "files not in the folder: signal_fold_2.mat"


@pytest.mark.parametrize(
    ("variable", "value", "message"),
    [
        ("SP", None, "SP is missing; expected the variables patient, SP, signal"),
        ("signal", None, "signal is missing"),
        ("patient", None, "patient is missing"),
        ("signal", np.ones((12, 624)), r"signal has the shape \(12, 624\); expected rows of 625 samples"),
        ("SP", np.ones((11, 1)), r"SP has the shape \(11, 1\); expected 12 numbers"),
        ("patient", np.ones((3, 1)), r"patient has the shape \(3, 1\); expected 12 names"),
    ],
)
def test_a_variable_that_is_not_as_it_must_be_is_named(
    tmp_path: Path, variable: str, value: np.ndarray | None, message: str
) -> None:
    root, content = maker.write(tmp_path), maker.fold_content(1)
    del content[variable]
    maker.write_fold(root, 1, content if value is None else {**content, variable: value})

    with pytest.raises(DataError, match=rf"signal_fold_1\.mat: {message}"):
        READER.read(root, "uci_sbp")


@pytest.mark.parametrize("length", [0, 60, 200, 20_000])
def test_a_truncated_matlab_5_file_is_named(tmp_path: Path, length: int) -> None:
    root = maker.write(tmp_path)
    path = root / "uci2_dataset" / "signal_fold_0.mat"
    path.write_bytes(path.read_bytes()[:length])

    with pytest.raises(DataError, match=r"signal_fold_0\.mat") as told:
        READER.read(root, "uci_sbp")

    assert "\n" not in str(told.value)


def test_an_empty_folder_is_missing_data(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="hpo data get uci_bp"):
        READER.files(tmp_path, "uci_sbp")


# --- the raw form ---


@pytest.mark.parametrize("rows", [False, True])
def test_cells_give_their_pressures_whichever_way_round_they_are_stored(tmp_path: Path, rows: bool) -> None:
    cells = [maker.cell(number) for number in range(10)]
    path = maker.write_part(tmp_path, 1, cells, rows=rows)

    systolic, diastolic = read_raw([path], SYSTOLIC), read_raw([path], DIASTOLIC)

    assert systolic.signal.shape == (40, 625)
    np.testing.assert_array_equal(systolic.signal[5], cells[1][0, 625:1250].astype(np.float32))
    expected = np.repeat(np.arange(10), 4)
    np.testing.assert_allclose(systolic.labels[:, 0], 110 + expected, atol=2)
    np.testing.assert_allclose(diastolic.labels[:, 0], 60 + expected, atol=2)


def test_the_raw_split_is_contiguous_and_no_block_is_in_two_splits(tmp_path: Path) -> None:
    windows = READER.read(maker.write_raw(tmp_path), "uci_sbp")

    assert np.all(np.diff(windows.split) >= 0)
    assert np.bincount(windows.split).tolist() == [64, 8, 8]
    groups = [set(windows.groups[windows.split == code]) for code in (TRAIN, VALIDATION, TEST)]
    assert sum(map(len, groups)) == len(set.union(*groups))
    assert (windows.records_found, windows.records_expected) == (20, 12_000)
    assert "20 of 12000 cells are in the folder" in windows.notes


def test_the_complete_set_leaves_a_gap_of_four_blocks_at_each_border() -> None:
    codes = contiguous_split(924)  # 12,000 cells, 13 a block

    borders = np.flatnonzero(np.diff(codes)) + 1
    assert borders.tolist() == [739, 743, 831, 835]
    assert codes[[0, 739, 743, 831, 923]].tolist() == [TRAIN, -1, VALIDATION, -1, TEST]


def test_windows_in_a_gap_are_left_out_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uci_raw, "GAP_SHARE", 0.1)
    path = maker.write_part(tmp_path, 1, [maker.cell(number) for number in range(20)])

    windows = read_raw([path], SYSTOLIC)

    numbers = np.array([int(name.removeprefix("block-")) for name in windows.groups])
    assert sorted(set(numbers)) == [0, 1, 2, 3, 4, 5, 6, 7]
    assert "16 windows dropped (between two splits)" in windows.notes
    np.testing.assert_allclose(windows.labels[:, 0], 110 + 2 * numbers + 0.5, atol=2.5)


def test_a_window_seen_before_is_dropped(tmp_path: Path) -> None:
    cells = [maker.cell(number % 9) for number in range(10)]

    windows = read_raw([maker.write_part(tmp_path, 1, cells)], SYSTOLIC)

    assert len(windows.signal) == 36
    assert "4 windows dropped (the same PPG as an earlier window)" in windows.notes


def test_cells_shorter_than_a_window_give_none(tmp_path: Path) -> None:
    cells = [maker.cell(number) for number in range(9)] + [maker.cell(9)[:, :600]]

    assert len(read_raw([maker.write_part(tmp_path, 1, cells)], SYSTOLIC).signal) == 36


def test_the_raw_form_is_read_cell_by_cell_and_never_whole(tmp_path: Path) -> None:
    cells = [maker.cell(number, seconds=300) for number in range(20)]
    path = maker.write_part(tmp_path, 1, cells)
    content = sum(each.nbytes for each in cells)
    del cells

    tracemalloc.start()
    windows = read_raw([path], SYSTOLIC)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert windows.signal.nbytes == 20 * 60 * 625 * 4
    assert peak < windows.signal.nbytes + 0.35 * content  # at most three cells of twenty, and room to spare


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_a_truncated_matlab_7_file_is_named(tmp_path: Path, keep: float) -> None:
    path = maker.write_part(tmp_path, 1, [maker.cell(number) for number in range(10)])
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])

    with pytest.raises(DataError, match=r"Part_1\.mat cannot be read .* MATLAB 7\.3") as told:
        READER.read(tmp_path, "uci_sbp")

    assert "\n" not in str(told.value)


def test_a_cell_of_another_shape_is_named(tmp_path: Path) -> None:
    cells = [maker.cell(0), maker.cell(1)[:2]]
    maker.write_part(tmp_path, 1, cells)

    with pytest.raises(DataError, match=r"Part_1\.mat: cell 1 has the shape \(2500, 2\)"):
        READER.read(tmp_path, "uci_sbp")


def test_a_file_without_a_cell_array_is_named(tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "Part_1.mat", "w") as file:
        file["x"] = np.arange(3)

    with pytest.raises(DataError, match=r"Part_1\.mat holds x; expected one cell array such as Part_1"):
        READER.read(tmp_path, "uci_sbp")


# --- labels ---


@pytest.mark.parametrize("bpm", [40, 75, 135])
def test_a_window_gives_the_pressures_that_it_was_made_with(bpm: float) -> None:
    pressure = window_pressure(arterial_wave(625, bpm, 140, 80, seed=1), 125)

    assert pressure.fault == ""
    assert pressure.systolic == pytest.approx(140, abs=2)
    assert pressure.diastolic == pytest.approx(80, abs=2)


@pytest.mark.parametrize(
    ("abp", "fault"),
    [
        (arterial_wave(625, 70, 240, 90, 1), "pressure outside 30 to 220 mmHg"),
        (arterial_wave(625, 70, 90, 10, 1), "pressure outside 30 to 220 mmHg"),
        (arterial_wave(625, 70, 96, 90, 1), "pulse pressure under 10 mmHg"),
        (arterial_wave(625, 170, 120, 80, 1), "not 2 to 11 beats"),
        (arterial_wave(625, 10, 120, 80, 1), "not 2 to 11 beats"),
        (arterial_wave(625, 27, 120, 80, 1), "heart rate outside 35 to 140 bpm"),
        (np.full(625, 90.0), "not 2 to 11 beats"),
        (np.where(np.arange(625) == 7, np.nan, arterial_wave(625, 70, 120, 80, 1)), "gaps in the pressure"),
    ],
)
def test_a_window_that_cannot_be_labelled_says_why(abp: np.ndarray, fault: str) -> None:
    assert window_pressure(abp, 125).fault == fault


def envelope_pressures(abp: np.ndarray) -> tuple[float, float]:
    """Median systolic and diastolic pressure without any peak detection.

    The beat's period is the strongest autocorrelation of each 10 s; every stretch of one period holds one
    systole and one diastole, so its largest and smallest sample are theirs.
    """
    found = []
    for start in range(0, len(abp) - 1250, 1250):
        stretch = abp[start : start + 1250]
        if stretch.max() > 220 or stretch.min() < 30:
            continue
        centred = stretch - stretch.mean()
        likeness = np.correlate(centred, centred, "full")[1249:]
        period = 45 + int(likeness[45:220].argmax())
        beats = stretch[: len(stretch) // period * period].reshape(-1, period)
        found.append((np.median(beats.max(axis=1)), np.median(beats.min(axis=1))))
    systolic, diastolic = np.median(found, axis=0)
    return float(systolic), float(diastolic)


@pytest.mark.real_data
def test_real_pressures_are_within_2_mmhg_of_an_independent_measurement(
    hpo_data: Path, tmp_path: Path
) -> None:
    """Ten intensive-care records with the raw form's layout; not the UCI set."""
    shutil.copyfile(hpo_data / "bidmc_abp" / "Part_bidmc.mat", tmp_path / "Part_1.mat")
    waves = np.load(hpo_data / "bidmc_abp" / "bidmc_abp_125hz.npz")["abp"].astype(np.float64)

    labels = [READER.read(tmp_path, task) for task in ("uci_sbp", "uci_dbp")]

    blocks = np.unique(labels[0].groups)
    assert len(blocks) == len(waves) == 10  # one record a block in so small a set
    for block, wave in zip(blocks, waves, strict=True):
        medians = [float(np.median(each.labels[each.groups == block])) for each in labels]
        assert np.abs(np.array(medians) - envelope_pressures(wave)).max() < 2, (block, medians)


@pytest.mark.real_data
def test_most_real_windows_survive_the_cleaning(hpo_data: Path, tmp_path: Path) -> None:
    shutil.copyfile(hpo_data / "bidmc_abp" / "Part_bidmc.mat", tmp_path / "Part_1.mat")

    windows = READER.read(tmp_path, "uci_sbp")

    assert len(windows.signal) > 0.9 * 960
    assert np.isfinite(windows.signal).all()
