"""Which values of a rate, or of the ratio, are as good as the best, which are worse, and which are open.

The *excess* of a value is the lowest expected loss there (over everything else) minus the lowest of all. It
is compared with the *worth*: the difference that the user cares for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import groupby
from typing import Any

import numpy as np

from hpo.analysis.box import Floats

SURE = 0.975
"""Probability, in the model, from which a value is called as good, or worse: more than the 95 % that are
claimed, because on landscapes that are not its own the model is surer than it should be (docs/answer.md)."""
LIKELY = 0.8
"""Probability, in the model, from which what is not sure is called likely (chosen by us: docs/answer.md)."""
CLAIMED = 0.95
"""Probability that is claimed, and that keeps a narrow gap in a zone from being called open."""
SLIVER_DECADES = 0.25
"""A narrower piece that is called worse is open, and a narrower gap in a zone, where the zone still has the
probability that is claimed, is the zone's: what comes and goes within a step or two of the lattice tells of
the draws and not of the trials (chosen by us)."""
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

    def to_json(self) -> dict[str, Any]:
        """Return plain values; the ends are no logarithms."""
        return {"low": 10**self.low, "high": 10**self.high, "standing": self.standing.value}


@dataclass(frozen=True)
class Zones:
    """The whole searched axis of log10 values in pieces, rising, without gaps."""

    pieces: tuple[Zone, ...]
    worth: float
    """In units of the loss."""
    source: WorthSource
    likely: tuple[Zone, ...] = ()
    """The whole axis again, by what is at least likely; empty where no model fits."""

    @property
    def with_likely(self) -> Zones:
        """The zones with what is likely taken for sure."""
        return replace(self, pieces=self.likely)

    @property
    def leaning(self) -> tuple[Zone, ...]:
        """What of the open pieces is likely as good, or likely worse."""
        return tuple(zone for zone in self._among_open if zone.standing is not Standing.OPEN)

    @property
    def unknown(self) -> tuple[Zone, ...]:
        """What of the open pieces is not even likely the one or the other."""
        return tuple(zone for zone in self._among_open if zone.standing is Standing.OPEN)

    @property
    def _among_open(self) -> tuple[Zone, ...]:
        """The open pieces, by what is likely in them."""
        ends = [
            (max(piece.low, likely.low), min(piece.high, likely.high), likely.standing)
            for piece in self.pieces
            for likely in self.likely or self.pieces
            if piece.standing is Standing.OPEN
        ]
        return tuple(Zone(low, high, standing) for low, high, standing in ends if low < high)

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
        return {
            "pieces": [piece.to_json() for piece in self.pieces],
            "likely": [piece.to_json() for piece in self.likely],
            "worth": self.worth,
            "worth_source": self.source.value,
            "resolved": self.resolved,
        }


def excess_of(profiles: Floats) -> Floats:
    """Return how far each draw's profile (S, J) lies above its lowest point."""
    return np.asarray(profiles - profiles.min(axis=1, keepdims=True))


def zones_of(axis: Floats, profiles: Floats, worth: float, source: WorthSource) -> Zones:
    """Return the zones of an evenly spaced axis (J,) from draws (S, J) of the profile over it."""
    shares = _shares(profiles, worth)
    return Zones(_pieces(axis, shares, SURE), worth, source, _pieces(axis, shares, LIKELY))


def _pieces(axis: Floats, shares: Mapping[Standing, Floats], sure: float) -> tuple[Zone, ...]:
    """Return the axis in pieces, of which those that are not open have at least ``sure``."""
    least = SLIVER_DECADES / float(axis[1] - axis[0])
    runs = _without_slivers(_without_gaps(_runs(_standings(shares, sure)), shares, least), least)
    ends = [
        float(axis[0]),
        *(float(axis[run.start - 1] + axis[run.start]) / 2 for run in runs[1:]),
        float(axis[-1]),
    ]
    return tuple(Zone(low, high, run.standing) for low, high, run in zip(ends, ends[1:], runs, strict=False))


def standings_of(profiles: Floats, worth: float) -> list[Standing]:
    """Return how each of J values stands to the best one, from draws (S, J) of the lowest loss there."""
    return _standings(_shares(profiles, worth), SURE)


def _shares(profiles: Floats, worth: float) -> dict[Standing, Floats]:
    """Return the share (J,) of the draws in which a value is as good, and that in which it is worse."""
    return {Standing.AS_GOOD: share_as_good(profiles, worth), Standing.WORSE: _share_worse(profiles, worth)}


@dataclass(frozen=True)
class _Run:
    """Neighbouring values of one standing: ``start`` to ``stop`` - 1."""

    start: int
    stop: int
    standing: Standing

    def __len__(self) -> int:
        return self.stop - self.start


def _standings(shares: Mapping[Standing, Floats], sure: float) -> list[Standing]:
    """Return the first standing of each value (J,) that is sure enough, else that it is open."""
    return [
        next((standing for standing, share in shares.items() if share[place] >= sure), Standing.OPEN)
        for place in range(len(shares[Standing.WORSE]))
    ]


def _runs(standings: Sequence[Standing]) -> list[_Run]:
    runs: list[_Run] = []
    for standing, same in groupby(standings):
        start = runs[-1].stop if runs else 0
        runs.append(_Run(start, start + len(list(same)), standing))
    return runs


def _without_gaps(runs: Sequence[_Run], shares: Mapping[Standing, Floats], least: float) -> list[_Run]:
    """Return the runs; what is open between two of a standing is theirs, if it is short and all but sure."""
    standings = [run.standing for run in runs]
    for place, (before, here, after) in enumerate(zip(runs, runs[1:], runs[2:], strict=False), start=1):
        share = shares.get(before.standing) if before.standing is after.standing else None
        if share is not None and len(here) < least and share[here.start : here.stop].min() >= CLAIMED:
            standings[place] = before.standing
    return _joined(runs, standings)


def _without_slivers(runs: Sequence[_Run], least: float) -> list[_Run]:
    """Return the runs with those of fewer than ``least`` values that are worse called open."""
    is_sliver = [run.standing is Standing.WORSE and len(run) < least for run in runs]
    standings = [
        Standing.OPEN if sliver else run.standing for run, sliver in zip(runs, is_sliver, strict=True)
    ]
    return _joined(runs, standings)


def _joined(runs: Sequence[_Run], standings: Sequence[Standing]) -> list[_Run]:
    """Return the runs with other standings, neighbours of one standing as one."""
    each = zip(runs, standings, strict=True)
    return _runs([standing for run, standing in each for _ in range(len(run))])


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
