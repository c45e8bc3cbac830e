"""A reader of ring files, written from docs/wire-format.md alone. It checks whatever the page promises."""

import mmap
import struct
from dataclasses import dataclass, field

DTYPES = {1: ("f16", 2), 2: ("bf16", 2), 3: ("f32", 4), 4: ("f64", 8)}
REASONS = ["full", "too_large", "contended", "rejected", "detached"]
PROBA, FEATURES, LABELS, LABEL_SETS, TARGETS, IDS, SEGMENTS = (1 << bit for bit in range(7))
BY_ROW = 2**32 - 1


def _crc_table():
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC = _crc_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
    return crc ^ 0xFFFFFFFF


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & (1 << 64) - 1
    return value


def align(n, to=64):
    return -(-n // to) * to


@dataclass
class Schema:
    n_classes: int
    n_features: int
    proba_dtype: str
    feature_dtype: str
    task: int
    threshold: float
    period_ns: int
    reservoir_rows: int
    segment_by: int
    kinds: bytes
    model: str
    version: str
    instance: str
    class_names: list
    feature_names: list
    row_bytes: list = field(default_factory=list)

    @classmethod
    def parse(cls, raw):
        classes, features, proba, feature, task = struct.unpack_from("<IIBBB", raw)
        threshold, period, reservoir, segment_by = struct.unpack_from("<dQQI", raw, 16)
        assert raw[11:16] == bytes(5) and raw[44:64] == bytes(20)
        at = 64 + features
        strings = []
        for _ in range(3 + classes + features):
            (length,) = struct.unpack_from("<H", raw, at)
            strings.append(raw[at + 2 : at + 2 + length].decode())
            at += 2 + length
        assert at == len(raw)
        model, version, instance, *names = strings
        proba, proba_size = DTYPES[proba]
        feature, feature_size = DTYPES[feature]
        return cls(
            classes, features, proba, feature, task, threshold, period, reservoir, segment_by, raw[64 : 64 + features],
            model, version, instance, names[:classes], names[classes:],
            [classes * proba_size, features * feature_size, 4, classes, classes * 8, 8, 2 if segment_by == BY_ROW else 0],
        )  # fmt: skip


@dataclass
class Record:
    seq: int
    ts_ns: int
    rows: int
    sections: dict  # bit → bytes


class Ring:
    """One look at a ring file. The file is closed again at once: a process that also writes it loses its lock."""

    def __init__(self, path):
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            self._identity(raw)
            self._producer_page(raw)
            (self.head,) = struct.unpack_from("<Q", raw, self.consumer_off)
            self.headers = []  # their bytes, padding included
            self.records = list(self._records(raw))

    def _identity(self, raw):
        major, _minor, header, endian, page = struct.unpack_from("<HHIII", raw, 8)
        length, self.producer_off, self.consumer_off, self.data_off, self.capacity = struct.unpack_from("<5Q", raw, 24)
        record_align, schema_len, self.max_record, schema_hash = struct.unpack_from("<IIQQ", raw, 64)
        assert raw[:8] == b"MLWRING1" and (major, header, endian, record_align) == (1, 256, 0x01020304, 64)
        assert length == len(raw) == self.data_off + self.capacity
        assert self.producer_off == align(256 + schema_len, page)
        assert (self.consumer_off, self.data_off) == (self.producer_off + page, self.producer_off + 2 * page)
        assert self.max_record == self.capacity // 4
        (self.needs,) = struct.unpack_from("<Q", raw, 112)
        schema = raw[256 : 256 + schema_len]
        assert schema_hash == fnv1a(schema)
        assert struct.unpack_from("<I", raw, 252) == (crc32c(raw[:252] + schema),)
        self.schema = Schema.parse(schema)
        assert self.needs == (2 in self.schema.kinds) + 2 * (self.schema.segment_by == BY_ROW)

    def _producer_page(self, raw):
        base = self.producer_off
        (self.tail,) = struct.unpack_from("<Q", raw, base)
        self.heartbeat_ns, self.attach_epoch, self.state = struct.unpack_from("<3Q", raw, base + 128)
        self.count, self.rows, self.bytes, self.next_seq = struct.unpack_from("<4Q", raw, base + 256)
        dropped_records = struct.unpack_from("<8Q", raw, base + 320)
        dropped_rows = struct.unpack_from("<8Q", raw, base + 384)
        assert dropped_records[5:] == dropped_rows[5:] == (0, 0, 0)
        self.dropped_records = dict(zip(REASONS, dropped_records))
        self.dropped_rows = dict(zip(REASONS, dropped_rows))

    def _records(self, raw):
        position = self.head
        while position != self.tail:
            start = self.data_off + position % self.capacity
            header = raw[start : start + 64]
            self.headers.append(header)
            magic, kind, sections, length, payload, pos, seq, ts_ns, rows = struct.unpack_from("<IHHIIQQQI", header)
            assert magic == 0x52574C4D and pos == position and length % 64 == 0
            assert header[44:60] == bytes(16) and struct.unpack_from("<I", header, 60) == (crc32c(header[:60]),)
            assert position % self.capacity + length <= self.capacity
            if kind == 1:
                assert rows >= 1 and payload == length - 64 and length <= self.max_record
                yield Record(seq, ts_ns, rows, self._sections(raw[start + 64 : start + length], sections, rows))
            else:
                assert kind == 2 and payload == 0
            position += length
            assert position <= self.tail

    def _sections(self, payload, sections, rows):
        assert 0 < sections < 128
        found, end = {}, 0
        for bit, row_bytes in enumerate(self.schema.row_bytes):
            if sections >> bit & 1:
                found[1 << bit] = payload[end : end + rows * row_bytes]
                end = align(end + rows * row_bytes)
        assert end == len(payload)
        return found

    def column(self, bit):
        """All records' bytes of one section, end to end."""
        return b"".join(record.sections[bit] for record in self.records)


def ring_of(monitor):
    monitor.close()
    return Ring(monitor.path)


def sent(monitor, *args, **kwargs):
    assert monitor.collect(*args, **kwargs) is True
    return ring_of(monitor)
