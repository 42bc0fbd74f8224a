"""The shape that expected validation loss has over log rates: one basin, steep or flat, open or saturating.

    m(x) = A psi(q),  psi(q) = s / kappa ((1 + q / s)^kappa - 1),  s = 1 - kappa,
    q = e^(-2 omega_l) sum_k (d_k / w_k)^2,  d = (a, b, a - b, a + b),
    a = log lr - c_lr - tau xi_l,  b = log backbone_lr - c_backbone_lr - tau xi'_l

Each of the four directions d (lr, backbone_lr, the ratio, the product) may be the only one that matters: a
ridge is a basin with one narrow width. Each loss l has a centre and a width of its own, shrunk to common ones
(its level is the Gaussian process's). psi is the general robust loss (Barron 2019, arXiv 1701.03077):
kappa = 1 a parabola, 0 a logarithm, below 0 a plateau, -inf 1 - exp(-q); near the bottom it is q for all of
them. All logarithms of rates are to base 10. Parameters, in this order (P = 9 + 3 L, L losses):

    log A, c_lr, c_backbone_lr, v (4), log s, log tau, xi (L), xi' (L), omega (L)

with log w = v + 2 log(1 + exp(2 (v - WIDE))): the upper part of v is stretched, so that a direction that does
not matter at all is no rare thing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FIXED = 9
WIDE = 0.5
"""v above which widths are stretched."""
DIRECTIONS = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, -1.0], [1.0, 1.0]])
"""(4, 2) how lr and backbone_lr enter each direction."""


@dataclass(frozen=True)
class Bowl:
    """One basin's quadratic form at points: what value and slopes share."""

    height: float
    kappa: float
    tau: float
    shifts: Floats
    """(2, L) xi and xi'."""
    stretch: Floats
    """(4,) of log w by v."""
    parts: Floats
    """(4, n) each direction's part of q."""
    q: Floats
    slope: Floats
    """(2, n) of q by a and by b."""
    losses: NDArray[np.int64]

    @classmethod
    def of(cls, parameters: Floats, x: Floats) -> Bowl:
        """Return the bowl at points (n, 3): log10 lr, log10 ratio, index of the loss."""
        losses = x[:, 2].astype(np.int64)
        own = parameters[FIXED:].reshape(3, -1)
        tau = float(np.exp(parameters[8]))
        centres = parameters[1:3, None] + tau * own[:2, losses]
        offsets = np.stack([x[:, 0], x[:, 0] - x[:, 1]]) - centres
        height = float(np.exp(parameters[0]))
        scale = np.exp(-2 * own[2, losses])
        distances = DIRECTIONS @ offsets
        widths, stretch = _stretched(parameters[3:7])
        precisions = np.exp(-2 * widths)[:, None] * scale
        parts = precisions * distances**2
        slope = 2 * DIRECTIONS.T @ (precisions * distances)
        kappa = 1 - float(np.exp(parameters[7]))
        return cls(height, kappa, tau, own[:2], stretch, parts, parts.sum(axis=0), slope, losses)

    def value(self) -> Floats:
        """Return m(x), shape (n,)."""
        return np.asarray(self.height * _psi(self.q[None], np.array([[self.kappa]]))[0])


def _stretched(v: Floats) -> tuple[Floats, Floats]:
    """Return log w and its derivative by v, (4,) each."""
    above = 2 * (v - WIDE)
    return v + 2 * np.logaddexp(0.0, above), 1 + 4 / (1 + np.exp(-above))


def basin(parameters: Floats, x: Floats) -> Floats:
    """Return m(x) at points (n, 3)."""
    return np.asarray(basins(parameters[None], x)[0])


def basins(parameters: Floats, x: Floats) -> Floats:
    """Return m(x) of each of N basins (N, P) at points (n, 3), shape (N, n)."""
    losses = x[:, 2].astype(np.int64)
    own = parameters[:, FIXED:].reshape(len(parameters), 3, -1)[:, :, losses]
    tau = np.exp(parameters[:, 8:9])
    offsets = [x[:, 0], x[:, 0] - x[:, 1]] - parameters[:, 1:3, None] - tau[:, :, None] * own[:, :2]
    widths, _ = _stretched(parameters[:, 3:7])
    distances = (DIRECTIONS @ offsets) * np.exp(-widths)[:, :, None]
    q = np.exp(-2 * own[:, 2]) * np.sum(distances**2, axis=1)
    return np.asarray(np.exp(parameters[:, 0:1]) * _psi(q, 1 - np.exp(parameters[:, 7:8])))


def _psi(q: Floats, kappa: Floats) -> Floats:
    """Return psi of q (N, n), kappa (N, 1); at kappa = 0 its limit."""
    kappa = np.where(np.abs(kappa) > 1e-6, kappa, 1e-6)
    s = 1 - kappa
    return np.asarray(s * np.expm1(kappa * np.log1p(q / s)) / kappa)


def basin_slopes(parameters: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Return m(x) (n,) and its derivatives by the parameters (P, n)."""
    bowl = Bowl.of(parameters, x)
    value = bowl.value()
    rise = bowl.height * np.exp((bowl.kappa - 1) * np.log1p(bowl.q / (1 - bowl.kappa)))
    by_centre = -rise * bowl.slope  # (2, n)
    here = (bowl.losses[None, :] == np.arange(bowl.shifts.shape[1])[:, None]).astype(float)
    slopes = np.vstack(
        [
            value,
            by_centre,
            -2 * rise * bowl.stretch[:, None] * bowl.parts,
            _by_shape(bowl),
            bowl.tau * np.sum(bowl.shifts[:, bowl.losses] * by_centre, axis=0),
            bowl.tau * here * by_centre[0],
            bowl.tau * here * by_centre[1],
            here * (-2 * rise * bowl.q),
        ]
    )
    return value, slopes


def _by_shape(bowl: Bowl) -> Floats:
    """Return the derivative of m by log s."""
    kappa = bowl.kappa
    s = 1 - kappa
    grown = np.log1p(bowl.q / s)
    if abs(kappa) > 1e-3:
        power = np.exp(kappa * grown)
        by_s = (power - 1) / kappa**2 - s * power * grown / kappa - power * bowl.q / (s + bowl.q)
    else:
        by_s = grown - grown**2 / 2 - bowl.q / (1 + bowl.q)
    return np.asarray(bowl.height * s * by_s)
