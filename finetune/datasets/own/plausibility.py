"""What signals, stated rates, units and names say of each other: refused where they contradict, or named.

Bounds are chosen by us on BIDMC, PTB-XL, PhysioNet 2017 and simulated signals, which pass without a word.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations

import numpy as np
from numpy.typing import NDArray

from finetune.datasets.own.pulse import FASTEST_BPM, SLOWEST_BPM, pulse_rates, spikiness
from finetune.datasets.own.screening import Screen
from finetune.own import OwnData
from finetune.signals import Float32s

LOOKED_AT = 300
"""Windows that are looked at, evenly spread."""
OTHER_SCALE = 100.0
"""Swing of a window beside the median one from which it is named; mV and uV are 1000 apart."""
CLIPPED_SHARE, CLIPPED_RUN = 0.05, 4
"""A window is clipped where so much of it lies in runs of so many samples at its own extremes."""
PULSE_RATIO = (0.7, 1.4)
"""Median of pulse over label that passes."""
LEAST_CORRELATION = 0.2
PPG_SPIKY, ECG_SMOOTH = 6.0, 3.0
"""Median kurtosis above which no PPG, and below which no ECG lies (BIDMC: 2.3, PTB-XL: 12)."""
EINTHOVEN = ("I", "II", "III")


def spread_rows(count: int) -> NDArray[np.int64]:
    """Return at most ``LOOKED_AT`` of ``count`` rows, evenly spread."""
    return np.unique(np.linspace(0, count - 1, min(count, LOOKED_AT)).astype(np.int64))


def check_scale(screen: Screen, signal: Float32s, names: Sequence[str]) -> None:
    """Name windows whose swing is far from that of most: mV among uV, or the counts of a converter."""
    swing = np.ptp(signal, axis=2).max(axis=1)
    ratio = swing / np.median(swing)
    apart = np.flatnonzero((ratio > OTHER_SCALE) | (ratio < 1 / OTHER_SCALE))
    if len(apart):
        first = int(apart[0])
        what = f"{len(apart)} of {len(swing)} windows swing {OTHER_SCALE:g} times more or less than most"
        screen.notes.append(f"{what}, such as {names[first]} ({swing[first]:.3g}): another unit?")


def check_clipping(screen: Screen, signal: Float32s, names: Sequence[str]) -> None:
    """Name clipped windows; refuse them when they are most."""
    rows = spread_rows(len(signal))
    share = np.array([max(map(_at_extremes, signal[row])) for row in rows])
    clipped = np.flatnonzero(share > CLIPPED_SHARE)
    if not len(clipped) or len(clipped) < 0.02 * len(rows):
        return
    where = names[int(rows[clipped[0]])]
    what = f"about {len(clipped) / len(rows):.0%} of the windows are clipped, such as {where}"
    if len(clipped) > len(rows) / 2:
        screen.found("implausible", what, "signals inside the range of their converter")
    else:
        screen.notes.append(what)


def _at_extremes(window: Float32s) -> float:
    """Return the share of samples (T,) in long runs at the highest or lowest value."""
    runs = 0
    for extreme in (window.max(), window.min()):
        edges = np.diff(np.concatenate([[0], (window == extreme).astype(np.int8), [0]]))
        lengths = np.flatnonzero(edges == -1) - np.flatnonzero(edges == 1)
        runs += int(lengths[lengths >= CLIPPED_RUN].sum())
    return runs / len(window)


def check_shape(screen: Screen, signal: Float32s, own: OwnData) -> None:
    """Refuse an ECG that is told to be a PPG, the reverse, and leads and channels that were swapped."""
    rows = spread_rows(len(signal))
    spikes = np.stack([spikiness(signal[rows, place]) for place in range(signal.shape[1])], axis=1)  # (n, C)
    middle = float(np.median(spikes))
    if own.modality == "ppg" and middle > PPG_SPIKY:
        screen.found(
            "implausible",
            f"the signal is spiky as an ECG (median kurtosis {middle:.3g})",
            "a PPG",
            "are the channels swapped? check data.signal and data.modality",
        )
    if own.modality == "ecg" and middle < ECG_SMOOTH:
        screen.found(
            "implausible",
            f"the signal is smooth as a PPG (median kurtosis {middle:.3g})",
            "an ECG",
            "are the channels swapped? check data.signal and data.modality",
        )
    if signal.shape[1] == 2:
        _check_pairs(screen, spikes)
    if set(EINTHOVEN) <= set(own.signal):
        _check_leads(screen, signal[rows], own.signal)


def _check_pairs(screen: Screen, spikes: NDArray[np.float64]) -> None:
    """Name records whose two channels stand the other way round, where they differ clearly in the others."""
    gap = np.log(spikes[:, 0] / spikes[:, 1])
    usual = np.sign(np.median(gap))
    swapped = np.mean(gap * usual < -np.log(2))
    if np.mean(gap * usual > np.log(2)) > 0.7 and swapped > 0.005:
        screen.found(
            "implausible", f"in about {swapped:.0%} of the windows the two channels look swapped", "one order"
        )


def _check_leads(screen: Screen, signal: Float32s, names: Sequence[str]) -> None:
    """Hold the limb leads against Einthoven's law, I + III = II, which holds sample by sample."""
    leads = {name: signal[:, names.index(name)] for name in EINTHOVEN}

    def misfit(order: Sequence[str]) -> float:
        one, two, three = (leads[name] for name in order)
        gap = (one + three - two).std(axis=1)
        return float(np.median(gap / np.maximum(two.std(axis=1), 1e-12)))

    as_named = misfit(EINTHOVEN)
    best = min(permutations(EINTHOVEN), key=misfit)
    if as_named > 0.2 and misfit(best) < as_named / 4:
        told = f"(misfit {as_named:.2g}), but {', '.join(best)} do ({misfit(best):.2g})"
        what = f"leads I, II, III do not add up {told}"
        screen.found("implausible", what, "I + III = II", "leads are swapped: check data.signal")


def check_pulse(
    screen: Screen,
    signal: Float32s,
    labels: NDArray[np.float32] | NDArray[np.int64],
    rate_hz: float,
    own: OwnData,
) -> None:
    """Hold the stated rate, and labels in bpm, against the pulse that the windows show."""
    is_rate = (
        own.kind == "regression" and own.unit.casefold() in {"bpm", "beats/min"} and labels.shape[1] == 1
    )
    if own.modality == "any" and not is_rate:
        return
    rows = spread_rows(len(signal))
    pulse = pulse_rates(signal[rows, 0], rate_hz)
    is_there = np.isfinite(pulse)
    if signal.shape[2] / rate_hz >= 4 and is_there.mean() < 0.5 and own.modality != "any":
        what = f"at {rate_hz:g} Hz {1 - is_there.mean():.0%} of the windows show no pulse"
        screen.found(
            "implausible", what, f"{SLOWEST_BPM:g} to {FASTEST_BPM:g} beats a minute", "check data.rate_hz"
        )
        return
    if is_rate and is_there.sum() >= 10:
        _compare(screen, pulse[is_there], labels[rows][is_there, 0].astype(np.float64), rate_hz)


def _compare(screen: Screen, pulse: NDArray[np.float64], labels: NDArray[np.float64], rate_hz: float) -> None:
    """Refuse labels that differ from the pulse by a factor; name those that do not go with it."""
    ratio = float(np.median(pulse / np.maximum(labels, 1e-9)))
    if not PULSE_RATIO[0] <= ratio <= PULSE_RATIO[1]:
        what = f"at {rate_hz:g} Hz the pulse is {np.median(pulse):.3g} bpm, {ratio:.3g} times the labels"
        screen.found("implausible", what, "about the labels", "check data.rate_hz, data.unit and data.label")
        return
    if len(pulse) >= 30 and np.ptp(labels) > 0:
        together = float(np.corrcoef(np.argsort(np.argsort(pulse)), np.argsort(np.argsort(labels)))[0, 1])
        if together < LEAST_CORRELATION:
            screen.notes.append(
                f"the labels do not go with the pulse of their windows (rank correlation {together:.2f}): "
                "is the column of labels the right one, and in the order of the windows?"
            )
