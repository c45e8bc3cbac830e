"""Scores, errors and estimates through a real ring and the real sidecar are scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


@pytest.fixture
def report(watch, ring_dir, run_sidecar):
    def report(batches, **options):
        monitor = watch("m", dtype="f64", **options)
        for batch in batches:
            assert monitor.collect(*batch)
        with run_sidecar("--period", "24h", ring_dir=ring_dir) as sidecar:
            sidecar.wait_drained(monitor.path)
            sidecar.stop()
            (report,) = [report for report in sidecar.reports() if report["rows"]]
        return report

    return report


def skewed(classes, rows=2000, seed=1):
    """Probabilities, and labels that follow them roughly."""
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(classes, 0.5), rows)
    drawn = np.array([rng.choice(classes, p=p) for p in proba])
    return proba, np.where(rng.random(rows) < 0.2, rng.integers(0, classes, rows), drawn).astype(np.int32)


@pytest.mark.parametrize("classes", [2, 3, 10])
def test_scores_are_scikit_learns(report, classes):
    proba, labels = skewed(classes)
    half = len(proba) // 2
    said = report([(proba[:half], None, labels[:half]), (proba[half:], None, labels[half:]), (proba[:50],)], n_classes=classes)
    scores = said["scores"]
    assert scores["n"] == len(labels)
    assert scores["log_loss"] == pytest.approx(metrics.log_loss(labels, proba, labels=range(classes)), rel=1e-9)
    one_hot = np.eye(classes)[labels]
    brier = ((proba - one_hot) ** 2).sum(axis=1).mean() / (2 if classes == 2 else 1)
    assert scores["brier"] == pytest.approx(brier, rel=1e-9)
    for k, said_of in enumerate(scores["classes"]):
        truth = labels == k
        assert abs(said_of["auroc"] - metrics.roc_auc_score(truth, proba[:, k])) <= said_of["auroc_error"] + 1e-12
        precision = metrics.average_precision_score(truth, proba[:, k])
        assert abs(said_of["average_precision"] - precision) <= said_of["average_precision_error"] + 1e-12
        assert said_of["auroc_error"] < 0.01 and said_of["average_precision_error"] < 0.05
        assert said_of["bias"] == pytest.approx(proba[:, k].mean() - truth.mean(), abs=1e-12)
    confidence, right = proba.max(axis=1), proba.argmax(axis=1) == labels
    bins = np.minimum((confidence * 15).astype(int), 14)
    gaps = [(np.mean(bins == b), abs(confidence[bins == b].mean() - right[bins == b].mean())) for b in np.unique(bins)]
    calibration = scores["calibration"]
    assert calibration["ece"] == pytest.approx(sum(share * gap for share, gap in gaps), abs=1e-9)
    assert calibration["mce"] == pytest.approx(max(gap for _, gap in gaps), abs=1e-9)
    assert [b["n"] for b in calibration["bins"]] == np.bincount(bins, minlength=15).tolist()


def test_one_class_and_no_labels_and_too_many_classes_say_why(report):
    said = report([([[0.7, 0.3]] * 5, None, [0] * 5)], n_classes=2)
    assert [c["reason"] for c in said["scores"]["classes"]] == ["single_class"] * 2
    assert said["scores"]["classes"][0]["auroc"] is None


def test_without_labels_there_are_estimates_only(report):
    said = report([([[0.9, 0.1], [0.2, 0.8]],)], n_classes=2)
    assert (said["scores"]["log_loss"], said["scores"]["reason"], said["errors"]) == (None, "no_labels", [])
    assert said["estimated"]["accuracy"] == pytest.approx(0.85)
    assert said["estimated"]["estimated_minus_realised"] is None


def test_more_than_64_classes_are_not_ranked_and_say_so(report):
    proba, labels = skewed(70, rows=300)
    said = report([(proba, None, labels)], n_classes=70)
    assert {c["reason"] for c in said["scores"]["classes"]} == {"too_many_classes"}
    assert said["scores"]["log_loss"] == pytest.approx(metrics.log_loss(labels, proba, labels=range(70)), rel=1e-9)
    assert said["estimated"]["reason"] == "too_many_classes"


def test_errors_of_a_regression_are_scikit_learns(report):
    rng = np.random.default_rng(2)
    targets = np.column_stack([rng.normal(1e6, 1, 500), rng.integers(0, 4, 500).astype(float)])
    outputs = targets + rng.normal(0, 0.5, targets.shape)
    missing = targets.copy()
    missing[::7, 0] = np.nan
    said = report([(outputs, None, missing)], n_classes=2, task="regression", class_names=["price", "count"])
    assert said["scores"] is None and said["estimated"] is None
    for j, errors in enumerate(said["errors"]):
        known = ~np.isnan(missing[:, j])
        y, e = missing[known, j], outputs[known, j]
        assert (errors["n"], errors["missing"]) == (known.sum(), (~known).sum())
        assert errors["mean_error"] == pytest.approx((e - y).mean(), rel=1e-6)
        assert errors["mean_absolute_error"] == pytest.approx(metrics.mean_absolute_error(y, e), rel=1e-9)
        assert errors["root_mean_square_error"] == pytest.approx(metrics.root_mean_squared_error(y, e), rel=1e-9)
        assert errors["r2"] == pytest.approx(metrics.r2_score(y, e), rel=1e-6)
        relative = metrics.mean_absolute_percentage_error(y[y != 0], e[y != 0])
        assert errors["mean_absolute_percentage_error"] == pytest.approx(relative, rel=1e-9)
        assert errors["zero_targets"] == (y == 0).sum()


def test_estimates_of_a_calibrated_model_are_within_their_error_of_what_is_real(report):
    digits = load_digits()
    known, unseen, known_labels, labels = train_test_split(digits.data, digits.target, test_size=0.5, random_state=0)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(known, known_labels)
    proba = model.predict_proba(unseen)
    said = report([(proba, None, labels.astype(np.int32))], n_classes=10)
    estimated, accuracy = said["estimated"], said["labels"]["accuracy"]
    assert estimated["accuracy"] == pytest.approx(proba.max(axis=1).mean(), rel=1e-9)
    assert estimated["estimated_minus_realised"] == pytest.approx(estimated["accuracy"] - accuracy, abs=1e-9)
    # Nearly calibrated: three standard errors, and two points that it is too modest by.
    assert abs(estimated["estimated_minus_realised"]) < 3 * estimated["accuracy_error"] + 0.02
