"""Signals of a user's own: five layouts that give what a reader of ours gives, and faults that are told."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from published import Shelf

from finetune.api import (
    DataError,
    FinetuneError,
    InputSpec,
    MissingDataError,
    OwnData,
    OwnSplit,
    SettingError,
    describe_data,
    settle_own_data,
)
from finetune.data.prepared import prepare
from finetune.datasets import find_reader
from finetune.datasets.base import SPLIT_NAMES, WindowSet
from finetune.datasets.own import BY_RECORD, NO_SUBJECTS, OwnReader
from finetune.datasets.own.records import root_of
from finetune.own import Filter

RATE_HZ = 125.0
PLAIN = OwnData(
    "pulse",
    "windows.npz",
    "regression",
    OwnSplit(column="split"),
    subject="subject",
    rate_hz=RATE_HZ,
    unit="bpm",
    modality="ppg",
)


@pytest.fixture(scope="module")
def pulses() -> WindowSet:
    """Every tenth window of the simulated people."""
    return every_nth_window(find_reader("synthetic").read(Path(), "synthetic_hr"), 10)


def every_nth_window(whole: WindowSet, n: int) -> WindowSet:
    parts = {name: getattr(whole, name)[::n] for name in ("signal", "labels", "groups", "split")}
    return dataclasses.replace(whole, **parts)


def columns(windows: WindowSet) -> dict[str, Any]:
    return {
        "x": windows.signal.copy(),
        "y": windows.labels.copy(),
        "subject": windows.groups.copy(),
        "split": np.array(SPLIT_NAMES, dtype="<U10")[windows.split],
    }


def save(folder: Path, arrays: dict[str, Any], name: str = "windows.npz") -> None:
    np.savez(folder / name, **arrays)


def read(own: OwnData, folder: Path) -> WindowSet:
    settled = settle_own_data(own, folder)
    return OwnReader(settled).read(root_of(settled, folder), settled.name)


def assert_same(found: WindowSet, wanted: WindowSet) -> None:
    np.testing.assert_array_equal(found.signal, wanted.signal)
    np.testing.assert_array_equal(found.labels, wanted.labels)
    np.testing.assert_array_equal(found.groups, wanted.groups)
    np.testing.assert_array_equal(found.split, wanted.split)


# --- layouts


def test_an_npz_gives_the_windows_of_our_reader(pulses: WindowSet, tmp_path: Path) -> None:
    save(tmp_path, columns(pulses))

    found = read(PLAIN, tmp_path)

    assert_same(found, pulses)
    assert found.notes == ()


def test_several_channels_stay_apart(pulses: WindowSet, tmp_path: Path) -> None:
    arrays = columns(pulses)
    save(tmp_path, {**arrays, "x": np.stack([pulses.signal, pulses.signal[:, ::-1]], axis=1)})

    found = read(PLAIN, tmp_path)

    assert found.signal.shape == (len(pulses.signal), 2, pulses.signal.shape[1])
    np.testing.assert_array_equal(found.signal[:, 0], pulses.signal)


def test_parquet_columns_of_lists_are_windows(
    pulses: WindowSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = columns(pulses)
    frame = pd.DataFrame({**arrays, "x": list(arrays["x"]), "y": arrays["y"][:, 0]})
    monkeypatch.setattr(pd, "read_parquet", lambda file: frame)  # pyarrow is not among the dependencies
    (tmp_path / "table.parquet").touch()

    found = read(dataclasses.replace(PLAIN, file="table.parquet"), tmp_path)

    assert_same(found, pulses)


def test_parquet_columns_of_numbers_are_windows(
    pulses: WindowSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arrays = columns(pulses)
    numbered = {f"ppg_{place}": arrays["x"][:, place] for place in range(arrays["x"].shape[1])}
    rest = {"y": arrays["y"][:, 0], "subject": arrays["subject"], "split": arrays["split"]}
    monkeypatch.setattr(pd, "read_parquet", lambda file: pd.DataFrame({**rest, **numbered}))
    (tmp_path / "table.parquet").touch()

    found = read(dataclasses.replace(PLAIN, file="table.parquet", signal=("ppg",)), tmp_path)

    assert_same(found, pulses)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_manifest_names_files(pulses: WindowSet, tmp_path: Path, suffix: str) -> None:
    few = thin(pulses, 12)
    arrays, lines = columns(few), ["file,hr,subject,split"]
    for row, signal in enumerate(few.signal):
        name = f"w{row:03d}{suffix}"
        if suffix == ".npy":
            np.save(tmp_path / name, signal)
        else:
            pd.DataFrame({"ppg": signal}).to_csv(tmp_path / name, index=False)
        cells = [name, repr(float(few.labels[row, 0])), few.groups[row], arrays["split"][row]]
        lines.append(",".join(map(str, cells)))
    (tmp_path / "manifest.csv").write_text("\n".join(lines))

    found = read(dataclasses.replace(PLAIN, file="manifest.csv", label=("hr",)), tmp_path)

    assert_same(found, few)


def thin(windows: WindowSet, every: int) -> WindowSet:
    rows = np.arange(0, len(windows.signal), every)
    return dataclasses.replace(
        windows,
        signal=windows.signal[rows],
        labels=windows.labels[rows],
        groups=windows.groups[rows],
        split=windows.split[rows],
    )


@pytest.mark.parametrize("labels", ["npy", "csv"])
def test_a_folder_a_subject_holds_signal_and_labels(pulses: WindowSet, tmp_path: Path, labels: str) -> None:
    for name in np.unique(pulses.groups):
        folder = tmp_path / "people" / str(name)
        folder.mkdir(parents=True)
        mine = pulses.groups == name
        np.save(folder / "ppg.npy", pulses.signal[mine])
        if labels == "npy":
            np.save(folder / "hr.npy", pulses.labels[mine, 0])
        else:
            pd.DataFrame({"hr": pulses.labels[mine, 0]}).to_csv(folder / "labels.csv", index=False)
    (tmp_path / "people" / "._trash").mkdir()
    own = dataclasses.replace(
        PLAIN,
        file="people",
        signal=("ppg",),
        label=("hr",),
        subject=None,
        split=OwnSplit(grouped=(0.8, 0.1, 0.1)),
    )

    found = read(own, tmp_path)

    assert len(found.signal) == len(pulses.signal)
    for name in np.unique(pulses.groups):
        np.testing.assert_array_equal(
            found.signal[found.groups == name], pulses.signal[pulses.groups == name]
        )
    assert found.notes == ()


def test_a_long_recording_is_cut_and_a_series_of_labels_is_averaged(tmp_path: Path) -> None:
    rng, seconds = np.random.default_rng(0), 60
    for name in "abcde":
        folder = tmp_path / "people" / name
        folder.mkdir(parents=True)
        np.save(folder / "ppg.npy", rng.normal(size=seconds * 50).astype(np.float32))
        np.save(folder / "hr.npy", rng.uniform(60, 90, seconds))
    own = OwnData(
        "long",
        "people",
        "regression",
        OwnSplit(grouped=(0.6, 0.2, 0.2)),
        signal=("ppg",),
        label=("hr",),
        subject="folder",
        rate_hz=50,
        window_s=10,
        stride_s=5,
        label_rate_hz=1,
    )

    found = read(own, tmp_path)

    one = found.groups == "a"
    assert one.sum() == 11
    np.testing.assert_array_equal(found.signal[one][1], np.load(tmp_path / "people/a/ppg.npy")[250:750])
    assert found.labels[one][1, 0] == pytest.approx(np.load(tmp_path / "people/a/hr.npy")[5:15].mean())


def test_one_folder_a_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for kind in ("AF", "N"):
        (tmp_path / "beats" / kind).mkdir(parents=True)
        for row in range(20):
            np.save(tmp_path / "beats" / kind / f"p{row % 7}_{row}.npy", rng.normal(size=300))
    own = OwnData(
        "beats",
        "beats",
        "classes",
        OwnSplit(grouped=(0.6, 0.2, 0.2)),
        subject=r"pattern:(p\d+)_",
        rate_hz=100,
    )

    found = read(own, tmp_path)

    assert settle_own_data(own, tmp_path).classes == ("AF", "N")
    assert found.labels.dtype == np.int64
    assert sorted(set(found.groups.tolist())) == [f"p{place}" for place in range(7)]


def test_labels_of_several_columns_are_several_labels(pulses: WindowSet, tmp_path: Path) -> None:
    arrays = columns(pulses)
    high = (arrays["y"][:, 0] > 90).astype(int)
    save(tmp_path, {**arrays, "high": high, "low": 1 - high})
    own = dataclasses.replace(PLAIN, kind="multilabel", label=("high", "low"), unit="")

    found = read(own, tmp_path)

    assert settle_own_data(own, tmp_path).classes == ("high", "low")
    np.testing.assert_array_equal(found.labels[:, 0], high)


def test_filters_and_another_rate_by_name(pulses: WindowSet, tmp_path: Path) -> None:
    save(tmp_path, columns(pulses))
    own = dataclasses.replace(
        PLAIN, filters=(Filter("bandpass", (0.5, 8.0)), Filter("notch", (50.0,))), resample_hz=62.5
    )

    found = read(own, tmp_path)

    assert (found.rate_hz, found.signal.shape[1]) == (62.5, 625)
    assert np.abs(found.signal.mean(axis=1)).max() < 0.1 * np.abs(found.signal).max()


# --- splits


def test_shares_are_drawn_as_the_reference_draws_them(pulses: WindowSet, tmp_path: Path) -> None:
    arrays = columns(pulses)
    order = np.argsort(pulses.groups.astype(int), kind="stable")
    save(tmp_path, {name: values[order] for name, values in arrays.items() if name != "split"})

    found = read(dataclasses.replace(PLAIN, split=OwnSplit(grouped=(0.8, 0.1, 0.1))), tmp_path)

    assert_same(found, pulses)


def test_folds_hold_every_subject_that_does_not_test(
    pulses: WindowSet, tmp_path: Path, cache_dir: Path
) -> None:
    arrays = columns(pulses)
    save(tmp_path, {name: values for name, values in arrays.items() if name != "split"})
    own = settle_own_data(dataclasses.replace(PLAIN, split=OwnSplit(folds=4)), tmp_path)

    found = describe_data(InputSpec("pulse", folds=4, own=own), data_dir=tmp_path, cache_dir=cache_dir)

    assert len(found.subjects["validation"]) + len(found.subjects["test"]) == 60


def test_unknown_subjects_and_splits_by_record_are_said_in_every_output(
    pulses: WindowSet, tmp_path: Path
) -> None:
    save(tmp_path, columns(pulses))

    unknown = read(dataclasses.replace(PLAIN, subject=None), tmp_path)
    by_record = read(dataclasses.replace(PLAIN, split=OwnSplit(records=(0.8, 0.1, 0.1))), tmp_path)

    assert NO_SUBJECTS in unknown.notes
    assert BY_RECORD in by_record.notes


# --- faults


def plant_leak(arrays: dict[str, Any]) -> None:
    arrays["split"][0] = "test"


def plant_duplicate(arrays: dict[str, Any]) -> None:
    arrays["x"][-1] = 3 * arrays["x"][0] + 1


def plant_nan(arrays: dict[str, Any]) -> None:
    arrays["x"][5, 7] = np.nan


def plant_label_nan(arrays: dict[str, Any]) -> None:
    arrays["y"][5] = np.nan


def plant_constant(arrays: dict[str, Any]) -> None:
    arrays["y"][:] = 80.0


def plant_wrong_rate(arrays: dict[str, Any]) -> None:
    arrays["x"] = arrays["x"][:, ::2].copy()


def plant_per_second(arrays: dict[str, Any]) -> None:
    arrays["y"] /= 60


def plant_shifted_labels(arrays: dict[str, Any]) -> None:
    arrays["y"] = np.roll(arrays["y"], 200, axis=0)


def plant_other_column(arrays: dict[str, Any]) -> None:
    arrays["y"] = np.linspace(14, 18, len(arrays["y"]))[:, None]


def plant_spikes(arrays: dict[str, Any]) -> None:
    arrays["x"] = np.exp(3 * arrays["x"] / np.abs(arrays["x"]).max(axis=1, keepdims=True)) ** 3


def plant_record_twice(arrays: dict[str, Any]) -> None:
    arrays["x"][10] = arrays["x"][9]
    arrays["subject"][10] = arrays["subject"][9]
    arrays["split"][10] = arrays["split"][9]


def plant_clipping(arrays: dict[str, Any]) -> None:
    top = np.quantile(arrays["x"], 0.8, axis=1, keepdims=True)
    arrays["x"] = np.minimum(arrays["x"], top)


def plant_flat(arrays: dict[str, Any]) -> None:
    arrays["x"][3] = 1.0


def plant_text(arrays: dict[str, Any]) -> None:
    arrays["y"] = arrays["y"].astype("<U8")
    arrays["y"][4] = "high"


REFUSED: dict[Callable[[dict[str, Any]], None], str] = {
    plant_leak: "is in test and train|is in train and test",
    plant_duplicate: "across splits, .* row 0 and .* row",
    plant_nan: r"missing samples \(NaN, infinite\), the first windows.npz row 5",
    plant_label_nan: r"no label \('nan'\), the first windows.npz row 5",
    plant_constant: "label is 80 in all",
    plant_wrong_rate: "the pulse is .* times the labels",
    plant_per_second: "times 60 they would be right",
    plant_other_column: "are outside 20 to 300 bpm",
    plant_spikes: "spiky as an ECG",
    plant_clipping: "are clipped",
    plant_flat: "are flat",
    plant_text: "label 'high'; expected a number",
}


@pytest.mark.parametrize("plant", REFUSED, ids=lambda plant: plant.__name__)
def test_a_fault_is_refused_with_what_and_where(
    plant: Callable[[dict[str, Any]], None], pulses: WindowSet, tmp_path: Path
) -> None:
    arrays = columns(pulses)
    plant(arrays)
    save(tmp_path, arrays)

    with pytest.raises(DataError, match=REFUSED[plant]):
        read(PLAIN, tmp_path)


def test_labels_of_other_windows_are_named(pulses: WindowSet, tmp_path: Path) -> None:
    arrays = columns(pulses)
    plant_shifted_labels(arrays)
    save(tmp_path, arrays)

    found = read(PLAIN, tmp_path)

    assert any("do not go with the pulse" in note for note in found.notes)


def test_overlapping_windows_in_two_splits_are_a_leak_though_nobody_is_known(tmp_path: Path) -> None:
    long = np.cumsum(np.random.default_rng(0).normal(size=30_000)).astype(np.float32)
    windows = np.lib.stride_tricks.sliding_window_view(long, 1000)[::250]
    save(tmp_path, {"x": windows, "y": np.arange(len(windows), dtype=np.float32)})
    own = OwnData("one", "windows.npz", "regression", OwnSplit(grouped=(0.6, 0.2, 0.2)), rate_hz=100)

    with pytest.raises(DataError, match="begin inside a training window"):
        read(own, tmp_path)


def test_a_record_that_is_there_twice_is_named(pulses: WindowSet, tmp_path: Path) -> None:
    arrays = columns(pulses)
    plant_record_twice(arrays)
    save(tmp_path, arrays)

    found = read(PLAIN, tmp_path)

    assert any("there twice: windows.npz row 9 and windows.npz row 10" in note for note in found.notes)


def test_one_class_only_is_refused(pulses: WindowSet, tmp_path: Path) -> None:
    arrays = columns(pulses)
    save(tmp_path, {**arrays, "y": np.full(len(arrays["x"]), "AF")})

    with pytest.raises(DataError, match=r"all of one class \(AF\)"):
        read(dataclasses.replace(PLAIN, kind="classes", unit=""), tmp_path)


def test_swapped_limb_leads_are_refused(pulses: WindowSet, tmp_path: Path) -> None:
    one = pulses.signal
    three = np.roll(one, 17, axis=1) * 0.4
    arrays = {**columns(pulses), "I": one, "II": three, "III": one + three}
    save(tmp_path, arrays)
    own = dataclasses.replace(PLAIN, signal=("I", "II", "III"), modality="any")

    with pytest.raises(DataError, match="I, III, II do"):
        read(own, tmp_path)


def test_channels_that_change_places_in_some_records_are_refused(pulses: WindowSet, tmp_path: Path) -> None:
    spiky = (np.random.default_rng(0).normal(size=pulses.signal.shape) ** 5).astype(np.float32)
    both = np.stack([pulses.signal, spiky], axis=1)
    both[::20] = both[::20, ::-1]
    save(tmp_path, {**columns(pulses), "x": both})

    with pytest.raises(DataError, match="two channels look swapped"):
        read(dataclasses.replace(PLAIN, modality="any"), tmp_path)


def test_a_rate_other_than_the_records_own_is_refused(tmp_path: Path) -> None:
    import wfdb

    wfdb.wrsamp(
        "r1", fs=250, units=["mV"], sig_name=["II"], p_signal=np.sin(np.arange(5000) / 40)[:, None],
        fmt=["16"], write_dir=str(tmp_path),
    )  # fmt: skip
    (tmp_path / "manifest.csv").write_text("file,label\nr1,1\n")
    own = OwnData(
        "w", "manifest.csv", "classes", OwnSplit(grouped=(0.6, 0.2, 0.2)), rate_hz=500, classes=("0", "1")
    )

    with pytest.raises(DataError, match="says 250 Hz"):
        read(own, tmp_path)


def test_a_table_whose_rows_have_another_number_of_fields_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones(10))
    (tmp_path / "manifest.csv").write_text("file,label\na.npy,1,2\n")

    with pytest.raises(DataError, match="line 2 has 3 fields"):
        read(OwnData("m", "manifest.csv", "classes", OwnSplit(folds=2), rate_hz=10), tmp_path)


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (plant_nan, "gaps"),
        (plant_flat, "flat"),
        (plant_duplicate, "duplicates"),
        (plant_clipping, "implausible"),
    ],
)
def test_what_is_allowed_is_named(
    plant: Callable[[dict[str, Any]], None], fault: Any, pulses: WindowSet, tmp_path: Path
) -> None:
    arrays = columns(pulses)
    plant(arrays)
    save(tmp_path, arrays)

    found = read(dataclasses.replace(PLAIN, allow=(fault,)), tmp_path)

    assert any(note.startswith(f"allowed ({fault})") for note in found.notes)
    assert np.isfinite(found.signal).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"file": "nothing.npz"}, "is not there"),
        ({"label": ("spo2",)}, "has no 'spo2'; expected one of x, y, subject, split"),
        ({"subject": "person"}, "has no 'person'"),
        ({"rate_hz": None}, "does not say its sampling rate"),
        ({"signal": ("subject",)}, "has shape"),
    ],
)
def test_what_a_study_names_and_the_file_lacks(
    changes: dict[str, Any], words: str, pulses: WindowSet, tmp_path: Path
) -> None:
    save(tmp_path, columns(pulses))

    with pytest.raises(FinetuneError, match=words):
        read(dataclasses.replace(PLAIN, **changes), tmp_path)


def test_a_missing_reader_of_parquet_is_one_line(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        pass
    else:
        pytest.skip("pyarrow is here")
    (tmp_path / "t.parquet").touch()

    with pytest.raises(SettingError, match="pip install pyarrow"):
        read(dataclasses.replace(PLAIN, file="t.parquet"), tmp_path)


# --- the cache, and the way through JSON


def test_the_same_windows_are_prepared_alike(pulses: WindowSet, tmp_path: Path, cache_dir: Path) -> None:
    save(tmp_path, columns(pulses))
    own = settle_own_data(PLAIN, tmp_path)

    found = prepare(InputSpec("pulse", own=own), tmp_path, cache_dir)

    assert found.train.x.shape == (int((pulses.split == 0).sum()), 1250)
    assert found.summary.subjects["test"] == tuple(dict.fromkeys(pulses.groups[pulses.split == 2].tolist()))


def test_a_file_that_moved_is_the_same_data(pulses: WindowSet, tmp_path: Path, cache_dir: Path) -> None:
    save(tmp_path, columns(pulses))
    (tmp_path / "other").mkdir()
    save(tmp_path / "other", columns(pulses))

    hashes = {
        describe_data(
            InputSpec("pulse", own=dataclasses.replace(PLAIN, file=file)),
            data_dir=tmp_path,
            cache_dir=cache_dir,
        ).data_hash
        for file in ("windows.npz", "other/windows.npz", str(tmp_path / "windows.npz"))
    }

    assert len(hashes) == 1


def test_own_data_survive_json() -> None:
    own = dataclasses.replace(PLAIN, filters=(Filter("bandpass", (0.5, 8.0)),), range=(30.0, 200.0))

    assert OwnData.of_json(json.loads(json.dumps(dataclasses.asdict(own)))) == own


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: OwnSplit(),
        lambda: OwnSplit(column="split", folds=3),
        lambda: OwnSplit(grouped=(0.5, 0.5, 0.5)),
        lambda: OwnSplit(folds=1),
        lambda: Filter("bandpass", (8.0, 0.5)),
        lambda: Filter("notch"),
        lambda: dataclasses.replace(PLAIN, rate_hz=0),
        lambda: dataclasses.replace(PLAIN, stride_s=2.0),
        lambda: dataclasses.replace(PLAIN, range=(2.0, 1.0)),
        lambda: dataclasses.replace(PLAIN, classes=("a", "b")),
    ],
)
def test_contradictions_are_refused_when_they_are_made(wrong: Callable[[], object]) -> None:
    with pytest.raises(SettingError):
        wrong()


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("task", "every", "changes"),
    [
        ("bidmc_hr", 1, {"unit": "bpm", "modality": "ppg"}),
        ("bidmc_rr", 5, {"unit": "breaths/min", "modality": "ppg"}),
        ("ptb-xl", 1, {"kind": "multilabel", "unit": "", "modality": "ecg"}),
    ],
)
def test_real_windows_pass_and_are_ours(
    task: str, every: int, changes: dict[str, Any], published: Shelf, tmp_path: Path
) -> None:
    wanted = every_nth_window(published.windows(task), every)
    save(tmp_path, columns(wanted))

    found = read(dataclasses.replace(PLAIN, rate_hz=wanted.rate_hz, **changes), tmp_path)

    assert_same(found, wanted)
    known = ("labels are outside", "5 windows are there twice", "classes without")
    assert [note for note in found.notes if not any(words in note for words in known)] == []


@pytest.mark.real_data
def test_a_manifest_of_ptb_xl_gives_our_lead(published: Shelf, hpo_data: Path, tmp_path: Path) -> None:
    wanted = published.windows("ptb-xl")
    (tmp_path / "records100").symlink_to(hpo_data / "ptb-xl" / "records100")
    table = pd.read_csv(hpo_data / "ptb-xl" / "ptbxl_database.csv")
    table = table[[(hpo_data / "ptb-xl" / f"{name}.hea").is_file() for name in table["filename_lr"]]]
    table["split"] = ["test" if f == 10 else "val" if f == 9 else "train" for f in table["strat_fold"]]
    table["sex"] = table["sex"].astype(int)
    table[["filename_lr", "patient_id", "sex", "split"]].to_csv(tmp_path / "manifest.csv", index=False)
    own = OwnData(
        "sex",
        "manifest.csv",
        "classes",
        OwnSplit(column="split"),
        signal=("II",),
        label=("sex",),
        subject="patient_id",
        path="filename_lr",
        modality="ecg",
    )

    found = read(own, tmp_path)

    np.testing.assert_array_equal(found.signal, wanted.signal)
    np.testing.assert_array_equal(found.groups, wanted.groups)
    assert found.rate_hz == 100


def test_a_file_that_is_not_there_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MissingDataError, match="below the data folder"):
        settle_own_data(PLAIN, tmp_path)
