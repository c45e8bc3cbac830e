"""The C library's mlw_write and Monitor.collect put the same bytes into the ring."""

import ctypes as c
from pathlib import Path

import mlwatch
import numpy as np
import pytest
from ring_reader import Ring

LIBRARY = Path(__file__).parents[2] / "target/c/libmlwatch.so"
DTYPES = {"f32": (3, np.float32), "f64": (4, np.float64)}


class Options(c.Structure):
    _fields_ = [
        ("size", c.c_size_t), ("model", c.c_char_p), ("version", c.c_char_p), ("instance", c.c_char_p),
        ("task", c.c_uint32), ("flags", c.c_uint32), ("n_classes", c.c_uint32), ("n_features", c.c_uint32),
        ("proba_dtype", c.c_uint32), ("feature_dtype", c.c_uint32), ("class_names", c.c_void_p), ("feature_names", c.c_void_p),
        ("feature_kinds", c.c_void_p), ("threshold", c.c_double), ("period_ns", c.c_uint64), ("reservoir_rows", c.c_uint64),
        ("dir", c.c_char_p), ("ring_bytes", c.c_uint64), ("error", c.c_char_p), ("error_size", c.c_size_t),
        ("segment_by", c.c_uint32), ("reserved", c.c_uint32),
    ]  # fmt: skip


class Batch(c.Structure):
    _fields_ = [("size", c.c_size_t), ("rows", c.c_uint32), ("reserved", c.c_uint32), ("timestamp_ns", c.c_uint64)] + [
        member
        for name in ["proba", "features", "labels", "label_sets", "targets", "ids", "segments"]
        for member in [(name, c.c_void_p), (name + "_stride", c.c_ssize_t)]
    ]


def batches(dtype):
    rng = np.random.default_rng(0)
    for rows in [1, 7, 20, 1600]:
        proba = rng.dirichlet(np.ones(3), rows).astype(dtype)
        features = rng.normal(size=(rows, 5)).astype(dtype)
        labels = rng.integers(-1, 3, rows).astype(np.int32)
        ids = rng.integers(0, 2**63, rows).astype(np.uint64)
        flags = rng.integers(0, 2, (rows, 3)).astype(np.uint8)
        segments = rng.integers(0, 2**16, rows).astype(np.uint16)
        yield dict(proba=proba, features=features, labels=labels, ids=ids, segments=segments)  # 1600 rows of these take several records
        yield dict(proba=proba[:400])
        yield dict(proba=None, features=features[:400])
        yield dict(proba=proba[:400], labels=flags[:400])


def write_in_c(directory, code, dtype):
    library = c.CDLL(LIBRARY)
    options = Options(
        size=c.sizeof(Options), model=b"same", version=b"1", instance=b"host", task=1, n_classes=3, n_features=5,
        proba_dtype=code, feature_dtype=code, threshold=0.5, dir=str(directory).encode(), ring_bytes=1 << 18,
        segment_by=2**32 - 1,
    )  # fmt: skip
    handle = c.c_void_p()
    assert library.mlw_open(c.byref(options), c.byref(handle)) == 0
    for i, arrays in enumerate(batches(dtype)):
        given = {name: array for name, array in arrays.items() if array is not None}
        if "labels" in given and given["labels"].ndim == 2:
            given["label_sets"] = given.pop("labels")
        rows = len(next(iter(given.values())))
        pointers = {name: array.ctypes.data for name, array in given.items()}
        batch = Batch(size=c.sizeof(Batch), rows=rows, timestamp_ns=1_000_000_000 * (i + 1), **pointers)
        assert library.mlw_write(handle, c.byref(batch)) == 0
    library.mlw_close(handle)


def write_in_python(directory, name, dtype):
    options = dict(n_classes=3, n_features=5, version="1", instance="host", dtype=name, dir=directory, ring_bytes=1 << 18, segments=True)
    with mlwatch.Monitor("same", strict=True, **options) as monitor:
        for i, arrays in enumerate(batches(dtype)):
            assert monitor.collect(**arrays, timestamp=i + 1)


@pytest.mark.parametrize("name", DTYPES)
def test_c_and_python_write_the_same_bytes(ring_dir, name):
    code, dtype = DTYPES[name]
    directories = [Path(ring_dir) / "c", Path(ring_dir) / "python"]
    write_in_c(directories[0], code, dtype)
    write_in_python(directories[1], name, dtype)
    ours, theirs = (Ring(directory / "same@1.0.ring") for directory in directories)
    assert ours.schema == theirs.schema
    assert len(ours.records) > len(list(batches(dtype))), "some batch was meant to be split"
    assert ours.records == theirs.records
    assert ours.headers == theirs.headers
