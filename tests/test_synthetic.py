"""The simulated data set: reproducible, varied, and with the respiration really in the signal."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy.signal import find_peaks, welch

from finetune.datasets import find_reader
from finetune.datasets.base import TEST, TRAIN, VALIDATION
from finetune.datasets.synthetic import RATE_HZ, Synthetic, simulate

READER = find_reader("synthetic")
NOWHERE = Path("/nonexistent")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others() -> None:
    assert simulate(3, 1).ppg.tobytes() == simulate(3, 1).ppg.tobytes()
    assert simulate(3, 1).ppg.tobytes() != simulate(4, 1).ppg.tobytes()
    assert simulate(3, 1).ppg.tobytes() != simulate(3, 2).ppg.tobytes()


def test_another_seed_is_another_data_set() -> None:
    ours, theirs = (Synthetic(seed=seed).read(NOWHERE, "synthetic_rr") for seed in (1, 2))

    assert ours.signal.tobytes() != theirs.signal.tobytes()


def test_it_needs_no_files() -> None:
    assert list(READER.files(NOWHERE, "synthetic_rr")) == []


@pytest.mark.parametrize(("task", "samples"), [("synthetic_hr", 1250), ("synthetic_rr", 3750)])
def test_it_has_thousands_of_training_windows_of_48_subjects(task: str, samples: int) -> None:
    windows = READER.read(NOWHERE, task)

    assert 3000 <= np.sum(windows.split == TRAIN) <= 4000
    assert windows.signal.shape[1] == samples
    subjects = {code: len(set(windows.groups[windows.split == code])) for code in (TRAIN, VALIDATION, TEST)}
    assert subjects == {TRAIN: 48, VALIDATION: 6, TEST: 6}


@pytest.mark.parametrize(("task", "between", "within"), [("synthetic_hr", 10, 1), ("synthetic_rr", 3, 0.5)])
def test_rates_vary_between_and_within_subjects(task: str, between: float, within: float) -> None:
    windows = READER.read(NOWHERE, task)
    of_subject = [windows.labels[windows.groups == name] for name in np.unique(windows.groups)]

    assert np.std([labels.mean() for labels in of_subject]) > between
    assert np.median([labels.std() for labels in of_subject]) > within


def test_the_pulses_in_the_signal_come_at_the_labelled_heart_rate() -> None:
    errors = []
    for subject in range(1, 9):
        recording = simulate(READER_SEED, subject)
        spectrum_hz, power = welch(recording.ppg[: 10 * RATE_HZ], RATE_HZ, nperseg=10 * RATE_HZ, nfft=1 << 15)
        band = (spectrum_hz > 0.75) & (spectrum_hz < 2.4)
        peak_hz = spectrum_hz[band][power[band].argmax()]
        errors.append(abs(60 * peak_hz - recording.heart_rate[: 10 * RATE_HZ].mean()))

    assert np.median(errors) < 2


def test_the_breaths_are_in_the_signal() -> None:
    """The height of the pulses swings at the respiratory rate: found by a plain spectrum in most subjects."""
    errors = []
    for subject in range(1, 13):
        recording = simulate(READER_SEED, subject)
        peaks, _ = find_peaks(recording.ppg, distance=RATE_HZ // 3, prominence=0.4)
        even = np.interp(np.arange(0, recording.ppg.size, RATE_HZ // 5), peaks, recording.ppg[peaks])
        spectrum_hz, power = welch(even - even.mean(), 5, nperseg=200, nfft=4096)
        band = (spectrum_hz > 0.1) & (spectrum_hz < 0.55)
        found = 60 * spectrum_hz[band][power[band].argmax()]
        errors.append(abs(found - recording.respiratory_rate.mean()))

    assert np.median(errors) < 2.5


def test_the_signal_has_the_steps_of_a_converter() -> None:
    ppg = simulate(1, 1).ppg

    assert np.array_equal(ppg, np.round(ppg * 1024) / 1024)


READER_SEED = Synthetic().seed
