"""A malformed batch is rejected whole, with its reason, and never raises into the loop."""

import logging
import math
import time

import numpy as np
import pytest
from inputs import ROWS_3, BadFloat, WithMethod, raises
from ring_reader import Ring, ring_of


def a_generator():
    yield 1.0


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
    "segments": ((ROWS_3, None, None, None, None, [1, 2, 3]), r"^segments is given, and the Monitor was opened without", 3),
    "too_many": ((ROWS_3, None, None, None, None, None, None), r"^collect takes 6 arguments, got 7", 0),
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
    ({"segments": True}, (ROWS_3, None, None, None, None, [1, 2]), r"^segments has 2 rows and proba has 3"),
    ({"segments": True}, (ROWS_3, None, None, None, None, np.zeros(3)), r"^segments are floats, want integers"),
    ({"segments": True}, (ROWS_3, None, None, None, None, [1, 65536, 0]), r"^segments\[1\] is 65536, want 0 to 65535"),
    ({"segments": True}, (ROWS_3, None, None, None, None, [1, -1, 0]), r"^segments\[1\] is -1, want 0 to 65535"),
    ({"segments": True}, (ROWS_3, None, None, None, None, np.array([1, 2, -3])[::-1]), r"^segments\[0\] is -3, want"),
    ({"segments": True}, (ROWS_3, None, None, None, None, ROWS_3), r"^segments has shape \(3, 3\), want \(rows,\)"),
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
