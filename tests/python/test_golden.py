"""What MLWatcher 1.0 answers, mlwatch answers too, from Python through a ring to the report files; or it differs on purpose.

The purposes are the tests named after them. Everything else is compared with MLWatcher's own answers in tests/data/golden.
"""

import json
import time
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path

import mlwatch
import numpy as np
import pytest

GOLDEN = Path(__file__).resolve().parents[1] / "data" / "golden"
SCENARIOS = sorted(path.stem for path in GOLDEN.glob("*.npz"))
DTYPES = {"f32": np.float32, "f64": np.float64}
ONE_PERIOD = "1000000h"  # from 1970 to 2084: no test run ever sees its end
VERSION = "1.0"
QUALITY = ["accuracy", "precision", "recall", "f1"]


# ---- MLWatcher's answers ----


@dataclass
class Scenario:
    n_classes: int
    threshold: float
    proba: np.ndarray | None
    features: np.ndarray | None
    labels: np.ndarray | None
    metrics: dict | None
    records: list | None

    def survives(self, dtype):
        """Whether every number is one of the ring's dtype."""
        arrays = [a for a in (self.proba, self.features) if a is not None]
        return all(np.array_equal(a.astype(DTYPES[dtype]).astype(a.dtype), a, equal_nan=True) for a in arrays)

    def seen_as(self, dtype):
        """proba and features as the sidecar sees them: rounded to the ring's dtype, then widened."""
        return [None if a is None else a.astype(DTYPES[dtype]).astype(np.float64) for a in (self.proba, self.features)]


@cache
def scenario(name):
    arrays, golden = np.load(GOLDEN / f"{name}.npz"), json.loads((GOLDEN / f"{name}.json").read_text())
    sections = (arrays.get(key) for key in ("predict_proba", "features", "labels"))
    return Scenario(int(arrays["n_classes"]), float(arrays["threshold"]), *sections, golden["metrics"], golden["records"])


# ---- ours ----


@dataclass
class Answer:
    report: dict  # of the native format
    lines: list  # of MLWatcher's format, as text

    @property
    def records(self):
        return [json.loads(line) for line in self.lines]

    def values(self, what, stat=None):
        """By class, or by feature, or the only one."""
        found = [r for r in self.records if r["properties"]["what"] == what and r["properties"].get("stat") == stat]
        return [r["value"] for r in found]


def model_name(name, dtype):
    return f"{name}-{dtype}"


def monitor_of(sidecar, name, dtype, version=""):
    given = scenario(name)
    return mlwatch.Monitor(
        model_name(name, dtype),
        version=version,
        n_classes=given.n_classes,
        n_features=0 if given.features is None else given.features.shape[1],
        threshold=given.threshold,
        dtype=dtype,
        dir=sidecar.ring_dir,
        ring_bytes=1 << 20,
        strict=True,
    )


def collect(sidecar, name, dtype):
    """In three batches if there are rows enough. The ring's path."""
    given = scenario(name)
    with monitor_of(sidecar, name, dtype, VERSION) as monitor:
        for rows in np.array_split(np.arange(len(given.proba)), min(3, len(given.proba))):
            features, labels = (None if a is None else a[rows] for a in (given.features, given.labels))
            monitor.collect(given.proba[rows], features=features, labels=labels)
        return monitor.path


def answers_of(sidecar):
    by_model = {report["model"]: Answer(report, []) for report in sidecar.reports()}
    for line in sidecar.mlwatcher_lines():
        by_model[json.loads(line)["tags"]["model"]].lines.append(line)
    return by_model


@pytest.fixture(scope="module")
def answers(run_sidecar):
    """Every scenario through rings of every dtype, each a model of its own, in one run of the sidecar."""
    options = ["--period", ONE_PERIOD, "--format", "native,mlwatcher", "--agent-id", "golden"]
    with run_sidecar(*options) as sidecar:
        rings = [collect(sidecar, name, dtype) for name in SCENARIOS for dtype in DTYPES if scenario(name).proba is not None]
        for ring in rings:
            sidecar.wait_drained(ring)
        sidecar.stop()
        assert len(sidecar.reports()) == len(rings), "one report a model"
        by_model = answers_of(sidecar)
    return lambda name, dtype: by_model[model_name(name, dtype)]


# ---- an oracle: MLWatcher's metrics, right also where MLWatcher is not ----


def summary(values):
    """Of the values that are there."""
    x = values[np.isfinite(values)]
    q25, q50, q75 = np.quantile(x, [0.25, 0.5, 0.75])
    return {
        "mean": x.mean(), "median": q50, "std": x.std(), "range": x.max() - x.min(),
        "q25": q25, "q50": q50, "q75": q75, "iqr": q75 - q25,
    }  # fmt: skip


def predicted(proba, threshold):
    return (proba[:, 1] > threshold).astype(int) if proba.shape[1] == 2 else proba.argmax(axis=1)


def ratio(part, whole):
    return part / whole if whole else 0.0


def quality(is_predicted, is_actual):
    hits = (is_predicted & is_actual).sum()
    return {
        "accuracy": (is_predicted == is_actual).mean(),
        "precision": ratio(hits, is_predicted.sum()),
        "recall": ratio(hits, is_actual.sum()),
        "f1": ratio(2 * hits, is_predicted.sum() + is_actual.sum()),
    }


def oracle(name, dtype):
    """By MLWatcher's own keys, in its order."""
    given = scenario(name)
    proba, features = given.seen_as(dtype)
    classes = range(given.n_classes)
    answer = {}
    for j in range(0 if features is None else features.shape[1]):
        answer |= {f"feat_{j}_{stat}": value for stat, value in summary(features[:, j]).items()}
    chosen = predicted(proba, given.threshold)
    answer |= {f"pred_class_{k}_freq": (chosen == k).mean() for k in classes}
    answer |= {f"pred_class_{k}_count": (chosen == k).sum() for k in classes}
    answer["buffer_count"] = len(proba)
    largest_first = np.sort(proba, axis=1)[:, ::-1]
    answer |= {f"pred_proba_first_{s}": v for s, v in summary(largest_first[:, 0]).items()}
    answer |= {f"pred_proba_spread_{s}": v for s, v in summary(largest_first[:, 0] - largest_first[:, 1]).items()}
    if given.labels is not None:
        one_hot = given.labels.ndim == 2 and given.labels.shape[1] > 1
        actual = given.labels.argmax(axis=1) if one_hot else given.labels.ravel()
        for k in classes:
            answer |= {f"class_{k}_{what}": value for what, value in quality(chosen == k, actual == k).items()}
    return answer


# ---- comparing ----


def identity(record):
    """What a record is about, in the order of its properties. The agent is the test's."""
    return list(record["properties"].items())


def key(record):
    """MLWatcher's own key, which it does not write."""
    p = record["properties"]
    what, of_class, feature, stat = p["what"], p.get("class_name"), p.get("feat_name"), p.get("stat")
    return {
        "feature_value": f"{feature}_{stat}",
        "prediction_freq": f"pred_{of_class}_freq",
        "prediction_count": f"pred_{of_class}_count",
        "buffer_count": "buffer_count",
        "max_prediction_proba": f"pred_proba_first_{stat}",
        "spread12_prediction_proba": f"pred_proba_spread_{stat}",
    }.get(what, f"{of_class}_{what}")


def scale_of(name, dtype, key):
    _, features = scenario(name).seen_as(dtype)
    is_feature = features is not None and key.startswith("feat_")
    return np.nanmax(np.abs(features[:, int(key.split("_")[1])])) if is_feature else 1.0


def exactly(name, dtype):
    """Where the sidecar sees the very numbers: but for the order of a sum, and in f32 the last digits of what is summed of features."""

    def summed(key):
        of_f32 = dtype == "f32" and key.startswith("feat_") and key.endswith(("_mean", "_std"))
        return {"rel": 1e-6, "abs": 1e-6 * scale_of(name, dtype, key)} if of_f32 else {"rel": 1e-9, "abs": 0}

    return summed


def tolerance(name, dtype):
    """Widening loses nothing; rounding to f32 costs up to 6e-8 of a value, and differences carry that of what they subtract."""
    if scenario(name).survives(dtype):
        return exactly(name, dtype)
    return lambda key: {"rel": 1e-6, "abs": 1e-6 * scale_of(name, dtype, key)}


def assert_equal(got, expected, allowed):
    """Both by key; the order counts."""
    assert list(got) == list(expected)
    wrong = [k for k, value in expected.items() if got[k] != pytest.approx(value, **allowed(k))]
    assert not wrong, {k: (got[k], expected[k]) for k in wrong}


def by_key(records):
    return {key(record): record["value"] for record in records}


DIFFERING = {"top_tie", "FAIL_all_equal_row", "NAN_feature", "empty_period"}
SAME = [name for name in SCENARIOS if name not in DIFFERING]
SAME_RUNS = [(name, dtype) for name in SAME for dtype in DTYPES if (name, dtype) != ("bin_thr03_equal_f64", "f32")]
every_dtype = pytest.mark.parametrize("dtype", DTYPES)


# ---- the same answers ----


@pytest.mark.parametrize(("name", "dtype"), SAME_RUNS)
def test_values_are_those_of_mlwatcher(answers, name, dtype):
    records = answers(name, dtype).records
    assert len(records) == len(scenario(name).metrics)
    assert_equal(by_key(records), scenario(name).metrics, tolerance(name, dtype))


@pytest.mark.parametrize(("name", "dtype"), SAME_RUNS)
def test_values_are_exact_for_the_numbers_that_the_ring_holds(answers, name, dtype):
    assert_equal(by_key(answers(name, dtype).records), oracle(name, dtype), exactly(name, dtype))


@pytest.mark.parametrize(("name", "dtype"), SAME_RUNS)
def test_records_and_their_properties_have_mlwatchers_order(answers, name, dtype):
    ours, theirs = answers(name, dtype).records, scenario(name).records
    assert [identity(r) for r in ours] == [identity(r) for r in theirs]
    assert all(list(r) == ["tags", "timestamp", "value", "properties"] for r in ours)


@pytest.mark.parametrize("name", SAME)
def test_the_oracle_of_these_tests_agrees_with_mlwatcher(name):
    assert_equal(oracle(name, "f64"), scenario(name).metrics, tolerance(name, "f64"))


@every_dtype
def test_one_hot_labels_and_a_column_of_integers_give_the_same(answers, dtype):
    one_hot, column = answers("c4_lab_onehot", dtype), answers("c4_lab_col_int", dtype)
    assert by_key(one_hot.records) == by_key(column.records)
    assert one_hot.report["labels"] == column.report["labels"]


@pytest.mark.parametrize(("name", "dtype"), SAME_RUNS)
def test_the_native_report_says_the_same_as_mlwatchers_format(answers, name, dtype):
    answer = answers(name, dtype)
    report, stats = answer.report, ["mean", "median", "std", "range", "q25", "q50", "q75", "iqr"]
    assert answer.values("buffer_count") == [report["rows"]] == [report["sampled_rows"]]
    assert answer.values("prediction_count") == [c["count"] for c in report["predictions"]["classes"]]
    for stat in stats:
        assert answer.values("max_prediction_proba", stat) == [report["predictions"]["confidence"][stat]]
        assert answer.values("spread12_prediction_proba", stat) == [report["predictions"]["margin"][stat]]
        assert answer.values("feature_value", stat) == [f[stat] for f in report["features"]]
    for what in QUALITY:
        assert answer.values(what) == [c[what] if c[what] is not None else 0.0 for c in report["labels"]["classes"]]


# ---- different on purpose ----


@every_dtype
def test_a_tie_at_the_top_has_margin_zero(answers, dtype):
    answer = answers("top_tie", dtype)
    assert scenario("top_tie").metrics["pred_proba_spread_mean"] == 0.25, "MLWatcher takes the next distinct value"
    assert answer.report["predictions"]["tie_rows"] == 2
    assert answer.report["predictions"]["margin"]["min"] == 0
    assert_equal(by_key(answer.records), oracle("top_tie", dtype), exactly("top_tie", dtype))


@every_dtype
def test_a_tied_row_is_predicted_as_its_first_class_only(answers, dtype):
    answer = answers("top_tie", dtype)
    assert scenario("top_tie").metrics["class_1_recall"] == 1, "MLWatcher counts a row for every tied class"
    # Rows 0 and 2 tie: predicted 0, 2, 1, 2; actual 0, 2, 1, 2.
    assert answer.values("prediction_count") == [1, 1, 2]
    assert all(answer.values(what) == [1, 1, 1] for what in QUALITY)


@every_dtype
def test_all_but_margin_and_quality_of_a_tie_is_mlwatchers(answers, dtype):
    ours, theirs = answers("top_tie", dtype).records, scenario("top_tie").records
    assert [identity(r) for r in ours] == [identity(r) for r in theirs]

    def undisputed(records):
        return by_key(r for r in records if r["properties"]["what"] not in ["spread12_prediction_proba", *QUALITY])

    assert_equal(undisputed(ours), undisputed(theirs), tolerance("top_tie", dtype))


@every_dtype
def test_a_row_of_equal_probabilities_does_not_lose_the_period(answers, dtype):
    answer = answers("FAIL_all_equal_row", dtype)
    assert scenario("FAIL_all_equal_row").metrics is None, "MLWatcher loses it"
    assert (answer.report["rows"], answer.report["predictions"]["tie_rows"]) == (2, 1)
    assert answer.report["predictions"]["margin"]["min"] == 0
    assert answer.values("prediction_count") == [1, 0, 1]
    assert_equal(by_key(answer.records), oracle("FAIL_all_equal_row", dtype), exactly("FAIL_all_equal_row", dtype))


@every_dtype
def test_a_missing_value_is_counted_and_does_not_poison_its_column(answers, dtype):
    answer = answers("NAN_feature", dtype)
    _, poisoned = answer.report["features"]
    values = scenario("NAN_feature").features[:, 1]
    assert scenario("NAN_feature").metrics["feat_1_mean"] is None, "MLWatcher says NaN"
    assert (poisoned["n"], poisoned["missing"], poisoned["sampled"]) == (2, 1, 2)
    assert (poisoned["mean"], poisoned["std"]) == (np.nanmean(values), np.nanstd(values))
    assert (poisoned["min"], poisoned["max"], poisoned["range"]) == (1, 3, np.nanmax(values) - np.nanmin(values))
    assert [poisoned[q] for q in ("q25", "q50", "q75")] == list(np.nanquantile(values, [0.25, 0.5, 0.75]))
    assert_equal(by_key(answer.records), oracle("NAN_feature", dtype), exactly("NAN_feature", dtype))


@every_dtype
def test_a_missing_value_changes_no_other_column(answers, dtype):
    ours, theirs = answers("NAN_feature", dtype).records, scenario("NAN_feature").records
    assert [identity(r) for r in ours] == [identity(r) for r in theirs]

    def undisputed(records):
        return by_key(r for r in records if r["properties"].get("feat_name") != "feat_1")

    assert_equal(undisputed(ours), undisputed(theirs), tolerance("NAN_feature", dtype))


@every_dtype
def test_zero_over_zero_is_null_with_a_reason_in_the_native_report(answers, dtype):
    answer = answers("c4_lab_constant", dtype)
    present, *absent = answer.report["labels"]["classes"]
    assert (present["support"], present["recall"] is None) == (50, False)
    for of_class in absent:
        assert (of_class["support"], of_class["recall"], of_class["reasons"]["recall"]) == (0, None, "no_actual_positive")
    assert answer.values("recall")[1:] == [0, 0, 0], "MLWatcher's format keeps its 0"


def test_a_probability_at_the_threshold_may_cross_it_in_a_ring_of_f32(answers):
    exact, rounded = (answers("bin_thr03_equal_f64", dtype) for dtype in ("f64", "f32"))
    at_threshold = (scenario("bin_thr03_equal_f64").proba[:, 1] == 0.3).sum()
    assert (at_threshold, float(np.float32(0.3)) > 0.3) == (4, True)
    counts = [answer.values("prediction_count") for answer in (exact, rounded)]
    assert counts[1] == [counts[0][0] - at_threshold, counts[0][1] + at_threshold]
    assert_equal(by_key(rounded.records), oracle("bin_thr03_equal_f64", "f32"), exactly("bin_thr03_equal_f64", "f32"))


def test_records_carry_the_model_its_version_and_when_a_stop_cut_the_period_short(answers):
    for name, dtype in SAME_RUNS:
        answer = answers(name, dtype)
        assert all(time.time() - 600 < r["timestamp"] <= time.time() for r in answer.records)
        assert all(r["tags"] == {"model": model_name(name, dtype), "version": VERSION} for r in answer.records)
        assert answer.report["partial"] is True, "SIGTERM came before the end"


# ---- files ----


@every_dtype
def test_every_line_is_json_which_mlwatchers_are_not(answers, dtype):
    theirs = (GOLDEN / "one_row.MLmetrics.raw").read_text().splitlines()
    for line in theirs:
        with pytest.raises(json.JSONDecodeError):
            json.loads(line)
    ours = answers("one_row", dtype).lines
    for our_line, their_line in zip(ours, theirs, strict=True):
        our, their = json.loads(our_line), json.loads(their_line.removesuffix(","))
        assert list(our) == list(their)
        assert identity(our) == identity(their)
        assert our["value"] == pytest.approx(their["value"], **tolerance("one_row", dtype)(key(our)))


# ---- nothing at all ----


@pytest.fixture(scope="module", params=DTYPES)
def empty_period(request, run_sidecar):
    """A whole period in which a Monitor was open and collected nothing."""
    with run_sidecar("--period", "300ms", "--format", "native,mlwatcher", "--agent-id", "golden") as sidecar:
        with monitor_of(sidecar, "empty_period", request.param):
            wanted = len(scenario("empty_period").metrics)
            sidecar.wait_until(lambda: len(sidecar.mlwatcher_lines()) >= wanted, "an empty period is reported")
            whole = sidecar.wait_until(lambda: [r for r in sidecar.reports() if not r["partial"]], "a whole period is reported")
        return Answer(whole[0], sidecar.mlwatcher_lines()[:wanted])


def test_a_period_without_rows_is_reported_while_a_producer_is_there(empty_period):
    report = empty_period.report
    assert (report["rows"], report["records"], report["sampled_rows"], report["labels"]["rows"]) == (0, 0, 0, 0)
    assert report["predictions"]["confidence"]["mean"] is None
    assert report["predictions"]["confidence"]["reason"] == "empty"
    assert [c["frequency"] for c in report["predictions"]["classes"]] == [None, None, None]


def test_a_period_without_rows_has_counts_of_zero_and_nothing_else_as_in_mlwatcher(empty_period):
    theirs = scenario("empty_period")
    assert by_key(empty_period.records) == theirs.metrics
    assert [identity(r) for r in empty_period.records] == [identity(r) for r in theirs.records]


def test_an_empty_version_is_no_tag(empty_period):
    assert {tuple(r["tags"]) for r in empty_period.records} == {("model",)}


def test_the_records_of_a_whole_period_carry_its_end(run_sidecar):
    with run_sidecar("--period", "1s", "--format", "native,mlwatcher") as sidecar:
        with monitor_of(sidecar, "empty_period", "f32"):
            whole = sidecar.wait_until(lambda: [r for r in sidecar.reports() if not r["partial"]], "a whole period is reported")
            end = datetime.fromisoformat(whole[0]["end"]).timestamp()
            sidecar.wait_until(
                lambda: end in {json.loads(line)["timestamp"] for line in sidecar.mlwatcher_lines()},
                "it is in MLWatcher's format",
            )
