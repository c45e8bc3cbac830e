"""The same records give the same bytes: a recording of a ring is read again and says what it said."""

import json
import re
import shutil
import time

import numpy as np

PERIOD = 10
BATCHES, ROWS = 60, 50
# How full the ring was seen is of the reading, not of what was read.
FILL = re.compile(r'"ring_fill_high_water":[^,}]*')


def record(monitor):
    """Three periods' worth of everything, stamped as if it had come over the last minutes."""
    rng = np.random.default_rng(5)
    start = (time.time() // PERIOD - 20) * PERIOD
    for batch in range(BATCHES):
        features = rng.normal(1e3, 1, (ROWS, 4)).astype(np.float32)
        features[:, 3] = rng.integers(0, 400, ROWS)
        features[0, 0] = np.nan
        proba = rng.dirichlet(np.ones(3), ROWS).astype(np.float32)
        labels = rng.integers(-1, 3, ROWS).astype(np.int32)
        ids = np.arange(ROWS, dtype=np.uint64) + batch * ROWS
        stamp = start + batch * 3 * PERIOD / BATCHES
        assert monitor.collect(proba, features, labels=labels, ids=ids, timestamp=stamp)


def with_rows(sidecar):
    return [FILL.sub("", line) for line in sidecar.lines("metrics-*.jsonl") if '"rows":1000,' in line]


def record_version(monitor, seed, sharpness):
    """Six periods' worth of a version, each record with some rows more or less than another's."""
    rng = np.random.default_rng(seed)
    start = (time.time() // PERIOD - 20) * PERIOD
    for batch in range(BATCHES):
        rows = int(rng.integers(20, 60))
        proba = rng.dirichlet(np.ones(3) * sharpness, rows).astype(np.float32)
        labels = rng.integers(0, 3, rows).astype(np.int32)
        ids = rng.integers(0, 5000, rows).astype(np.uint64)
        assert monitor.collect(proba, labels=labels, ids=ids, timestamp=start + batch * 6 * PERIOD / BATCHES)


def test_a_recording_gives_the_same_bytes_again(watch, ring_dir, run_sidecar, tmp_path):
    monitor = watch(
        n_classes=3,
        n_features=4,
        feature_kinds=["numerical", "numerical", "numerical", "categorical"],
    )
    record(monitor)
    recording = tmp_path / "recording.ring"
    monitor.close()
    (ring,) = ring_dir.glob("*.ring")
    shutil.copy(ring, recording)
    said = []
    for _ in range(2):
        shutil.copy(recording, ring)
        # A sample much smaller than the rows: which of them are kept must not depend on anything but them.
        with run_sidecar("--period", f"{PERIOD}s", "--reservoir", "100", ring_dir=ring_dir) as sidecar:
            sidecar.wait_until(lambda: len(with_rows(sidecar)) == 3, "three periods are reported")
            sidecar.stop()
            said.append(with_rows(sidecar))
        ring.unlink()
    assert len(said[0]) == 3 and said[0] == said[1]


def test_versions_that_are_compared_give_the_same_bytes_in_the_same_order_again(watch, ring_dir, run_sidecar, tmp_path):
    for seed, version in enumerate("312"):
        monitor = watch("m", n_classes=3, version=version)
        record_version(monitor, seed, 0.1 if version == "2" else 1.0)
        monitor.close()
    recordings = [(ring, tmp_path / ring.name) for ring in ring_dir.glob("*.ring")]
    for ring, recording in recordings:
        shutil.copy(ring, recording)
    said = []
    for _ in range(3):
        for ring, recording in recordings:
            shutil.copy(recording, ring)
        with run_sidecar("--period", f"{PERIOD}s", ring_dir=ring_dir) as sidecar:
            sidecar.wait_until(lambda: len(reported(sidecar)) == 18, "three versions have six periods each")
            sidecar.stop()
            said.append(reported(sidecar))
            reports = [report for report in sidecar.reports() if report["rows"]]
        for ring, _ in recordings:
            ring.unlink(missing_ok=True)
    assert said[0] == said[1] == said[2]
    turns = [(report["start"], report["version"]) for report in reports]
    assert turns == sorted(turns)
    for report in reports:
        assert [other["version"] for other in report["canary"]] == {"1": [], "2": ["1"], "3": ["2", "1"]}[report["version"]]
    started = [(report["version"], alert["name"]) for report in reports for alert in report["alerts"] if alert["state"] == "started"]
    assert sorted(started) == [("2", "1"), ("3", "2")]


def reported(sidecar):
    return [FILL.sub("", line) for line in sidecar.lines("metrics-*.jsonl") if json.loads(line)["rows"]]
