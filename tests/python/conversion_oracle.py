"""What a section must hold after a conversion, bit by bit, from numpy and, for bf16, from the definition."""

import numpy as np

NUMPY = {"f16": np.float16, "f32": np.float32, "f64": np.float64}


def every_positive_bf16():
    return (np.arange(0x7F80, dtype=np.uint32) << 16).view(np.float32).astype(np.float64)


def bf16_bits(numbers):
    """The nearest of all bf16 numbers, the even one of two that are equally near."""
    numbers = np.asarray(numbers, dtype=np.float64)
    known = np.append(every_positive_bf16(), 2.0**128)
    size = np.minimum(np.abs(numbers), 2.0**128)
    above = np.searchsorted(known, size).clip(1, len(known) - 1)
    below = above - 1
    to_below, to_above = size - known[below], known[above] - size
    up = (to_above < to_below) | ((to_above == to_below) & (above % 2 == 0))
    return (np.where(up, above, below) | np.where(np.signbit(numbers), 0x8000, 0)).astype(np.uint16)


def widen(raw, dtype):
    """Section bytes as numbers."""
    if dtype == "bf16":
        return (np.frombuffer(raw, np.uint16).astype(np.uint32) << 16).view(np.float32)
    return np.frombuffer(raw, NUMPY[dtype])


def assert_same_bits(raw, want, dtype):
    got, nan = widen(raw, dtype), np.isnan(want).ravel()
    assert np.array_equal(np.isnan(got), nan)
    if dtype == "bf16":
        want = (bf16_bits(np.where(np.isnan(want), 0, want)).astype(np.uint32) << 16).view(np.float32)
    else:
        with np.errstate(all="ignore"):
            want = want.astype(NUMPY[dtype])
    assert got[~nan].tobytes() == want.ravel()[~nan].tobytes()
