"""Entropy, low confidence and first faults through a real ring and the real sidecar: scipy's and numpy's numbers."""

import json
import subprocess
from datetime import datetime

import mlwatch
import numpy as np
import pytest
from scipy import stats


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


def drawn(classes, dtype, rows=1500, seed=1, sureness=0.3):
    return np.random.default_rng(seed).dirichlet(np.full(classes, sureness), rows).astype(dtype)


def entropy_of(proba):
    proba = np.asarray(proba, dtype=float)
    return stats.entropy(proba, axis=1) / np.log(proba.shape[1])


@pytest.mark.parametrize("dtype", ["f32", "f64"])
@pytest.mark.parametrize("classes", [2, 3, 10, 300])
def test_entropy_is_scipys(report, classes, dtype):
    proba = drawn(classes, {"f32": "f4", "f64": "f8"}[dtype])
    proba[0] = np.eye(classes)[0]
    proba[1] = 1 / classes
    said = report([dict(proba=half) for half in np.split(proba, 2)], n_classes=classes, dtype=dtype, ring_bytes=1 << 24)
    entropy, want = said["predictions"]["entropy"], entropy_of(proba)
    assert entropy["n"] == entropy["sampled"] == len(proba)
    for statistic, value in [("mean", want.mean()), ("std", want.std()), ("min", 0), ("max", 1), ("range", 1)]:
        assert entropy[statistic] == pytest.approx(value, abs=1e-6), statistic
    for share in (1, 5, 25, 50, 75, 95, 99):
        assert entropy[f"q{share:02}"] == pytest.approx(np.quantile(want, share / 100), abs=1e-6)


def test_a_row_that_is_none_has_no_entropy_and_one_off_its_range_a_finite_one(report):
    rows = [[0.5, 0.5], [np.nan, 0.5], [np.inf, 0], [1e308, -1e308], [-1, 2], [1, 0]]
    said = report([dict(proba=rows)], n_classes=2, dtype="f64")["predictions"]
    assert (said["entropy"]["n"], said["invalid_rows"]) == (4, 2)
    assert said["entropy"]["mean"] == pytest.approx(0.25, abs=1e-6), "beyond its range a probability is the range's end"


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_the_share_of_low_confidence_has_wilsons_interval(report, dtype):
    proba = drawn(4, {"f32": "f4", "f64": "f8"}[dtype], sureness=0.7)
    proba[:3] = [[0.6, 0.4, 0, 0], [0.59, 0.41, 0, 0], [np.nan, 0, 0, 0]]
    said = report([dict(proba=proba)], n_classes=4, dtype=dtype)["predictions"]
    confidence = proba[~np.isnan(proba).any(axis=1)].max(axis=1).astype(float)
    low = int((confidence < 0.6).sum())
    assert said["low_confidence_rows"] == low > 100
    assert said["low_confidence_share"] == pytest.approx(low / len(confidence), rel=1e-12)
    interval = stats.binomtest(low, len(confidence)).proportion_ci(0.95, method="wilson")
    assert said["low_confidence_share_low"] == pytest.approx(interval.low, rel=1e-9)
    assert said["low_confidence_share_high"] == pytest.approx(interval.high, rel=1e-9)
    assert "low_confidence_reason" not in said


def test_without_a_valid_row_there_is_a_reason(report):
    said = report([dict(proba=[[np.nan, 1]])], n_classes=2)["predictions"]
    assert (said["low_confidence_share"], said["low_confidence_reason"]) == (None, "empty")
    assert (said["entropy"]["mean"], said["entropy"]["reason"]) == (None, "empty")


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


def test_rows_that_never_sum_to_1_are_said_once_and_not_every_period(watch, run_sidecar, ring_dir):
    monitor = watch("m", n_classes=2)
    with run_sidecar("--period", "1s", ring_dir=ring_dir) as sidecar:
        for n in (1, 2, 3):
            assert monitor.collect([[0.9, 0.8], [0.1, 0.3]])
            said = sidecar.wait_until(lambda: [r for r in sidecar.reports() if r["rows"]][n - 1 :], f"report {n}")
            assert said[-1]["predictions"]["not_normalised_rows"] == 2
        assert sidecar.log.read_text().count("its probabilities are not") == 1
        assert monitor.collect([[np.nan, 0.8]])
        sidecar.wait_drained(monitor.path)
        sidecar.stop()
        assert sidecar.log.read_text().count("its probabilities are not") == 2, "another kind is news"


def test_entropy_has_its_place_in_references_and_in_drift(report, mlwatch_bin, tmp_path, monkeypatch):
    monkeypatch.setenv("MLWATCH_BIN", str(mlwatch_bin))
    then, now = drawn(3, "f8", sureness=1), drawn(3, "f8", rows=700, seed=2, sureness=0.4)
    mlwatch.Reference.fit(None, then, model="m").save(tmp_path / "m.mlwref")
    shown = json.loads(subprocess.run([mlwatch_bin, "reference", "show", "--json", tmp_path / "m.mlwref"], check=True, capture_output=True).stdout)
    (frozen,) = [column for column in shown["columns"] if column["of"] == "entropy"]
    assert frozen["mean"] == pytest.approx(entropy_of(then).mean(), abs=1e-6)
    drift = report([dict(proba=now)], "--reference", tmp_path, n_classes=3, dtype="f64")["drift"]
    (column,) = [column for column in drift["columns"] if column["of"] == "entropy"]
    assert column["ks"]["value"] == pytest.approx(stats.ks_2samp(entropy_of(then), entropy_of(now)).statistic, abs=1 / 1000)
    distance = stats.wasserstein_distance(entropy_of(then), entropy_of(now)) / entropy_of(then).std()
    assert column["w1"]["value"] == pytest.approx(distance, abs=5e-3)
    assert (column["n"], column["reference_n"], column["verdict"]) == (700, 1500, "alert")
