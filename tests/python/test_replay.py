"""The same records give the same bytes: a recording of a ring is read again and says what it said."""

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
