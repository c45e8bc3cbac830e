"""What mlwatch knows of features, through a real ring and the real sidecar."""

import mlwatch
import numpy as np
import pytest


def report_of(run_sidecar, batches, arguments=("--period", "24h"), **options):
    """The one report of a model that was fed `batches`: the arguments of collect."""
    with run_sidecar(*arguments) as sidecar:
        with mlwatch.Monitor("m", strict=True, dir=sidecar.ring_dir, ring_bytes=1 << 22, **options) as monitor:
            for batch in batches:
                assert monitor.collect(**batch)
                sidecar.wait_drained(monitor.path)
        sidecar.stop()
        (report,) = sidecar.reports()
    return report


# ---- categorical features ----


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_a_categorical_feature_is_counted_as_numpy_counts_it(run_sidecar, dtype):
    codes = np.random.default_rng(1).integers(0, 200, (5000, 1)).astype(float)
    codes[::50] = np.nan
    options = dict(n_classes=0, n_features=1, feature_kinds=["categorical"], dtype=dtype)
    (feature,) = report_of(run_sidecar, [dict(proba=None, features=codes)], **options)["features"]
    values, counts = np.unique(codes[~np.isnan(codes)], return_counts=True)
    assert {v["value"]: v["count"] for v in feature["values"]} == dict(zip(values, counts))
    assert (feature["distinct"], feature["distinct_error"], feature["other_count"]) == (len(values), 0, 0)
    assert feature["missing"] == 100 and feature["n"] == 4900
    most = sorted(zip(counts, -values), reverse=True)[:20]
    assert [(t["count"], -t["value"], t["over_at_most"]) for t in feature["top"]] == [(n, v, 0) for n, v in most]
    assert feature["top"][0]["frequency"] == most[0][0] / 4900


def test_a_value_that_comes_late_and_often_is_named_and_the_distinct_ones_are_estimated(run_sidecar):
    rng = np.random.default_rng(2)
    early = rng.permutation(30_000)
    late = np.concatenate([np.full(2000, 99_999), rng.integers(0, 30_000, 8000)])
    codes = [c.astype(float)[:, None] for c in (early, rng.permutation(late))]
    options = dict(n_classes=0, n_features=1, feature_kinds=["categorical"])
    (feature,) = report_of(run_sidecar, [dict(proba=None, features=c) for c in codes], **options)["features"]
    first = feature["top"][0]
    assert first["value"] == 99_999 and first["count"] - first["over_at_most"] <= 2000 <= first["count"]
    assert first["over_at_most"] <= feature["other_count"] / 256
    assert len(feature["values"]) == 256 and sum(v["count"] for v in feature["values"]) + feature["other_count"] == 40_000
    assert abs(feature["distinct"] - 30_001) <= 4 * feature["distinct_error"] * 30_001
    assert len(feature["top"]) == 20 and feature["distinct_error"] == pytest.approx(1.04 / 64)


# ---- embeddings ----


def test_an_embedding_has_the_norms_of_its_whole_rows_and_its_columns_stay_features(run_sidecar):
    rng = np.random.default_rng(3)
    features = rng.normal(size=(4000, 13)).astype(np.float32)
    features[::40, 2] = np.nan
    names = ["age", *(f"text_{i}" for i in range(8)), *(f"image[{i}]" for i in range(4))]
    kinds = ["numerical"] + ["embedding"] * 12
    options = dict(n_classes=0, n_features=13, feature_names=names, feature_kinds=kinds)
    report = report_of(run_sidecar, [dict(proba=None, features=part) for part in np.split(features, [1, 1000])], **options)
    assert [f["kind"] for f in report["features"]] == kinds
    text, image = report["embeddings"]
    assert [(e["name"], e["first_feature"], e["dimensions"], e["incomplete_rows"]) for e in report["embeddings"]] == [
        ("text", 1, 8, 100),
        ("image", 9, 4, 0),
    ]
    for embedding, columns in [(text, slice(1, 9)), (image, slice(9, 13))]:
        norms = np.linalg.norm(features[:, columns].astype(np.float64), axis=1)
        norms = norms[np.isfinite(norms)]
        norm = embedding["norm"]
        assert norm["n"] == norm["sampled"] == len(norms)
        got = [norm[key] for key in ["mean", "std", "min", "max", "median", "q95"]]
        want = [norms.mean(), norms.std(), norms.min(), norms.max(), np.median(norms), np.quantile(norms, 0.95)]
        assert got == pytest.approx(want, rel=1e-9)
        first = embedding["first_feature"]
        centroid = [f["mean"] for f in report["features"][first : first + embedding["dimensions"]]]
        assert centroid == pytest.approx(np.nanmean(features[:, columns].astype(np.float64), axis=0), abs=1e-6)


# ---- segments ----


def expected(segments, proba, labels):
    """Each segment's rows, class counts, confidence, scored rows and accuracy."""
    answer = {}
    for segment in np.unique(segments):
        mine = segments == segment
        confidence, predicted = proba[mine].max(axis=1), proba[mine].argmax(axis=1)
        scored = labels[mine] >= 0
        right = (predicted == labels[mine])[scored]
        answer[str(segment)] = (
            int(mine.sum()), np.bincount(predicted, minlength=3).tolist(), confidence.mean(), confidence.std(), int(scored.sum()),
            right.mean() if len(right) else None,
        )  # fmt: skip
    return answer


def found(report):
    def numbers(s):
        return s["rows"], s["class_counts"], s["confidence"]["mean"], s["confidence"]["std"], s["scored_rows"], s["accuracy"]

    return {s["segment"]: numbers(s) for s in report["segments"]}


def assert_same(got, want):
    assert got.keys() == want.keys()
    for segment in want:
        assert [*got[segment][1]] == [*want[segment][1]]
        (rows, _, mean, std, scored, accuracy), wanted = got[segment], want[segment]
        assert (rows, scored, accuracy is None) == (wanted[0], wanted[4], wanted[5] is None)
        assert [mean, std, accuracy or 0] == pytest.approx([wanted[2], wanted[3], wanted[5] or 0], rel=1e-9, abs=1e-12)


def rows_of(count, segments=6, seed=4):
    rng = np.random.default_rng(seed)
    return rng.integers(0, segments, count), rng.dirichlet(np.ones(3), count), rng.integers(-1, 3, count)


@pytest.mark.parametrize("how", ["row", "feature"])
def test_each_segment_has_the_statistics_of_its_rows(run_sidecar, how):
    segments, proba, labels = rows_of(6000)
    if how == "row":
        batches = [dict(proba=proba, labels=labels, segments=segments)]
        options = dict(segments=True)
    else:
        features = np.column_stack([np.ones(6000), segments])
        batches = [dict(proba=proba, features=features, labels=labels)]
        options = dict(n_features=2, feature_names=["age", "plan"], feature_kinds=["numerical", "categorical"], segment_feature="plan")
    report = report_of(run_sidecar, batches, n_classes=3, dtype="f64", **options)
    assert_same(found(report), expected(segments, proba, labels))
    assert sum(s["rows"] for s in report["segments"]) == report["rows"] == 6000
    assert sum(s["scored_rows"] for s in report["segments"]) == report["labels"]["scored_rows"]


def test_further_segments_share_a_place_and_rows_without_one_are_missing(run_sidecar, tmp_path):
    config = tmp_path / "mlwatch.toml"
    config.write_text("[limits]\nmax_segments = 2\n")
    segments, proba, labels = rows_of(3000)
    segments[:2] = [3, 5]
    batches = [dict(proba=proba, labels=labels, segments=segments), dict(proba=proba[:7])]
    arguments = ("--period", "24h", "--config", config)
    report = report_of(run_sidecar, batches, arguments, n_classes=3, segments=True, dtype="f64")
    assert [s["segment"] for s in report["segments"]] == ["3", "5", "__missing__", "__other__"]
    names = np.where(np.isin(segments, [3, 5]), segments.astype(str), "__other__")
    want = expected(names, proba, labels)
    want |= {"__missing__": expected(np.full(7, "x"), proba[:7], np.full(7, -1))["x"]}
    assert_same(found(report), want)
    missing = report["segments"][2]
    assert (missing["accuracy"], missing["accuracy_reason"], missing["scored_rows"]) == (None, "no_labels", 0)


def test_segments_survive_a_kill_of_the_sidecar(run_sidecar, tmp_path):
    segments, proba, labels = rows_of(2000)
    with run_sidecar("--period", "24h", output=tmp_path) as first:
        directory = first.ring_dir
        with mlwatch.Monitor("m", n_classes=3, segments=True, dtype="f64", dir=directory, strict=True) as monitor:
            assert monitor.collect(proba[:1000], labels=labels[:1000], segments=segments[:1000])
            first.wait_drained(monitor.path)
            first.wait_until(lambda: list(tmp_path.glob("checkpoint/*.rows")), "a commit")
            first.kill()
            with run_sidecar("--period", "24h", output=tmp_path, ring_dir=directory) as second:
                assert monitor.collect(proba[1000:], labels=labels[1000:], segments=segments[1000:])
                second.wait_drained(monitor.path)
                second.stop()
                (report,) = second.reports()
    lost = report["losses"]["crash_rows"]
    assert lost in (0, 1000)
    assert_same(found(report), expected(segments[lost:], proba[lost:], labels[lost:]))


def test_a_model_without_segments_has_none(run_sidecar):
    report = report_of(run_sidecar, [dict(proba=np.full((5, 3), 1 / 3))], n_classes=3)
    assert report["segments"] == [] and report["embeddings"] == []
