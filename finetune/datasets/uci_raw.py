"""The raw UCI set: ``Part_1.mat`` to ``_4``, 12,000 cells of PPG, arterial pressure and ECG at 125 Hz.

Source: Kachuee et al., IEEE ISCAS 2015; UCI repository 340. MATLAB 7.3 is HDF5: a cell array is a data set
of references, followed here one at a time, so that never more than one cell is in memory. Windows of 5 s do
not overlap; their labels and limits are those of :mod:`finetune.datasets.blood_pressure`. A window of PPG
that was seen before is dropped: the set repeats itself (bp-benchmark, ``read_uci.py``).

There are no subject ids, but the cells of one patient follow one another. So the split is contiguous: the
first 80 % of the blocks train, the next 10 % validate, the rest test, and the first 0.5 % of all blocks
after each border are left out, because the patient before the border may go on behind it.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.base import TEST, TRAIN, VALIDATION, WindowSet
from finetune.datasets.blood_pressure import Pressure, window_pressure
from finetune.errors import DataError
from finetune.file_kinds import why_unreadable

CELLS = 12_000
RATE_HZ = 125
SAMPLES = 5 * RATE_HZ
PPG, ABP, CHANNELS = 0, 1, 3
BLOCK_CELLS = 13
"""12,000 cells of 942 patients (Kachuee et al., IEEE TBME 64(4), 2017): about one patient."""
FEWEST_BLOCKS = 10
"""A part of the set with under 130 cells has smaller blocks, so that each split has some."""
GAP_SHARE = 0.005
MEND = "compare it with the publisher's, or remove it and fetch it again: hpo data get uci_bp_raw"


@dataclass
class _Found:
    """What has been found so far: one row a window, in arrays made for the most that there can be."""

    signal: NDArray[np.float32]
    pressures: NDArray[np.float32]
    cells: NDArray[np.int64]
    """Number of each window's cell, counted through all files."""
    count: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    seen: set[bytes] = field(default_factory=set)

    @classmethod
    def room_for(cls, windows: int) -> _Found:
        """Return empty arrays; memory that is never written to is never used."""
        shape = (windows, SAMPLES)
        return cls(
            np.empty(shape, np.float32), np.empty((windows, 2), np.float32), np.empty(windows, np.int64)
        )

    def take(self, cell: int, ppg: NDArray[np.float32], pressure: Pressure) -> None:
        """Keep one window (625,), or count why not."""
        fault = pressure.fault or _ppg_fault(ppg)
        digest = hashlib.blake2b(ppg.tobytes(), digest_size=12).digest()
        if not fault and digest in self.seen:
            fault = "the same PPG as an earlier window"
        if fault:
            self.dropped[fault] += 1
            return
        self.seen.add(digest)
        self.signal[self.count], self.cells[self.count] = ppg, cell
        self.pressures[self.count] = pressure.systolic, pressure.diastolic
        self.count += 1


def read_raw(paths: Sequence[Path], column: int) -> WindowSet:
    """Return the windows of the raw form, labelled with systolic (``column`` 0) or diastolic (1) pressure.

    Raises :class:`DataError` naming file and cell.
    """
    lengths = [length for path in paths for length in _cell_lengths(path)]
    found = _Found.room_for(sum(length // SAMPLES for length in lengths))
    cell = 0
    for path in paths:
        for ppg, abp in _cells(path):
            _take_windows(found, cell, ppg, abp)
            cell += 1
    block = found.cells[: found.count] // _block_cells(len(lengths))
    split = contiguous_split(-(-len(lengths) // _block_cells(len(lengths))))[block]
    keep = split >= 0
    found.dropped["between two splits"] += int(np.sum(~keep))
    return WindowSet(
        signal=_kept(found.signal[: found.count], keep),
        labels=found.pressures[: found.count, column][keep][:, None],
        groups=np.array([f"block-{number:04d}" for number in block[keep]]),
        split=split[keep],
        rate_hz=RATE_HZ,
        records_found=len(lengths),
        records_expected=max(CELLS, len(lengths)),
        notes=_notes(found, len(lengths)),
    )


def _take_windows(found: _Found, cell: int, ppg: NDArray[np.float64], abp: NDArray[np.float64]) -> None:
    for start in range(0, len(ppg) - SAMPLES + 1, SAMPLES):
        inside = slice(start, start + SAMPLES)
        found.take(cell, ppg[inside].astype(np.float32), window_pressure(abp[inside], RATE_HZ))


def _ppg_fault(ppg: NDArray[np.float32]) -> str:
    if not np.isfinite(ppg).all():
        return "gaps in the PPG"
    return "flat PPG" if ppg.min() == ppg.max() else ""


def _block_cells(cells: int) -> int:
    return min(BLOCK_CELLS, max(1, cells // FEWEST_BLOCKS))


def contiguous_split(blocks: int) -> NDArray[np.int8]:
    """Return the split of each of so many blocks in a row, -1 for those in the gap after a border."""
    train, validation, gap = int(0.8 * blocks), int(0.1 * blocks), int(GAP_SHARE * blocks)
    codes = np.full(blocks, TEST, np.int8)
    codes[:train], codes[train : train + validation] = TRAIN, VALIDATION
    for border in (train, train + validation):
        codes[border : border + gap] = -1
    return codes


def _kept(signal: NDArray[np.float32], keep: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the rows to keep, moved up in place: a copy would double the largest array there is."""
    rows = np.flatnonzero(keep)
    for target, row in enumerate(rows):
        if target != row:
            signal[target] = signal[row]
    return signal[: len(rows)]


def _notes(found: _Found, cells: int) -> tuple[str, ...]:
    missing = [f"{cells} of {CELLS} cells are in the folder"] if cells < CELLS else []
    reasons = [f"{count} windows dropped ({reason})" for reason, count in found.dropped.items() if count]
    rule = "raw form: splits are contiguous blocks of cells, whether they share patients cannot be verified"
    return (*missing, rule, *sorted(reasons))


# --- the file format ---


@contextmanager
def _references(path: Path) -> Iterator[tuple[Any, list[Any]]]:
    """Hold a file open, with its references in order; raises :class:`DataError` when it has none."""
    import h5py  # 0.3 s, and only the first preparation needs it

    try:
        with h5py.File(path, "r") as file:
            names = [name for name in file if not name.startswith("#")]
            arrays = [file[name] for name in names if isinstance(file[name], h5py.Dataset)]
            if len(arrays) != 1 or h5py.check_ref_dtype(arrays[0].dtype) is not h5py.Reference:
                what = f"{path} holds {', '.join(names) or 'nothing'}"
                raise DataError(what, "one cell array such as Part_1", MEND)
            yield file, list(arrays[0][()].ravel())
    except (OSError, RuntimeError, KeyError) as error:  # h5py has no error of its own
        what = f"{path} cannot be read ({why_unreadable(path, error, 'HDF5')})"
        raise DataError(what, "a complete MATLAB 7.3 (HDF5) file", MEND) from error


def _cell_lengths(path: Path) -> list[int]:
    """Return the samples of every cell, from the shapes alone."""
    with _references(path) as (file, references):
        return [max(_checked(file[ref], path, number).shape) for number, ref in enumerate(references)]


def _cells(path: Path) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield PPG and arterial pressure (mmHg) of one cell at a time, whichever way round it is stored."""
    with _references(path) as (file, references):
        for number, reference in enumerate(references):
            cell = np.asarray(_checked(file[reference], path, number)[()], np.float64)
            rows = cell if cell.shape[0] == CHANNELS else cell.T
            yield rows[PPG], rows[ABP]


def _checked(cell: Any, path: Path, number: int) -> Any:
    shape = tuple(getattr(cell, "shape", ()))
    if len(shape) != 2 or CHANNELS not in shape or cell.dtype.kind not in "fiu":
        what = f"{path}: cell {number} has the shape {shape} and type {getattr(cell, 'dtype', None)}"
        raise DataError(what, "3 x N or N x 3 numbers (PPG, pressure, ECG)", MEND)
    return cell
