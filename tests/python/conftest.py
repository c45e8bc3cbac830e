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


def wait_until(condition, what, see_to=lambda: None):
    """The first true value of `condition()`. `see_to` raises when there is nothing left to wait for."""
    deadline = time.monotonic() + PATIENCE
    while not (value := condition()):
        see_to()
        assert time.monotonic() < deadline, f"waited {PATIENCE} s in vain until {what}"
        time.sleep(0.02)
    return value


class Sidecar:
    """A running `mlwatch run`. Its reports and its log are in `output`."""

    def __init__(self, binary, ring_dir, output, *options, prefix=()):
        self.binary, self.ring_dir, self.output = binary, ring_dir, output
        self.log = output / "sidecar.log"
        with open(self.log, "a") as log:
            command = [*prefix, binary, "run", "--dir", ring_dir, "--output", output, *options]
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def wait_until(self, condition, what):
        """The first true value of `condition()`."""

        def is_alive():
            assert self.process.poll() is None, "the sidecar has ended"

        try:
            return wait_until(condition, what, is_alive)
        except AssertionError as why:
            raise AssertionError(f"{why}; {what}; its log:\n{self.log.read_text()}") from None

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
    """`with run_sidecar("--period", "1s") as sidecar:` in directories of its own, or those given to go on in.

    `prefix` is what starts it: unshare or setpriv and their options."""

    @contextlib.contextmanager
    def run(*options, ring_dir=None, output=None, prefix=(), binary=mlwatch_bin):
        with contextlib.ExitStack() as cleanup:
            rings = ring_dir or cleanup.enter_context(memory_dir())
            sidecar = Sidecar(binary, rings, output or tmp_path_factory.mktemp("reports"), *options, prefix=prefix)
            cleanup.callback(sidecar.kill)
            yield sidecar

    return run
