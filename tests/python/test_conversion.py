"""Every element type and layout arrives in the ring as it should."""

import array
import ctypes
import math
import subprocess
import sys

import numpy as np
import pytest
from conversion_oracle import assert_same_bits, every_positive_bf16, widen
from inputs import WithMethod
from ring_reader import FEATURES, IDS, LABEL_SETS, LABELS, PROBA, Ring, sent

SOURCES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
TARGET_DTYPES = ["f16", "bf16", "f32", "f64"]


def awkward_floats(dtype):
    rng = np.random.default_rng(1)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    bfloats = every_positive_bf16()[::7]
    ties = [(a[1:] + a[:-1]) / 2 for a in (halves, bfloats)]
    near_ties = [np.nextafter(t, to) for t in ties for to in (0, np.inf)]
    wide = rng.standard_normal(5000) * 10.0 ** rng.uniform(-320, 308, 5000)
    special = [
        0,
        np.inf,
        np.nan,
        65504,
        65519.99,
        65520,
        65536,
        2.0**-24,
        2.0**-25,
        2.0**-149,
        3.4028235e38,
        3.4028236e38,
        1e300,
        5e-324,
    ]
    numbers = np.concatenate([special, halves, bfloats, *ties, *near_ties, wide])
    with np.errstate(all="ignore"):
        return np.concatenate([numbers, -numbers]).astype(dtype)


def awkward_numbers(dtype):
    dtype = np.dtype(dtype)
    if dtype.kind == "f":
        return awkward_floats(dtype)
    if dtype.kind == "b":
        return np.array([True, False] * 50)
    bounds = np.iinfo(dtype)
    random = np.random.default_rng(2).integers(bounds.min, bounds.max, 4000, dtype=dtype, endpoint=True)
    return np.concatenate([np.array([0, 1, 2, bounds.min, bounds.max], dtype), random, random >> (dtype.itemsize * 4)])


@pytest.mark.parametrize("target", TARGET_DTYPES)
@pytest.mark.parametrize("source", SOURCES)
def test_every_element_type_is_rounded_once_and_to_even(watch, source, target):
    numbers = awkward_numbers(source)
    numbers = numbers[: len(numbers) // 4 * 4].reshape(-1, 4)
    ring = sent(watch(n_classes=4, dtype=target, ring_bytes=1 << 24), numbers)
    assert_same_bits(ring.column(PROBA), numbers, target)


def unaligned(numbers):
    raw = bytearray(numbers.nbytes + 1)
    view = np.frombuffer(raw, numbers.dtype, offset=1, count=numbers.size).reshape(numbers.shape)
    view[...] = numbers
    return view


def read_only(numbers):
    numbers = numbers.copy()
    numbers.flags.writeable = False
    return numbers


LAYOUTS = {
    "packed": lambda a: a,
    "fortran": np.asfortranarray,
    "every_second_row": lambda a: np.repeat(a, 2, axis=0)[::2],
    "every_second_column": lambda a: np.repeat(a, 2, axis=1)[:, ::2],
    "some_columns": lambda a: np.hstack([a, a, a])[:, 5:10],
    "rows_backwards": lambda a: a[::-1],
    "columns_backwards": lambda a: a[:, ::-1],
    "both_backwards": lambda a: a[::-1, ::-1],
    "one_row_repeated": lambda a: np.broadcast_to(a[3], a.shape),
    "one_column_repeated": lambda a: np.broadcast_to(a[:, :1], a.shape),
    "one_number_repeated": lambda a: np.broadcast_to(a[3, 2], a.shape),
    "unaligned": unaligned,
    "read_only": read_only,
    "a_slice_of_a_cube": lambda a: np.stack([a, a], axis=2)[:, :, 1],
    "one_row": lambda a: a[4:5],
}


@pytest.mark.parametrize("target", TARGET_DTYPES)
@pytest.mark.parametrize("source", ["f4", "f8", "i8"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_arrives_row_by_row(watch, layout, source, target):
    numbers = LAYOUTS[layout]((np.random.default_rng(3).standard_normal((60, 5)) * 100).astype(source))
    ring = sent(watch(n_classes=5, n_features=5, dtype=target), numbers, numbers)
    for section in (PROBA, FEATURES):
        assert_same_bits(ring.column(section), numbers, target)


@pytest.mark.parametrize("shape", [(3,), (1, 3), (7, 3)])
def test_a_lone_row_may_be_one_dimensional(watch, shape):
    numbers = np.arange(math.prod(shape), dtype=np.float64).reshape(shape)[..., ::-1]
    ring = sent(watch(n_features=3), numbers, numbers)
    assert ring.rows == math.prod(shape) // 3
    assert_same_bits(ring.column(PROBA), numbers, "f32")
    assert_same_bits(ring.column(FEATURES), numbers, "f32")


def test_one_column_may_be_one_dimensional(watch):
    numbers = np.arange(20.0)[::2]
    ring = sent(watch(n_classes=1, n_features=1, task="regression"), numbers, numbers)
    assert ring.rows == 10
    assert_same_bits(ring.column(PROBA), numbers, "f32")


def matrix_holders():
    numbers = np.arange(6, dtype=np.float32).reshape(2, 3)
    table = (ctypes.c_double * 3 * 2)((0, 1, 2), (3, 4, 5))
    return {
        "memoryview": memoryview(numbers),
        "cast_memoryview": memoryview(array.array("d", range(6))).cast("B").cast("d", (2, 3)),
        "ctypes": table,
        "__array__": WithMethod("__array__", numbers),
        "to_numpy": WithMethod("to_numpy", numbers),
        "explicit_order": numbers.astype("<f8"),
        "list_of_lists": numbers.tolist(),
        "tuple_of_ranges": (range(0, 3), range(3, 6)),
        "list_of_arrays": list(numbers),
        "list_of_array_module": [array.array("f", [0, 1, 2]), array.array("b", [3, 4, 5])],
        "zero_d_arrays": [[np.array(float(3 * r + c)) for c in range(3)] for r in range(2)],
        "ints_and_bools": [[False, True, 2], [3, 4, 5]],
    }


@pytest.mark.parametrize("kind", matrix_holders())
def test_whatever_holds_numbers_will_do(watch, kind):
    ring = sent(watch(n_features=3), matrix_holders()[kind], matrix_holders()[kind])
    for section in (PROBA, FEATURES):
        assert widen(ring.column(section), "f32").tolist() == [0, 1, 2, 3, 4, 5]


def test_lists_need_no_numpy(ring_dir):
    script = """if True:
        import sys
        sys.modules["numpy"] = None
        import mlwatch
        with mlwatch.Monitor("lists", n_classes=2, n_features=1, dir=sys.argv[1], strict=True) as monitor:
            assert monitor.collect([[0.25, 0.75], (1, 0)], [[7], [8]], [1, float("nan")], ids=[-1, 2**64 - 2])
            assert monitor.collect([0.5, 0.5], [9.5], [[True, True]])
            assert monitor.collect([], [])
            print(monitor.path)
    """
    output = subprocess.run([sys.executable, "-c", script, ring_dir], check=True, capture_output=True, text=True).stdout
    first, second = Ring(output.strip()).records
    assert widen(first.sections[PROBA], "f32").tolist() == [0.25, 0.75, 1, 0]
    assert widen(first.sections[FEATURES], "f32").tolist() == [7, 8]
    assert np.frombuffer(first.sections[LABELS], np.int32).tolist() == [1, -1]
    assert np.frombuffer(first.sections[IDS], np.uint64).tolist() == [2**64 - 1, 2**64 - 2]
    assert widen(second.sections[PROBA], "f32").tolist() == [0.5, 0.5]
    assert second.sections[LABEL_SETS] == b"\1\1"
