"""Preparing and caching: right windows, one build for many processes, a test split that stays shut."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
import zlib
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import numpy as np
import pytest
from bidmc_files import breaths_text, numerics_text, write_bidmc, write_subject
from hypothesis import given
from hypothesis import strategies as st
from makers import csn, physionet2017
from published import Shelf

from finetune.data.cache import every_nth
from finetune.data.prepared import Prepared, describe, load_test, prepare
from finetune.datasets import find_reader
from finetune.datasets.base import TRAIN, VALIDATION
from finetune.datasets.bidmc import Bidmc
from finetune.errors import DataError, MissingDataError, SettingError, UnknownNameError
from finetune.signals import interpolate
from finetune.spec import InputSpec

NOWHERE = Path("/nonexistent")
SYNTHETIC = InputSpec("synthetic_hr")


def all_bytes(prepared: Prepared) -> bytes:
    sides = (prepared.train, prepared.validation)
    return b"".join(part.tobytes() for side in sides for part in (side.x, side.y, side.groups))


# --- what comes out ---


@pytest.mark.parametrize("normalisation", ["window", "position"])
def test_windows_have_the_shape_and_type_that_a_model_wants(
    shared_cache_dir: Path, normalisation: str
) -> None:
    inputs = InputSpec("synthetic_rr", normalisation=normalisation, samples=500)  # type: ignore[arg-type]

    prepared = prepare(inputs, NOWHERE, shared_cache_dir)
    for side in (prepared.train, prepared.validation):
        assert side.x.shape == (len(side.y), 500)
        assert side.x.dtype == np.float32
        assert side.y.shape == (len(side.groups), 1)
        assert np.isfinite(side.x).all()
    assert not set(prepared.train.groups) & set(prepared.validation.groups)


def test_window_normalisation_standardises_each_window(shared_cache_dir: Path) -> None:
    x = prepare(SYNTHETIC, NOWHERE, shared_cache_dir).train.x

    np.testing.assert_allclose(x.mean(axis=1), 0, atol=1e-4)
    np.testing.assert_allclose(x.std(axis=1), 1, atol=1e-4)


def test_position_normalisation_uses_training_windows_and_comes_before_the_interpolation(
    shared_cache_dir: Path,
) -> None:
    windows = find_reader("synthetic").read(NOWHERE, "synthetic_rr")
    training = windows.signal[windows.split == TRAIN].astype(np.float64)
    held = windows.signal[windows.split == VALIDATION]
    mean, std = training.mean(axis=0), training.std(axis=0)

    prepared = prepare(InputSpec("synthetic_rr", normalisation="position"), NOWHERE, shared_cache_dir)
    expected = interpolate(((held - mean) / std).astype(np.float32), 1250)
    np.testing.assert_allclose(prepared.validation.x, expected, atol=2e-4)


def test_label_statistics_are_those_of_the_training_windows(shared_cache_dir: Path) -> None:
    prepared = prepare(SYNTHETIC, NOWHERE, shared_cache_dir)

    assert prepared.label_mean == pytest.approx(prepared.train.y.mean(axis=0), rel=1e-5)
    assert prepared.label_std == pytest.approx(prepared.train.y.std(axis=0), rel=1e-4)


def test_the_summary_knows_sizes_subjects_and_the_trivial_predictor(shared_cache_dir: Path) -> None:
    prepared = prepare(SYNTHETIC, NOWHERE, shared_cache_dir)
    summary, median = prepared.summary, float(np.median(prepared.train.y))

    assert summary.windows["train"] == len(prepared.train.x)
    assert len(summary.subjects["train"]) == 48
    assert summary.subjects["validation"] == tuple(dict.fromkeys(prepared.validation.groups.tolist()))
    assert summary.trivial["validation_loss"] == pytest.approx(np.abs(prepared.validation.y - median).mean())
    assert summary.trivial_name == f"constant {median:.4g} bpm (training median)"
    assert not summary.partial


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("task", "windows", "mae"),
    [("bidmc_rr", 9912, 2.222), ("bidmc_rr_30s", 9486, 1.925), ("bidmc_hr", 9912, 16.933)],
)
def test_real_bidmc_is_read_once_and_scores_as_published(
    published: Shelf,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    task: str,
    windows: int,
    mae: float,
) -> None:
    reads: list[str] = []
    monkeypatch.setattr(Bidmc, "read", lambda *_: reads.append(task) or published.windows(task))
    inputs = InputSpec(task, normalisation="position")
    first, again = (prepare(inputs, published.data_dir, cache_dir) for _ in range(2))

    assert reads == [task]
    assert first.summary.windows["train"] == windows
    assert first.summary.trivial["validation_loss"] == pytest.approx(mae, abs=0.0005)
    assert again.summary == first.summary


# --- fewer subjects, and folds ---


def test_fewer_training_subjects_are_the_first_of_the_split(shared_cache_dir: Path) -> None:
    everyone = prepare(SYNTHETIC, NOWHERE, shared_cache_dir).summary.subjects

    few = prepare(InputSpec("synthetic_hr", train_subjects=5), NOWHERE, shared_cache_dir).summary.subjects
    assert few["train"] == everyone["train"][:5]
    assert few["validation"] == everyone["validation"]


@given(units=st.lists(st.integers(0, 4), min_size=1, max_size=60), n=st.integers(1, 5))
def test_every_nth_takes_every_nth_row_of_each_unit(units: list[int], n: int) -> None:
    groups = np.array([f"s{unit}" for unit in units])
    rows = np.arange(len(units))[:: 1 + len(units) % 2]

    kept = every_nth(rows, groups, n)

    expected = [row for name in np.unique(groups) for row in rows[groups[rows] == name][::n]]
    assert kept.tolist() == sorted(expected)


def test_thinned_windows_keep_every_subject_and_the_whole_test_split(shared_cache_dir: Path) -> None:
    whole = prepare(SYNTHETIC, NOWHERE, shared_cache_dir)
    thin_inputs = InputSpec("synthetic_hr", every=4)
    thin = prepare(thin_inputs, NOWHERE, shared_cache_dir)

    subject = whole.train.groups[0]
    own, kept = whole.train.groups == subject, thin.train.groups == subject
    assert np.array_equal(thin.train.x[kept], whole.train.x[own][::4])
    assert thin.summary.subjects == whole.summary.subjects
    assert thin.summary.windows["validation"] < whole.summary.windows["validation"]
    assert thin.summary.data_hash != whole.summary.data_hash
    assert len(load_test(thin_inputs, NOWHERE, shared_cache_dir).y) == whole.summary.windows["test"]


def test_every_must_be_at_least_one(shared_cache_dir: Path) -> None:
    with pytest.raises(SettingError, match="every 0"):
        prepare(InputSpec("synthetic_hr", every=0), NOWHERE, shared_cache_dir)


def test_folds_validate_every_non_test_subject_once(shared_cache_dir: Path) -> None:
    inputs = InputSpec("synthetic_hr", folds=3)
    reference = prepare(SYNTHETIC, NOWHERE, shared_cache_dir).summary.subjects
    parts = [prepare(inputs, NOWHERE, shared_cache_dir, fold=fold).summary for fold in range(3)]

    held = [name for part in parts for name in part.subjects["validation"]]
    assert sorted(held) == sorted(reference["train"] + reference["validation"])
    for part in parts:
        assert not set(part.subjects["train"]) & set(part.subjects["validation"])
        assert set(part.subjects["train"]) | set(part.subjects["validation"]) == set(held)
        assert part.subjects["test"] == reference["test"]
    assert len({part.data_hash for part in parts}) == 1


def test_all_folds_are_described_together(shared_cache_dir: Path) -> None:
    inputs = InputSpec("synthetic_hr", folds=3)
    parts = [prepare(inputs, NOWHERE, shared_cache_dir, fold=fold).summary for fold in range(3)]

    pooled = describe(inputs, NOWHERE, shared_cache_dir)
    assert pooled.trivial["mae"] == pytest.approx(np.mean([part.trivial["mae"] for part in parts]))
    assert pooled.windows["validation"] == sum(part.windows["validation"] for part in parts)


@pytest.mark.parametrize(("folds", "fold"), [(None, 0), (3, None), (3, 3), (3, -1)])
def test_a_wrong_fold_is_refused(cache_dir: Path, folds: int | None, fold: int | None) -> None:
    with pytest.raises(SettingError, match="fold"):
        prepare(InputSpec("synthetic_hr", folds=folds), NOWHERE, cache_dir, fold=fold)


# --- the test split ---


def test_test_windows_are_prepared_like_the_training_windows(shared_cache_dir: Path) -> None:
    inputs = InputSpec("synthetic_rr", normalisation="position", folds=3)

    tests = [load_test(inputs, NOWHERE, shared_cache_dir, fold=fold) for fold in (0, 1)]
    assert tests[0].x.shape == (426, 1250)
    assert tests[0].x.tobytes() != tests[1].x.tobytes()  # each fold has training windows of its own
    assert tests[0].y.tobytes() == tests[1].y.tobytes()
    summary = prepare(inputs, NOWHERE, shared_cache_dir, fold=0).summary
    assert tuple(dict.fromkeys(tests[0].groups.tolist())) == summary.subjects["test"]


OPENED = """
import sys
from pathlib import Path
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
from finetune.data.prepared import describe, load_test, prepare
from finetune.spec import InputSpec
inputs, cache = InputSpec("synthetic_hr"), Path(sys.argv[1])
prepare(inputs, Path("/nonexistent"), cache)
describe(inputs, Path("/nonexistent"), cache)
assert any("validation-x.npy" in name for name in opened), opened
assert not any("test" in Path(name).name and name.endswith(".npy") for name in opened), opened
load_test(inputs, Path("/nonexistent"), cache)
assert any("test-y.npy" in name for name in opened), opened
assert "torch" not in sys.modules
"""


def test_preparing_opens_no_file_of_the_test_split_and_imports_no_torch(shared_cache_dir: Path) -> None:
    prepare(SYNTHETIC, NOWHERE, shared_cache_dir)

    run = subprocess.run(
        [sys.executable, "-c", OPENED, str(shared_cache_dir)], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr


# --- the cache ---


def test_the_cache_gives_the_same_bytes_as_the_first_preparation(tmp_path: Path) -> None:
    first = prepare(SYNTHETIC, NOWHERE, tmp_path / "a")
    again = prepare(SYNTHETIC, NOWHERE, tmp_path / "a")
    elsewhere = prepare(SYNTHETIC, NOWHERE, tmp_path / "b")

    assert all_bytes(first) == all_bytes(again) == all_bytes(elsewhere)
    assert first.summary == elsewhere.summary


def small_bidmc(tmp_path: Path) -> Path:
    write_bidmc(tmp_path / "data", [20, 42, 11, 8])  # two that train, one that validates, one that tests
    return tmp_path / "data"


SMALL = InputSpec("bidmc_hr", allow_partial=True)


def test_another_content_is_another_entry_and_another_hash(tmp_path: Path, cache_dir: Path) -> None:
    data_dir = small_bidmc(tmp_path)
    before = prepare(SMALL, data_dir, cache_dir)
    path = data_dir / "bidmc/bidmc_csv/bidmc_20_Numerics.csv"
    path.write_text(numerics_text([99.0] * 481))

    after = prepare(SMALL, data_dir, cache_dir)
    assert after.summary.data_hash != before.summary.data_hash
    assert after.train.y.max() == 102  # subject 42 is unchanged
    assert set(np.unique(after.train.y)) == {99, 102}


def test_a_touched_file_of_the_same_content_is_the_same_data(tmp_path: Path, cache_dir: Path) -> None:
    data_dir = small_bidmc(tmp_path)
    before = prepare(SMALL, data_dir, cache_dir).summary
    for path in data_dir.rglob("*.csv"):
        os.utime(path, ns=(1, 1))

    assert prepare(SMALL, data_dir, cache_dir).summary == before


def test_plain_and_gzipped_files_are_the_same_data(tmp_path: Path, cache_dir: Path) -> None:
    for form, gzipped in (("plain", False), ("packed", True)):
        for subject in (20, 11, 8):
            write_subject(tmp_path / form / "bidmc", subject, gzipped=gzipped)

    plain, packed = (prepare(SMALL, tmp_path / form, cache_dir).summary for form in ("plain", "packed"))
    assert plain.data_hash == packed.data_hash


def test_a_broken_memo_of_hashes_only_costs_time(tmp_path: Path, cache_dir: Path) -> None:
    data_dir = small_bidmc(tmp_path)
    before = prepare(SMALL, data_dir, cache_dir).summary
    (cache_dir / "hashes-bidmc.json").write_text('{"half')

    assert prepare(SMALL, data_dir, cache_dir).summary == before


def test_every_part_of_the_preparation_is_part_of_the_hash(shared_cache_dir: Path) -> None:
    variants = [
        SYNTHETIC,
        InputSpec("synthetic_hr", normalisation="position"),
        InputSpec("synthetic_hr", samples=625),
        InputSpec("synthetic_hr", train_subjects=5),
        InputSpec("synthetic_hr", folds=3),
        InputSpec("synthetic_rr"),
    ]

    hashes = {describe(inputs, NOWHERE, shared_cache_dir).data_hash for inputs in variants}
    assert len(hashes) == len(variants)


def test_a_prepared_set_is_not_built_again(tmp_path: Path, cache_dir: Path) -> None:
    data_dir, messages = small_bidmc(tmp_path), []
    prepare(SMALL, data_dir, cache_dir, notify=messages.append)
    prepare(SMALL, data_dir, cache_dir, notify=messages.append)

    assert messages == ["preparing bidmc_hr from 8 files"]


def _prepare_and_tell(start: Barrier, queue: Queue, cache: Path) -> None:
    messages: list[str] = []
    start.wait(60)
    prepared = prepare(SYNTHETIC, NOWHERE, cache, notify=messages.append)
    queue.put((len(messages), zlib.crc32(all_bytes(prepared))))


def test_processes_that_prepare_at_once_build_once_and_see_the_same(cache_dir: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    start, queue = spawn.Barrier(4), spawn.Queue()
    workers = [spawn.Process(target=_prepare_and_tell, args=(start, queue, cache_dir)) for _ in range(4)]
    for worker in workers:
        worker.start()
    results = [queue.get(timeout=60) for _ in workers]
    for worker in workers:
        worker.join(60)

    assert sum(built for built, _ in results) == 1
    assert len({digest for _, digest in results}) == 1
    entries = [path.name for path in (cache_dir / "prepared").iterdir() if path.suffix != ".lock"]
    assert len(entries) == 1


KILLED = """
import os, sys
from pathlib import Path
import finetune.data.cache as build
from finetune.data.prepared import prepare
from finetune.spec import InputSpec
def die(event, args):
    if event == "open" and "validation-x" in str(args[0]):
        os._exit(9)
sys.addaudithook(die)
prepare(InputSpec("synthetic_hr"), Path("/nonexistent"), Path(sys.argv[1]))
"""


def test_a_process_that_dies_while_building_leaves_no_half_entry(
    cache_dir: Path,
) -> None:
    dead = subprocess.run([sys.executable, "-c", KILLED, str(cache_dir)], check=False)
    left = [path.name for path in (cache_dir / "prepared").iterdir() if path.is_dir()]
    os.utime(cache_dir / "prepared" / left[0], (0, 0))  # as if it had been there for long

    prepared = prepare(SYNTHETIC, NOWHERE, cache_dir)
    assert dead.returncode == 9
    assert [name[0] for name in left] == ["."]  # a temporary folder
    assert prepared.summary.windows["train"] == len(prepared.train.x)
    assert not (cache_dir / "prepared" / left[0]).exists()


def flip(path: Path, place: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << (place % 8)
    path.write_bytes(content)


@pytest.mark.parametrize("fault", ["flipped", "truncated", "gone", "empty", "other labels", "one more"])
def test_prepared_data_that_are_not_as_written_are_prepared_again(cache_dir: Path, fault: str) -> None:
    first = prepare(SYNTHETIC, NOWHERE, cache_dir)
    wanted = first.train.x.tobytes(), first.train.y.tobytes(), first.validation.y.tobytes(), first.summary
    files = sorted(cache_dir.glob("prepared/synthetic_hr-*/reference/*"))
    assert len(files) == 8

    for number, path in enumerate({"flipped": files, "other labels": [files[5]]}.get(fault, files[2:4])):
        if fault == "flipped":
            flip(path, 7919 * number * number)
        elif fault == "gone":
            path.unlink()
        elif fault == "one more":
            (path.parent / f"{path.name}.orig").write_text("")
        elif fault == "other labels":
            np.save(path, np.load(path)[::-1])
        else:
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 if fault == "truncated" else 0])
        told: list[str] = []
        again = prepare(SYNTHETIC, NOWHERE, cache_dir, notify=told.append)

        found = again.train.x.tobytes(), again.train.y.tobytes(), again.validation.y.tobytes(), again.summary
        assert found == wanted, path
        assert told == ["preparing synthetic_hr again (the prepared data were damaged) from no files"]


def test_a_damaged_test_split_is_prepared_again_when_it_is_opened(cache_dir: Path) -> None:
    wanted = load_test(SYNTHETIC, NOWHERE, cache_dir)
    before = wanted.x.tobytes(), wanted.y.tobytes()
    flip(next(cache_dir.rglob("test-y.npy")), 4000)

    again = load_test(SYNTHETIC, NOWHERE, cache_dir)

    assert (again.x.tobytes(), again.y.tobytes()) == before


def test_a_cache_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(SettingError, match=r"cannot write to the cache folder .*file/cache") as caught:
        prepare(SYNTHETIC, NOWHERE, tmp_path / "file/cache")
    assert "\n" not in str(caught.value)


# --- partial and broken data ---


def test_a_partial_set_is_refused_with_the_number_and_the_flag(tmp_path: Path, cache_dir: Path) -> None:
    data_dir = small_bidmc(tmp_path)

    with pytest.raises(MissingDataError, match=r"bidmc_hr: 49 of 53 records are missing.*--allow-partial"):
        prepare(InputSpec("bidmc_hr"), data_dir, cache_dir)
    assert not list((cache_dir / "prepared").glob("bidmc_hr-*/*"))


def test_a_partial_set_says_so_everywhere_even_from_the_cache(tmp_path: Path, cache_dir: Path) -> None:
    data_dir = small_bidmc(tmp_path)

    assert prepare(SMALL, data_dir, cache_dir).summary.partial == "4 of 53 records"
    assert describe(SMALL, data_dir, cache_dir).partial == "4 of 53 records"
    with pytest.raises(MissingDataError):
        prepare(InputSpec("bidmc_hr"), data_dir, cache_dir)
    with pytest.raises(MissingDataError):
        load_test(InputSpec("bidmc_hr"), data_dir, cache_dir)


def test_classes_that_the_areas_leave_out_are_in_the_notes(tmp_path: Path, cache_dir: Path) -> None:
    csn.write(tmp_path)
    physionet2017.write(tmp_path)

    rare = describe(InputSpec("csn", allow_partial=True), tmp_path, cache_dir)
    common = describe(InputSpec("physionet2017", allow_partial=True), tmp_path, cache_dir)

    assert re.fullmatch(
        r"\d\d of 94 classes without positives or without negatives in the validation split, "
        r"left out of AUROC and AUC_PR: (\d+, ){5}\.\.\.",
        rare.notes[-1],
    )
    assert not any("AUROC" in note for note in common.notes)


def test_records_that_leave_no_validation_subject_are_refused(tmp_path: Path, cache_dir: Path) -> None:
    write_bidmc(tmp_path, [20, 8])

    with pytest.raises(DataError, match="1 training and 0 validation subjects"):
        prepare(SMALL, tmp_path, cache_dir)


def test_a_subject_without_valid_windows_is_in_the_notes(tmp_path: Path, cache_dir: Path) -> None:
    data_dir = small_bidmc(tmp_path)
    (data_dir / "bidmc/bidmc_csv/bidmc_42_Breaths.csv").write_text(breaths_text(range(10, 60001, 4000)))

    summary = prepare(InputSpec("bidmc_rr_30s", allow_partial=True), data_dir, cache_dir).summary
    assert summary.subjects["train"] == ("20",)
    assert any(note.startswith("subject 42: 226 of 226 windows dropped") for note in summary.notes)


def test_a_broken_file_leaves_nothing_in_the_cache(tmp_path: Path, cache_dir: Path) -> None:
    data_dir = small_bidmc(tmp_path)
    (data_dir / "bidmc/bidmc_csv/bidmc_11_Signals.csv").write_text("")

    with pytest.raises(DataError, match="bidmc_11_Signals"):
        prepare(SMALL, data_dir, cache_dir)
    assert not [path for path in (cache_dir / "prepared").iterdir() if path.is_dir()]


def test_no_data_at_all_names_the_command(tmp_path: Path, cache_dir: Path) -> None:
    with pytest.raises(MissingDataError, match="hpo data get bidmc"):
        prepare(InputSpec("bidmc_hr"), tmp_path, cache_dir)


def test_an_unknown_task_offers_the_nearest_name(cache_dir: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean .*bidmc_hr"):
        prepare(InputSpec("bidmc_hrr"), NOWHERE, cache_dir)


@pytest.mark.parametrize("samples", [-1, 0, 1])
def test_a_window_without_samples_is_refused(cache_dir: Path, samples: int) -> None:
    with pytest.raises(SettingError, match=f"samples {samples}"):
        prepare(InputSpec("synthetic_hr", samples=samples), NOWHERE, cache_dir)
