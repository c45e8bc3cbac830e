"""A real Python process and the real sidecar, and what becomes of the one when the other dies."""

import json
import signal
import subprocess
import sys

SERVICE = """
import signal, sys, mlwatch
signal.signal(signal.SIGTERM, lambda *_: sys.exit())
with mlwatch.Monitor("mortal", n_classes=2, n_features=1, dir=sys.argv[1], ring_bytes=1 << 16) as monitor:
    while True:
        if monitor.collect([[0.25, 0.75]] * 3, features=[[1.0]] * 3):
            print("written", flush=True)
"""


def serve_and_end(ring_dir, batches, how=signal.SIGKILL):
    """Runs until so many batches are acknowledged, then the signal. How many were acknowledged after all."""
    service = subprocess.Popen([sys.executable, "-c", SERVICE, ring_dir], stdout=subprocess.PIPE, text=True)
    for _ in range(batches):
        assert service.stdout.readline() == "written\n"
    service.send_signal(how)
    rest = service.stdout.read()
    service.wait()
    return batches + rest.count("written\n")


def test_a_python_process_killed_and_closed_in_turn_loses_no_acknowledged_row(run_sidecar):
    restarts = 50
    with run_sidecar("--period", "24h") as sidecar:
        ends = [(1 + 7 * i % 60, signal.SIGTERM if i % 2 else signal.SIGKILL) for i in range(restarts)]
        acknowledged = sum(serve_and_end(sidecar.ring_dir, batches, how) for batches, how in ends)
        (ring,) = sidecar.ring_dir.glob("*.ring")
        sidecar.wait_drained(ring)
        assert sidecar.inspect(ring)["producer_epoch"] == restarts
        sidecar.stop()
        reports = sidecar.reports()
    rows = sum(report["rows"] for report in reports)
    # An end may come after the record is in the ring and before it is acknowledged.
    assert 3 * acknowledged <= rows <= 3 * (acknowledged + restarts)
    assert {report["predictions"]["classes"][1]["count"] for report in reports} == {rows}
    assert reports[0]["features"][0]["mean"] == 1.0


def test_a_producer_that_comes_late_or_never_disturbs_nothing(run_sidecar):
    with run_sidecar("--period", "200ms") as sidecar:
        sidecar.wait_until(lambda: "waiting for rings" in sidecar.log.read_text(), "it waits")
        assert serve_and_end(sidecar.ring_dir, 5) >= 5
        sidecar.wait_until(lambda: sum(r["rows"] for r in sidecar.reports()) >= 15, "the rows are reported")
        sidecar.stop()


def test_health_says_how_far_behind_producers_and_reports_are(watch, ring_dir, run_sidecar):
    monitor = watch("m", n_classes=2)
    with run_sidecar("--period", "1s", ring_dir=ring_dir) as sidecar:
        assert monitor.collect([[0.25, 0.75]] * 3)
        sidecar.wait_drained(monitor.path)

        def health():
            path = sidecar.output / "health.json"
            said = json.loads(path.read_text()) if path.exists() else None
            return said if said and said["period_lateness"]["n"] else None

        said = sidecar.wait_until(health, "a period was reported")
        assert said["bytes"] >= sidecar.inspect(monitor.path)["counters"]["bytes"] > 0
        assert said["lag_bytes"] == 0
        assert said["producer_heartbeat_age"]["n"] == 1 and 0 < said["producer_heartbeat_age"]["most_seconds"] < 60
        assert 0 <= said["period_lateness"]["last_seconds"] <= said["period_lateness"]["most_seconds"] < 60
        sidecar.process.send_signal(signal.SIGSTOP)
        assert monitor.collect([[0.25, 0.75]] * 5)
        unread = sidecar.inspect(monitor.path)["used"]
        assert unread > 0
        sidecar.process.send_signal(signal.SIGCONT)
        monitor.close()
        sidecar.stop()
    assert json.loads((sidecar.output / "health.json").read_text())["bytes"] == said["bytes"] + unread


def test_inspect_says_the_same_of_memory_as_text_and_as_json(watch, mlwatch_bin):
    monitor = watch("m", n_classes=2, n_features=5, reservoir=100)
    memory = json.loads(subprocess.run([mlwatch_bin, "inspect", "--json", monitor.path], check=True, capture_output=True).stdout)["memory"]
    text = subprocess.run([mlwatch_bin, "inspect", monitor.path], check=True, capture_output=True, text=True).stdout
    assert memory["sampled_rows"] == 100 and memory["profile_bytes_at_most"] > 100 * 7 * 4
    assert f"a profile takes {memory['profile_bytes_at_most']} bytes at most, with 100 sampled rows" in text
