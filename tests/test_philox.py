"""The generator of dropout's random bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from finetune.fast.philox import CHUNK, fill, random_bytes

Words = tuple[int, int, int, int]


def philox4x32(counter: Words, key: tuple[int, int]) -> Words:
    """Return the block of a counter, in plain integers (Salmon et al. 2011, section 3.3)."""
    (a, b, c, d), (key0, key1) = counter, key
    for _ in range(10):
        p, q = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (q >> 32) ^ b ^ key0, q % 2**32, (p >> 32) ^ d ^ key1, p % 2**32
        key0, key1 = (key0 + 0x9E3779B9) % 2**32, (key1 + 0xBB67AE85) % 2**32
    return a, b, c, d


@pytest.mark.parametrize(
    ("counter", "key", "block"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((2**32 - 1,) * 4, (2**32 - 1,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_the_plain_form_passes_the_vectors_of_random123(
    counter: Words, key: tuple[int, int], block: Words
) -> None:
    assert philox4x32(counter, key) == block


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1))
@settings(deadline=None)  # the first call compiles
def test_the_loop_draws_the_blocks_of_its_counters(key: int, stream: int, step: int) -> None:
    words = np.empty((2, 4, CHUNK), dtype=np.uint32)

    fill(np.uint64(key), np.uint32(stream), np.uint64(step), words)

    halves = (step % 2**32, step >> 32)
    for block in (0, 1, CHUNK - 1, CHUNK, 2 * CHUNK - 1):
        expected = philox4x32((block, stream, *halves), (key % 2**32, key >> 32))
        assert tuple(words[block // CHUNK, :, block % CHUNK].tolist()) == expected


@given(st.integers(0, 5000), st.integers(0, 5000))
@settings(deadline=None)
def test_more_bytes_begin_with_the_same_ones(few: int, more: int) -> None:
    short, long = random_bytes(3, 1, 7, few), random_bytes(3, 1, 7, few + more)

    assert len(short) == few
    assert np.array_equal(short, long[:few])


def test_the_bytes_are_uniform_and_those_of_two_streams_are_not_alike() -> None:
    count = 1 << 20
    one, other, later = (
        random_bytes(5, 0, 9, count),
        random_bytes(5, 1, 9, count),
        random_bytes(5, 0, 10, count),
    )

    assert chi_square(np.bincount(one, minlength=256)) < 360  # 255 degrees of freedom: 1 in 10,000 above 346
    for second in (other, later):
        assert abs(np.corrcoef(one, second)[0, 1]) < 5 / count**0.5
    assert abs(np.corrcoef(one[:-1], one[1:])[0, 1]) < 5 / count**0.5


def chi_square(counts: NDArray[np.int64]) -> float:
    expected = counts.sum() / len(counts)
    return float(((counts - expected) ** 2 / expected).sum())
