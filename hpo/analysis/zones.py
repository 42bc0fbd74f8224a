"""Which values of a rate, or of the ratio, are as good as the best, which are worse, and which are open.

The *excess* of a value is the lowest expected loss there (over everything else) minus the lowest of all. It
is compared with the *worth*: the difference that the user cares for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Any

import numpy as np

from hpo.analysis.box import Floats

SURE = 0.975
"""Probability, in the model, from which a value is called as good, or worse: more than the 95 % that are
claimed, because on landscapes that are not its own the model is surer than it should be (docs/answer.md)."""
SLIVER_DECADES = 0.25
"""A narrower piece that is called worse is open: zones that come and go within a step or two of the lattice
tell of the draws and not of the trials (chosen by us)."""
ECHO = 0.8
"""Probability that a second run of the posterior must give to what the first is sure of (chosen by us)."""


class Standing(StrEnum):
    """How a value stands to the best one."""

    AS_GOOD = "as_good"
    WORSE = "worse"
    OPEN = "open"


class WorthSource(StrEnum):
    """Where the worth comes from."""

    SEED_SD = "seed_sd"
    """One seed's standard deviation at the best place."""
    STUDY = "study"
    """The study file's ``worth``."""


@dataclass(frozen=True)
class Zone:
    """A piece of an axis of log10 values."""

    low: float
    high: float
    standing: Standing

    @property
    def decades(self) -> float:
        """Width of the piece."""
        return self.high - self.low


@dataclass(frozen=True)
class Zones:
    """The whole searched axis of log10 values in pieces, rising, without gaps."""

    pieces: tuple[Zone, ...]
    worth: float
    """In units of the loss."""
    source: WorthSource

    @property
    def resolved(self) -> float:
        """Share of the axis, in decades, that is not open."""
        return 1 - self.decades(Standing.OPEN) / sum(piece.decades for piece in self.pieces)

    def decades(self, standing: Standing) -> float:
        """Return how many decades of the axis have this standing."""
        return sum(piece.decades for piece in self.pieces if piece.standing is standing)

    @property
    def as_good(self) -> tuple[float, float] | None:
        """The ends of the widest piece that is as good as the best; None without one."""
        good = [piece for piece in self.pieces if piece.standing is Standing.AS_GOOD]
        widest = max(good, key=lambda piece: piece.decades, default=None)
        return None if widest is None else (widest.low, widest.high)

    def at(self, place: float) -> Standing:
        """Return the standing of a log10 value of the axis."""
        inside = (piece.standing for piece in self.pieces if piece.low <= place <= piece.high)
        return next(inside, Standing.OPEN)

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the ends are no logarithms."""
        pieces = [
            {"low": 10**piece.low, "high": 10**piece.high, "standing": piece.standing.value}
            for piece in self.pieces
        ]
        return {
            "pieces": pieces,
            "worth": self.worth,
            "worth_source": self.source.value,
            "resolved": self.resolved,
        }


def excess_of(profiles: Floats) -> Floats:
    """Return how far each draw's profile (S, J) lies above its lowest point."""
    return np.asarray(profiles - profiles.min(axis=1, keepdims=True))


def zones_of(axis: Floats, profiles: Floats, worth: float, source: WorthSource) -> Zones:
    """Return the zones of an evenly spaced axis (J,) from draws (S, J) of the profile over it."""
    found = standings_of(profiles, worth)
    standings = _without_slivers(found, SLIVER_DECADES / float(axis[1] - axis[0]))
    starts = [0, *(place for place in range(1, len(axis)) if standings[place] is not standings[place - 1])]
    ends = [
        float(axis[0]),
        *(float(axis[start - 1] + axis[start]) / 2 for start in starts[1:]),
        float(axis[-1]),
    ]
    pieces = tuple(
        Zone(low, high, standings[start]) for low, high, start in zip(ends, ends[1:], starts, strict=False)
    )
    return Zones(pieces, worth, source)


def standings_of(profiles: Floats, worth: float) -> list[Standing]:
    """Return how each of J values stands to the best one, from draws (S, J) of the lowest loss there."""
    good = share_as_good(profiles, worth)
    return [_standing(*shares) for shares in zip(good, _share_worse(profiles, worth), strict=True)]


def _without_slivers(standings: Sequence[Standing], least: float) -> list[Standing]:
    """Return the standings with each run of fewer than ``least`` that are worse called open."""
    runs = [list(run) for _, run in groupby(standings)]
    is_sliver = [run[0] is Standing.WORSE and len(run) < least for run in runs]
    return [
        Standing.OPEN if sliver else standing
        for run, sliver in zip(runs, is_sliver, strict=True)
        for standing in run
    ]


def share_as_good(profiles: Floats, worth: float) -> Floats:
    """Return the share (J,) of the draws (S, J) in which a value costs no more than the worth."""
    return np.asarray(np.mean(excess_of(profiles) <= worth, axis=0))


def above_best(profiles: Floats) -> Floats:
    """Return how far each draw's profile (S, J) lies above its value where their mean is lowest.

    Less than the excess: where little is known, every draw is lowest somewhere else, and what is not known to
    be good is not known to be worse.
    """
    best = int(np.argmin(profiles.mean(axis=0)))
    return np.asarray(profiles - profiles[:, best : best + 1])


def _share_worse(profiles: Floats, worth: float) -> Floats:
    return np.asarray(np.mean(above_best(profiles) > worth, axis=0))


def disagreement(axis: Floats, runs: tuple[Floats, Floats], worth: float) -> float:
    """Return the longest stretch, in decades, that one run of the posterior calls and the other contradicts.

    ``runs`` are draws of the profile (S, J). What is surely as good (or worse) in one must be so with at
    least ``ECHO`` in the other: from a hundred draws no probability is known better.
    """
    apart = np.zeros(len(axis), dtype=bool)
    for share in (share_as_good, _share_worse):
        one, other = (share(profiles, worth) for profiles in runs)
        apart |= ((one >= SURE) & (other < ECHO)) | ((other >= SURE) & (one < ECHO))
    longest = run = 0
    for is_apart in apart:
        run = run + 1 if is_apart else 0
        longest = max(longest, run)
    return float(longest * (axis[1] - axis[0]))


def _standing(good: float, worse: float) -> Standing:
    """Return what follows from the shares of the draws in which a value is as good, and is worse."""
    if good >= SURE:
        return Standing.AS_GOOD
    return Standing.WORSE if worse >= SURE else Standing.OPEN
