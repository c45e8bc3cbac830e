"""A real Python process and the real sidecar, and what becomes of the one when the other dies."""

import subprocess
import sys

SERVICE = """
import sys, mlwatch
monitor = mlwatch.Monitor("mortal", n_classes=2, n_features=1, dir=sys.argv[1], ring_bytes=1 << 16)
while True:
    if monitor.collect([[0.25, 0.75]] * 3, features=[[1.0]] * 3):
        print("written", flush=True)
"""


def serve_and_kill(ring_dir, batches):
    """Runs until so many batches are acknowledged, then SIGKILL. How many were acknowledged after all."""
    service = subprocess.Popen([sys.executable, "-c", SERVICE, ring_dir], stdout=subprocess.PIPE, text=True)
    for _ in range(batches):
        assert service.stdout.readline() == "written\n"
    service.kill()
    rest = service.stdout.read()
    service.wait()
    return batches + rest.count("written\n")


def test_a_killed_python_process_loses_no_acknowledged_row(run_sidecar):
    kills = 8
    with run_sidecar("--period", "24h") as sidecar:
        acknowledged = sum(serve_and_kill(sidecar.ring_dir, 10 + 7 * i) for i in range(kills))
        (ring,) = sidecar.ring_dir.glob("*.ring")
        sidecar.wait_drained(ring)
        sidecar.stop()
        reports = sidecar.reports()
    rows = sum(report["rows"] for report in reports)
    # A kill may come after the record is in the ring and before it is acknowledged.
    assert 3 * acknowledged <= rows <= 3 * (acknowledged + kills)
    assert {report["predictions"]["classes"][1]["count"] for report in reports} == {rows}
    assert reports[0]["features"][0]["mean"] == 1.0


def test_a_producer_that_comes_late_or_never_disturbs_nothing(run_sidecar):
    with run_sidecar("--period", "200ms") as sidecar:
        sidecar.wait_until(lambda: "waiting for rings" in sidecar.log.read_text(), "it waits")
        assert serve_and_kill(sidecar.ring_dir, 5) >= 5
        sidecar.wait_until(lambda: sum(r["rows"] for r in sidecar.reports()) >= 15, "the rows are reported")
        sidecar.stop()
