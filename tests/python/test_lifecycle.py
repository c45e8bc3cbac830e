"""Opening, closing, threads, forks, memory."""

import array
import errno
import gc
import math
import os
import subprocess
import sys
import threading
import time
import tracemalloc
import weakref
from pathlib import Path

import mlwatch
import numpy as np
import pytest
from inputs import ROWS_3, BadFloat, WithMethod, raises
from ring_reader import Ring, ring_of, sent

# ---- opening ----


def test_the_schema_is_what_was_asked_for(watch):
    monitor = watch(
        "fraud/eu", n_classes=2, n_features=3, version="1.4", instance="pod-7", dtype="bf16", threshold=0.25, period=1.5, reservoir=500,
        class_names=["good", "schlecht ü"], feature_names=("a", "b", "c"), feature_kinds=["numerical", "categorical", "numerical"],
    )  # fmt: skip
    assert Path(monitor.path).name == "fraud_eu@1_4.0.ring"
    schema = ring_of(monitor).schema
    assert (schema.model, schema.version, schema.instance) == ("fraud/eu", "1.4", "pod-7")
    assert (schema.n_classes, schema.n_features, schema.proba_dtype, schema.feature_dtype, schema.task) == (
        2,
        3,
        "bf16",
        "bf16",
        1,
    )
    assert (schema.threshold, schema.period_ns, schema.reservoir_rows) == (0.25, 1_500_000_000, 500)
    assert schema.class_names == ["good", "schlecht ü"] and schema.feature_names == ["a", "b", "c"]
    assert schema.kinds == bytes([0, 1, 0])


def test_the_directory_may_come_from_the_environment(ring_dir, monkeypatch):
    monkeypatch.setenv("MLWATCH_DIR", str(ring_dir))
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


def in_child(work):
    """Whether it succeeds there."""
    child = os.fork()
    if child == 0:
        os._exit(0 if work() else 1)
    return os.waitpid(child, 0)[1] == 0


def test_a_child_closes_its_ring_whatever_the_parents_threads_were_doing(watch):
    monitor = watch(strict=False, ring_bytes=1 << 26)

    def written_and_closed():
        written, path = monitor.collect(ROWS_3), monitor.path
        monitor.close()
        return written and Ring(path).state == 2

    def work():
        while not monitor.closed:
            monitor.collect(BIG, labels=BIG)

    threads = in_threads(2, work)
    closed = [in_child(written_and_closed) for _ in range(20)]
    monitor.close()
    for thread in threads:
        thread.join()
    assert all(closed)


def test_an_argument_that_forks_and_closes_costs_the_child_its_batch_only(watch):
    monitor = watch(strict=False)
    children = []

    def array(*_, **__):
        children.append(os.fork())
        if children[-1] == 0:
            monitor.close()
        return ROWS_3

    written = monitor.collect(WithMethod("__array__", array))
    if children[-1] == 0:
        os._exit(0 if written is False else 1)
    assert written is True and os.waitpid(children[-1], 0)[1] == 0


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
