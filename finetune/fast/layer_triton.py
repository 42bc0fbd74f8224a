"""Attention and the residual norm as Triton kernels; :mod:`finetune.fast.layer_device` calls them.

In float32 inside, whatever comes in: bfloat16 and its products fit into TF32 without loss.
"""

# mypy: ignore-errors
# ruff: noqa: N803
# Triton reads the source of a kernel and takes its parameters' types at the call; it has no types of its own.
# Names in capitals are constants of a compiled kernel.

import triton
import triton.language as tl


@triton.jit
def _load_part(joint, part, row, head, count, heads, DEPTH: tl.constexpr, P: tl.constexpr, D: tl.constexpr):
    """Return queries, keys or values (P, D) of a window and head; zeros beyond."""
    p, d = tl.arange(0, P)[:, None], tl.arange(0, D)[None, :]
    at = (row * count + p) * (3 * heads * DEPTH) + (part * heads + head) * DEPTH + d
    return tl.load(joint + at, mask=(p < count) & (d < DEPTH), other=0.0).to(tl.float32)


@triton.jit
def _store_part(
    joint, values, part, row, head, count, heads, DEPTH: tl.constexpr, P: tl.constexpr, D: tl.constexpr
):
    p, d = tl.arange(0, P)[:, None], tl.arange(0, D)[None, :]
    at = (row * count + p) * (3 * heads * DEPTH) + (part * heads + head) * DEPTH + d
    tl.store(joint + at, values.to(joint.dtype.element_ty), mask=(p < count) & (d < DEPTH))


@triton.jit
def _softmax(query, key, scale, count, P: tl.constexpr, PRECISION: tl.constexpr):
    """Return probabilities (P, P); nothing on keys that are none."""
    scores = tl.dot(query, tl.trans(key), input_precision=PRECISION) * scale
    scores = tl.where(tl.arange(0, P)[None, :] < count, scores, float("-inf"))
    powers = tl.exp(scores - tl.max(scores, axis=1)[:, None])
    return powers / tl.sum(powers, axis=1)[:, None]


@triton.jit
def _load_mask(mask, row, head, count, heads, P: tl.constexpr):
    p, q = tl.arange(0, P)[:, None], tl.arange(0, P)[None, :]
    at = ((row * heads + head) * count + p) * count + q
    return tl.load(mask + at, mask=(p < count) & (q < count), other=0.0)


@triton.jit
def attend(
    joint,
    mask,
    out,
    count,
    heads,
    scale,
    DEPTH: tl.constexpr,
    P: tl.constexpr,
    D: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write out (R*P, E) of joint projections (R*P, 3E): a program a window and head."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    query = _load_part(joint, 0, row, head, count, heads, DEPTH, P, D)
    key = _load_part(joint, 1, row, head, count, heads, DEPTH, P, D)
    value = _load_part(joint, 2, row, head, count, heads, DEPTH, P, D)
    kept = _softmax(query, key, scale, count, P, PRECISION)
    if HAS_MASK:
        kept *= _load_mask(mask, row, head, count, heads, P)
    mixed = tl.dot(kept, value, input_precision=PRECISION)
    p, d = tl.arange(0, P)[:, None], tl.arange(0, D)[None, :]
    at = (row * count + p) * (heads * DEPTH) + head * DEPTH + d
    tl.store(out + at, mixed.to(out.dtype.element_ty), mask=(p < count) & (d < DEPTH))


@triton.jit
def attend_backward(
    gradient,
    joint,
    mask,
    of_joint,
    count,
    heads,
    scale,
    DEPTH: tl.constexpr,
    P: tl.constexpr,
    D: tl.constexpr,
    HAS_MASK: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Write the gradient of the joint projections; the probabilities are computed again."""
    row, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    query = _load_part(joint, 0, row, head, count, heads, DEPTH, P, D)
    key = _load_part(joint, 1, row, head, count, heads, DEPTH, P, D)
    value = _load_part(joint, 2, row, head, count, heads, DEPTH, P, D)
    p, d = tl.arange(0, P)[:, None], tl.arange(0, D)[None, :]
    at = (row * count + p) * (heads * DEPTH) + head * DEPTH + d
    mixed = tl.load(gradient + at, mask=(p < count) & (d < DEPTH), other=0.0).to(tl.float32)
    probabilities = _softmax(query, key, scale, count, P, PRECISION)
    slope = tl.dot(mixed, tl.trans(value), input_precision=PRECISION)
    kept = probabilities
    if HAS_MASK:
        dropout = _load_mask(mask, row, head, count, heads, P)
        kept = probabilities * dropout
        slope *= dropout
    _store_part(
        of_joint,
        tl.dot(tl.trans(kept), mixed, input_precision=PRECISION),
        2,
        row,
        head,
        count,
        heads,
        DEPTH,
        P,
        D,
    )
    slope = probabilities * (slope - tl.sum(slope * probabilities, axis=1)[:, None]) * scale
    of_query = tl.dot(slope, key, input_precision=PRECISION)
    _store_part(of_joint, of_query, 0, row, head, count, heads, DEPTH, P, D)
    of_key = tl.dot(tl.trans(slope), query, input_precision=PRECISION)
    _store_part(of_joint, of_key, 1, row, head, count, heads, DEPTH, P, D)


@triton.jit
def add_norm(
    tokens,
    branch,
    mask,
    weight,
    bias,
    total,
    mean,
    scale,
    out,
    rows,
    width,
    eps,
    R: tl.constexpr,
    E: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """Write the norm of ``tokens + mask * branch`` (K * rows, E): a program a member and R rows."""
    member = tl.program_id(0).to(tl.int64)
    r, e = tl.program_id(1) * R + tl.arange(0, R), tl.arange(0, E)[None, :]
    inside = (r[:, None] < rows) & (e < width)
    at = (member * rows + r[:, None]) * width + e
    summed = tl.load(branch + at, mask=inside, other=0.0).to(tl.float32)
    if HAS_MASK:
        summed *= tl.load(mask + at, mask=inside, other=0.0)
    summed += tl.load(tokens + at, mask=inside, other=0.0).to(tl.float32)
    middle = tl.sum(summed, axis=1) / width
    centred = tl.where(e < width, summed - middle[:, None], 0.0)
    spread = 1.0 / tl.sqrt(tl.sum(centred * centred, axis=1) / width + eps)
    factor = tl.load(weight + member * width + e, mask=e < width, other=0.0)
    shift = tl.load(bias + member * width + e, mask=e < width, other=0.0)
    tl.store(total + at, summed, mask=inside)
    tl.store(mean + member * rows + r, middle, mask=r < rows)
    tl.store(scale + member * rows + r, spread, mask=r < rows)
    tl.store(out + at, centred * spread[:, None] * factor + shift, mask=inside)


@triton.jit
def add_norm_backward(
    gradient,
    total,
    mean,
    scale,
    mask,
    weight,
    of_tokens,
    of_branch,
    parts,
    rows,
    width,
    R: tl.constexpr,
    E: tl.constexpr,
    HAS_MASK: tl.constexpr,
):
    """Write the gradients of both summands, and of weight and bias the part (2, E) of these rows."""
    member, chunk = tl.program_id(0).to(tl.int64), tl.program_id(1)
    r, e = chunk * R + tl.arange(0, R), tl.arange(0, E)[None, :]
    inside = (r[:, None] < rows) & (e < width)
    at = (member * rows + r[:, None]) * width + e
    slope = tl.load(gradient + at, mask=inside, other=0.0).to(tl.float32)
    middle = tl.load(mean + member * rows + r, mask=r < rows, other=0.0)[:, None]
    spread = tl.load(scale + member * rows + r, mask=r < rows, other=0.0)[:, None]
    normed = tl.load(total + at, mask=inside, other=0.0) - middle
    normed = tl.where(inside, normed * spread, 0.0)
    factor = tl.load(weight + member * width + e, mask=e < width, other=0.0)
    scaled = slope * factor
    along = tl.sum(scaled * normed, axis=1)[:, None] / width
    before = (scaled - tl.sum(scaled, axis=1)[:, None] / width - normed * along) * spread
    tl.store(of_tokens + at, before, mask=inside)
    if HAS_MASK:
        before *= tl.load(mask + at, mask=inside, other=0.0)
    tl.store(of_branch + at, before.to(of_branch.dtype.element_ty), mask=inside)
    part = parts + (member * tl.num_programs(1) + chunk) * 2 * width + tl.arange(0, E)
    tl.store(part, tl.sum(slope * normed, axis=0), mask=tl.arange(0, E) < width)
    tl.store(part + width, tl.sum(slope, axis=0), mask=tl.arange(0, E) < width)
