"""Starts the sidecar and serve.py, prints what the reports say period by period, and names the moment the input broke."""

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OUTPUT = ROOT / "target" / "demo"
SERVICE = Path(__file__).with_name("serve.py")
SECONDS = 40
PERIOD = 4
PIXELS = ["pixel_0_0", "pixel_3_4"]  # a corner, almost always black, and the centre
BARS = " ▁▂▃▄▅▆▇█"
HEADER = f"{'period':<9} {'rows':>5} {'accuracy':>8} {'confidence':>10} {'margin':>6}   0123456789  most predicted " + " ".join(
    f"{name:>9}" for name in PIXELS
)


class DemoError(Exception):
    pass


# ---- the two processes ----


def start(name, command):
    """The process. What it says goes to a file of its own beside the reports."""
    with open(OUTPUT / f"{name}.log", "w") as log:
        try:
            return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT)
        except OSError as why:
            raise DemoError(f"cannot start the {name}: {command[0]}: {why.strerror}") from None


def said(name):
    return (OUTPUT / f"{name}.log").read_text(errors="replace")


def failed(name, process):
    last = "".join(f"\n    {line}" for line in said(name).splitlines()[-8:])
    return DemoError(f"the {name} ended with exit status {process.returncode}; its last words:{last or ' none'}")


def stop(process):
    """Asks once; the sidecar then drains its rings and reports the open period."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def watch(sidecar, service):
    """Prints each report as it comes, until the service is done. Returns them all."""
    shown = 0
    print(HEADER)
    while service.poll() is None:
        if sidecar.poll() is not None:
            raise failed("sidecar", sidecar)
        shown = show(shown)
        time.sleep(0.2)
    if service.returncode:
        raise failed("service", service)
    stop(sidecar)
    if sidecar.returncode:
        raise failed("sidecar", sidecar)
    show(shown)
    return reports()


# ---- the reports ----


def reports():
    """Those with rows, in order. A line that is still being written has no line end yet."""
    lines = [line for path in sorted(OUTPUT.glob("metrics-*.jsonl")) for line in path.read_text().splitlines(keepends=True)]
    parsed = [json.loads(line) for line in lines if line.endswith("\n")]
    return [report for report in parsed if report["rows"]]


def inversion():
    """When the service said that it inverts the pixels, if it has."""
    told = [line.split()[0] for line in said("service").splitlines() if line.endswith(" inverted")]
    return datetime.fromtimestamp(float(told[0]), UTC) if told else None


def moment(text):
    return datetime.fromisoformat(text)


def side(report, when):
    """-1 before the inversion, 1 after it, 0 for the period it fell into."""
    if when is None or moment(report["end"]) <= when:
        return -1
    return 1 if moment(report["start"]) > when else 0


def most_predicted(classes):
    return max(classes, key=lambda c: c["count"])


def bar(classes):
    """One mark a class, as high as its share of the rows; full from 30 % on."""
    return "".join(BARS[min(8, round(8 * c["frequency"] / 0.3))] for c in classes)


def pixel_means(report):
    means = {feature["name"]: feature["mean"] for feature in report["features"]}
    return [means[name] for name in PIXELS]


def line(report, when):
    predictions, classes = report["predictions"], report["predictions"]["classes"]
    top = most_predicted(classes)
    where = {-1: "", 0: "  <- pixels inverted in here", 1: "  inverted"}[side(report, when)]
    return (
        f"{moment(report['start']):%H:%M:%S}  {report['rows']:>5} {report['labels']['accuracy']:>8.3f}"
        f" {predictions['confidence']['mean']:>10.3f} {predictions['margin']['mean']:>6.3f}"
        f"  |{bar(classes)}| {top['name']:>3} in {top['frequency']:>6.1%} "
        + " ".join(f"{mean:>9.2f}" for mean in pixel_means(report))
        + where
    )


def show(shown):
    known, when = reports(), inversion()
    for report in known[shown:]:
        print(line(report, when), flush=True)
    return len(known)


# ---- what happened ----


class Half:
    """Several periods as one: every mean weighted by its rows."""

    def __init__(self, some):
        def mean(value):
            return sum(value(r) * r["rows"] for r in some) / sum(r["rows"] for r in some)

        names = [c["name"] for c in some[0]["predictions"]["classes"]]
        counts = [sum(r["predictions"]["classes"][k]["count"] for r in some) for k in range(len(names))]
        self.accuracy = mean(lambda r: r["labels"]["accuracy"])
        self.confidence = mean(lambda r: r["predictions"]["confidence"]["mean"])
        self.corner = mean(lambda r: pixel_means(r)[0])
        self.top = names[counts.index(max(counts))]
        self.top_share = max(counts) / sum(counts)


def conclusion(known, when):
    if when is None:
        raise DemoError("the service never inverted its pixels")
    before, after = ([r for r in known if side(r, when) == which] for which in (-1, 1))
    if not before or not after:
        raise DemoError(f"{len(before)} periods before the inversion and {len(after)} after it: too few to compare")
    before, after = Half(before), Half(after)
    if after.accuracy >= before.accuracy:
        raise DemoError(f"accuracy did not drop: {before.accuracy:.3f} before, {after.accuracy:.3f} after")
    surer = "no less sure of itself" if after.confidence >= before.confidence else "less sure of itself"
    return (
        f"At {when:%H:%M:%S} the pixels were inverted: accuracy fell from {before.accuracy:.3f} to {after.accuracy:.3f}"
        f" while the model was {surer} (confidence {before.confidence:.3f} -> {after.confidence:.3f});"
        f" without any label it shows in the most predicted class ({before.top} in {before.top_share:.1%} of the rows"
        f" -> {after.top} in {after.top_share:.1%}) and in the mean of {PIXELS[0]} ({before.corner:.2f} -> {after.corner:.2f})."
    )


def demo(sidecar_path):
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    ring_dir = tempfile.mkdtemp(prefix="mlwatch-demo-", dir="/dev/shm")
    running = []
    try:
        options = ["--dir", ring_dir, "--output", OUTPUT, "--period", f"{PERIOD}s", "--format", "native,mlwatcher"]
        sidecar = start("sidecar", [sidecar_path, "run", *options])
        running.append(sidecar)
        service = start("service", [sys.executable, SERVICE, "--dir", ring_dir, "--seconds", str(SECONDS)])
        running.append(service)
        print(f"Serving digits for {SECONDS} s, a report every {PERIOD} s; times are UTC.\n", flush=True)
        known = watch(sidecar, service)
    finally:
        for process in reversed(running):
            stop(process)
        shutil.rmtree(ring_dir, ignore_errors=True)
    print(f"\n{conclusion(known, inversion())}")
    print("The period marked <- may hold rows from both sides and is not part of these numbers.")
    dropped = sum(report["losses"]["dropped_rows"] for report in known)
    print(f"{sum(report['rows'] for report in known)} rows reported, {dropped} dropped.")
    print(f"\nReports, MLWatcher's format and both logs are in {OUTPUT.relative_to(ROOT)}:")
    for path in sorted(OUTPUT.iterdir()):
        print(f"  {path.name:<40} {path.stat().st_size:>9,} bytes")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sidecar", type=Path, default=ROOT / "target/release/mlwatch", help="the mlwatch binary")
    arguments = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the ring directory goes as well
    try:
        demo(arguments.sidecar.absolute())
    except DemoError as why:
        sys.exit(f"demo: {why}")
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
