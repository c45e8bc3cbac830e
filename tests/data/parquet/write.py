"""Writes the Parquet files beside it, with pyarrow 26.0.1: python tests/data/parquet/write.py

Row i of 100 holds what sidecar/src/source/parquet.rs expects there.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROWS = range(100)


def columns(some):
    """`some` makes a value null."""
    return {
        "single": pa.array([i / 4 for i in ROWS], pa.float32()),
        "double": pa.array([None if some(i) else i / 10 for i in ROWS], pa.float64()),
        "half": pa.array([i / 8 for i in ROWS], pa.float16()),
        "signed": pa.array([i - 50 for i in ROWS], pa.int8()),
        "unsigned": pa.array([2**32 - 1 - i for i in ROWS], pa.uint32()),
        "long": pa.array([None if some(i) else -(2**40) * i for i in ROWS], pa.int64()),
        "ulong": pa.array([2**63 + 2**20 * i for i in ROWS], pa.uint64()),
        "flag": pa.array([None if some(i) else i % 2 == 0 for i in ROWS], pa.bool_()),
        "p_a": pa.array([i / 128 for i in ROWS], pa.float32()),
        "p_b": pa.array([1 - i / 128 for i in ROWS], pa.float32()),
        "truth": pa.array([None if some(i) else i % 2 for i in ROWS], pa.int32()),
    }


def write(name, columns, **options):
    pq.write_table(pa.table(columns), Path(__file__).parent / f"{name}.parquet", **options)


numbers = columns(lambda i: i % 10 == 3)
write("snappy", numbers, compression="snappy", row_group_size=37)
write("zstd", numbers, compression="zstd", row_group_size=100, data_page_size=64, write_batch_size=8)
write("gzip", numbers, compression="gzip", row_group_size=9, use_dictionary=False, data_page_version="2.0")
others = {
    "x": pa.array([1.0, 2.0]),
    "text": pa.array(["a", "b"]),
    "when": pa.array([0, 1], pa.timestamp("us")),
    "day": pa.array([0, 1], pa.date32()),
    "price": pa.array([0, 1], pa.decimal128(7, 2)),
    "list": pa.array([[1.0], [2.0, 3.0]]),
    "pair": pa.array([{"a": 1.0}, {"a": 2.0}]),
}
write("others", others, compression="none")
labelled = {
    "x": numbers["single"],
    "p_a": numbers["p_a"],
    "p_b": numbers["p_b"],
    "truth": pa.array([None if i % 10 == 3 else ["cat", "dog"][i % 2] for i in ROWS]),
}
write("text_labels", labelled, compression="snappy", row_group_size=37)
write("lz4", {"x": pa.array([1.0, 2.0])}, compression="lz4")
write("brotli", {"x": pa.array([1.0, 2.0])}, compression="brotli")
write("empty", {"x": pa.array([], pa.float64())})
