"""Preloading servers and multiprocessing: whoever writes has a ring of its own, however it came to its Monitor."""

import contextlib
import copy
import http.client
import json
import multiprocessing
import os
import pickle
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mlwatch
import pytest
from conftest import PATIENCE, wait_until
from inputs import ROWS_3
from ring_reader import Ring, ring_of

# ---- gunicorn ----

WORKERS = 3


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = os.fspath(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Server:
    """gunicorn and its workers; `written` counts the rows that they say are in their rings."""

    def __init__(self, ring_dir, place):
        self.socket, self.log, self.written = place / "socket", place / "log", 0
        command = [sys.executable, "-m", "gunicorn", "--preload", f"--workers={WORKERS}", f"--bind=unix:{self.socket}"]
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(
                [*command, "gunicorn_app:app"],
                cwd=Path(__file__).parent,
                env={**os.environ, "MLWATCH_DIR": os.fspath(ring_dir)},
                stdout=log,
                stderr=log,
            )

    def is_alive(self):
        assert self.process.poll() is None, f"gunicorn has ended:\n{self.log.read_text()}"

    def _ask(self, rows):
        with contextlib.closing(Connection(self.socket)) as connection:
            connection.request("GET", f"/?{rows}")
            return json.load(connection.getresponse())

    def ask_all(self, rows):
        """Asks until every worker has answered. Worker → ring."""
        rings = {}

        def asked():
            with ThreadPoolExecutor(4 * WORKERS) as pool:
                for answer in pool.map(self._ask, [rows] * 4 * WORKERS):
                    assert answer["written"]
                    assert rings.setdefault(answer["worker"], answer["ring"]) == answer["ring"]
                    self.written += rows
            return len(rings) == WORKERS

        wait_until(asked, "every worker has answered", self.is_alive)
        return rings

    def kill(self, workers):
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        wait_until(lambda: not any(Path(f"/proc/{worker}").exists() for worker in workers), "they are gone", self.is_alive)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(PATIENCE) == 0


@pytest.fixture
def server(ring_dir, tmp_path):
    server = Server(ring_dir, tmp_path)
    try:
        wait_until(server.socket.exists, "gunicorn listens", server.is_alive)
        yield server
    finally:
        server.process.kill()
        server.process.wait()


def test_every_worker_of_a_preloading_gunicorn_has_a_ring_of_its_own(server, ring_dir):
    masters = ring_dir / "served.0.ring"
    first = server.ask_all(rows=3)
    assert len(set(first.values())) == WORKERS and str(masters) not in first.values()
    server.kill(first)
    second = server.ask_all(rows=2)
    assert set(second).isdisjoint(first) and set(second.values()) == set(first.values())
    assert Ring(masters).rows == 5 and Ring(masters).state == 1
    server.stop()
    rings = [Ring(path) for path in sorted(ring_dir.iterdir())]
    assert [ring.rows for ring in rings] == [sum(record.rows for record in ring.records) for ring in rings]
    assert sum(ring.rows for ring in rings) == 5 + server.written
    assert [ring.attach_epoch for ring in rings] == [1] + [2] * WORKERS


# ---- multiprocessing ----


def collect_in_child(monitor, rows, answers, together):
    if isinstance(monitor, dict):
        monitor = mlwatch.Monitor(**monitor)
    answers.put((rows, monitor.collect(ROWS_3[:rows]), monitor.path))
    together.wait()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_children_of_every_start_method_have_rings_of_their_own(watch, ring_dir, method):
    monitor = watch()
    monitor.collect(ROWS_3)
    context = multiprocessing.get_context(method)
    answers, together = context.SimpleQueue(), context.Barrier(2)
    given = monitor if method == "fork" else {"model": "m", "n_classes": 3, "dir": ring_dir, "ring_bytes": 1 << 20}
    children = [context.Process(target=collect_in_child, args=(given, rows, answers, together)) for rows in (1, 2)]
    for child in children:
        child.start()
    for rows, written, ring in (answers.get(), answers.get()):
        assert written and Ring(ring).rows == rows
    for child in children:
        child.join()
        assert child.exitcode == 0
    assert ring_of(monitor).rows == 3 and len(os.listdir(ring_dir)) == 3


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_monitor_is_not_handed_to_a_child_that_does_not_inherit_it(watch, method):
    context = multiprocessing.get_context(method)
    child = context.Process(target=collect_in_child, args=(watch(), 1, None, None))
    with pytest.raises(TypeError, match="open one in the child"):
        child.start()


@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, pickle.dumps, lambda m: pickle.dumps(m, protocol=0)])
def test_a_monitor_is_neither_pickled_nor_copied(watch, duplicate):
    monitor = watch()
    with pytest.raises(TypeError, match="its ring belongs to this process"):
        duplicate(monitor)
    assert monitor.collect(ROWS_3)
