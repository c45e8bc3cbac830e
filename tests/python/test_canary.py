"""Two versions of a model through real rings: the differences are scipy's and Newcombe's, and few rows have no verdict."""

from math import hypot, sqrt

import numpy as np
import pytest
from scipy import stats

NAMES = ["no", "maybe", "yes"]


def answers(rows, seed, sharpness):
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, rows)
    scores = rng.normal(size=(rows, 3)) + sharpness * np.eye(3)[truth]
    proba = np.exp(scores)
    return proba / proba.sum(axis=1, keepdims=True), truth.astype(np.int32)


@pytest.fixture
def compared(watch, ring_dir, run_sidecar):
    """What the report of the version that comes later by its bytes says of the other: that version's name, and its canary."""

    def compared(versions):
        monitors = {}
        for version, (proba, labels, ids) in versions.items():
            monitors[version] = watch("m", version=version, dtype="f64", class_names=NAMES)
            assert monitors[version].collect(proba, labels=labels, ids=ids)
        with run_sidecar("--period", "24h", ring_dir=ring_dir) as sidecar:
            for monitor in monitors.values():
                sidecar.wait_drained(monitor.path)
            sidecar.stop()
            reports = [report for report in sidecar.reports() if report["rows"] and report["canary"]]
        (report,) = reports
        (canary,) = report["canary"]
        return report["version"], canary

    return compared


def wilson(part, whole, z=1.959963984540054):
    p, z2 = part / whole, z * z / whole
    half = z * sqrt(p * (1 - p) / whole + z2 / (4 * whole))
    return p, (p + z2 / 2 - half) / (1 + z2), (p + z2 / 2 + half) / (1 + z2)


def newcombe(a, b):
    (p, p_low, p_high), (q, q_low, q_high) = wilson(*a), wilson(*b)
    return p - q, p - q - hypot(p - p_low, q_high - q), p - q + hypot(p_high - p, q - q_low)


def confidence_and_margin(proba):
    ordered = np.sort(proba, axis=1)
    return ordered[:, -1], ordered[:, -1] - ordered[:, -2]


def test_two_versions_differ_as_scipy_and_newcombe_say(compared):
    ids = np.arange(700, dtype=np.uint64)
    versions = {"1": (*answers(700, 1, 3.0), ids), "2": (*answers(900, 2, 1.0), np.arange(300, 1200, dtype=np.uint64))}
    this, canary = compared(versions)
    other = canary["version"]
    assert (this, other) == ("2", "1")
    (mine, my_labels, my_ids), (theirs, their_labels, their_ids) = versions[this], versions[other]
    assert canary["rows"] == len(theirs)
    assert (canary["class_mix"]["n"], canary["class_mix"]["n_other"]) == (len(mine), len(theirs))
    assert len(canary["bins_hash"]) == 8
    p = []
    for name, a, b in zip(("confidence_ks", "margin_ks"), confidence_and_margin(mine), confidence_and_margin(theirs), strict=True):
        assert canary[name]["value"] == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1e-12)
        assert (canary[name]["n"], canary[name]["n_other"]) == (len(a), len(b))
        # Stephens' correction against the plain asymptote: both say that chance is out of the question.
        assert canary[name]["p"] < 1e-6 and stats.ks_2samp(a, b, method="asymp").pvalue < 1e-6
        p.append(canary[name]["p"])
    assert [canary[name]["q"] for name in ("confidence_ks", "margin_ks")] == pytest.approx(stats.false_discovery_control(p), rel=1e-9)
    counts = [np.bincount(proba.argmax(axis=1), minlength=3) + 0.5 for proba in (mine, theirs)]
    now, then = (count / count.sum() for count in counts)
    assert canary["class_mix"]["value"] == pytest.approx(((now - then) * np.log(now / then)).sum(), rel=1e-9)
    right = [((proba.argmax(axis=1) == labels).sum(), len(labels)) for proba, labels in ((mine, my_labels), (theirs, their_labels))]
    difference = canary["accuracy_difference"]
    assert [difference[end] for end in ("value", "low", "high")] == pytest.approx(newcombe(*right), abs=1e-12)
    assert (difference["n"], difference["n_other"]) == (len(mine), len(theirs))
    (a, n), (b, m) = right
    pooled, apart = (a + b) / (n + m), abs(a / n - b / m) - (1 / n + 1 / m) / 2
    assert abs(difference["z"]) == pytest.approx(apart / sqrt(pooled * (1 - pooled) * (1 / n + 1 / m)), rel=1e-9)
    both = np.intersect1d(my_ids, their_ids)
    same = [proba.argmax(axis=1)[np.isin(own, both)] for proba, own in ((mine, my_ids), (theirs, their_ids))]
    agreement = canary["agreement"]
    assert agreement["n"] == len(both)
    assert [agreement[end] for end in ("value", "low", "high")] == pytest.approx(wilson((same[0] == same[1]).sum(), len(both)), abs=1e-12)
    assert difference["verdict"] == canary["verdict"] == "alert"


def test_few_rows_have_values_and_no_verdict(compared):
    versions = {version: (*answers(rows, rows, 2.0), None) for version, rows in (("1", 20), ("2", 500))}
    _, canary = compared(versions)
    for name in ("class_mix", "confidence_ks", "margin_ks", "accuracy_difference"):
        assert canary[name]["reason"] == "too_few" and canary[name]["value"] is not None
        assert "verdict" not in canary[name]
    assert canary["verdict"] is None


def test_few_labels_have_an_interval_and_no_verdict(compared):
    versions = {}
    for version, sharpness in (("1", 4.0), ("2", 0.0)):
        proba, labels = answers(500, 3, sharpness)
        labels[10:] = -1
        versions[version] = (proba, labels, None)
    this, canary = compared(versions)
    right = {version: int((proba.argmax(axis=1)[:10] == labels[:10]).sum()) for version, (proba, labels, _) in versions.items()}
    difference = canary["accuracy_difference"]
    want = newcombe((right[this], 10), (right[canary["version"]], 10))
    assert [difference[end] for end in ("value", "low", "high")] == pytest.approx(want, abs=1e-12)
    assert (difference["n"], difference["n_other"], difference["reason"]) == (10, 10, "too_few")
    assert canary["confidence_ks"]["verdict"] == "alert"


def test_without_labels_and_ids_it_says_so(compared):
    proba, _ = answers(200, 5, 1.0)
    _, canary = compared({"1": (proba, None, None), "2": (proba, None, None)})
    assert canary["accuracy_difference"]["reason"] == "no_labels"
    assert canary["agreement"]["reason"] == "no_ids"
    assert canary["class_mix"]["value"] == canary["confidence_ks"]["value"] == 0
    assert canary["verdict"] == "ok"
