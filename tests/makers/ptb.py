"""``patient001/s0010_re.hea``, ``.dat`` and ``.xyz``: twelve leads and three Frank leads, 2000 units/mV."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from makers.waves import ecg_wave
from makers.wfdb_files import LEADS, checksum

REASONS = ("Myocardial infarction", "Healthy control", "Cardiomyopathy")


def write_record(root: Path, person: int, number: int, reason: str, samples: int = 21_000) -> Path:
    """Write one record of a person; returns its header."""
    stem = root / f"patient{person:03d}/s{number:04d}_re"
    wave = np.round(2000 * ecg_wave(samples, 1000, 50 + person % 50, number)).astype("<i2")
    standard = np.stack([np.roll(wave, 50 * lead) for lead in range(12)])
    frank = standard[:3]
    lines = [f"{stem.name} 15 1000 {samples}"]
    for suffix, block, names in (("dat", standard, LEADS), ("xyz", frank, ("vx", "vy", "vz"))):
        lines += [
            f"{stem.name}.{suffix} 16 2000 16 0 {lead[0]} {checksum(lead)} 0 {name.lower()}"
            for name, lead in zip(names, block, strict=True)
        ]
    lines += [
        "# age: 81",
        "# sex: female",
        "# ECG date: 01/10/1990",
        "# Diagnose:",
        f"# Reason for admission: {reason}",
    ]
    lines += [
        "# Acute infarction (localization): infero-latera",
        "# Additional diagnoses: Diabetes mellitus",
        "# Therapy:",
    ]
    stem.parent.mkdir(parents=True, exist_ok=True)
    stem.with_suffix(".hea").write_text("\r\n".join(lines) + "\r\n")
    stem.with_suffix(".dat").write_bytes(standard.T.astype("<i2").tobytes())
    stem.with_suffix(".xyz").write_bytes(frank.T.astype("<i2").tobytes())
    return stem.with_suffix(".hea")


def write(data_dir: Path, people: int = 36) -> Path:
    """Write people of all three classes, some with two records."""
    root = data_dir / "ptb"
    for person in range(1, people + 1):
        for record in range(1 + person % 5 // 4):
            write_record(root, person, 10 * person + record, REASONS[person % 3])
    return root
