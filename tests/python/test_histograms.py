"""Quantiles of every row, from histograms, against numpy's, through a real ring and the real sidecar."""

import mlwatch
import numpy as np
import pytest

SHARES = {"q01": 0.01, "q05": 0.05, "q25": 0.25, "q50": 0.5, "q75": 0.75, "q95": 0.95, "q99": 0.99}
ROWS = 30_000
SMALLEST = 2.0**-32  # what is smaller counts as zero

RNG = np.random.default_rng(1)
COLUMNS = {
    "log_normal": RNG.lognormal(3, 2, ROWS),
    "negative": -RNG.lognormal(0, 1, ROWS),
    "mixed": RNG.normal(0, 5, ROWS),
    "zeros": np.where(RNG.random(ROWS) < 0.9, 0.0, RNG.exponential(1e6, ROWS)),
    "one_value": np.full(ROWS, 0.1),
    "tiny": RNG.normal(0, 1e-11, ROWS),
    "gaps": np.where(RNG.random(ROWS) < 0.3, np.nan, RNG.uniform(-1, 1, ROWS)),
}
OTHERS = {"other": RNG.normal(size=ROWS), "plan": RNG.integers(0, 3, ROWS).astype(float)}
ALL = COLUMNS | OTHERS
KINDS = ["categorical" if name == "plan" else "numerical" for name in ALL]


def settings(path, features, scale=4, predictions=False):
    config = path / "mlwatch.toml"
    config.write_text(f"[histograms]\nfeatures = {features}\nscale = {scale}\npredictions = {str(predictions).lower()}\n")
    return "--config", config


def assert_near(all_rows, values):
    """Each quantile is as near to that value of the sorted ones as is promised."""
    values = values[np.isfinite(values)]
    assert (all_rows["n"], "reason" in all_rows) == (len(values), False)
    for name, share in SHARES.items():
        want = np.quantile(values, share, method="lower")
        assert abs(all_rows[name] - want) <= max(all_rows["relative_error"] * abs(want) * (1 + 1e-12), SMALLEST), name


def assert_holds(histogram, values):
    """Every value is in the bucket that docs/report.md says."""
    values = values[np.isfinite(values)]
    octave = 2 ** histogram["scale"]
    for side, of in [("positive", values), ("negative", -values)]:
        of = of[of >= SMALLEST]
        mantissa, exponent = np.frexp(of)
        buckets = (exponent - 1) * octave + np.floor((2 * mantissa - 1) * octave).astype(int)
        indices, counts = np.unique(buckets, return_counts=True)
        got = {histogram[side]["offset"] + i: n for i, n in enumerate(histogram[side]["counts"]) if n}
        assert got == dict(zip(indices.tolist(), counts.tolist())) and histogram[side]["beyond"] == 0
    assert histogram["zero_threshold"] == SMALLEST and histogram["zero_count"] == np.sum(np.abs(values) < SMALLEST)
    assert histogram["count"] == len(values)


def feed(sidecar, monitor, features, proba, parts=7):
    for part in np.array_split(np.arange(len(proba)), parts):
        assert monitor.collect(proba[part], features=features[part])
        sidecar.wait_drained(monitor.path)


def opened(ring_dir, dtype="f64"):
    names = list(ALL)
    options = dict(n_classes=2, n_features=len(names), feature_names=names, feature_kinds=KINDS, dtype=dtype)
    return mlwatch.Monitor("m", strict=True, dir=ring_dir, ring_bytes=1 << 22, **options)


def as_sent(dtype):
    proba = RNG.dirichlet(np.ones(2), ROWS)
    sent = np.column_stack(list(ALL.values())), proba
    return [x.astype(dict(f16=np.float16, f32=np.float32, f64=np.float64)[dtype]) for x in sent]


@pytest.mark.parametrize("dtype, scale, error", [("f64", 4, 1 / 33), ("f32", 6, 1 / 129), ("f16", 0, 1 / 3)])
def test_quantiles_of_every_row_are_numpys_within_the_error_that_is_told(run_sidecar, tmp_path, dtype, scale, error):
    with np.errstate(over="ignore"):
        features, proba = as_sent(dtype)
    config = settings(tmp_path, [*COLUMNS, "pl*"], scale, predictions=True)
    with run_sidecar("--period", "24h", "--reservoir", "10", *config) as sidecar:
        with opened(sidecar.ring_dir, dtype) as monitor:
            feed(sidecar, monitor, features, proba)
        sidecar.stop()
        (report,) = sidecar.reports()
    for feature, values in zip(report["features"], features.T.astype(np.float64)):
        if feature["name"] in OTHERS:
            assert "histogram" not in feature and "all_rows" not in feature
            continue
        assert feature["all_rows"]["relative_error"] == error and feature["histogram"]["scale"] == scale
        assert_near(feature["all_rows"], values)
        assert_holds(feature["histogram"], values)
    for column, values in zip(report["predictions"]["classes"], proba.T.astype(np.float64)):
        assert_near(column["all_rows"], values)
        assert_holds(column["histogram"], values)
    one = report["features"][list(COLUMNS).index("one_value")]
    assert {one["all_rows"][q] for q in SHARES} == {one["min"]}


def test_nothing_has_a_histogram_unless_it_was_asked_for(run_sidecar):
    features, proba = as_sent("f64")
    with run_sidecar("--period", "24h") as sidecar:
        with opened(sidecar.ring_dir) as monitor:
            feed(sidecar, monitor, features[:100], proba[:100], parts=1)
        sidecar.stop()
        (report,) = sidecar.reports()
    columns = [*report["features"], *report["predictions"]["classes"]]
    assert not any("histogram" in column or "all_rows" in column for column in columns)


@pytest.mark.parametrize("same", [True, False], ids=["same", "other"])
def test_histograms_survive_a_kill_and_other_settings_close_the_period_early(run_sidecar, tmp_path, same):
    features, proba = as_sent("f64")
    half, before, after = ROWS // 2, tmp_path / "before", tmp_path / "after"
    [path.mkdir() for path in (before, after)]
    first_config = settings(before, ["mixed"])
    second_config = first_config if same else settings(after, ["mixed"], scale=5)
    with run_sidecar("--period", "24h", *first_config, output=tmp_path) as first:
        directory = first.ring_dir
        with opened(directory) as monitor:
            feed(first, monitor, features[:half], proba[:half])
            first.wait_until(lambda: list(tmp_path.glob("checkpoint/*.rows")), "a commit")
            first.kill()
            with run_sidecar("--period", "24h", *second_config, output=tmp_path, ring_dir=directory) as second:
                feed(second, monitor, features[half:], proba[half:])
                second.stop()
                reports = second.reports()
    lost = sum(report["losses"]["crash_rows"] for report in reports)
    assert sum(report["rows"] for report in reports) == ROWS - lost
    values = features[:, list(ALL).index("mixed")]
    kept, later = values[: half - lost], values[half:]
    wanted = {4: np.concatenate([kept, later])} if same else {5: later} | ({4: kept} if len(kept) else {})
    histograms = [report["features"][list(ALL).index("mixed")]["histogram"] for report in reports]
    assert {histogram["scale"] for histogram in histograms} == wanted.keys() and len(histograms) == len(wanted)
    for histogram in histograms:
        assert_holds(histogram, wanted[histogram["scale"]])
