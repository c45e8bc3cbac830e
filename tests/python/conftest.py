"""A ring directory in memory, and the real sidecar run on one."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import mlwatch
import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 30  # seconds until a condition is given up


@contextlib.contextmanager
def memory_dir():
    path = Path(tempfile.mkdtemp(prefix="mlwatch-test-", dir="/dev/shm"))
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def ring_dir():
    with memory_dir() as path:
        yield path


@pytest.fixture
def watch(ring_dir):
    """Opens Monitors that raise what they would otherwise log, so that a test that means to succeed says why it did not."""
    with contextlib.ExitStack() as open_ones:

        def watch(model="m", n_classes=3, strict=True, ring_bytes=1 << 20, **options):
            monitor = mlwatch.Monitor(model, n_classes=n_classes, strict=strict, ring_bytes=ring_bytes, dir=ring_dir, **options)
            return open_ones.enter_context(monitor)

        yield watch


class Sidecar:
    """A running `mlwatch run`. Its reports and its log are in `output`."""

    def __init__(self, binary, ring_dir, output, *options):
        self.binary, self.ring_dir, self.output = binary, ring_dir, output
        self.log = output / "sidecar.log"
        with open(self.log, "a") as log:
            command = [binary, "run", "--dir", ring_dir, "--output", output, *options]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_until(self, condition, what):
        """The first true value of `condition()`."""
        deadline = time.monotonic() + PATIENCE
        while not (value := condition()):
            assert self.process.poll() is None, f"the sidecar ended before {what}:\n{self.log.read_text()}"
            assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain until {what}:\n{self.log.read_text()}"
            time.sleep(0.02)
        return value

    def inspect(self, ring):
        return json.loads(subprocess.run([self.binary, "inspect", "--json", ring], check=True, capture_output=True).stdout)

    def wait_drained(self, ring):
        def drained():
            seen = self.inspect(ring)
            return seen["head"] == seen["tail"]

        self.wait_until(drained, f"{ring} is drained")

    def stop(self, how=signal.SIGTERM):
        """An orderly stop: rings drained, open periods reported."""
        self.process.send_signal(how)
        status = self.process.wait(PATIENCE)
        assert status == 0, f"the sidecar ended with {status}:\n{self.log.read_text()}"

    def kill(self):
        self.process.kill()
        self.process.wait()

    def lines(self, pattern):
        """Whole lines of the report files, oldest first. The last one may still be under way."""
        texts = [line for path in sorted(self.output.glob(pattern)) for line in path.read_text().splitlines(keepends=True)]
        return [text[:-1] for text in texts if text.endswith("\n")]

    def reports(self):
        return [json.loads(line) for line in self.lines("metrics-*.jsonl")]

    def mlwatcher_lines(self):
        return self.lines("*_MLmetrics.json")


@pytest.fixture(scope="session")
def mlwatch_bin():
    path = Path(os.environ.get("MLWATCH_BIN") or ROOT / "target" / "debug" / "mlwatch")
    if not path.is_file():
        pytest.fail(f"there is no sidecar at {path}: run `cargo build`, or name one in MLWATCH_BIN")
    return path.absolute()


@pytest.fixture(scope="session")
def run_sidecar(mlwatch_bin, tmp_path_factory):
    """`with run_sidecar("--period", "1s") as sidecar:` in directories of its own, or those given to go on in."""

    @contextlib.contextmanager
    def run(*options, ring_dir=None, output=None):
        with contextlib.ExitStack() as cleanup:
            rings = ring_dir or cleanup.enter_context(memory_dir())
            sidecar = Sidecar(mlwatch_bin, rings, output or tmp_path_factory.mktemp("reports"), *options)
            cleanup.callback(sidecar.kill)
            yield sidecar

    return run
