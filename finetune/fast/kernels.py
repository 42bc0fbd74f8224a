"""The pieces of :mod:`finetune.backbones.fused` as compiled loops for one core: one pass over memory each.

Arrays are C-contiguous; a ``Real`` one holds float32, or bfloat16 as its bits in uint16; all sums are
float32, and a NaN stays one. M = R * P tokens of R windows, P patches, E embedding, H heads, D = E / H.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba.extending import overload
from numpy.typing import NDArray

from finetune.fast.compiled import compiled

Floats = NDArray[np.float32]
Real = NDArray[Any]
Mask = tuple[NDArray[np.uint8], np.uint8, np.float32]
"""Draws, below which of them an element is dropped, and the scale of the others."""
f32 = np.float32


def wide(x: Any) -> Any:
    """Return a number of a ``Real`` array as float32."""
    return np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32) if isinstance(x, np.uint16) else x


def narrow(x: Any, like: Any) -> Any:
    """Return a float32 as the array ``like`` holds numbers."""
    return bfloat16(x) if like.dtype == np.uint16 else x


@overload(wide, strict=False)
def _wide(x: Any) -> Any:
    if x == numba.uint16:
        return lambda x: np.uint32(np.uint32(x) << np.uint32(16)).view(np.float32)
    return lambda x: x


@overload(narrow, strict=False)
def _narrow(x: Any, like: Any) -> Any:
    return (lambda x, like: bfloat16(x)) if like.dtype == numba.uint16 else (lambda x, like: x)


@compiled
def bfloat16(x: Any) -> Any:
    """Return the bits of the nearest bfloat16; of two as near, of the even one."""
    bits = np.float32(x).view(np.uint32)
    rounded = np.uint32(bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return np.uint16(rounded) if x == x else np.uint16(0x7FC0)


@compiled
def factor(mask: Mask | None, at: Any) -> Any:
    """Return by what a mask multiplies the element ``at`` an index; 1 without a mask."""
    if mask is None:
        return f32(1)
    draws, dropped, scale = mask
    return scale if draws[at] >= dropped else f32(0)


@compiled
def exp_of_negative(x: Any) -> Any:
    """Return e**x for x <= 0 to 2 units in the last place, by SIMD (Cephes, expf.c); e**-87 below -87."""
    x = f32(-87) if x < f32(-87) else x
    count = np.floor(x * f32(1.44269504) + f32(0.5))
    rest = x - count * f32(0.693359375) + count * f32(2.12194440e-4)
    series = f32(1.9875691500e-4)
    series = series * rest + f32(1.3981999507e-3)
    series = series * rest + f32(8.3334519073e-3)
    series = series * rest + f32(4.1665795894e-2)
    series = series * rest + f32(1.6666665459e-1)
    series = series * rest + f32(5.0000001201e-1)
    power = np.int32((np.int32(count) + np.int32(127)) << np.int32(23)).view(np.float32)  # 2**count
    return (series * rest * rest + rest + f32(1)) * power


@compiled
def normal_cdf(x: Any, bell: Any) -> Any:
    """Return the standard normal's distribution function at x, given ``bell`` = e**(-x*x/2), to 8e-8.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    t = f32(1) / (f32(1) + f32(0.3275911 * 0.5**0.5) * abs(x))
    series = f32(-1.453152027) + t * f32(1.061405429)
    series = f32(-0.284496736) + t * (f32(1.421413741) + t * series)
    tail = f32(0.5) * bell * t * (f32(0.254829592) + t * series)
    return f32(1) - tail if x >= f32(0) else tail


@compiled
def gelu_dropout(hidden: Real, bias: Floats, mask: Mask | None, slope: Floats) -> None:
    """Replace ``hidden`` (M, F) by ``mask * gelu(hidden + bias)``, and write its derivative; bias is (F,)."""
    count, width = hidden.shape
    for m in range(count):
        for f in range(width):
            x = wide(hidden[m, f]) + bias[f]
            bell = exp_of_negative(f32(-0.5) * x * x)
            below = normal_cdf(x, bell)
            kept = factor(mask, (m, f))
            hidden[m, f] = narrow(x * below * kept, hidden)
            slope[m, f] = (below + x * f32(0.3989422804) * bell) * kept


@compiled
def gelu_dropout_backward(gradient: Real, slope: Floats, of_bias: Floats) -> None:
    """Replace ``gradient`` (M, F) by ``slope * gradient``; add its sum over tokens to ``of_bias`` (F,)."""
    count, width = slope.shape
    for m in range(count):
        for f in range(width):
            before = wide(gradient[m, f]) * slope[m, f]
            gradient[m, f] = narrow(before, gradient)
            of_bias[f] += before


@compiled
def add_norm(
    tokens: Floats,
    branch: Real,
    of_branch: Floats,
    weight: Floats,
    bias: Floats,
    eps: float,
    mask: Mask | None,
    out: Floats,
    normed: Floats,
    inverse_sd: Floats,
) -> None:
    """Write the layer norm of ``tokens + mask * (branch + of_branch)``, (M, E); ``of_branch`` is a bias (E,).

    ``out`` is after weight and bias (E,), ``normed`` before; ``inverse_sd`` is (M,).
    """
    count, width = tokens.shape
    for m in range(count):
        total, squares = f32(0), f32(0)
        for e in range(width):
            added = (wide(branch[m, e]) + of_branch[e]) * factor(mask, (m, e)) + tokens[m, e]
            normed[m, e] = added
            total += added
        mean = total / f32(width)
        for e in range(width):
            squares += (normed[m, e] - mean) * (normed[m, e] - mean)
        by = f32(1) / np.sqrt(squares / f32(width) + f32(eps))
        inverse_sd[m] = by
        for e in range(width):
            normed[m, e] = (normed[m, e] - mean) * by
            out[m, e] = normed[m, e] * weight[e] + bias[e]


@compiled
def add_norm_backward(
    gradient: Floats,
    normed: Floats,
    inverse_sd: Floats,
    weight: Floats,
    mask: Mask | None,
    of_tokens: Floats,
    of_branch: Real,
    sums: Floats,
) -> None:
    """Write the gradients of :func:`add_norm`.

    To ``sums`` (3, E) are added those of the weight, of the bias, and of a bias of the branch.
    """
    count, width = gradient.shape
    for m in range(count):
        total, along = f32(0), f32(0)
        for e in range(width):
            of_normed = gradient[m, e]
            sums[0, e] += of_normed * normed[m, e]
            sums[1, e] += of_normed
            of_normed *= weight[e]
            total += of_normed
            along += of_normed * normed[m, e]
        total, along, by = total / f32(width), along / f32(width), inverse_sd[m]
        for e in range(width):
            before = (gradient[m, e] * weight[e] - total - normed[m, e] * along) * by
            of_tokens[m, e] = before
            before *= factor(mask, (m, e))
            of_branch[m, e] = narrow(before, of_branch)
            sums[2, e] += before


@compiled
def attend(joint: Real, bias: Floats, mask: Mask | None, probabilities: Floats, out: Real) -> None:
    """Write what each token attends to, (R, P, H, D), and the probabilities before dropout, (R, H, P, P).

    ``joint`` (R, P, 3, H, D) holds queries, keys and values, to which ``bias`` (3 H D,) is added first;
    ``mask`` is (R, H, P, P).
    """
    rows, count, _, heads, depth = joint.shape
    mixed = np.empty(depth, f32)
    tokens, flat = joint.reshape(rows, count, -1), probabilities.reshape(rows, -1)
    for r in range(rows):
        for p in range(count):
            for i in range(len(bias)):
                tokens[r, p, i] = narrow(wide(tokens[r, p, i]) + bias[i], joint)
        for h in range(heads):
            for p in range(count):
                highest = f32(-np.inf)
                for k in range(count):
                    score = f32(0)
                    for d in range(depth):
                        score += wide(joint[r, p, 0, h, d]) * wide(joint[r, k, 1, h, d])
                    score *= f32(depth**-0.5)
                    probabilities[r, h, p, k] = score
                    highest = highest if score < highest else score
                for k in range(count):
                    probabilities[r, h, p, k] -= highest
        for i in range(flat.shape[1]):  # all at once: rows of P are too short for SIMD
            flat[r, i] = exp_of_negative(flat[r, i])
        for h in range(heads):
            for p in range(count):
                total = f32(0)
                for k in range(count):
                    total += probabilities[r, h, p, k]
                mixed[:] = f32(0)
                for k in range(count):
                    weight = probabilities[r, h, p, k] / total
                    probabilities[r, h, p, k] = weight
                    weight *= factor(mask, (r, h, p, k))
                    for d in range(depth):
                        mixed[d] += weight * wide(joint[r, k, 2, h, d])
                for d in range(depth):
                    out[r, p, h, d] = narrow(mixed[d], out)


@compiled
def attend_backward(
    gradient: Real,
    joint: Real,
    mask: Mask | None,
    probabilities: Floats,
    of_joint: Real,
    of_bias: Floats,
) -> None:
    """Write the gradient of :func:`attend`, (R, P, 3, H, D), from that of its result, (R, P, H, D).

    Its sum over the tokens is added to ``of_bias`` (3, H, D).
    """
    rows, count, _, heads, depth = joint.shape
    of_key, of_value = np.empty((2, count, depth), f32)
    of_query, of_score = np.empty(depth, f32), np.empty(count, f32)
    for r in range(rows):
        for h in range(heads):
            of_key[:], of_value[:] = f32(0), f32(0)
            for p in range(count):
                along = f32(0)
                for k in range(count):
                    dot = f32(0)
                    for d in range(depth):
                        dot += wide(gradient[r, p, h, d]) * wide(joint[r, k, 2, h, d])
                    by = factor(mask, (r, h, p, k))
                    dot *= by
                    kept = probabilities[r, h, p, k] * by
                    along += dot * probabilities[r, h, p, k]
                    of_score[k] = dot
                    for d in range(depth):
                        of_value[k, d] += kept * wide(gradient[r, p, h, d])
                of_query[:] = f32(0)
                for k in range(count):  # softmax: p * (g - sum(g * p))
                    slope = (of_score[k] - along) * probabilities[r, h, p, k] * f32(depth**-0.5)
                    for d in range(depth):
                        of_query[d] += slope * wide(joint[r, k, 1, h, d])
                        of_key[k, d] += slope * wide(joint[r, p, 0, h, d])
                for d in range(depth):
                    of_joint[r, p, 0, h, d] = narrow(of_query[d], of_joint)
                    of_bias[0, h, d] += of_query[d]
            for p in range(count):
                for d in range(depth):
                    of_joint[r, p, 1, h, d] = narrow(of_key[p, d], of_joint)
                    of_joint[r, p, 2, h, d] = narrow(of_value[p, d], of_joint)
                    of_bias[1, h, d] += of_key[p, d]
                    of_bias[2, h, d] += of_value[p, d]
