"""What mlwatch says of predictions, through a real ring and the real sidecar."""

from datetime import datetime

import numpy as np
import pytest


@pytest.fixture
def report(watch, run_sidecar, ring_dir):
    def report(batches, *arguments, **options):
        monitor = watch("m", **options)
        for batch in batches:
            assert monitor.collect(**batch)
        with run_sidecar("--period", "24h", *arguments, ring_dir=ring_dir) as sidecar:
            sidecar.wait_drained(monitor.path)
            sidecar.stop()
            (report,) = [report for report in sidecar.reports() if report["rows"]]
        return report

    return report


def test_the_first_row_of_each_fault_is_named(report):
    good = [[0.5, 0.5]] * 3
    batches = [good, [*good, [np.nan, 1], [np.nan, 1]], good, [[0.7, 0.7], [1.5, -0.5]], [[np.inf, 0], [1, np.nan]]]
    start = 1.7e9
    timed = [dict(proba=rows, timestamp=start + i) for i, rows in enumerate(batches)]
    said = report(timed, n_classes=2, instance="pod-7")["predictions"]
    firsts = said["first_invalid"]
    places = {first["kind"]: (first["sequence"] - firsts[0]["sequence"], first["row"]) for first in firsts}
    assert places == {"nan": (0, 3), "inf": (3, 0), "out_of_range": (2, 1), "not_normalised": (2, 0)}
    assert {first["instance"] for first in firsts} == {"pod-7"}
    times = {first["kind"]: datetime.fromisoformat(first["time"]).timestamp() - start for first in firsts}
    assert times == {"nan": 1, "inf": 4, "out_of_range": 3, "not_normalised": 3}
    assert (said["nan_rows"], said["inf_rows"]) == (3, 1)


def test_a_fault_is_said_in_the_log_once_a_kind_and_period(watch, run_sidecar, ring_dir):
    monitor = watch("m", n_classes=2)
    for _ in range(500):
        assert monitor.collect([[np.nan, 0.5], [3, 0.5]])
    with run_sidecar("--period", "24h", ring_dir=ring_dir) as sidecar:
        sidecar.wait_drained(monitor.path)
        sidecar.stop()
        assert sidecar.log.read_text().count("its probabilities are not") == 1
