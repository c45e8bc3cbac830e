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
