"""The Python producer, seen through the ring it writes."""

import array
import contextlib
import ctypes
import errno
import gc
import logging
import math
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import weakref
from pathlib import Path

import mlwatch
import numpy as np
import pytest
from ring_reader import FEATURES, IDS, LABEL_SETS, LABELS, PROBA, TARGETS, Ring

NUMPY = {"f16": np.float16, "f32": np.float32, "f64": np.float64}
SOURCES = ["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?"]
TARGET_DTYPES = ["f16", "bf16", "f32", "f64"]


@pytest.fixture
def ring_dir():
    path = tempfile.mkdtemp(dir="/dev/shm")
    yield path
    shutil.rmtree(path)


@pytest.fixture
def watch(ring_dir):
    """Opens Monitors that raise what they would otherwise log, so that a test that means to succeed says why it did not."""
    with contextlib.ExitStack() as open_ones:

        def watch(model="m", n_classes=3, strict=True, ring_bytes=1 << 20, **options):
            monitor = mlwatch.Monitor(model, n_classes=n_classes, strict=strict, ring_bytes=ring_bytes, dir=ring_dir, **options)
            return open_ones.enter_context(monitor)

        yield watch


def ring_of(monitor):
    monitor.close()
    return Ring(monitor.path)


def sent(monitor, *args, **kwargs):
    assert monitor.collect(*args, **kwargs) is True
    return ring_of(monitor)


# ---- conversion ----


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


def awkward_floats(dtype):
    rng = np.random.default_rng(1)
    halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
    bfloats = every_positive_bf16()[::7]
    ties = [(a[1:] + a[:-1]) / 2 for a in (halves, bfloats)]
    near_ties = [np.nextafter(t, to) for t in ties for to in (0, np.inf)]
    wide = rng.standard_normal(5000) * 10.0 ** rng.uniform(-320, 308, 5000)
    special = [0, np.inf, np.nan, 65504, 65519.99, 65520, 65536, 2.0**-24, 2.0**-25, 2.0**-149, 3.4028235e38, 3.4028236e38, 1e300, 5e-324]
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


class WithMethod:
    """What tensors and data frames look like."""

    def __init__(self, method, result):
        setattr(self, method, result if callable(result) else lambda: result)


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


# ---- labels, ids, time stamps ----

ROWS_3 = np.zeros((3, 3), np.float32)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?", "f2", "f4", "f8"])
@pytest.mark.parametrize("shape", [(3,), (3, 1)])
def test_labels_of_any_type_become_class_indices(watch, dtype, shape):
    labels = np.array([0, 2, 1]).astype(dtype).reshape(shape)
    ring = sent(watch(), ROWS_3, labels=labels)
    assert np.frombuffer(ring.column(LABELS), np.int32).tolist() == [int(x) for x in labels.ravel()]


@pytest.mark.parametrize(
    "labels, want",
    [
        (np.array([-1, 2, -7]), [-1, 2, -7]),
        (np.array([np.nan, 1, -1]), [-1, 1, -1]),
        (np.array([2**31 - 1, 2**31, -(2**31) - 1]), [2**31 - 1, -(2**31), -(2**31)]),
        (np.array([2**63, 0, 1], np.uint64), [-(2**31), 0, 1]),
        (np.array([1e30, -1e30, 2.0]), [-(2**31), -(2**31), 2]),
        (np.arange(6)[::-2], [5, 3, 1]),
        ([0, np.int64(1), np.float32(2)], [0, 1, 2]),
    ],
)
def test_no_label_and_impossible_labels_are_told_apart(watch, labels, want):
    assert np.frombuffer(sent(watch(), ROWS_3, labels=labels).column(LABELS), np.int32).tolist() == want


@pytest.mark.parametrize("dtype", ["i1", "u1", "i8", "?", "f2", "f4", "f8"])
@pytest.mark.parametrize("layout", [lambda a: a, np.asfortranarray, lambda a: a[::-1, ::-1]])
def test_one_column_per_class_is_a_label_set(watch, dtype, layout):
    flags = layout(np.array([[1, 0, 1], [0, 0, 0], [0, 1, 1]]).astype(dtype))
    ring = sent(watch(), ROWS_3, labels=flags)
    assert ring.column(LABEL_SETS) == flags.astype(np.uint8).tobytes()


@pytest.mark.parametrize("n_classes, shape", [(1, (4,)), (1, (4, 1)), (2, (4, 2))])
def test_regression_labels_are_targets(watch, n_classes, shape):
    targets = np.linspace(-1, 1, math.prod(shape), dtype=np.float32).reshape(shape)
    targets.flat[1] = np.nan
    ring = sent(watch(n_classes=n_classes, task="regression"), np.zeros((4, n_classes)), labels=targets)
    assert_same_bits(ring.column(TARGETS), targets.astype(np.float64), "f64")


@pytest.mark.parametrize("ids", [np.array([1, 2**64 - 1, 3], np.uint64), np.array([-1, 0, 2**62]), np.arange(3, dtype=np.int8)[::-1], [5, -6, 2**64 - 1]])
def test_ids_are_stored_as_they_are(watch, ids):
    ring = sent(watch(), ROWS_3, ids=ids)
    assert np.frombuffer(ring.column(IDS), np.uint64).tolist() == [int(i) % 2**64 for i in ids]


@pytest.mark.parametrize(
    "seconds, want",
    [
        (1700000000, 1700000000_000000000),
        (1700000000.25, 1700000000_250000000),
        (np.float32(2.5), 2_500000000),
        (0, 1),
        (1e-9, 1),
        (9999999999, 9999999999_000000000),
    ],
)
def test_timestamps_are_seconds(watch, seconds, want):
    ring = sent(watch(), ROWS_3, timestamp=seconds)
    assert ring.records[0].ts_ns == ring.heartbeat_ns == want


def test_a_float_timestamp_keeps_its_nanoseconds(watch):
    now = time.time()
    whole, part = divmod(now, 1)
    assert sent(watch(), ROWS_3, timestamp=now).records[0].ts_ns == int(whole) * 10**9 + int(part * 1e9 + 0.5)


def test_without_a_timestamp_it_is_now(watch):
    before = time.time_ns()
    stamp = sent(watch(), ROWS_3).records[0].ts_ns
    assert before - 50_000_000 <= stamp <= time.time_ns()


# ---- records ----


@pytest.mark.parametrize("dtype", ["f32", "f16"])
def test_a_long_batch_becomes_records_without_losing_a_row(watch, dtype):
    rng = np.random.default_rng(4)
    rows = 20_000
    proba, features = rng.random((rows, 3)), np.asfortranarray(rng.standard_normal((rows, 2)))
    labels, ids = rng.integers(0, 3, rows), np.arange(rows)
    monitor = watch(n_features=2, dtype=dtype)
    ring = sent(monitor, proba, features, labels, ids, timestamp=5)
    assert len(ring.records) > 1 and [r.seq for r in ring.records] == list(range(len(ring.records)))
    assert {r.ts_ns for r in ring.records} == {5_000000000}
    assert_same_bits(ring.column(PROBA), proba, dtype)
    assert_same_bits(ring.column(FEATURES), features, dtype)
    assert np.array_equal(np.frombuffer(ring.column(LABELS), np.int32), labels)
    assert np.array_equal(np.frombuffer(ring.column(IDS), np.int64), ids)
    assert monitor.counters["rows"] == rows == ring.rows


def test_no_rows_are_no_record(watch):
    monitor = watch(n_features=2)
    assert monitor.collect(np.empty((0, 3)), np.empty((0, 2)), np.empty(0), np.empty(0, int)) is True
    assert monitor.collect([]) is True
    assert ring_of(monitor).records == [] and monitor.counters["dropped_records"] == 0


def test_features_alone_will_do(watch):
    ring = sent(watch(n_features=2), None, [[1, 2]])
    assert list(ring.records[0].sections) == [FEATURES]
    ring = sent(watch("drift", n_classes=0, n_features=2), None, [[1, 2]])
    assert list(ring.records[0].sections) == [FEATURES]


def test_a_full_ring_drops_and_counts_every_row(watch):
    monitor = watch(strict=False, ring_bytes=1 << 14)
    offered = [1, 100, 7, 2000, 1, 1, 340, 5000, 3]
    taken = [monitor.collect(np.zeros((rows, 3), np.float32)) for rows in offered]
    counts = monitor.counters
    assert taken[0] is True and taken[-2] is False
    assert counts["rows"] + counts["full_rows"] == sum(offered)
    assert counts["full_rows"] == counts["dropped_rows"]
    ring = ring_of(monitor)
    assert ring.rows == sum(r.rows for r in ring.records) == counts["rows"]
    assert ring.dropped_rows["full"] == counts["full_rows"]
    assert ring.next_seq == counts["records"] + counts["full_records"]


def test_with_strict_a_full_ring_raises(watch):
    monitor = watch(ring_bytes=1 << 14)
    with pytest.raises(mlwatch.Dropped, match=r"of 5000 rows are not in the ring: .*full"):
        monitor.collect(np.zeros((5000, 3)))
    assert issubclass(mlwatch.Dropped, RuntimeError)


# ---- rejections ----


def a_generator():
    yield 1.0


def raises(error):
    def method():
        raise error

    return method


class UnspeakableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


class BadLength(list):
    def __len__(self):
        return 1 << 60


class Shrunk(list):
    """A list that another thread has shortened after it was measured."""

    def __len__(self):
        return 3


class BadFloat:
    def __float__(self):
        raise ZeroDivisionError("no number")


class NoAttributes:
    def __getattribute__(self, name):
        raise RuntimeError(f"no {name}")


BAD = {
    "columns": ((np.zeros((5, 2)),), r"^proba has shape \(5, 2\), want \(rows, 3\); .*n_classes=2", 5),
    "one_dimension": ((np.zeros(5),), r"^proba has shape \(5,\), want \(rows, 3\); give one row per prediction", 5),
    "three_dimensions": ((np.zeros((5, 3, 1)),), r"^proba has shape \(5, 3, 1\), want \(rows, 3\)", 5),
    "no_dimension": ((np.float64(1),), r"^proba has shape \(\), want", 0),
    "object_dtype": ((np.zeros((5, 3), object),), r"^proba has elements of format 'O', want .*astype", 5),
    "complex": ((np.zeros((5, 3), complex),), r"^proba has elements of format 'Zd'", 5),
    "long_double": ((np.zeros((5, 3), np.longdouble),), r"^proba has elements of format 'g'", 5),
    "big_endian": ((np.zeros((5, 3), ">f4"),), r"^proba is big-endian \(format '>f'\); give .*newbyteorder", 5),
    "no_buffer": ((np.zeros((5, 3), "M8[s]"),), r"^proba cannot be read: ValueError: cannot include dtype 'M'", 0),
    "both_none": ((None,), r"^proba and features are both None", 0),
    "text": (("abc",), r"^proba is <class 'str'>, want an array", 0),
    "text_inside": (([["a", "b", "c"]],), r"^proba cannot be read: TypeError: must be real number, not str", 1),
    "dict": (({},), r"^proba is <class 'dict'>", 0),
    "generator": ((a_generator(),), r"^proba is <class 'generator'>", 0),
    "ragged": (([[1, 2, 3], [1, 2]],), r"^proba cannot be read: .*row 1 has 2 numbers and row 0 has 3", 2),
    "not_all_rows": (([[1, 2, 3], 4],), r"^proba cannot be read: TypeError", 2),
    "too_deep": (([[[1, 2, 3]]],), r"^proba cannot be read: TypeError: must be real number, not list", 1),
    "few_columns_in_lists": (([[1, 2]],), r"^proba has shape \(1, 2\), want \(rows, 3\)", 1),
    "huge_integer": (([[1, 2, 10**400]],), r"^proba cannot be read: OverflowError", 1),
    "gradient": ((WithMethod("__array__", raises(RuntimeError("use detach()"))),), r"^proba cannot be read: RuntimeError: use detach\(\)", 0),
    "strange_array": ((WithMethod("__array__", "abc"),), r"whose array is <class 'str'>", 0),
    "no_attributes": ((NoAttributes(),), r"^proba cannot be read: RuntimeError: no __array__", 0),
    "no_memory": ((WithMethod("to_numpy", raises(MemoryError())),), r"^proba cannot be read: MemoryError", 0),
    "unspeakable": ((WithMethod("__array__", raises(UnspeakableError())),), r"no words", 0),
    "bad_length": ((BadLength([1, 2, 3]),), r"^proba cannot be read: MemoryError", 1 << 60),
    "shrunk": ((Shrunk([1, 2]),), r"^proba cannot be read: IndexError", 3),
    "bad_float": (([[BadFloat(), 1, 2]],), r"^proba cannot be read: ZeroDivisionError: no number", 1),
    "features_columns": ((ROWS_3, np.zeros((3, 5))), r"^features has shape \(3, 5\), want \(rows, 2\); .*n_features=5", 3),
    "features_rows": ((ROWS_3, np.zeros((4, 2))), r"^features has 4 rows and proba has 3", 3),
    "labels_rows": ((ROWS_3, None, [1, 2]), r"^labels has 2 rows and proba has 3", 3),
    "labels_columns": ((ROWS_3, None, np.zeros((3, 2))), r"^labels has shape \(3, 2\), want \(3,\) or \(3, 3\)", 3),
    "fraction": ((ROWS_3, None, [0, 1, 0.5]), r"^labels\[2\] is 0.5, want a class index", 3),
    "infinite_label": ((ROWS_3, None, np.array([0, np.inf, 0])), r"^labels\[1\] is inf", 3),
    "seven": ((ROWS_3, None, [[0, 1, 0], [0, 7, 0], [0, 0, 0]]), r"^labels\[1, 1\] is 7, want 0 or 1", 3),
    "strided_seven": ((ROWS_3, None, np.array([[0, 1, 0], [0, 0, 0], [7, 0, 0]])[:, ::-1]), r"^labels\[2, 2\] is 7", 3),
    "nan_flag": ((ROWS_3, None, np.full((3, 3), np.nan)), r"^labels\[0, 0\] is -?nan, want 0 or 1", 3),
    "float_ids": ((ROWS_3, None, None, np.zeros(3)), r"^ids are floats, want integers", 3),
    "float_ids_in_list": ((ROWS_3, None, None, [1.5, 2, 3]), r"^ids cannot be read: TypeError", 3),
    "huge_id": ((ROWS_3, None, None, [2**64, 2, 3]), r"^ids cannot be read: OverflowError", 3),
    "ids_matrix": ((ROWS_3, None, None, np.zeros((3, 3), int)), r"^ids has shape \(3, 3\), want \(rows,\)", 3),
    "negative_time": ((ROWS_3, None, None, None, -1), r"^timestamp is -1, want seconds", 3),
    "endless_time": ((ROWS_3, None, None, None, math.inf), r"^timestamp is inf", 3),
    "no_time": ((ROWS_3, None, None, None, math.nan), r"^timestamp is nan", 3),
    "nanoseconds": ((ROWS_3, None, None, None, time.time_ns()), r"^timestamp is \d+, want seconds .*nanoseconds by 1e9", 3),
    "milliseconds": ((ROWS_3, None, None, None, time.time() * 1e3), r"divide milliseconds by 1e3", 3),
    "time_text": ((ROWS_3, None, None, None, "now"), r"^timestamp cannot be read: TypeError", 3),
    "too_many": ((ROWS_3, None, None, None, None, None), r"^collect takes 5 arguments, got 6", 0),
    "none_given": ((), r"^collect needs proba", 0),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_batch_is_rejected_whole_with_its_reason(watch, caplog, case):
    args, reason, rows = BAD[case]
    monitor = watch(n_features=2, strict=False)
    for _ in range(3):
        assert monitor.collect(*args) is False
    (message,) = {r.getMessage() for r in caplog.records}
    assert len(caplog.records) == 1 and caplog.records[0].name == "mlwatch" and caplog.records[0].levelno == logging.WARNING
    assert message.startswith("m: batch rejected: ")
    counts = monitor.counters
    assert counts["rejected_records"] == counts["dropped_records"] == 3 and counts["rejected_rows"] == 3 * rows
    assert monitor.collect(ROWS_3) is True
    assert len(ring_of(monitor).records) == 1
    strict = watch(n_features=2)
    with pytest.raises(ValueError, match=reason):
        strict.collect(*args)


@pytest.mark.parametrize("options, args, reason", [
    ({"n_features": 0}, (ROWS_3, ROWS_3), r"^features is given, but n_features is 0"),
    ({"n_classes": 0, "n_features": 2}, (ROWS_3,), r"^proba is given, but n_classes is 0"),
    ({"task": "regression"}, (ROWS_3, None, [1, 2]), r"^labels has shape \(2,\), want \(rows, 3\)"),
    ({"n_classes": 1, "task": "regression"}, ([1.0], None, [1, 2]), r"^labels has 2 rows and proba has 1"),
])  # fmt: skip
def test_what_the_monitor_was_not_opened_for_is_rejected(watch, options, args, reason):
    with pytest.raises(ValueError, match=reason):
        watch(**options).collect(*args)


def test_unknown_and_repeated_arguments_are_rejected(watch):
    monitor = watch()
    with pytest.raises(ValueError, match="no argument 'feature'"):
        monitor.collect(ROWS_3, feature=1)
    with pytest.raises(ValueError, match="got proba twice"):
        monitor.collect(ROWS_3, proba=ROWS_3)
    assert monitor.collect(ROWS_3, **{"".join(["lab", "els"]): [0, 1, 2]}) is True


def test_a_fraction_beyond_the_first_record_leaves_no_record_behind(watch):
    monitor = watch(strict=False)
    labels = np.zeros(200_000)
    labels[-1] = 0.5
    assert monitor.collect(np.zeros((200_000, 3), np.float32), labels=labels) is False
    assert monitor.counters["rejected_rows"] == 200_000
    assert ring_of(monitor).records == []


def test_a_flood_of_reasons_is_not_logged_without_end(watch, caplog):
    monitor = watch(strict=False)
    for rows in range(500):
        monitor.collect(np.zeros((rows, 2)))
    assert 1 < len(caplog.records) < 100
    assert monitor.counters["rejected_records"] == 500


def test_a_logger_that_raises_does_not_reach_the_loop(watch):
    def stumble(record):
        raise RuntimeError("no log today")

    logging.getLogger("mlwatch").addFilter(stumble)
    try:
        assert watch(strict=False).collect("abc") is False
    finally:
        logging.getLogger("mlwatch").removeFilter(stumble)


def test_an_interrupt_passes_and_leaves_the_monitor_usable(watch):
    monitor = watch(strict=False)
    with pytest.raises(KeyboardInterrupt):
        monitor.collect(WithMethod("__array__", raises(KeyboardInterrupt())))
    assert monitor.collect(ROWS_3) is True


def test_a_closed_monitor_returns_false(watch, caplog):
    monitor = watch(strict=False)
    monitor.collect(ROWS_3)
    path = monitor.path
    with monitor:
        pass
    monitor.close()
    assert monitor.collect(ROWS_3) is False and monitor.collect(ROWS_3) is False
    assert [r.getMessage() for r in caplog.records] == ["m: batch rejected: the Monitor is closed"]
    assert monitor.path == path and monitor.counters["rows"] == 3 and monitor.closed
    assert Ring(path).state == 2
    strict = watch()
    strict.close()
    with pytest.raises(ValueError, match="closed"):
        strict.collect(ROWS_3)


def test_closing_from_within_an_argument_is_put_off(watch):
    monitor = watch(strict=False)

    def close_and_give():
        monitor.close()
        return ROWS_3

    assert monitor.collect(WithMethod("__array__", close_and_give)) is True
    assert monitor.collect(ROWS_3) is False
    assert len(Ring(monitor.path).records) == 1


# ---- opening ----


def test_the_schema_is_what_was_asked_for(watch):
    monitor = watch(
        "fraud/eu", n_classes=2, n_features=3, version="1.4", instance="pod-7", dtype="bf16", threshold=0.25, period=1.5, reservoir=500,
        class_names=["good", "schlecht ü"], feature_names=("a", "b", "c"), feature_kinds=["numerical", "categorical", "numerical"],
    )  # fmt: skip
    assert Path(monitor.path).name == "fraud_eu@1_4.0.ring"
    schema = ring_of(monitor).schema
    assert (schema.model, schema.version, schema.instance) == ("fraud/eu", "1.4", "pod-7")
    assert (schema.n_classes, schema.n_features, schema.proba_dtype, schema.feature_dtype, schema.task) == (2, 3, "bf16", "bf16", 1)
    assert (schema.threshold, schema.period_ns, schema.reservoir_rows) == (0.25, 1_500_000_000, 500)
    assert schema.class_names == ["good", "schlecht ü"] and schema.feature_names == ["a", "b", "c"]
    assert schema.kinds == bytes([0, 1, 0])


def test_the_directory_may_come_from_the_environment(ring_dir, monkeypatch):
    monkeypatch.setenv("MLWATCH_DIR", ring_dir)
    with mlwatch.Monitor("env", n_classes=2, ring_bytes=1) as monitor:
        assert Path(monitor.path).parent == Path(ring_dir)
        assert repr(monitor) == f"<mlwatch.Monitor 'env' open {monitor.path}>"


@pytest.mark.parametrize("options, error, text", [
    ({"n_classes": 0}, ValueError, "nothing to watch"),
    ({"n_classes": -1}, ValueError, "n_classes is -1"),
    ({"n_classes": 2**32 + 3}, ValueError, "n_classes is 4294967299"),
    ({"n_classes": 2.5}, TypeError, "n_classes is 2.5"),
    ({"model": ""}, ValueError, "model is required"),
    ({"model": 7}, TypeError, "str"),
    ({"model": "a\0b"}, ValueError, "null"),
    ({"model": "x" * 300}, ValueError, "255"),
    ({"dtype": "f8"}, ValueError, "dtype is 'f8', want one of f16, bf16, f32, f64"),
    ({"task": []}, ValueError, "task is"),
    ({"class_names": ["a"]}, ValueError, "class_names has 1 names, want 3"),
    ({"class_names": "abc"}, TypeError, "class_names is 'abc'"),
    ({"class_names": [1, 2, 3]}, TypeError, "want a sequence of strings"),
    ({"class_names": ["a", "b", "c\0"]}, ValueError, "NUL"),
    ({"feature_kinds": ["numerical"]}, ValueError, "feature_kinds has 1 kinds, want 0"),
    ({"n_features": 1, "feature_kinds": ["ordinal"]}, ValueError, r"feature_kinds\[0\] is 'ordinal'"),
    ({"threshold": math.nan}, ValueError, "threshold"),
    ({"period": -1}, ValueError, "period is -1"),
    ({"reservoir": -1}, ValueError, "reservoir is -1"),
    ({"ring_bytes": 1 << 40}, ValueError, "ring_bytes"),
    ({"n_classes": 60000, "ring_bytes": 1 << 14}, ValueError, "set ring_bytes to"),
])  # fmt: skip
def test_a_wrong_option_is_refused_with_its_reason(watch, ring_dir, options, error, text):
    with pytest.raises(error, match=text):
        watch(**options)
    assert os.listdir(ring_dir) == []


def test_a_ring_on_a_disk_must_be_allowed(tmp_path):
    if subprocess.check_output(["stat", "-f", "-c", "%T", tmp_path], text=True).strip() in {"tmpfs", "ramfs"}:
        pytest.skip("the temporary directory is in memory")
    with pytest.raises(OSError, match="not in memory") as error:
        mlwatch.Monitor("m", n_classes=2, dir=tmp_path)
    assert error.value.errno == errno.EMEDIUMTYPE
    with mlwatch.Monitor("m", n_classes=2, dir=tmp_path, allow_disk=True) as monitor:
        assert monitor.collect([0.5, 0.5]) is True


def test_a_directory_that_cannot_be_made_is_an_os_error():
    with pytest.raises(FileNotFoundError, match="/dev/shm/no/such/place"):
        mlwatch.Monitor("m", n_classes=2, dir="/dev/shm/no/such/place")


def test_a_monitor_that_failed_to_open_is_a_closed_one():
    monitor = mlwatch.Monitor.__new__(mlwatch.Monitor)
    with pytest.raises(ValueError, match="nothing to watch"):
        monitor.__init__("m", n_classes=0)
    assert monitor.collect(ROWS_3) is False and monitor.closed and monitor.path is None
    assert set(monitor.counters.values()) == {0}
    monitor.close()


def test_a_monitor_is_opened_once(watch):
    monitor = watch()
    with pytest.raises(ValueError, match="opened once"):
        monitor.__init__("m", n_classes=3)


def test_two_monitors_of_one_model_take_two_slots(watch):
    one, two = watch(), watch()
    one.collect(ROWS_3)
    two.collect(ROWS_3[:1])
    assert [Path(m.path).name for m in (one, two)] == ["m.0.ring", "m.1.ring"]
    assert [ring_of(m).rows for m in (one, two)] == [3, 1]


def test_a_closed_ring_is_continued(watch):
    sent(watch(), ROWS_3)
    again = watch()
    ring = sent(again, ROWS_3[:1])
    assert [r.rows for r in ring.records] == [3, 1] and ring.attach_epoch == 2
    assert again.counters["rows"] == 4


# ---- threads, forks, memory ----

BIG = np.zeros((8192, 3), np.float32)


def in_threads(count, work):
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


def test_threads_that_share_a_monitor_lose_only_what_is_counted(watch):
    monitor = watch(strict=False, ring_bytes=1 << 26)
    results = []
    for thread in in_threads(4, lambda: results.extend([monitor.collect(BIG) for _ in range(40)])):
        thread.join()
    counts = monitor.counters
    assert counts["rows"] == results.count(True) * len(BIG)
    assert counts["dropped_rows"] == counts["contended_rows"] + counts["full_rows"] == results.count(False) * len(BIG)
    assert len(ring_of(monitor).records) == results.count(True)


@pytest.mark.parametrize("attempt", range(5))
def test_closing_while_others_write_loses_nothing_that_was_taken(watch, attempt):
    monitor = watch(strict=False, ring_bytes=1 << 26)
    results, started = [], threading.Event()

    def work():
        while not monitor.closed:
            results.append(monitor.collect(BIG, labels=BIG))
            started.set()

    threads = in_threads(3, work)
    started.wait()
    time.sleep(0.001 * attempt)
    monitor.close()
    for thread in threads:
        thread.join()
    ring = Ring(monitor.path)
    assert ring.state == 2 and ring.rows == results.count(True) * len(BIG) == monitor.counters["rows"]


def test_a_forked_child_writes_to_a_ring_of_its_own(watch, ring_dir):
    monitor = watch()
    monitor.collect(ROWS_3)
    child = os.fork()
    if child == 0:
        ok = monitor.collect(ROWS_3[:1]) and monitor.path.endswith("m.1.ring") and monitor.counters["rows"] == 1
        os._exit(0 if ok else 1)
    assert os.waitpid(child, 0)[1] == 0
    monitor.collect(ROWS_3[:2])
    assert monitor.path.endswith("m.0.ring")
    assert [r.rows for r in ring_of(monitor).records] == [3, 2]
    assert [r.rows for r in Ring(f"{ring_dir}/m.1.ring").records] == [1]


def test_a_monitor_in_a_cycle_is_collected_and_closed(watch, ring_dir):
    monitor = mlwatch.Monitor("cycle", n_classes=3, dir=ring_dir, ring_bytes=1)
    monitor.collect(ROWS_3)
    monitor.itself, path, gone = monitor, monitor.path, weakref.ref(monitor)
    del monitor
    gc.collect()
    assert gone() is None and Ring(path).state == 2


def calls_of_every_outcome(monitor):
    array_like = WithMethod("__array__", ROWS_3)
    return [
        lambda: monitor.collect(ROWS_3, ROWS_3, ROWS_3, [1, 2, 3], 1.5),
        lambda: monitor.collect(ROWS_3.tolist(), features=ROWS_3.tolist(), labels=[1, 2, 3]),
        lambda: monitor.collect(array_like),
        lambda: monitor.collect(ROWS_3, [[1, 2, 3], [1, 2]]),
        lambda: monitor.collect(ROWS_3, labels=[0.5, 0, 0]),
        lambda: monitor.collect(ROWS_3, ROWS_3, ids=BadFloat()),
        lambda: monitor.collect(WithMethod("__array__", raises(RuntimeError("x")))),
        lambda: monitor.collect(ROWS_3, feature=1),
        lambda: monitor.counters,
        lambda: monitor.path,
    ]


def test_no_outcome_leaks(watch):
    monitor = watch(n_features=3, strict=False, ring_bytes=1 << 14)
    calls = calls_of_every_outcome(monitor)

    def repeat(times):
        for _ in range(times):
            for call in calls:
                call()
        gc.collect()

    repeat(200)
    references = sys.getrefcount(ROWS_3)
    tracemalloc.start()
    repeat(10)
    before = tracemalloc.get_traced_memory()[0]
    repeat(1000)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert sys.getrefcount(ROWS_3) == references
    assert grown < 4096


def test_an_array_can_be_resized_after_any_outcome(watch):
    """A buffer that is still exported could not be."""
    for labels in ([0], [0.5], [0, 1], "abc"):
        numbers = array.array("d", [1, 2, 3])
        watch(strict=False).collect(numbers, labels=labels)
        numbers.append(4)
