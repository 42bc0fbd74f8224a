"""Files as people have them: each gives the data that it holds, or one clear line; never other numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from test_own_data import read, save

from finetune.api import FinetuneError, OwnData, OwnSplit, settle_own_data
from finetune.datasets.own import OwnReader
from finetune.errors import DataError, SettingError
from finetune.own import Filter
from finetune.signal_files import read_signal

PEOPLE, EACH, SAMPLES, RATE_HZ = 10, 6, 80, 20.0
NPZ = OwnData(
    "w", "windows.npz", "regression", OwnSplit(grouped=(0.6, 0.2, 0.2)), subject="who", rate_hz=RATE_HZ
)
CLASSES = dataclasses.replace(NPZ, kind="classes")
MANIFEST = dataclasses.replace(NPZ, file="m.csv")
FOLDER = dataclasses.replace(NPZ, file="people", signal=("ppg",), label=("hr",), subject=None)
Arrays = dict[str, Any]


def arrays() -> Arrays:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(PEOPLE * EACH, SAMPLES)).astype(np.float32),
        "y": rng.uniform(60, 90, PEOPLE * EACH),
        "who": np.repeat([f"p{person}" for person in range(PEOPLE)], EACH),
    }


def plainly(folder: Path) -> Any:
    (folder / "plain").mkdir()
    save(folder / "plain", arrays())
    return read(NPZ, folder / "plain")


# --- arrays


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("x", lambda x: np.asfortranarray(x)),
        ("x", lambda x: x.astype(">f4")),
        ("x", lambda x: np.repeat(x, 2, axis=1)[:, ::2]),
        ("who", lambda who: np.array([f"{one} "[: 2 + row % 2] for row, one in enumerate(who)])),
        ("who", lambda who: who.astype("S2")),
        ("who", lambda who: who[:, None]),
        ("y", lambda y: y[:, None, None]),
        ("y", lambda y: np.array([f" {one!r} " for one in y.tolist()])),
    ],
)  # fmt: skip
def test_the_same_numbers_in_another_form_are_the_same_data(
    name: str, change: Callable[[Any], Any], tmp_path: Path
) -> None:
    held = arrays()
    save(tmp_path, {**held, name: change(held[name])})

    found, wanted = read(NPZ, tmp_path), plainly(tmp_path)

    np.testing.assert_array_equal(found.signal, wanted.signal)
    np.testing.assert_allclose(found.labels, wanted.labels)
    np.testing.assert_array_equal(found.groups, wanted.groups)


NAN_SUBJECT = np.where(np.arange(PEOPLE * EACH) < 3, np.nan, np.arange(PEOPLE * EACH) // EACH)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"who": NAN_SUBJECT}, "3 of 60 records have no subject, the first windows.npz row 0"),
        ({"who": np.where(np.arange(60) == 4, "", arrays()["who"])}, "1 of 60 records have no subject"),
        ({"who": np.repeat("p0", 60)}, "subjects: 1; expected 3 or more"),
        ({"who": np.stack([arrays()["who"]] * 2, axis=1)}, r"data.subject has shape \(60, 2\)"),
        ({"x": arrays()["x"] + np.float64(1e7)}, "varies by .*; expected what 7 digits hold"),
        ({"x": arrays()["x"].astype(np.float64) * 1e300}, "expected what 7 digits hold"),
        ({"x": np.stack([arrays()["x"]] * 2, axis=2)}, r"more channels than samples; .* is it \(N, T, C\)"),
        ({"x": arrays()["x"][:0], "y": [], "who": []}, "0 rows of y beside 0 windows"),
        ({"y": 3.0}, "1 rows of y beside 60 windows"),
        ({"y": np.where(np.arange(60) == 4, np.inf, 70.0)}, r"1 of 60 windows have no label \('inf'\)"),
    ],
)  # fmt: skip
def test_arrays_that_do_not_fit_are_one_line(change: Arrays, words: str, tmp_path: Path) -> None:
    save(tmp_path, {**arrays(), **{name: np.asarray(values) for name, values in change.items()}})

    with pytest.raises(FinetuneError, match=words):
        read(NPZ, tmp_path)


@pytest.mark.parametrize(
    ("labels", "classes"),
    [
        (np.arange(60) % 3 + 1, ("1", "2", "3")),
        (np.arange(60) % 3 + 1.0, ("1", "2", "3")),
        (np.array(["high rate ", "high rate", "low"] * 20), ("high rate", "low")),
        (np.array([b"hi", b"lo"] * 30), ("hi", "lo")),
        (np.arange(60) % 2 == 0, ("False", "True")),
    ],
)
def test_classes_are_what_is_written(labels: Any, classes: tuple[str, ...], tmp_path: Path) -> None:
    save(tmp_path, {**arrays(), "y": labels})

    assert settle_own_data(CLASSES, tmp_path).classes == classes


def test_a_word_for_nothing_is_a_class_where_the_study_names_it(tmp_path: Path) -> None:
    save(tmp_path, {**arrays(), "y": np.array(["NA", "apnoea"] * 30)})

    with pytest.raises(DataError, match=r"no label \('NA'\).* if it is a class, name it in data.classes"):
        read(CLASSES, tmp_path)
    assert len(read(dataclasses.replace(CLASSES, classes=("NA", "apnoea")), tmp_path).labels) == 60


@pytest.mark.parametrize("labels", [arrays()["y"], np.arange(60)])
def test_numbers_are_no_classes(labels: Any, tmp_path: Path) -> None:
    save(tmp_path, {**arrays(), "y": labels})

    with pytest.raises(DataError, match="kind: regression"):
        settle_own_data(CLASSES, tmp_path)


def test_names_that_are_nearly_the_same_are_named(tmp_path: Path) -> None:
    people = np.where(np.arange(60) == 0, "P0", arrays()["who"])
    save(tmp_path, {**arrays(), "y": np.array(["AF", "af", "N"] * 20), "who": people})

    notes = read(CLASSES, tmp_path).notes

    assert "classes that differ in capitals or leading zeros alone: AF, af" in notes
    assert "subjects that differ in capitals or leading zeros alone: P0, p0" in notes


def test_windows_in_another_unit_are_named(tmp_path: Path) -> None:
    held = arrays()
    held["x"][7] *= 1000
    save(tmp_path, held)

    assert any("1 of 60 windows swing 100 times" in note for note in read(NPZ, tmp_path).notes)
    held["x"][7] /= 50
    save(tmp_path, held)
    assert read(NPZ, tmp_path).notes == ()


def test_a_unit_is_known_however_it_is_written(tmp_path: Path) -> None:
    held = arrays()
    save(tmp_path, {**held, "y": held["y"] / 60})

    with pytest.raises(DataError, match="outside 20 to 300 BPM, the first 1"):
        read(dataclasses.replace(NPZ, unit="BPM"), tmp_path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"hello", "it is plain text"),
        (b"\x80\x04K\x01.", "it is a pickle|it holds objects"),
        (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file"),
    ],
)
def test_what_is_no_npz_is_told_by_what_it_is(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "windows.npz").write_bytes(content)

    with pytest.raises(DataError, match=words) as told:
        read(NPZ, tmp_path)
    assert "pickle.load" not in str(told.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"filters": (Filter("elgendi"),), "rate_hz": 12.0}, "elgendi .* at 12 Hz; expected under half"),
        ({"filters": (Filter("highpass", (0.5,)),), "signal": ("short",)}, "a record of 9 samples"),
        ({"window_s": 2.0, "stride_s": 0.01}, "2 s every 0.01 s at 20 Hz"),
        ({"channels": 3}, "data.channels is 3; expected 1"),
    ],
)
def test_a_preparation_that_cannot_be_is_one_line(change: Arrays, words: str, tmp_path: Path) -> None:
    save(tmp_path, {**arrays(), "short": arrays()["x"][:, :9]})
    own = dataclasses.replace(NPZ, **change)

    with pytest.raises(FinetuneError, match=words):
        OwnReader(own).read(tmp_path / own.file, own.name)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"label_rate_hz": 1.0}, "without a window"),
        ({"label_rate_hz": 1.0, "window_s": 2.0, "kind": "classes"}, "a mean of classes"),
        ({"signal": ("x", "x")}, "data.signal names 'x' 2 times"),
        ({"label": ("y", "y")}, "data.label names 'y' 2 times"),
        ({"subject": r"pattern:p(\d+"}, "unterminated"),
        ({"subject": r"pattern:p\d+"}, "has no group"),
    ],
)
def test_a_study_that_contradicts_itself_is_refused(change: Arrays, words: str) -> None:
    with pytest.raises(SettingError, match=words):
        dataclasses.replace(NPZ, **change)


# --- tables


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda frame: frame.drop(columns="x_7"), "has no column x_7; expected a column for each sample"),
        (lambda frame: frame.iloc[:0], "has no rows"),
        (lambda frame: frame.assign(x=[None] * 60), "row 0: x is 'None'; expected a list of numbers"),
        (lambda frame: frame.assign(x=1.5), "row 0: x is '1.5'; expected a list of numbers"),
        (lambda frame: frame.assign(x="1 2 3"), "row 0: x is '1 2 3'; expected a list"),
    ],
)  # fmt: skip
def test_a_parquet_that_holds_no_windows_is_one_line(
    change: Callable[[Any], Any], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = arrays()
    numbered = {f"x_{place}": held["x"][:, place] for place in range(SAMPLES)}
    frame = change(pd.DataFrame({**numbered, "y": held["y"], "who": held["who"]}))
    monkeypatch.setattr(pd, "read_parquet", lambda file: frame)
    (tmp_path / "table.parquet").touch()

    with pytest.raises(DataError, match=words):
        read(dataclasses.replace(NPZ, file="table.parquet"), tmp_path)


def write_manifest(folder: Path, change: Callable[[str], str] = str, encoding: str = "utf-8") -> None:
    held = arrays()
    for row, window in enumerate(held["x"]):
        np.save(folder / f"r{row}.npy", window)
    lines = [
        f"r{row}.npy,{y!r},{who}"
        for row, (y, who) in enumerate(zip(held["y"].tolist(), held["who"], strict=True))
    ]
    text = change("\n".join(["file,y,who", *lines, ""]))
    (folder / "m.csv").write_bytes(text.encode(encoding))


@pytest.mark.parametrize(
    ("change", "encoding"),
    [
        (lambda text: text, "utf-8-sig"),
        (lambda text: text.replace("\n", "\r\n"), "utf-8"),
        (lambda text: text.replace(",", " , "), "utf-8"),
        (lambda text: text.replace("\n", "\n\n"), "utf-8"),
        (lambda text: "\n".join(f"{row},{line}" for row, line in enumerate(text.splitlines()))[1:], "utf-8"),
    ],
)  # fmt: skip
def test_a_manifest_is_read_however_it_was_saved(
    change: Callable[[str], str], encoding: str, tmp_path: Path
) -> None:
    write_manifest(tmp_path, change, encoding)

    found, wanted = read(MANIFEST, tmp_path), plainly(tmp_path)

    np.testing.assert_array_equal(found.signal, wanted.signal)
    np.testing.assert_allclose(found.labels, wanted.labels)
    np.testing.assert_array_equal(found.groups, wanted.groups)


@pytest.mark.parametrize(
    ("change", "encoding", "words"),
    [
        (lambda text: text.replace(",", ";"), "utf-8", "parted by semicolons"),
        (lambda text: text.replace(",", "\t"), "utf-8", "parted by tabs"),
        (lambda text: text, "utf-16", "written in UTF-16"),
        (lambda text: text.replace("p3", "Jos\xe9"), "latin-1", "not written in UTF-8"),
        (lambda text: text.replace("\n", ",1\n").replace("who,1", "who,y"), "utf-8", "'y' is there 2 times"),
        (lambda text: text.splitlines()[0], "utf-8", "no rows below its names"),
        (lambda text: "", "utf-8", "an empty file"),
        (lambda text: text.replace("p3", ""), "utf-8", "6 of 60 records have no subject, the first r18.npy"),
        (lambda text: text.replace("r7.npy", "r99.npy"), "utf-8", "row 8: r99.npy is not there"),
        (lambda text: text.replace("r7.npy", "../r7.npy"), "utf-8", "row 8: ../r7.npy is outside its folder"),
        (lambda text: text.replace("y,who", "Y,who"), "utf-8", "no column 'y'.*did you mean 'Y'"),
        (lambda text: text.replace("y,who", "y (bpm),who"), "utf-8", "no column 'y'.*did you mean 'y .bpm.'"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_read_is_one_line(
    change: Callable[[str], str], encoding: str, words: str, tmp_path: Path
) -> None:
    write_manifest(tmp_path, change, encoding)

    with pytest.raises(DataError, match=words):
        read(dataclasses.replace(MANIFEST, label=("y",)), tmp_path)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((2, SAMPLES)), "r7.npy has 2 channels, r0.npy has 1"),
        (np.ones(SAMPLES - 1), "r7.npy has 79 samples, r0.npy has 80; .* add data.window"),
        (np.array([]), "r7.npy has 0 samples"),
        (np.array([{}]), "r7.npy cannot be read .it holds objects."),
    ],
)
def test_a_file_unlike_the_others_is_named(array: Any, words: str, tmp_path: Path) -> None:
    write_manifest(tmp_path)
    np.save(tmp_path / "r7.npy", array)

    with pytest.raises(DataError, match=words):
        read(MANIFEST, tmp_path)


@pytest.mark.parametrize("step_s", [1 / RATE_HZ, 1e3 / RATE_HZ, 1.0])
def test_times_beside_a_signal_may_be_seconds_milliseconds_or_samples(step_s: float, tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    pd.DataFrame({"Time [s]": np.arange(90) * step_s, "ppg": np.arange(90.0)}).to_csv(file, index=False)

    signal, _ = read_signal(file, RATE_HZ, "ppg")

    np.testing.assert_array_equal(signal, np.arange(90))


def test_times_that_say_another_rate_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    pd.DataFrame({"t": np.round(np.arange(90) / 50, 1), "ppg": np.arange(90.0)}).to_csv(file, index=False)

    with pytest.raises(DataError, match=r"times step by 0.02.*, which is 49.* Hz in seconds, not 20 Hz"):
        read_signal(file, RATE_HZ, "ppg")


def test_leads_stand_in_one_order_though_records_do_not(tmp_path: Path) -> None:
    import wfdb

    names, held = ["I", "II", "V1"], np.round(np.random.default_rng(0).normal(size=(9, 200, 3)), 2)
    for row, signal in enumerate(held):
        order = [2, 0, 1] if row % 2 else [0, 1, 2]
        wfdb.wrsamp(
            f"r{row}", fs=20, units=["mV"] * 3, sig_name=[names[place] for place in order],
            p_signal=signal[:, order], fmt=["16"] * 3, write_dir=str(tmp_path),
        )  # fmt: skip
    rows = [f"r{row},{row % 3},{row // 2}" for row in range(9)]
    (tmp_path / "m.csv").write_text("\n".join(["file,label,who", *rows]))
    own = dataclasses.replace(MANIFEST, kind="classes", rate_hz=None)

    found = read(own, tmp_path)

    for signal, person in zip(found.signal, found.groups.tolist(), strict=True):
        mine = [row for row in range(9) if str(row // 2) == person]
        assert min(float(np.abs(signal.T - held[row]).max()) for row in mine) < 0.01


# --- folders


def write_people(folder: Path, labels: Callable[[Path, Any], object], *, is_long: bool = False) -> None:
    held = arrays()
    for person in np.unique(held["who"]).tolist():
        place, mine = folder / "people" / person, held["who"] == person
        place.mkdir(parents=True)
        np.save(place / "ppg.npy", held["x"][mine].ravel() if is_long else held["x"][mine])
        labels(place, held["y"][mine])


@pytest.mark.parametrize(
    "labels",
    [
        lambda place, y: np.save(place / "hr.npy", y),
        lambda place, y: np.savetxt(place / "hr.txt", y),
        lambda place, y: pd.DataFrame({"time": range(len(y)), "hr": y}).to_csv(place / "hr.csv", index=False),
        lambda place, y: pd.DataFrame({"n": 1, "hr": y}).to_csv(place / "labels.csv", index=False),
    ],
)  # fmt: skip
def test_the_windows_of_a_folder_are_of_one_subject(labels: Any, tmp_path: Path) -> None:
    write_people(tmp_path, labels)

    found = read(FOLDER, tmp_path)

    assert found.notes == ()
    assert found.labels.shape == (60, 1)
    assert len({(group, split) for group, split in zip(found.groups, found.split, strict=True)}) == PEOPLE


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"subject": "patient"}, "data.subject is 'patient' of a folder; expected folder"),
        ({"subject": "pattern:(p[01])"}, "finds nothing in p2"),
        ({"split": OwnSplit(column="fold")}, "data.split names column 'fold' of a folder"),
        ({"label": ("hrr",)}, "has no 'hrr'; expected one of hr.npy, ppg.npy"),
    ],
)
def test_what_a_folder_does_not_have_is_one_line(change: Arrays, words: str, tmp_path: Path) -> None:
    write_people(tmp_path, lambda place, y: np.save(place / "hr.npy", y))

    with pytest.raises(DataError, match=words):
        read(dataclasses.replace(FOLDER, **change), tmp_path)


@pytest.mark.parametrize(("rate_hz", "is_refused"), [(0.25, False), (1.0, True), (0.1, True)])
def test_a_series_of_labels_lasts_as_long_as_its_signal(
    rate_hz: float, is_refused: bool, tmp_path: Path
) -> None:
    write_people(tmp_path, lambda place, y: np.save(place / "hr.npy", y), is_long=True)
    own = dataclasses.replace(FOLDER, window_s=4.0, label_rate_hz=rate_hz)

    if is_refused:
        with pytest.raises(DataError, match=r"p0: 6 labels at .* Hz last .* s, the signal 24 s"):
            read(own, tmp_path)
    else:
        assert len(read(own, tmp_path).labels) == 60
