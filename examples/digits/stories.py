"""Four ways in which a model in production goes wrong, each told by the alert that it must raise, and by those that it must not.

    inverted    somebody upstream inverts the pixels
    new data    another scanner: every image one pixel further to the right, and noisier
    weak model  a version is rolled out that was trained on 40 images
    canary      the same weak version beside the good one, both asked the same; no reference

An hour of requests is stamped as it would have come, and read in seconds. Everything else is real: scikit-learn's digits, the models,
the rings, the sidecar, its reference and its rules.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import mlwatch
import numpy as np
from serve import WHITE, train
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "target" / "stories"
PERIOD = 60  # seconds
PERIODS = 16  # of which the second half is the story
ROWS = 400  # a period, in batches of 20
BATCH = 20
NAMES = [f"pixel_{row}_{column}" for row in range(8) for column in range(8)]
CLASSES = [str(digit) for digit in range(10)]

CONFIG = """
[[alerts.rule]]
name = "accuracy"
metric = "labels.accuracy"
below = 0.85
"""


class StoryError(Exception):
    pass


# ---- what happens ----


class World:
    """The data, a good model, and one that was trained on 40 images."""

    def __init__(self):
        digits = load_digits()
        self.good, self.pixels, self.labels = train(digits)
        self.weak, *_ = train(digits, rows=40)

    def batch(self, rng):
        rows = rng.integers(len(self.pixels), size=BATCH)
        return self.pixels[rows], self.labels[rows]

    def reference(self, path):
        """Of the good model, on other requests than those that come; of any version."""
        rng = np.random.default_rng(1)
        x, y = zip(*(self.batch(rng) for _ in range(200)), strict=True)
        x, y = np.concatenate(x), np.concatenate(y)
        proba = self.good.predict_proba(x).astype(np.float32)
        fitted = mlwatch.Reference.fit(x, proba, y, model="digits", feature_names=NAMES, class_names=CLASSES)
        fitted.save(path)


def as_usual(x, rng):
    return x


def inverted(x, rng):
    return WHITE - x


def another_scanner(x, rng):
    images = np.roll(x.reshape(-1, 8, 8), 1, axis=2)
    images[:, :, 0] = 0
    return np.clip(np.round(images.reshape(-1, 64) + rng.normal(0, 1.5, x.shape)), 0, WHITE).astype(np.float32)


def monitor(ring_dir, version):
    return mlwatch.Monitor(
        "digits",
        version=version,
        n_classes=10,
        n_features=64,
        class_names=CLASSES,
        feature_names=NAMES,
        dir=ring_dir,
        ring_bytes=1 << 26,
        strict=True,
    )


def serve(world, ring_dir, models, upstream):
    """`models` are pairs of version and a model for each half; `upstream` is what happens to the pixels in the second half."""
    rng = np.random.default_rng(2)
    start = (time.time() // PERIOD - PERIODS - 1) * PERIOD
    open_ones = [(monitor(ring_dir, version), halves) for version, halves in models]
    for period in range(PERIODS):
        half = period >= PERIODS // 2
        for batch in range(ROWS // BATCH):
            x, y = world.batch(rng)
            seen = upstream(x, rng) if half else x
            ids = np.arange(BATCH, dtype=np.uint64) + (period * ROWS + batch * BATCH)
            for ring, halves in open_ones:
                proba = halves[half].predict_proba(seen)
                ring.collect(proba, features=seen, labels=y, ids=ids, timestamp=start + (period + batch * BATCH / ROWS) * PERIOD)
    for ring, _ in open_ones:
        ring.close()
    return start + PERIODS // 2 * PERIOD


# ---- what the sidecar says ----


def run(sidecar, world, name, models, upstream=as_usual, with_reference=True):
    """The alerts of every report, and when the story began."""
    output = OUTPUT / name.replace(" ", "_")
    output.mkdir(parents=True)
    (output / "mlwatch.toml").write_text(CONFIG)
    references = output / "references"
    references.mkdir()
    if with_reference:
        world.reference(references / "digits.mlwref")
    ring_dir = Path(tempfile.mkdtemp(prefix="mlwatch-story-", dir="/dev/shm"))
    try:
        began = serve(world, ring_dir, models, upstream)
        options = ["--dir", ring_dir, "--output", output, "--period", f"{PERIOD}s", "--reference", references]
        log = output / "sidecar.log"
        with open(log, "w") as said:
            process = subprocess.Popen([sidecar, "run", *options, "--config", output / "mlwatch.toml"], stderr=said, stdout=said)
        wait_until_read(sidecar, process, ring_dir)
        process.terminate()
        if process.wait(60):
            raise StoryError(f"the sidecar ended with {process.returncode}: {log.read_text()[-2000:]}")
    finally:
        shutil.rmtree(ring_dir, ignore_errors=True)
    return reports(output), began


def wait_until_read(sidecar, process, ring_dir):
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        seen = [json.loads(subprocess.run([sidecar, "inspect", "--json", ring], capture_output=True).stdout) for ring in ring_dir.glob("*.ring")]
        if all(ring["head"] == ring["tail"] for ring in seen):
            return
        time.sleep(0.1)
    raise StoryError("the sidecar did not read the rings")


def reports(output):
    lines = [line for path in sorted(output.glob("metrics-*.jsonl")) for line in path.read_text().splitlines()]
    known = [json.loads(line) for line in lines]
    return sorted((report for report in known if report["rows"]), key=lambda report: (report["start"], report["version"]))


def kind(alert):
    """`feature`, `confidence`, `accuracy_drift`, `accuracy`, …: what an alert is about."""
    if alert["rule"] == "drift":
        return alert["metric"].split(".")[1]
    return alert["of"] if alert["rule"] == "quality" else alert["rule"]


def started(known):
    """Kind → how many alerts started, and an example."""
    found = {}
    for report in known:
        for alert in report["alerts"]:
            if alert["state"] == "started":
                found.setdefault(kind(alert), []).append((report, alert))
    return found


# ---- the verdict ----


def tell(name, known, began, must, may):
    """Which alerts started; wrong if one that must is missing, or one that may not is there, or one came before its time."""
    told = time.strftime("%H:%M", time.gmtime(began))
    print(f"\n{name}: from {told} on")
    found = started(known)
    for what, alerts in sorted(found.items()):
        report, alert = alerts[0]
        value = alert["evidence"]["value"]
        of = f" {alert['name']}" if alert["name"] else ""
        version = f" of version {report['version']}" if report["version"] else ""
        print(f"  {len(alerts):>3} x {what:<15} first at {report['end'][11:16]}: {alert['metric']}{of}{version} = {value:.3g}")
    early = [alert for alerts in found.values() for _, alert in alerts if alert["start"] < time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(began))]
    missing, wrong = set(must) - set(found), set(found) - set(must) - set(may)
    if missing or wrong or early:
        raise StoryError(f"{name}: missing {sorted(missing)}, wrong {sorted(wrong)}, {len(early)} before anything happened")
    print(f"  as it should be: {', '.join(sorted(must))}, and nothing else that would mislead")


def stories(sidecar):
    shutil.rmtree(OUTPUT, ignore_errors=True)
    world = World()
    good, weak = (world.good, world.good), (world.good, world.weak)
    known, began = run(sidecar, world, "inverted", [("1", good)], inverted)
    quality = {"accuracy_drift", "concept_drift"}
    shape = {"confidence", "margin", "entropy", "probability", "predicted_class"}
    tell("inverted", known, began, must={"feature", "features", "accuracy"} | quality, may=shape)
    known, began = run(sidecar, world, "new data", [("1", good)], another_scanner)
    tell("new data", known, began, must={"feature", "features", "accuracy"} | quality, may=shape)
    known, began = run(sidecar, world, "weak model", [("1", weak)])
    tell("weak model", known, began, must={"confidence", "accuracy", "accuracy_drift"}, may=shape | quality)
    known, began = run(sidecar, world, "canary", [("1", good), ("2", weak)], with_reference=False)
    tell("canary", known, began, must={"canary", "accuracy"}, may=set())
    print(f"\nFour stories, each with its alerts and no others. Reports and logs are in {OUTPUT.relative_to(ROOT)}.")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sidecar", type=Path, default=ROOT / "target/release/mlwatch", help="the mlwatch binary")
    arguments = parser.parse_args()
    try:
        sidecar = arguments.sidecar.absolute()
        os.environ["MLWATCH_BIN"] = str(sidecar)  # makes the references
        stories(sidecar)
    except StoryError as why:
        sys.exit(f"stories: {why}")


if __name__ == "__main__":
    main()
