"""Pure functions on signals: cutting windows, resampling, normalising. Axes: N windows, T samples."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

Float32s = NDArray[np.float32]
Float64s = NDArray[np.float64]

CHUNK = 512
"""Windows handled at a time, so that a pass in float64 never doubles a large data set in memory."""


def cut_windows(signal: Float32s, length: int, stride: int) -> Float32s:
    """Return a read-only view (N, ``length``) of all complete windows of a recording (samples,).

    Window i begins at sample i * ``stride``; a recording shorter than one window gives N = 0.
    """
    if signal.size < length:
        return np.empty((0, length), np.float32)
    return np.lib.stride_tricks.sliding_window_view(signal, length)[::stride]


def interpolate(windows: Float32s, samples: int) -> Float32s:
    """Return windows (..., T) resampled to (..., ``samples``) by linear interpolation.

    The formula of ``torch.nn.functional.interpolate(mode="linear", align_corners=False)``, as in the
    reference: output j lies at (j + 0.5) T / samples - 0.5, clamped at the first and last sample. No
    low-pass filter comes before it.
    """
    length = windows.shape[-1]
    if length == samples:
        return windows
    scale = np.float32(length) / np.float32(samples)  # all in float32, because torch's positions are
    position = scale * (np.arange(samples, dtype=np.float32) + np.float32(0.5)) - np.float32(0.5)
    position = np.maximum(position, np.float32(0))
    left = np.minimum(position.astype(np.int64), length - 1)
    right = np.minimum(left + 1, length - 1)
    weight = np.clip(position - left.astype(np.float32), 0, 1)
    resampled: Float32s = windows[..., left] * (1 - weight) + windows[..., right] * weight
    return resampled


def position_statistics(windows: Float32s) -> Float32s:
    """Return (2, ..., T): mean and population standard deviation over windows (N, ..., T).

    A standard deviation of 0 becomes 1, as in the reference. Two passes in float64, in chunks.
    """
    count = len(windows)
    chunks = range(0, count, CHUNK)
    total = np.zeros(windows.shape[1:])
    for start in chunks:
        total += windows[start : start + CHUNK].sum(axis=0, dtype=np.float64)
    mean = total / count
    squares = np.zeros_like(mean)
    for start in chunks:
        squares += np.square(windows[start : start + CHUNK] - mean).sum(axis=0)
    std = np.sqrt(squares / count)
    std[std == 0] = 1
    return np.stack([mean, std]).astype(np.float32)


def standardise_each(windows: Float32s) -> Float32s:
    """Return windows (N, ..., T), each channel of each with mean 0 and standard deviation 1 (population).

    A flat window, whose standard deviation is 0 or only rounding, becomes all zeros.
    """
    wide = windows.astype(np.float64)
    wide -= wide.mean(axis=-1, keepdims=True)
    std = wide.std(axis=-1, keepdims=True)
    is_flat = std <= 1e-6 * np.abs(windows).max(axis=-1, keepdims=True, initial=0)
    return np.where(is_flat, 0, wide / np.where(is_flat, 1, std)).astype(np.float32)


def at_rate(signal: Float32s, rate_hz: float, wanted_hz: float) -> Float32s:
    """Return a signal (..., samples) at another rate (polyphase filter); itself when the rates agree."""
    if abs(rate_hz / wanted_hz - 1) < 1e-9:
        return signal
    from scipy.signal import resample_poly

    ratio = Fraction(wanted_hz / rate_hz).limit_denominator(1000)
    resampled: Float32s = resample_poly(signal, ratio.numerator, ratio.denominator, axis=-1).astype(
        np.float32
    )
    return resampled
