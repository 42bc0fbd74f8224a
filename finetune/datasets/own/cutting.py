"""From records to windows: filters, another rate, windows with their labels. C channels, T samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, assert_never

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.own.labels import numbers_of
from finetune.datasets.own.records import Labels, Records
from finetune.errors import DataError, SettingError
from finetune.own import Filter, OwnData
from finetune.signals import Float32s, at_rate

OTHER_LENGTH = 0.1
"""So much shorter or longer than the signal, or by a window, may a series of labels be."""
NOTCH_Q = 30.0
"""Quality of a notch: scipy's own example of taking out a power line."""
ELGENDI_HZ = (0.5, 8.0)
"""Elgendi et al. 2013, PLoS ONE 8(10):e76585: band of the systolic peaks; as neurokit2's ``elgendi``."""


@dataclass(frozen=True)
class Cut:
    """Windows of all records, in their order."""

    signal: Float32s
    """(N, C, T)."""
    labels: Labels
    """(N, outputs) as they stand in the file."""
    record: NDArray[np.int64]
    """(N,) row of :class:`Records` that each window is of."""
    rate_hz: float
    notes: tuple[str, ...] = ()


def cut(records: Records, own: OwnData) -> Cut:
    """Return the windows of all records; raises :class:`DataError` for lengths and rates that differ."""
    rates = {own.resample_hz or rate for rate in records.rates_hz}
    if len(rates) != 1:
        told = ", ".join(f"{rate:g}" for rate in sorted(rates))
        raise DataError(
            f"the records have rates of {told} Hz", "one rate", "add data.resample_hz to bring them to one"
        )
    rate_hz = rates.pop()
    if _needs_nothing(records, own):
        signal = np.asarray(records.signals, np.float32)
        return Cut(signal, np.concatenate(list(records.labels)), np.arange(len(signal)), rate_hz)
    parts, labels, rows, short = [], [], [], []
    for row, (raw, own_rate) in enumerate(zip(records.signals, records.rates_hz, strict=True)):
        signal = at_rate(filtered(raw, own_rate, own.filters), own_rate, rate_hz)
        windows = _windows(signal, rate_hz, own)
        if not len(windows):
            short.append(records.names[row])
            continue
        parts.append(windows)
        length_s = signal.shape[1] / rate_hz
        labels.append(_labels_of(records.labels[row], len(windows), length_s, own, records.names[row]))
        rows.append(np.full(len(windows), row))
    if not parts:
        raise DataError(f"no record is as long as a window of {own.window_s} s", "longer records")
    _refuse_other_shapes(parts, [records.names[int(each[0])] for each in rows])
    left = ", ".join(short[:5])
    notes = (f"{len(short)} records are shorter than a window and left out: {left}",) if short else ()
    return Cut(np.concatenate(parts), np.concatenate(labels), np.concatenate(rows), rate_hz, notes)


def _refuse_other_shapes(parts: Sequence[Float32s], names: Sequence[str]) -> None:
    """Raise :class:`DataError` unless windows of all records, each (N, C, T), have the same C and T."""
    for part, name in zip(parts, names, strict=True):
        for axis, what in ((1, "channels"), (2, "samples")):
            if part.shape[axis] != parts[0].shape[axis]:
                said = f"{name} has {part.shape[axis]} {what}, {names[0]} has {parts[0].shape[axis]}"
                mend = "name them in data.signal" if axis == 1 else "add data.window: {seconds: 10}"
                raise DataError(said, "as many in all records", mend)


def _needs_nothing(records: Records, own: OwnData) -> bool:
    """Return whether the rows are the windows already."""
    is_plain = not own.filters and own.resample_hz is None and all(len(one) == 1 for one in records.labels)
    if not is_plain or not isinstance(records.signals, np.ndarray):
        return False
    return own.window_s is None or round(own.window_s * records.rates_hz[0]) == records.signals.shape[2]


def filtered(signal: Float32s, rate_hz: float, filters: Sequence[Filter]) -> Float32s:
    """Return channels (C, T) after each filter, forward and backward; missing samples stay missing."""
    from scipy import signal as sp

    for one in filters:
        hz = ELGENDI_HZ if one.kind == "elgendi" else one.hz
        if hz[-1] >= rate_hz / 2:
            raise SettingError(f"filter {one.kind} {list(hz)} at {rate_hz:g} Hz", "under half the rate")
        sections: Any
        match one.kind:
            case "bandpass" | "lowpass" | "highpass":
                corners = hz if len(hz) > 1 else hz[0]
                sections = sp.butter(one.order, corners, one.kind, fs=rate_hz, output="sos")
            case "elgendi":
                sections = sp.butter(one.order, hz, "bandpass", fs=rate_hz, output="sos")
            case "notch":
                sections = sp.tf2sos(*sp.iirnotch(hz[0], NOTCH_Q, fs=rate_hz))
            case _:
                assert_never(one.kind)
        if signal.shape[-1] <= 3 * (2 * len(sections) + 1):  # what sosfiltfilt pads with at both ends
            raise DataError(f"a record of {signal.shape[-1]} samples", "a longer one for data.filter")
        is_missing = ~np.isfinite(signal)
        smooth = sp.sosfiltfilt(sections, np.where(is_missing, 0, signal), axis=-1).astype(np.float32)
        signal = np.where(is_missing, np.float32(np.nan), smooth)
    return signal


def _windows(signal: Float32s, rate_hz: float, own: OwnData) -> Float32s:
    """Return the complete windows (N, C, T) of one record (C, samples)."""
    if own.window_s is None:
        return signal[None]
    length = round(own.window_s * rate_hz)
    stride = round((own.stride_s or own.window_s) * rate_hz)
    if length < 2 or stride < 1:
        told = f"data.window of {own.window_s:g} s every {own.stride_s or own.window_s:g} s at {rate_hz:g} Hz"
        raise SettingError(told, "2 samples or more, every sample or more")
    if signal.shape[1] < length:
        return np.empty((0, len(signal), length), np.float32)
    views = np.lib.stride_tricks.sliding_window_view(signal, length, axis=1)[:, ::stride]  # (C, N, T)
    return views.transpose(1, 0, 2)


def _labels_of(labels: Labels, count: int, length_s: float, own: OwnData, name: str) -> Labels:
    """Return one row of labels a window: the record's own, one each, or the mean of a series in it."""
    if own.label_rate_hz is not None:
        series_s = len(labels) / own.label_rate_hz
        if abs(series_s - length_s) > max(own.window_s or 0, OTHER_LENGTH * length_s):
            said = f"{name}: {len(labels)} labels at {own.label_rate_hz:g} Hz last {series_s:g} s, the signal"
            raise DataError(f"{said} {length_s:g} s", "as long", "check data.label_rate_hz and data.rate_hz")
        return _means(numbers_of(labels, lambda row: f"{name} label {row}"), count, own)
    if len(labels) == 1:
        return np.repeat(labels, count, axis=0)
    if len(labels) != count:
        raise DataError(
            f"{name}: {len(labels)} labels beside {count} windows",
            "one label, one a window, or a series",
            "check data.window, or add data.label_rate_hz",
        )
    return labels


def _means(labels: NDArray[np.float64], count: int, own: OwnData) -> Labels:
    """Return the mean of the valid values with start <= t < end of each window; NaN without any."""
    assert own.window_s is not None
    assert own.label_rate_hz is not None
    time_s = np.arange(len(labels)) / own.label_rate_hz
    means = np.full((count, labels.shape[1]), np.nan)
    for row in range(count):
        start = row * (own.stride_s or own.window_s)
        inside = labels[(time_s >= start) & (time_s < start + own.window_s)]
        for output in range(labels.shape[1]):
            valid = inside[np.isfinite(inside[:, output]), output]
            if valid.size:
                means[row, output] = valid.mean()
    return means
