"""Philox 4x32-10 as a Triton kernel; :mod:`finetune.fast.philox_device` calls it."""

# mypy: ignore-errors
# Triton reads the source of a kernel and takes its parameters' types at the call; it has no types of its own.

import triton
import triton.language as tl


@triton.jit
def fill(keys, steps, calls, numbers, places, words, chunks):
    """Fill words (K * C, 4, 64): the four of block i of a chunk at (its place, :, i)."""
    member = tl.program_id(0)
    chunk = tl.program_id(1)
    lanes = tl.arange(0, 64)
    a = (tl.load(numbers + chunk) * 64 + lanes).to(tl.uint32)
    zero = tl.zeros((64,), tl.uint32)
    b = zero + tl.load(calls + chunk).to(tl.uint32)
    c = zero + tl.load(steps + member * 2).to(tl.uint32)
    d = zero + tl.load(steps + member * 2 + 1).to(tl.uint32)
    key0 = zero + tl.load(keys + member * 2).to(tl.uint32)
    key1 = zero + tl.load(keys + member * 2 + 1).to(tl.uint32)
    first = zero + 0xD2511F53
    second = zero + 0xCD9E8D57
    for _ in range(10):
        p_high = tl.umulhi(a, first)
        p_low = a * first
        q_high = tl.umulhi(c, second)
        q_low = c * second
        a = q_high ^ b ^ key0
        b = q_low
        c = p_high ^ d ^ key1
        d = p_low
        key0 = key0 + 0x9E3779B9
        key1 = key1 + 0xBB67AE85
    out = words + tl.load(places + member * chunks + chunk) * 256 + lanes
    tl.store(out, a.to(tl.int32, bitcast=True))
    tl.store(out + 64, b.to(tl.int32, bitcast=True))
    tl.store(out + 128, c.to(tl.int32, bitcast=True))
    tl.store(out + 192, d.to(tl.int32, bitcast=True))
