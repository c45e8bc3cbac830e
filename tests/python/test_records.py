"""Labels, ids and time stamps; long batches, full rings."""

import math
import time

import mlwatch
import numpy as np
import pytest
from conversion_oracle import assert_same_bits
from inputs import ROWS_3
from ring_reader import BY_ROW, FEATURES, IDS, LABEL_SETS, LABELS, PROBA, SEGMENTS, TARGETS, ring_of, sent

# ---- labels, ids, time stamps ----


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


@pytest.mark.parametrize(
    "ids",
    [np.array([1, 2**64 - 1, 3], np.uint64), np.array([-1, 0, 2**62]), np.arange(3, dtype=np.int8)[::-1], [5, -6, 2**64 - 1]],
)
def test_ids_are_stored_as_they_are(watch, ids):
    ring = sent(watch(), ROWS_3, ids=ids)
    assert np.frombuffer(ring.column(IDS), np.uint64).tolist() == [int(i) % 2**64 for i in ids]


@pytest.mark.parametrize("dtype", ["u1", "u2", "u4", "u8", "i2", "i4", "i8", "?", "list", "column"])
def test_segments_are_integers_of_16_bits(watch, dtype):
    segments = [0, 1, 1, 0] if dtype == "?" else [0, 255, 7, 1] if dtype == "u1" else [0, 32767, 7, 1]
    given = {"list": segments, "column": np.array(segments)[:, None]}.get(dtype)
    given = np.array(segments, dtype) if given is None else given
    ring = sent(watch(segments=True), np.zeros((4, 3)), segments=given)
    assert np.frombuffer(ring.column(SEGMENTS), np.uint16).tolist() == segments
    assert ring.schema.segment_by == BY_ROW
    ring = sent(watch("more", segments=True), np.zeros((2, 3)), segments=np.array([65535, 0, 65534], np.uint16)[::2])
    assert np.frombuffer(ring.column(SEGMENTS), np.uint16).tolist() == [65535, 65534]


@pytest.mark.parametrize("feature, names", [("plan", ["age", "plan"]), (1, None), ("feat_1", None), (np.int64(1), ["a", "a"])])
def test_a_categorical_feature_may_be_the_segment(watch, feature, names):
    kinds = ["numerical", "categorical"]
    ring = sent(watch(n_features=2, feature_names=names, feature_kinds=kinds, segment_feature=feature), ROWS_3, np.zeros((3, 2)))
    assert ring.schema.segment_by == 2 and ring.needs == 0


@pytest.mark.parametrize("options, error", [
    (dict(segment_feature="plan"), r"segment_feature is 'plan', which is none of feature_names"),
    (dict(segment_feature=0), r"segment_feature is 0, want a feature whose kind"),
    (dict(segment_feature=2), r"segment_feature is 2, want a feature whose kind"),
    (dict(segment_feature=-1), r"segment_feature is -1"),
    (dict(segment_feature=1, segments=True), r"exclude one another"),
])  # fmt: skip
def test_segments_by_something_else_are_refused(watch, options, error):
    with pytest.raises(ValueError, match=error):
        watch(n_features=2, feature_kinds=["numerical", "categorical"], **options)


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
