"""The shape that expected validation loss has over log rates: one basin, steep or flat, open or saturating.

    m(x) = A psi(q),  psi(q) = s / kappa ((1 + q / s)^kappa - 1),  s = 1 - kappa,
    q = (a^2 - 2 r a b + b^2) / (1 - r^2),  a = (log lr - c) / w,  b = (log ratio - c') / w'

with the centre (c, c') moved a little by each loss. psi is the general robust loss (Barron 2019,
arXiv 1701.03077): kappa = 1 a parabola, 0 a logarithm, below 0 a plateau, -inf 1 - exp(-q); near the
bottom it is q for all of them. All logarithms of rates are to base 10. Parameters, in this order
(P = 7 + 2 L, L losses):

    log A, c_lr, c_backbone_lr (c' = c_lr - c_backbone_lr), log w, log w', atanh r, log s,
    the shifts of c by each loss (L), the shifts of c' by each loss (L)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

FIXED = 7


@dataclass(frozen=True)
class Bowl:
    """One basin's quadratic form at points: what value and slopes share, each (n,) but the scalars."""

    height: float
    kappa: float
    tilt: float
    a: Floats
    b: Floats
    q: Floats
    losses: NDArray[np.int64]

    @classmethod
    def of(cls, parameters: Floats, x: Floats) -> Bowl:
        """Return the bowl at points (n, 3): log10 lr, log10 ratio, index of the loss."""
        losses = x[:, 2].astype(np.int64)
        count = (len(parameters) - FIXED) // 2
        shift_lr, shift_ratio = parameters[FIXED : FIXED + count], parameters[FIXED + count :]
        width_lr, width_ratio = np.exp(parameters[3:5])
        tilt = float(np.tanh(parameters[5]))
        a = (x[:, 0] - parameters[1] - shift_lr[losses]) / width_lr
        b = (x[:, 1] - parameters[1] + parameters[2] - shift_ratio[losses]) / width_ratio
        q = (a * a - 2 * tilt * a * b + b * b) / (1 - tilt**2)
        return cls(float(np.exp(parameters[0])), 1 - float(np.exp(parameters[6])), tilt, a, b, q, losses)

    def value(self) -> Floats:
        """Return m(x), shape (n,)."""
        return np.asarray(self.height * _psi(self.q, self.kappa))


def basin(parameters: Floats, x: Floats) -> Floats:
    """Return m(x) at points (n, 3)."""
    return Bowl.of(parameters, x).value()


def _psi(q: Floats, kappa: float) -> Floats:
    s = 1 - kappa
    grown = np.log1p(q / s)
    return np.asarray(s * np.expm1(kappa * grown) / kappa if abs(kappa) > 1e-6 else grown)


def basin_slopes(parameters: Floats, x: Floats) -> tuple[Floats, Floats]:
    """Return m(x) (n,) and its derivatives by the parameters (P, n)."""
    bowl = Bowl.of(parameters, x)
    value = bowl.value()
    count = (len(parameters) - FIXED) // 2
    width_lr, width_ratio = np.exp(parameters[3:5])
    rise = bowl.height * np.exp((bowl.kappa - 1) * np.log1p(bowl.q / (1 - bowl.kappa)))
    room = 1 - bowl.tilt**2
    by_a = rise * 2 * (bowl.a - bowl.tilt * bowl.b) / room
    by_b = rise * 2 * (bowl.b - bowl.tilt * bowl.a) / room
    here = (bowl.losses[None, :] == np.arange(count)[:, None]).astype(float)
    slopes = np.vstack(
        [
            value,
            -by_a / width_lr - by_b / width_ratio,
            by_b / width_ratio,
            -by_a * bowl.a,
            -by_b * bowl.b,
            rise * 2 * (bowl.tilt * bowl.q - bowl.a * bowl.b),
            _by_shape(bowl),
            here * (-by_a / width_lr),
            here * (-by_b / width_ratio),
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
