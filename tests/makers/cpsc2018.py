"""``training/cpsc_2018/g1/A0001.hea`` and ``.mat``, as the PhysioNet challenge of 2020 serves them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from makers.waves import ecg_wave
from makers.wfdb_files import adc, write_mat_record

CODES = ("426783006", "164889003", "59118001,164884008", "270492004")


def stem_of(root: Path, number: int) -> Path:
    return root / f"training/cpsc_2018/g{1 + number // 1000}/A{number:04d}"


def write_record(root: Path, number: int, codes: str, samples: int = 5500) -> Path:
    wave = adc(ecg_wave(samples, 500, 50 + number % 60, number))
    comments = f"# Age: 74\n# Sex: Male\n# Dx: {codes}\n# Rx: Unknown\n# Hx: Unknown\n# Sx: Unknown\n"
    stem = stem_of(root, number)
    write_mat_record(stem, np.stack([np.roll(wave, 100 * lead) for lead in range(12)]), 500, comments)
    return stem.with_suffix(".hea")


def write(data_dir: Path, count: int = 20) -> Path:
    """Write ``count`` records, one of them shorter than 10 s."""
    root = data_dir / "cpsc2018"
    for number in range(1, count + 1):
        write_record(root, number, CODES[number % len(CODES)], samples=4000 if number == 3 else 5500)
    return root
