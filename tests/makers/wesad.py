"""``WESAD/S2/S2.pkl``: as PPG-DaLiA's pickles, with the condition at 700 Hz as ``label``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from makers.ppg_dalia import python2_bytes
from makers.waves import pulse_wave

SUBJECTS = [f"S{number}" for number in (*range(2, 12), *range(13, 18))]
CONDITIONS = ((0, 10), (1, 120), (0, 20), (2, 95), (4, 20), (3, 90), (6, 5))
"""(label, seconds), one after the other."""


def subject_content(subject: str, conditions: tuple[tuple[int, int], ...] = CONDITIONS) -> Any:
    """What one pickle holds: every key of the original that is a column of it."""
    seed, seconds = int(subject[1:]), sum(length for _, length in conditions)
    noise = np.random.default_rng(seed)
    chest = noise.normal(size=(seconds * 7, 1))  # a hundredth: nobody reads it
    label = np.repeat([label for label, _ in conditions], [700 * length for _, length in conditions])
    return {
        "signal": {
            "chest": {
                "ACC": chest.repeat(3, 1),
                "ECG": chest,
                "EMG": chest,
                "EDA": chest,
                "Temp": chest,
                "Resp": chest,
            },
            "wrist": {
                "ACC": noise.normal(size=(seconds * 32, 3)),
                "BVP": 100 * pulse_wave(seconds * 64, 64, 60 + seed, seed)[:, None],
                "EDA": noise.normal(size=(seconds * 4, 1)),
                "TEMP": noise.normal(size=(seconds * 4, 1)),
            },
        },
        "label": label.astype(np.int32),
        "subject": subject,
    }


def path_of(root: Path, subject: str) -> Path:
    return root / "WESAD" / subject / f"{subject}.pkl"


def write_content(root: Path, subject: str, content: Any) -> Path:
    path = path_of(root, subject)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(python2_bytes(content))
    return path


def write(data_dir: Path) -> Path:
    """Write all 15 subjects."""
    root = data_dir / "wesad"
    for subject in SUBJECTS:
        write_content(root, subject, subject_content(subject))
    return root
