"""Recordings that the built-in backbones are pretrained on: the training units of each split only."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d
from scipy.signal import butter, sosfiltfilt

from finetune.datasets import find_reader
from finetune.datasets.base import TRAIN
from finetune.datasets.bidmc import RATE_HZ, SPLIT, read_channels
from finetune.errors import SettingError
from finetune.signals import interpolate


@dataclass(frozen=True)
class Recording:
    """One continuous recording at 125 Hz with what is predicted from it."""

    name: str
    source: str
    signal: NDArray[np.float32]
    """(T,) the backbone's input."""
    companion: NDArray[np.float32]
    """(T,) what every patch predicts, mean 0 and standard deviation 1 over the recording: the beat energy of
    the ECG that was recorded with it, or of the signal itself where that is the ECG."""


def pretraining_recordings(backbone: str, data_dir: Path) -> list[Recording]:
    """Return the recordings that ``backbone`` is pretrained on."""
    sources = {"cmssl_tiny_ppg": bidmc_recordings, "cmssl_tiny_ecg": ecg_recordings}
    if backbone not in sources:
        raise SettingError(f"there is no pretraining for {backbone!r}", f"one of {', '.join(sources)}")
    return sources[backbone](data_dir)


def bidmc_recordings(data_dir: Path) -> list[Recording]:
    """Return PLETH with the beat energy of lead II of the 42 BIDMC *training* subjects."""
    recordings = []
    for subject in SPLIT.train:
        pleth, lead = read_channels(data_dir / "bidmc", subject, ("PLETH", "II"))
        recordings.append(
            Recording(f"bidmc {subject}", "BIDMC 1.0.0, training subjects", pleth, beat_energy(lead))
        )
    return recordings


def ecg_recordings(data_dir: Path) -> list[Recording]:
    """Return the ECGs of all training splits at hand, each with its own beat energy.

    PhysioNet 2017 (training records, without their padding), PTB-XL (lead II, folds 1 to 8, also of a part of
    the set: the folds are fixed) and BIDMC (lead II, training subjects). Not CSN, whose split is drawn over
    the records that are there: one that trains in a part of the set may be a test record of the whole.
    """
    rhythm = _training_windows("physionet2017", "PhysioNet 2017, training records", data_dir)
    statements = _training_windows("ptb-xl", "PTB-XL 1.0.3, folds 1 to 8, lead II", data_dir)
    return [*rhythm, *statements, *_bidmc_ecgs(data_dir)]


def _training_windows(dataset: str, source: str, data_dir: Path) -> list[Recording]:
    """Return the training windows of a data set at 125 Hz, one recording each, without flat ones."""
    reader = find_reader(dataset)
    read = reader.read(data_dir / reader.folder, dataset)
    recordings = []
    for place in np.flatnonzero(read.split == TRAIN):
        whole = np.trim_zeros(read.signal[place], "b")
        if len(whole) < read.rate_hz or not whole.std():
            continue
        signal = interpolate(whole[None], round(len(whole) * RATE_HZ / read.rate_hz))[0].astype(np.float32)
        recordings.append(Recording(f"{dataset} {read.groups[place]}", source, signal, beat_energy(signal)))
    return recordings


def _bidmc_ecgs(data_dir: Path) -> list[Recording]:
    recordings = []
    for subject in SPLIT.train:
        (lead,) = read_channels(data_dir / "bidmc", subject, ("II",))
        lead = np.nan_to_num(lead)
        source = "BIDMC 1.0.0, training subjects, lead II"
        recordings.append(Recording(f"bidmc {subject}", source, lead, beat_energy(lead)))
    return recordings


def beat_energy(ecg: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return where an ECG (T,) beats: its 5-15 Hz energy (the QRS band of Pan and Tompkins, 1985).

    Smoothed over 0.15 s, cut at the 99th percentile so that artefacts do not set the scale, then z-scored.
    """
    band = sosfiltfilt(butter(2, (5, 15), "bandpass", fs=RATE_HZ, output="sos"), np.nan_to_num(ecg))
    energy = np.sqrt(uniform_filter1d(np.square(band), max(1, round(0.15 * RATE_HZ))))
    energy = np.minimum(energy, np.percentile(energy, 99))
    std = energy.std()
    scaled: NDArray[np.float32] = ((energy - energy.mean()) / (std if std > 0 else 1)).astype(np.float32)
    return scaled
