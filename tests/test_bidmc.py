"""The BIDMC reader: every published figure on the real files, every fault on files made here."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import numpy as np
import pytest
from bidmc_files import breaths_text, numerics_text, signals_text, write_bidmc, write_subject
from published import Shelf

from finetune.datasets import find_reader
from finetune.datasets.base import TEST, TRAIN, VALIDATION, WindowSet
from finetune.datasets.bidmc import SPLIT
from finetune.errors import DataError, MissingDataError
from finetune.tasks import TASKS
from finetune.trivial import trivial_metrics

READER = find_reader("bidmc")
TASK_NAMES = ("bidmc_hr", "bidmc_rr", "bidmc_rr_30s")


def labels_of(windows: WindowSet, split: int) -> np.ndarray:
    return windows.labels[windows.split == split]


# --- the figures of the reference protocol, on the real files ---


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("task", "counts"),
    [
        ("bidmc_hr", [9912, 1180, 1416]),
        ("bidmc_rr", [9912, 1180, 1416]),
        ("bidmc_rr_30s", [9486, 1130, 1356]),
    ],
)
def test_the_complete_set_has_the_published_number_of_windows(
    published: Shelf, task: str, counts: list[int]
) -> None:
    windows = published.windows(task)

    assert np.bincount(windows.split).tolist() == counts
    assert windows.signal.shape[1] == TASKS[task].window_s * windows.rate_hz
    assert windows.records_found == windows.records_expected == 53
    assert not np.isnan(windows.signal).any()


@pytest.mark.real_data
def test_training_labels_have_the_published_mean_and_spread(published: Shelf) -> None:
    heart, breath = (published.windows(task) for task in ("bidmc_hr", "bidmc_rr"))

    assert labels_of(breath, TRAIN).mean() == pytest.approx(17.22, abs=0.005)
    assert labels_of(breath, TRAIN).std() == pytest.approx(4.43, abs=0.005)
    assert labels_of(breath, VALIDATION).std() == pytest.approx(3.86, abs=0.005)
    assert labels_of(heart, TRAIN).mean() == pytest.approx(88.12, abs=0.005)
    assert labels_of(heart, TRAIN).std() == pytest.approx(11.76, abs=0.005)


@pytest.mark.real_data
def test_respiratory_test_labels_have_the_published_histogram(published: Shelf) -> None:
    values, counts = np.unique(labels_of(published.windows("bidmc_rr"), TEST), return_counts=True)

    assert dict(zip(values.tolist(), counts.tolist(), strict=True)) == {
        0: 2,
        6: 20,
        12: 312,
        18: 885,
        24: 197,
    }


def constant_scores(windows: WindowSet, split: int, constant: float) -> tuple[float, float]:
    error = labels_of(windows, split).astype(np.float64) - constant
    return float(np.abs(error).mean()), float(np.sqrt(np.square(error).mean()))


@pytest.mark.real_data
def test_constant_predictors_score_what_was_published(published: Shelf) -> None:
    heart, breath = (published.windows(task) for task in ("bidmc_hr", "bidmc_rr"))
    median = float(np.median(labels_of(breath, TRAIN)))
    breath_mean, heart_mean = (float(labels_of(each, TRAIN).mean()) for each in (breath, heart))

    assert median == 18
    assert constant_scores(breath, VALIDATION, median) == pytest.approx((2.222, 4.010), abs=0.0005)
    assert constant_scores(breath, TEST, median) == pytest.approx((2.352, 3.928), abs=0.0005)
    assert constant_scores(breath, TEST, breath_mean) == pytest.approx((2.766, 3.870), abs=0.0005)
    assert constant_scores(heart, VALIDATION, heart_mean)[0] == pytest.approx(16.91, abs=0.005)
    assert constant_scores(heart, TEST, heart_mean) == pytest.approx((12.69, 15.41), abs=0.005)


@pytest.mark.real_data
def test_the_30_s_constant_scores_what_was_published(published: Shelf) -> None:
    windows = published.windows("bidmc_rr_30s")
    training = labels_of(windows, TRAIN)

    on = {
        split: trivial_metrics(TASKS["bidmc_rr_30s"], training, labels_of(windows, split))["mae"]
        for split in (VALIDATION, TEST)
    }
    assert on == pytest.approx({VALIDATION: 1.93, TEST: 2.23}, abs=0.005)


@pytest.mark.real_data
def test_subjects_come_in_the_order_of_the_split(published: Shelf) -> None:
    windows = published.windows("bidmc_rr")

    assert tuple(dict.fromkeys(windows.groups.tolist())) == tuple(str(subject) for subject in SPLIT.all)


@pytest.mark.real_data
def test_dropped_windows_are_reported(published: Shelf) -> None:
    notes = published.windows("bidmc_rr_30s").notes

    assert notes == ("subject 46: 6 of 226 windows dropped (fewer than two breath marks)",)


@pytest.mark.real_data
def test_a_heart_rate_is_bpm_and_a_breath_rate_is_per_minute(published: Shelf) -> None:
    heart, breath = (published.windows(task).labels for task in ("bidmc_hr", "bidmc_rr_30s"))

    assert 30 < heart.min() < heart.max() < 200
    assert 2 < breath.min() < breath.max() < 60


# --- labels and layout, on files made here ---


def one_subject(tmp_path: Path, subject: int = 8) -> Path:
    return write_bidmc(tmp_path, [subject])


def breaths_path(root: Path, subject: int = 8) -> Path:
    return root / "bidmc_csv" / f"bidmc_{subject:02d}_Breaths.csv"


def test_a_breath_every_four_seconds_is_fifteen_a_minute(tmp_path: Path) -> None:
    root = one_subject(tmp_path)

    assert np.unique(READER.read(root, "bidmc_rr_30s").labels) == pytest.approx([15])
    assert np.unique(READER.read(root, "bidmc_rr").labels).tolist() == [12, 18]


def test_a_mark_on_the_edge_belongs_to_the_window_that_begins_there(tmp_path: Path) -> None:
    root = one_subject(tmp_path)
    breaths_path(root).write_text(breaths_text([1250, 59000]))

    labels = READER.read(root, "bidmc_rr").labels[:, 0]
    # windows of 10 s begin every 2 s: the mark at 10 s lies in those that begin at 2, 4, 6, 8 and 10 s
    assert np.flatnonzero(labels[:100]).tolist() == [1, 2, 3, 4, 5]


def test_heart_rate_is_the_mean_of_the_valid_seconds_inside(tmp_path: Path) -> None:
    root = one_subject(tmp_path)
    rates = np.full(481, 80.0)
    rates[0:5], rates[10:20] = 60, np.nan
    (root / "bidmc_csv/bidmc_08_Numerics.csv").write_text(numerics_text(rates))

    windows = READER.read(root, "bidmc_hr")
    assert windows.labels[0, 0] == pytest.approx(70)
    assert len(windows.labels) == 235  # the window 10 s to 20 s has no heart rate
    assert "subject 8: 1 of 236 windows dropped (no valid HR)" in windows.notes


def test_columns_are_found_by_name_whatever_their_order(tmp_path: Path) -> None:
    root = one_subject(tmp_path)
    path = root / "bidmc_csv/bidmc_08_Signals.csv"
    rows = path.read_text().splitlines()[1:]
    ppg = READER.read(root, "bidmc_rr").signal
    path.write_text("\n".join(["PLETH ,  Time [s], ABP", *(f"{r.split(',')[2]},0,-99" for r in rows)]) + "\n")

    assert np.array_equal(READER.read(root, "bidmc_rr").signal, ppg)


def test_plain_and_gzipped_files_give_the_same_windows(tmp_path: Path) -> None:
    write_subject(tmp_path / "plain", 8)
    write_subject(tmp_path / "packed", 8, gzipped=True)

    plain, packed = (READER.read(tmp_path / form, "bidmc_hr") for form in ("plain", "packed"))
    assert plain.signal.tobytes() == packed.signal.tobytes()
    assert plain.labels.tobytes() == packed.labels.tobytes()


def test_absent_subjects_are_counted_and_named(tmp_path: Path) -> None:
    root = write_bidmc(tmp_path, [8, 11, 20])

    windows = READER.read(root, "bidmc_hr")
    assert (windows.records_found, windows.records_expected) == (3, 53)
    assert windows.notes[0].startswith("subjects not in the folder: 1, 2, 3, 4, 5, 6, 7, 9")
    assert dict(zip(windows.groups.tolist(), windows.split.tolist(), strict=True)) == {
        "20": TRAIN,
        "11": VALIDATION,
        "8": TEST,
    }


def test_a_subject_without_a_valid_window_is_reported(tmp_path: Path) -> None:
    root = write_bidmc(tmp_path, [8, 20])
    breaths_path(root).write_text(breaths_text(range(10, 60001, 4000)))  # one breath in 32 s

    windows = READER.read(root, "bidmc_rr_30s")
    assert set(windows.groups.tolist()) == {"20"}
    assert (
        windows.notes[-1] == "subject 8: 226 of 226 windows dropped (fewer than two breath marks), none left"
    )


def test_a_gap_in_the_signal_drops_its_windows_and_says_so(tmp_path: Path) -> None:
    root = one_subject(tmp_path)
    path = root / "bidmc_csv/bidmc_08_Signals.csv"
    lines = path.read_text().splitlines()
    lines[1] = "0,0.5,,0.5"
    path.write_text("\n".join(lines) + "\n")

    windows = READER.read(root, "bidmc_rr")
    assert len(windows.labels) == 235
    assert windows.notes[-1] == "subject 8: 1 of 236 windows dropped (gaps in PLETH)"


# --- broken files: one line that names file, column and subject ---


def flat(text: str) -> str:
    header, *rows = text.splitlines()
    return "\n".join([header, *("0,1,1,1" for _ in rows)]) + "\n"


def nan_filled(text: str) -> str:
    header, *rows = text.splitlines()
    return "\n".join([header, *("0,nan,nan,nan" for _ in rows)]) + "\n"


SIGNAL_FAULTS = {
    "truncated": (lambda text: text[: len(text) // 2], "is the file truncated?"),
    "row names": (lambda text: text.replace("\n", "\nr,").removesuffix("r,"), "line 2 has 5 fields"),
    "empty": (lambda text: "", "cannot be read"),
    "only a header": (lambda text: text.splitlines()[0] + "\n", "has 0 rows"),
    "NaN-filled": (nan_filled, "holds no number"),
    "flat": (flat, "is flat"),
    "without the column": (lambda text: text.replace("PLETH", "PLETHYS", 1), "is missing"),
    "not numbers": (lambda text: text.replace(".", "x", 40), "cannot be read"),
}


@pytest.mark.parametrize("fault", SIGNAL_FAULTS)
def test_a_broken_signals_file_names_file_column_and_subject(tmp_path: Path, fault: str) -> None:
    root = one_subject(tmp_path)
    path = root / "bidmc_csv/bidmc_08_Signals.csv"
    damage, words = SIGNAL_FAULTS[fault]
    path.write_text(damage(signals_text(8)))

    with pytest.raises(DataError) as caught:
        READER.read(root, "bidmc_hr")
    message = str(caught.value)
    assert all(part in message for part in (path.name, "PLETH", "subject 8", words))
    assert "\n" not in message


NUMERIC_FAULTS = {
    "truncated": (numerics_text([80.0] * 200), "has 200 rows"),
    "empty": ("", "cannot be read"),
    "NaN-filled": (numerics_text([np.nan] * 481), "holds no number"),
    "without the column": (numerics_text([80.0] * 481, "Time [s], PULS, PULSE, RESP, SpO2"), "is missing"),
}


@pytest.mark.parametrize("fault", NUMERIC_FAULTS)
def test_a_broken_numerics_file_names_file_column_and_subject(tmp_path: Path, fault: str) -> None:
    root = one_subject(tmp_path)
    text, words = NUMERIC_FAULTS[fault]
    (root / "bidmc_csv/bidmc_08_Numerics.csv").write_text(text)

    with pytest.raises(DataError, match=r"bidmc_08_Numerics\.csv: column HR of subject 8") as caught:
        READER.read(root, "bidmc_hr")
    assert words in str(caught.value)


BREATH_FAULTS = {
    "truncated": (breaths_text(range(250, 30000, 500)), "marks end at 238 s"),
    "empty": ("", "cannot be read"),
    "without marks": (breaths_text([]), "holds no number"),
    "without the column": ("breaths ann2 [signal sample no]\n5\n", "is missing"),
}


@pytest.mark.parametrize("fault", BREATH_FAULTS)
def test_a_broken_breaths_file_names_file_column_and_subject(tmp_path: Path, fault: str) -> None:
    root = one_subject(tmp_path)
    text, words = BREATH_FAULTS[fault]
    breaths_path(root).write_text(text)

    with pytest.raises(
        DataError, match=r"bidmc_08_Breaths\.csv: column breaths ann1.* of subject 8"
    ) as caught:
        READER.read(root, "bidmc_rr")
    assert words in str(caught.value)


def test_a_truncated_gzip_names_file_column_and_subject(tmp_path: Path) -> None:
    root = tmp_path / "bidmc"
    write_subject(root, 8, gzipped=True)
    path = root / "bidmc_csv/bidmc_08_Signals.csv.gz"
    path.write_bytes(path.read_bytes()[:50_000])

    with pytest.raises(
        DataError, match=r"bidmc_08_Signals\.csv\.gz: column PLETH of subject 8 cannot be read"
    ):
        READER.read(root, "bidmc_hr")


def test_a_file_that_is_not_gzip_at_all_is_named(tmp_path: Path) -> None:
    root = tmp_path / "bidmc"
    write_subject(root, 8, gzipped=True)
    path = root / "bidmc_csv/bidmc_08_Signals.csv.gz"
    path.write_bytes(gzip.decompress(path.read_bytes()))

    with pytest.raises(DataError, match="subject 8 cannot be read"):
        READER.read(root, "bidmc_hr")


HALVES = [("bidmc_hr", "Numerics"), ("bidmc_rr", "Breaths"), ("bidmc_rr", "Signals")]


@pytest.mark.parametrize(("task", "kind"), HALVES)
def test_half_a_subject_is_an_error_that_names_the_missing_file(tmp_path: Path, task: str, kind: str) -> None:
    root = write_bidmc(tmp_path, [8, 20])
    (root / f"bidmc_csv/bidmc_08_{kind}.csv").unlink()

    with pytest.raises(DataError, match=rf"bidmc_08_{kind}\.csv of subject 8 is missing"):
        READER.files(root, task)


@pytest.mark.parametrize("task", TASK_NAMES)
def test_no_recording_at_all_is_missing_data(tmp_path: Path, task: str) -> None:
    root = write_bidmc(tmp_path, [8])
    shutil.rmtree(root / "bidmc_csv")

    with pytest.raises(MissingDataError, match="hpo data get bidmc"):
        READER.files(root, task)
