"""What does Monitor.collect cost a Python inference loop, against copying the same bytes?

    cargo build --release
    python benches/producer_call.py [--sidecar target/release/mlwatch] [--quick]

collect writes batches of 200 B to 512 KiB of f32, rows x (10 probabilities + features), into a ring of the default 8 MiB. A
sidecar in a process of its own drains it. The yardstick is ``view[:] = source``, a memoryview's memcpy from Python, into shared
memory of the same size, walked in the same steps as the records. Both take turns of half a lap of the ring or 2,000 calls.
Before each turn the sidecar has emptied the ring, so that nothing is dropped; in the end the counters must say so.

- p50, p99, p99.9: each call timed by itself with time.perf_counter_ns, all turns together, less the median of timing nothing.
- x: p50 of the subject / p50 of the yardstick in the same round, median over the rounds and [interquartile range].

A closed loop: the next call begins when the last one is over, so a delay holds back no arrivals and waiting in a queue is not
in these numbers. The garbage collector is off. With numpy installed, collect is also given arrays. The sidecar reads what has
just been written, from another core if there is one: what that costs the next lap is in these numbers. From 64 KiB on the ratio
moves more from run to run than its range within a run says; quote several runs.
"""

import argparse
import array
import gc
import itertools
import math
import mmap
import os
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import mlwatch

try:
    import numpy
except ImportError:
    numpy = None

ROOT = Path(__file__).resolve().parent.parent
RING_BYTES = 8 << 20
CLASSES = 10
SHAPES = [(1, 40), (8, 118), (64, 246), (128, 1014)]  # rows, features: 200, 4096, 65,536 and 524,288 bytes
MOST_CALLS = 2000  # a turn
YARDSTICK = "memoryview copy"


def main():
    arguments = parse_arguments()
    print(f"{machine()}: python benches/producer_call.py{' --quick: these numbers mean nothing' * arguments.quick}")
    print(f"Python {sys.version.split()[0]}, numpy {numpy.__version__ if numpy else 'not installed'}\n")
    print("| bytes | call | p50 ns | p99 ns | p99.9 ns | p50 x |")
    print("| ---: | --- | ---: | ---: | ---: | ---: |")
    gc.disable()
    with ring_dir() as directory, sidecar(arguments.sidecar, directory):
        for rows, features in SHAPES:
            measure(directory, rows, features, 2 if arguments.quick else 31)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--sidecar", default=ROOT / "target/release/mlwatch", help="default: target/release/mlwatch")
    parser.add_argument("--quick", action="store_true", help="only see that it works")
    return parser.parse_args()


def machine():
    with open("/proc/cpuinfo") as cpuinfo:
        models = [line.partition(":")[2].strip() for line in cpuinfo if line.startswith("model name")]
    return f"{models[0] if models else os.uname().machine}, {os.cpu_count()} cores"


@contextmanager
def ring_dir():
    path = tempfile.mkdtemp(prefix="mlwatch-bench-", dir="/dev/shm")
    try:
        yield path
    finally:
        shutil.rmtree(path)


@contextmanager
def sidecar(program, directory):
    command = [program, "run", "--dir", directory, "--output", f"{directory}/reports"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()


# ---- one shape ----


def measure(directory, rows, features, rounds):
    options = {"n_classes": CLASSES, "n_features": features, "ring_bytes": RING_BYTES, "dir": directory}
    sections = 4 * rows * CLASSES, 4 * rows * features
    record_bytes = 64 + sum(math.ceil(section / 64) * 64 for section in sections)
    calls = min(RING_BYTES // 2 // record_bytes, MOST_CALLS)
    with mlwatch.Monitor(f"bench{features}", **options) as monitor:
        turns = turns_of(monitor, places_of(directory, record_bytes, sum(sections)), sections, rows)
        compare(monitor, turns, calls, 1)
        compared = compare(monitor, turns, calls, rounds)
        assert_nothing_was_lost(monitor, (rounds + 1) * (len(turns) - 1) * calls)
    print_rows(sum(sections), compared)


def turns_of(monitor, places, sections, rows):
    """By name: a generator of the times of single calls. All of them copy the same bytes."""
    source = memoryview(array.array("f", range(sum(sections) // 4))).cast("B")
    proba = source[: sections[0]].cast("f", (rows, CLASSES))
    features = source[sections[0] :].cast("f", (rows, sections[1] // 4 // rows))
    turns = {YARDSTICK: copies(places, source), "collect(memoryviews)": collects(monitor.collect, proba, features)}
    if numpy:
        arrays = numpy.asarray(proba), numpy.asarray(features)
        turns["collect(arrays)"] = collects(monitor.collect, *arrays)
        turns["collect(arrays, timestamp)"] = stamped(monitor.collect, *arrays, time.time())
    return turns


def copies(places, source, clock=time.perf_counter_ns):
    for place in itertools.cycle(places):
        start = clock()
        place[:] = source
        yield clock() - start


def collects(collect, proba, features, clock=time.perf_counter_ns):
    while True:
        start = clock()
        collect(proba, features)
        yield clock() - start


def stamped(collect, proba, features, now, clock=time.perf_counter_ns):
    while True:
        start = clock()
        collect(proba, features, timestamp=now)
        yield clock() - start


def nothing(clock=time.perf_counter_ns):
    while True:
        start = clock()
        yield clock() - start


def compare(monitor, turns, calls, rounds):
    """By name of the subject: for each round the sorted times of yardstick and subject."""
    overhead = statistics.median(itertools.islice(nothing(), 10_000))
    compared = {name: [] for name in turns if name != YARDSTICK}
    for name, pairs in compared.items():
        for turn in range(rounds):
            pair = {}
            for one in (YARDSTICK, name)[:: 1 - turn % 2 * 2]:
                wait_until_drained(monitor)
                pair[one] = sorted(max(0, ns - overhead) for ns in itertools.islice(turns[one], calls))
            pairs.append((pair[YARDSTICK], pair[name]))
    wait_until_drained(monitor)
    return compared


def print_rows(size, compared):
    print_row(size, YARDSTICK, [yardstick for pairs in compared.values() for yardstick, _ in pairs], "1")
    for name, pairs in compared.items():
        ratios = [percentile(subject, 0.5) / percentile(yardstick, 0.5) for yardstick, subject in pairs]
        print_row(size, name, [subject for _, subject in pairs], spread(ratios))


def print_row(size, name, rounds, ratio):
    every = sorted(itertools.chain.from_iterable(rounds))
    p50, p99, p999 = (percentile(every, share) for share in (0.5, 0.99, 0.999))
    print(f"| {size} | {name} | {p50:.0f} | {p99:.0f} | {p999:.0f} | {ratio} |")


def percentile(ordered, share):
    return ordered[max(1, math.ceil(len(ordered) * share)) - 1]


def spread(values):
    values = sorted(values)
    low, middle, high = (values[round((len(values) - 1) * share)] for share in (0.25, 0.5, 0.75))
    return f"{middle:.2f} [{low:.2f}, {high:.2f}]"


# ---- memory ----


def places_of(directory, step, size):
    """Views into shared memory of the ring's size, placed as the ring places its records."""
    with tempfile.TemporaryFile(dir=directory) as file:
        file.truncate(RING_BYTES)
        memory = memoryview(mmap.mmap(file.fileno(), RING_BYTES))
    memory[:] = b"1" * RING_BYTES
    return [memory[at + 64 : at + 64 + size] for at in range(0, RING_BYTES - step + 1, step)]


def wait_until_drained(monitor):
    """The positions of producer and sidecar lie where docs/wire-format.md says."""
    deadline = time.monotonic() + 30
    with open(monitor.path, "rb", buffering=0) as ring:
        producer_off, consumer_off = word(ring, 32), word(ring, 40)
        while word(ring, producer_off) != word(ring, consumer_off):
            if time.monotonic() > deadline:
                sys.exit("the sidecar does not drain the ring: does it run?")
            time.sleep(0.0005)


def word(file, at):
    return struct.unpack("<Q", os.pread(file.fileno(), 8, at))[0]


def assert_nothing_was_lost(monitor, written):
    counters = monitor.counters
    if counters["dropped_records"] or counters["records"] != written:
        sys.exit(f"want {written} records and none dropped, or the numbers above are wrong: {counters}")


if __name__ == "__main__":
    main()
