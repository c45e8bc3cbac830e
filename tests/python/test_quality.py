"""Scores, errors and estimates through a real ring and the real sidecar are scikit-learn's."""

import json
import subprocess

import mlwatch
import numpy as np
import pytest
from sklearn import metrics
from sklearn.datasets import load_breast_cancer, load_digits
from sklearn.model_selection import train_test_split
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


@pytest.fixture
def report(watch, ring_dir, run_sidecar):
    def report(batches, references=None, **options):
        monitor = watch("m", dtype="f64", **options)
        for batch in batches:
            assert monitor.collect(*batch)
        compared = ("--reference", references) if references else ()
        with run_sidecar("--period", "24h", *compared, ring_dir=ring_dir) as sidecar:
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


def averages(truth, proba, average):
    """scikit-learn's over the columns in which both outcomes are."""
    both = [k for k in range(proba.shape[1]) if 0 < truth[:, k].sum() < len(truth)]
    scores = metrics.roc_auc_score, metrics.average_precision_score
    return [score(truth[:, both], proba[:, both], average=average) for score in scores], len(both)


def check_averages(scores, truth, proba, names):
    for average in ("macro", "weighted"):
        (auroc, precision), n = averages(truth, proba, average)
        said = scores[average]
        assert said["n_classes"] == n
        assert abs(said["auroc"] - auroc) <= said["auroc_error"] + 1e-12
        assert abs(said["average_precision"] - precision) <= said["average_precision_error"] + 1e-12
    assert scores["left_out"] == [name for k, name in enumerate(names) if truth[:, k].all() or not truth[:, k].any()]


def test_averages_are_scikit_learns_over_the_classes_with_both_outcomes(report):
    proba, labels = skewed(5)
    labels[labels == 3] = 1
    scores = report([(proba, None, labels)], n_classes=5, class_names=list("abcde"))["scores"]
    check_averages(scores, np.eye(5)[labels], proba, "abcde")
    assert scores["left_out"] == ["d"]
    assert 0 < scores["macro"]["auroc_error"] < 0.01


def test_averages_of_two_classes_are_those_of_class_1(report):
    proba, labels = skewed(2)
    scores = report([(proba, None, labels)], n_classes=2)["scores"]
    for average in ("macro", "weighted"):
        said = scores[average]
        assert said["n_classes"] == 1
        assert abs(said["auroc"] - metrics.roc_auc_score(labels, proba[:, 1])) <= said["auroc_error"] + 1e-12
        assert abs(said["average_precision"] - metrics.average_precision_score(labels, proba[:, 1])) <= said["average_precision_error"] + 1e-12
    assert scores["left_out"] == []


def test_one_hot_labels_and_indices_give_the_same_report_but_for_its_time(report):
    proba, labels = skewed(3, rows=400)
    first = report([(proba, None, labels)], n_classes=3)
    second = report([(proba, None, np.eye(3, dtype=np.uint8)[labels])], n_classes=3, version="one-hot")
    for what in ("scores", "estimated"):
        assert first[what] == second[what]


def test_several_labels_a_row_are_scored_one_against_the_rest(report):
    rng = np.random.default_rng(7)
    proba = rng.random((900, 3))
    sets = (rng.random(proba.shape) < proba).astype(np.uint8)
    said = report([(proba, None, sets)], n_classes=3, class_names=list("abc"))
    scores, labels, predicted = said["scores"], said["labels"], proba.argmax(axis=1)
    check_averages(scores, sets, proba, "abc")
    for k, of in enumerate(scores["classes"]):
        assert of["n"] == len(proba)
        assert of["bias"] == pytest.approx(proba[:, k].mean() - sets[:, k].mean(), abs=1e-12)
        assert labels["classes"][k]["precision"] == pytest.approx(metrics.precision_score(sets[:, k], predicted == k), abs=1e-12)
    assert labels["single_rows"] == (sets.sum(axis=1) == 1).sum() > 100
    none = {"accuracy": None, "balanced_accuracy": None, "mcc": None, "confusion": None}
    assert {what: labels[what] for what in none} == none
    assert {labels["accuracy_reason"], *(labels["reasons"][what] for what in none if what != "accuracy")} == {"multi_label"}
    assert (scores["n"], scores["log_loss"], scores["brier"], scores["reason"]) == (0, None, None, "multi_label")
    calibration = scores["calibration"]
    assert (calibration["n"], calibration["ece"], calibration["equal_mass_ece"], calibration["reason"]) == (0, None, None, "multi_label")
    estimated = said["estimated"]
    assert (estimated["labelled_n"], estimated["estimated_minus_realised"]) == (0, None)
    assert estimated["estimated_minus_realised_reason"] == "multi_label"


@pytest.mark.parametrize(("dirty", "is_multi_label"), [(9, False), (10, True)])
def test_a_few_dirty_rows_with_two_labels_do_not_make_a_classifier_multi_label(report, dirty, is_multi_label):
    proba, labels = skewed(3, rows=900)
    sets = np.eye(3, dtype=np.uint8)[labels]
    sets[:dirty] = [1, 1, 0]
    said = report([(proba, None, sets)], n_classes=3, segments=True)
    right = None if is_multi_label else pytest.approx((proba[dirty:].argmax(axis=1) == labels[dirty:]).mean(), abs=1e-12)
    assert (said["labels"]["accuracy"], said["labels"]["single_rows"]) == (right, 900 - dirty)
    assert (said["labels"]["confusion"] is None) == (said["scores"]["brier"] is None) == is_multi_label
    (segment,) = said["segments"]
    assert (segment["accuracy"], segment.get("accuracy_reason")) == (right, "multi_label" if is_multi_label else None)


@pytest.mark.parametrize("taught", ["sets", "classes"])
def test_rows_of_one_label_among_rows_of_several_are_no_concept_drift(report, taught, mlwatch_bin, tmp_path, monkeypatch):
    monkeypatch.setenv("MLWATCH_BIN", str(mlwatch_bin))
    rng = np.random.default_rng(17)
    proba = rng.random((3000, 4))
    sets = (rng.random(proba.shape) < proba).astype(np.uint8)
    of_sets = taught == "sets"
    mlwatch.Reference.fit(proba=proba, y=sets if of_sets else proba.argmax(axis=1), model="m").save(tmp_path / "m.mlwref")
    shown = subprocess.run([mlwatch_bin, "reference", "show", "--json", tmp_path / "m.mlwref"], check=True, capture_output=True)
    quality = json.loads(shown.stdout)["quality"]
    assert (quality["n"], quality["single_rows"] == 3000, quality["accuracy"] is None) == (3000, not of_sets, of_sets)
    said = report([(proba[:1000], None, sets[:1000])], tmp_path, n_classes=4)["estimated"]
    learned = [said[of] for of in ("concept_drift", "accuracy_drift", "average_thresholded_confidence", "difference_of_confidence")]
    for of in learned[:2]:
        assert (of["value"], of["n"], of.get("verdict"), of["reason"]) == (None, 0, None, "not_comparable" if of_sets else "multi_label")
    for of in learned[2:]:
        assert of["estimated_minus_realised"] is None
        assert of.get("reason") or of["estimated_minus_realised_reason"] == "multi_label"


def test_rows_of_nan_count_in_no_score(report):
    proba, labels = skewed(3, rows=600)
    gaps = proba.copy()
    gaps[::5, 1] = np.nan
    valid = ~np.isnan(gaps).any(axis=1)
    said = report([(gaps, None, labels)], n_classes=3)
    scores, p, y = said["scores"], proba[valid], labels[valid]
    assert (scores["n"], said["labels"]["rows"], said["labels"]["scored_rows"]) == (len(y), len(labels), len(y))
    assert scores["log_loss"] == pytest.approx(metrics.log_loss(y, p, labels=range(3)), rel=1e-9)
    check_averages(scores, np.eye(3)[y], p, ["class_0", "class_1", "class_2"])
    assert said["estimated"]["n"] == len(y)


def test_ties_count_half_and_the_first_of_the_largest_is_predicted(report):
    rng = np.random.default_rng(8)
    proba = np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])[rng.integers(0, 4, 500)]
    labels = rng.integers(0, 3, 500).astype(np.int32)
    said = report([(proba, None, labels)], n_classes=3)
    for k, said_of in enumerate(said["scores"]["classes"]):
        # Equal scores share a bin, and different ones do not.
        assert said_of["auroc"] == pytest.approx(metrics.roc_auc_score(labels == k, proba[:, k]), abs=1e-12)
        assert said_of["average_precision"] == pytest.approx(metrics.average_precision_score(labels == k, proba[:, k]), abs=1e-12)
    assert said["labels"]["accuracy"] == pytest.approx(metrics.accuracy_score(labels, proba.argmax(axis=1)), abs=1e-12)


def test_estimates_by_class_are_sums_of_probabilities(report):
    proba, _ = skewed(4, rows=700)
    estimated = report([(proba,)], n_classes=4)["estimated"]
    predicted = proba.argmax(axis=1)
    for k, said in enumerate(estimated["classes"]):
        taken, p = predicted == k, proba[:, k]
        hits = p[taken].sum()
        assert said["predicted"] == taken.sum()
        assert said["true_positives"] == pytest.approx(hits, rel=1e-9)
        assert said["precision"] == pytest.approx(hits / taken.sum(), rel=1e-9)
        assert said["recall"] == pytest.approx(hits / p.sum(), rel=1e-9)
        assert said["f1"] == pytest.approx(2 * hits / (taken.sum() + p.sum()), rel=1e-9)
        # Every row is p positive and 1 - p negative.
        twice = np.concatenate([p, p])
        expected = metrics.roc_auc_score(np.repeat([1, 0], len(p)), twice, sample_weight=np.concatenate([p, 1 - p]))
        assert abs(said["auroc"] - expected) <= said["auroc_error"] + 1e-12
    right = proba.max(axis=1)
    assert estimated["accuracy_error"] == pytest.approx(np.sqrt((right * (1 - right)).sum()) / len(right), rel=1e-9)


def test_estimates_of_a_calibrated_model_are_within_their_error_of_what_is_real(report):
    """Labels are drawn from the probabilities, so the estimate is off by a sum of independent errors, each within [-1, 1]."""
    rng = np.random.default_rng(9)
    proba = rng.dirichlet(np.full(10, 0.3), 4000)
    labels = (proba.cumsum(axis=1) < rng.random((4000, 1))).sum(axis=1).clip(0, 9).astype(np.int32)
    said = report([(proba, None, labels)], n_classes=10)
    estimated, accuracy = said["estimated"], said["labels"]["accuracy"]
    assert estimated["accuracy"] == pytest.approx(proba.max(axis=1).mean(), rel=1e-9)
    assert estimated["estimated_minus_realised"] == pytest.approx(estimated["accuracy"] - accuracy, abs=1e-9)
    # By Bernstein's inequality less than one in ten thousand such samples is farther off.
    variance, log = (estimated["accuracy_error"] * 4000) ** 2, np.log(2e4)
    bound = (log / 3 + np.sqrt(log**2 / 9 + 2 * variance * log)) / 4000
    assert abs(estimated["estimated_minus_realised"]) < bound < 0.05


@pytest.mark.parametrize("load", [load_digits, load_breast_cancer])
def test_a_reference_with_labels_corrects_an_overconfident_model(report, tmp_path, mlwatch_bin, monkeypatch, load):
    monkeypatch.setenv("MLWATCH_BIN", str(mlwatch_bin))
    data = load()
    # Little to learn from, and features taken as independent that are not: surer than right.
    learn, rest, y_learn, y_rest = train_test_split(data.data, data.target, train_size=0.2, random_state=0, stratify=data.target)
    known, unseen, y_known, y = train_test_split(rest, y_rest, test_size=0.5, random_state=1, stratify=y_rest)
    model = make_pipeline(StandardScaler(), GaussianNB(var_smoothing=1e-3)).fit(learn, y_learn)
    before, now = model.predict_proba(known), model.predict_proba(unseen)
    classes = before.shape[1]
    mlwatch.Reference.fit(proba=before, y=y_known.astype(np.int32), model="m").save(tmp_path / "m.mlwref")
    labels = y.astype(np.int32)
    estimated = report([(now, None, labels)], references=tmp_path, n_classes=classes)["estimated"]
    accuracy, accuracy_before = (model.predict(x) == truth for x, truth in ((unseen, y), (known, y_known)))
    accuracy, accuracy_before = accuracy.mean(), accuracy_before.mean()
    assert estimated["calibrated"]
    # On data that nobody made up, split by chance.
    assert [estimated[drift]["verdict"] for drift in ("concept_drift", "accuracy_drift")] == ["ok", "ok"]
    raw, calibrated = (abs(said - accuracy) for said in (now.max(axis=1).mean(), estimated["accuracy"]))
    assert calibrated < raw, (calibrated, raw)
    assert estimated["estimated_minus_realised"] == pytest.approx(estimated["accuracy"] - accuracy, abs=1e-9)
    atc, doc = estimated["average_thresholded_confidence"], estimated["difference_of_confidence"]
    assert atc["reference_n"] == doc["reference_n"] == len(before)
    assert atc["accuracy"] == pytest.approx((now.max(axis=1) >= atc["threshold"]).mean(), abs=1e-12)
    assert atc["estimated_minus_realised"] == pytest.approx(atc["accuracy"] - accuracy, abs=1e-12)
    confidence = before.max(axis=1)
    # No threshold comes closer, at which the reference itself would be as right as it was.
    sides = [(confidence >= t).mean() for t in (*np.unique(confidence), np.inf)]
    nearest = min(abs(side - accuracy_before) for side in sides)
    assert abs((confidence >= atc["threshold"]).mean() - accuracy_before) == pytest.approx(nearest, abs=1e-12)
    assert doc["accuracy"] == pytest.approx(accuracy_before - (confidence.mean() - now.max(axis=1).mean()), abs=1e-9)
    assert doc["estimated_minus_realised"] == pytest.approx(doc["accuracy"] - accuracy, abs=1e-9)
