"""References: the same bytes from Python and from the command, numpy's numbers in them, and errors that say what to do."""

import json
import re
import subprocess
import warnings
from pathlib import Path

import mlwatch
import numpy as np
import pytest
from scipy import stats
from scipy.spatial import distance

ROWS = 3000


def data(seed=3):
    rng = np.random.default_rng(seed)
    x = np.column_stack([
        rng.normal(1e6, 1e-2, ROWS),
        rng.exponential(2, ROWS),
        np.where(rng.random(ROWS) < 0.7, 0, rng.normal(size=ROWS)),
        rng.integers(0, 5, ROWS),
        np.full(ROWS, 7.0),
    ])
    x[rng.random(ROWS) < 0.05, 1] = np.nan
    proba = rng.dirichlet([1, 2, 3], ROWS)
    return x, proba, rng.integers(0, 3, ROWS).astype(np.int32)


NAMES = ["level", "wait, s", "balance", "plan", "constant"]


@pytest.fixture(autouse=True)
def program(mlwatch_bin, monkeypatch):
    monkeypatch.setenv("MLWATCH_BIN", str(mlwatch_bin))


def build(binary, path, *options):
    return subprocess.run([binary, "reference", "build", "-o", path, *options], capture_output=True, text=True)


def show(binary, path):
    return json.loads(subprocess.run([binary, "reference", "show", "--json", path], check=True, capture_output=True).stdout)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_python_and_the_command_make_the_same_bytes(mlwatch_bin, tmp_path, dtype):
    x, proba, y = data()
    x, proba = x.astype(dtype), proba.astype(dtype)
    fitted = mlwatch.Reference.fit(x, proba, y, model="m", version="7", feature_names=NAMES, categorical=["plan"])
    fitted.save(tmp_path / "python.mlwref")
    np.savez(tmp_path / "all.npz", X=np.asfortranarray(x), proba=proba, y=y)
    (tmp_path / "names").write_text("".join(f"{name}\n" for name in NAMES))
    npz = tmp_path / "all.npz"
    built = build(
        mlwatch_bin, tmp_path / "command.mlwref", "--model", "m", "--version", "7", "--features", npz, "--proba", npz,
        "--labels", f"{npz}:y", "--feature-names", f"@{tmp_path / 'names'}", "--categorical", "plan",
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "python.mlwref").read_bytes() == (tmp_path / "command.mlwref").read_bytes()


def test_lists_and_strided_views_are_the_same_as_arrays(tmp_path):
    x, proba, y = data()
    for name, arrays in {"array": (x, proba), "lists": (x.tolist(), proba.tolist()), "views": (np.repeat(x, 2, 0)[::2], proba[::-1][::-1])}.items():
        mlwatch.Reference.fit(*arrays, y, model="m").save(tmp_path / name)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_the_numbers_are_numpys(mlwatch_bin, tmp_path):
    x, proba, y = data()
    mlwatch.Reference.fit(x, proba, y, model="m", feature_names=NAMES, categorical=["plan"]).save(tmp_path / "m.mlwref")
    shown = show(mlwatch_bin, tmp_path / "m.mlwref")
    assert (shown["model"], shown["rows"]) == ("m", ROWS)
    assert [entry["count"] for entry in shown["actual"]] == np.bincount(y).tolist()
    assert [entry["count"] for entry in shown["predicted"]] == np.bincount(proba.argmax(axis=1)).tolist()
    features = [column for column in shown["columns"] if column["of"] == "feature"]
    for j, (name, column) in enumerate(zip(NAMES, features, strict=True)):
        values = x[:, j][~np.isnan(x[:, j])]
        assert (column["name"], column["n"], column["missing"]) == (name, len(values), ROWS - len(values))
        assert column["mean"] == pytest.approx(values.mean(), rel=1e-12)
        assert column["std"] == pytest.approx(values.std(), rel=1e-9, abs=1e-12)
        if name == "plan":
            assert [entry["count"] for entry in column["values"]] == [int((values == code).sum()) for code in range(5)]
            continue
        deciles = np.quantile(values, np.arange(1, 10) / 10)
        inner = np.unique(deciles[(deciles >= values.min()) & (deciles < values.max())])
        np.testing.assert_allclose(column["edges"], [np.nextafter(values.min(), -np.inf), *inner, values.max()], rtol=1e-15)
        edges = np.array([-np.inf, *column["edges"], np.inf])
        assert column["counts"] == [int(((values > a) & (values <= b)).sum()) for a, b in zip(edges, edges[1:], strict=False)]


def test_what_labels_have_taught_is_shown(mlwatch_bin, tmp_path):
    rng = np.random.default_rng(6)
    p = rng.random(ROWS)
    y = (rng.random(ROWS) < 0.25 + p / 2).astype(np.int32)
    y[::10] = -1
    proba, known = np.column_stack([1 - p, p]), y >= 0
    mlwatch.Reference.fit(proba=proba, y=y, model="m", class_names=["no", "yes"]).save(tmp_path / "m.mlwref")
    quality = show(mlwatch_bin, tmp_path / "m.mlwref")["quality"]
    assert quality["n"] == quality["single_rows"] == known.sum()
    assert quality["accuracy"] == pytest.approx((proba.argmax(axis=1) == y)[known].mean(), abs=1e-12)
    assert quality["confidence"] == pytest.approx(proba.max(axis=1)[known].mean(), abs=1e-12)
    assert [entry["name"] for entry in quality["calibration"]] == ["no", "yes"]
    for entry in quality["calibration"]:
        # It says p where p/2 + 1/4 is true. Least squares go to extremes at the ends, where a map has few rows to lean on.
        np.testing.assert_allclose(entry["at"][1:-1], 0.25 + np.arange(1, 10) / 20, atol=0.15)
        assert entry["at"] == sorted(entry["at"])
    text = subprocess.run([mlwatch_bin, "reference", "show", tmp_path / "m.mlwref"], check=True, capture_output=True, text=True).stdout
    assert f"of {known.sum()} labelled rows; 2 of 2 classes are calibrated" in text
    mlwatch.Reference.fit(proba=proba, model="m").save(tmp_path / "m.mlwref")
    assert show(mlwatch_bin, tmp_path / "m.mlwref")["quality"] is None


def reported(watch, run_sidecar, references, x, proba):
    monitor = watch("m", n_classes=3, n_features=5, feature_names=NAMES, dtype="f64", feature_kinds=["numerical"] * 3 + ["categorical", "numerical"])
    assert monitor.collect(proba, x)
    with run_sidecar("--period", "24h", "--reference", references, ring_dir=Path(monitor.path).parent) as sidecar:
        sidecar.wait_drained(monitor.path)
        sidecar.stop()
        (report,) = [report for report in sidecar.reports() if report["rows"]]
    return report




def test_drift_through_ring_and_sidecar_is_scipys(watch, run_sidecar, tmp_path):
    x, proba, _ = data()
    mlwatch.Reference.fit(x, proba, model="m", feature_names=NAMES, categorical=["plan"]).save(tmp_path / "m.mlwref")
    now, proba_now, _ = data(seed=4)
    now, proba_now = now[:700], proba_now[:700]
    now[:, 1] *= 1.3
    now[:, 3] = np.where(now[:, 3] == 4, 2, now[:, 3])
    report = reported(watch, run_sidecar, tmp_path, now, proba_now)
    columns = {column["name"]: column for column in report["drift"]["columns"] if column["of"] == "feature"}
    for j, name in enumerate(NAMES):
        a, b = (values[~np.isnan(values)] for values in (x[:, j], now[:, j]))
        column = columns[name]
        if name == "plan":
            counts = np.array([[(a == code).sum() for code in range(5)], [(b == code).sum() for code in range(5)]])
            assert column["chi2"]["value"] > 0
            counts = np.column_stack([counts, [0, 0]])  # values that the reference does not know
        else:
            # The reference keeps 1,001 of 3,000 values: half a step.
            assert column["ks"]["value"] == pytest.approx(stats.ks_2samp(a, b).statistic, abs=1 / 2002 + 1e-12)
            if a.std() > 0:
                assert column["w1"]["value"] == pytest.approx(stats.wasserstein_distance(a, b) / a.std(), abs=5e-3)
                p = stats.ks_2samp(a, b, method="asymp").pvalue
                assert column["ks"]["p"] == pytest.approx(p, rel=0.1, abs=5e-3)
            deciles = np.quantile(a, np.arange(1, 10) / 10)
            inner = np.unique(deciles[(deciles >= a.min()) & (deciles < a.max())])
            if not len(inner):
                continue
            counts = np.array([np.histogram(np.searchsorted(inner, side, "left"), np.arange(len(inner) + 2))[0] for side in (a, b)])
        p, q = counts / counts.sum(axis=1, keepdims=True)
        smooth_p, smooth_q = (counts + 0.5) / (counts + 0.5).sum(axis=1, keepdims=True)
        assert column["psi"]["value"] == pytest.approx(((smooth_q - smooth_p) * np.log(smooth_q / smooth_p)).sum(), rel=1e-9)
        assert column["jensen_shannon"]["value"] == pytest.approx(distance.jensenshannon(p, q, 2), rel=1e-9)
        assert column["hellinger"]["value"] == pytest.approx(np.sqrt(max(0, 1 - np.sqrt(p * q).sum())), abs=1e-7)
        assert column["l_infinity"]["value"] == pytest.approx(np.abs(p - q).max(), rel=1e-9)
        both = counts[:, counts.min(axis=0) > 10]
        if both.shape == counts.shape:
            assert column["chi2"]["p"] == pytest.approx(stats.chi2_contingency(counts, correction=False).pvalue, rel=1e-6)
        share = np.isnan(now[:, j]).mean() - np.isnan(x[:, j]).mean()
        assert column["missing"]["value"] == pytest.approx(share, abs=1e-15)
    p = [column["ks"]["p"] for column in report["drift"]["columns"] if column["ks"].get("p") is not None]
    q = [column["ks"]["q"] for column in report["drift"]["columns"] if column["ks"].get("p") is not None]
    np.testing.assert_allclose(q, stats.false_discovery_control(p), rtol=1e-9)
    assert columns["wait, s"]["verdict"] == "alert" and columns["level"]["verdict"] == "ok"


def test_a_reference_of_doubles_fits_rings_of_every_type(watch, ring_dir, run_sidecar, tmp_path):
    rng = np.random.default_rng(5)

    def rows(n, moved=0.0):
        p = rng.integers(0, 8, n) / 10 + moved
        x = np.column_stack([rng.integers(1, 8, n) / 10 + moved, np.full(n, 0.1 + moved), rng.choice([0.1, 0.2, 0.3], n) + moved])
        return x, np.column_stack([1 - p, p])

    mlwatch.Reference.fit(*rows(4000), model="m", feature_names=["tenths", "constant", "code"], categorical=["code"]).save(tmp_path / "m.mlwref")
    for dtype in ("f16", "bf16", "f32", "f64"):
        for moved in (0.0, 0.2):
            x, proba = rows(1000, moved)
            monitor = watch(
                version=f"{dtype} {moved}", n_classes=2, n_features=3, feature_names=["tenths", "constant", "code"],
                feature_kinds=["numerical", "numerical", "categorical"], dtype=dtype,
            )  # fmt: skip
            assert monitor.collect(proba, features=x)
    with run_sidecar("--period", "24h", "--reference", tmp_path, ring_dir=ring_dir) as sidecar:
        for ring in ring_dir.glob("*.ring"):
            sidecar.wait_drained(ring)
        sidecar.stop()
        reports = [report for report in sidecar.reports() if report["rows"]]
    assert len(reports) == 8
    for report in reports:
        judged = {column["verdict"] for column in report["drift"]["columns"] if column["verdict"]}
        moved = report["version"].endswith("0.2")
        assert judged <= ({"warn", "alert"} if moved else {"ok"}) and report["drift"]["verdict"] == ("alert" if moved else "ok"), report["drift"]


def test_targets_of_a_regression_are_learned_and_must_be_as_many_as_outputs(mlwatch_bin, tmp_path):
    rng = np.random.default_rng(6)
    targets = rng.normal(size=(500, 2))
    outputs = targets + [0.5, 0]

    def bands(y):
        mlwatch.Reference.fit(proba=outputs, y=y, model="m", task="regression", class_names=["a", "b"]).save(tmp_path / "m.mlwref")
        return {band["path"]: band["mean"] for band in show(mlwatch_bin, tmp_path / "m.mlwref")["bands"] if band["path"].startswith("errors.")}

    assert bands(None) == {}
    assert bands(targets)["errors.a.mean_absolute_error"] == pytest.approx(0.5)
    assert bands(targets)["errors.b.root_mean_square_error"] == pytest.approx(0, abs=1e-9)
    assert bands(targets * 1000)["errors.a.mean_absolute_error"] > 100
    with pytest.raises(ValueError, match="1 columns, and there are 2 outputs: give a target for each"):
        bands(targets[:, 0])
    table = tmp_path / "t.csv"
    table.write_text("out,truth\n" + "".join(f"{o},{t}\n" for o, t in zip(outputs[:, 0], targets[:, 0], strict=True)))
    options = ["--model", "m", "--task", "regression", "--table", table, "--label-column", "truth", "--proba-columns"]
    assert build(mlwatch_bin, tmp_path / "t.mlwref", *options, "out").returncode == 0
    mlwatch.Reference.fit(proba=outputs[:, :1], y=targets[:, :1], model="m", task="regression", class_names=["out"]).save(tmp_path / "m.mlwref")
    assert (tmp_path / "t.mlwref").read_bytes() == (tmp_path / "m.mlwref").read_bytes()
    table.write_text("a,b,truth\n1,2,3\n")
    assert "targets of one output, and there are 2" in build(mlwatch_bin, tmp_path / "t.mlwref", *options, "a,b").stderr


class Frame:
    """As pandas and polars have them."""

    def __init__(self, columns, array):
        self.columns, self.array = columns, array

    def to_numpy(self):
        return self.array


def test_names_are_those_of_a_frames_columns(mlwatch_bin, tmp_path):
    x, proba, _ = data()

    def named(features, classes, **options):
        mlwatch.Reference.fit(Frame(features, x), Frame(classes, proba), model="m", **options).save(tmp_path / "m.mlwref")
        columns = show(mlwatch_bin, tmp_path / "m.mlwref")["columns"]
        return [[column["name"] for column in columns if column["of"] == of] for of in ("feature", "probability")]

    assert named(NAMES, ["x", "y", "z"], categorical=["plan"]) == [NAMES, ["x", "y", "z"]]
    assert named(NAMES, ["x", "y", "z"], feature_names=list("abcde")) == [list("abcde"), ["x", "y", "z"]]
    unnamed = [[f"feat_{i}" for i in range(5)], [f"class_{k}" for k in range(3)]]
    assert named(range(5), range(3)) == unnamed, "pandas numbers what has no names"


@pytest.mark.parametrize(
    "texts",
    [list, tuple, np.array, lambda y: np.array(y, dtype=object), lambda y: Frame(None, np.array(y, dtype=object))],
    ids=["list", "tuple", "array", "objects", "series"],
)
def test_labels_that_name_classes_are_as_good_as_their_indices(tmp_path, texts):
    x, proba, y = data()
    names = ["stays", "leaves", "returns"]
    options = dict(model="m", class_names=names)
    mlwatch.Reference.fit(x, proba, y, **options).save(tmp_path / "indices")
    mlwatch.Reference.fit(x, proba, texts([names[k] for k in y]), **options).save(tmp_path / "names")
    assert (tmp_path / "names").read_bytes() == (tmp_path / "indices").read_bytes()


def test_of_labels_by_name_none_and_nan_are_no_label_and_objects_may_be_indices(tmp_path):
    proba = np.tile([0.4, 0.6], (4, 1))
    for file, labels in [("index", [0, -1, 1, -1]), ("name", ["a", None, "b", np.nan]), ("object", np.array([0, -1, 1, -1], dtype=object))]:
        mlwatch.Reference.fit(None, proba, labels, model="m", class_names=["a", "b"]).save(tmp_path / file)
    assert (tmp_path / "name").read_bytes() == (tmp_path / "index").read_bytes() == (tmp_path / "object").read_bytes()


def test_logits_are_warned_of(tmp_path):
    with pytest.warns(UserWarning, match="probabilities outside 0 to 1"):
        mlwatch.Reference.fit(proba=np.array([[3.0, -3.0]] * 9), model="m").save(tmp_path / "m.mlwref")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mlwatch.Reference.fit(proba=np.array([[3.0, -3.0]] * 9), model="m", task="regression").save(tmp_path / "m.mlwref")


def test_no_periods_are_refused(mlwatch_bin, tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((9, 2)))
    built = build(mlwatch_bin, tmp_path / "m.mlwref", "--model", "m", "--features", tmp_path / "x.npy", "--periods", "0")
    assert built.returncode == 64 and "--periods" in built.stderr and "0 is not in 1.." in built.stderr


@pytest.mark.parametrize(
    ("arrays", "options", "says"),
    [
        ((np.zeros((3, 2)), np.zeros((4, 2))), {}, "rows"),
        ((np.zeros((3, 2, 2)), None), {}, "dimensions"),
        ((np.zeros((3, 2)), None), {"feature_names": ["a"]}, "1 names, and there are 2"),
        ((np.zeros((3, 2)), np.ones((3, 2)), [0, 1, 2]), {}, "label 2 is no class"),
        ((np.zeros((0, 2)), None), {}, "no rows"),
        ((np.zeros((3, 2)), np.ones((3, 2)), ["a", "b", "a"]), {}, "labels: it holds 'a': name the classes with class_names"),
        ((np.zeros((3, 2)), np.ones((3, 2)), np.array(["a", "b", "a"])), {}, "labels: it holds 'a': name the classes"),
        ((np.zeros((3, 2)), np.ones((3, 2)), np.array(["a", "c", "a"])), {"class_names": ["a", "b"]}, "'c', which is no class: want one of 'a', 'b'"),
        ((np.zeros((3, 2)), np.ones((3, 2)), ["a", 1, "a"]), {"class_names": ["a", "b"]}, "it holds 1, which is no class"),
        ((np.zeros((3, 2)), np.ones((3, 2)), np.array([["a", "b"]] * 3)), {"class_names": ["a", "b"]}, "labels: it holds 'a', want numbers"),
        ((np.zeros((3, 2)), np.ones((3, 2)), np.array([b"a"] * 3)), {"class_names": ["a", "b"]}, "labels: it holds b'a', want numbers"),
        ((np.zeros((3, 1)), np.ones((3, 1)), np.array(["a"] * 3)), {"task": "regression", "class_names": ["a"]}, "labels: it holds 'a', want numbers"),
        (([["a"]], None), {}, "features: it holds 'a', want numbers"),
        ((np.array([["a"]]), None), {}, "features: it holds 'a', want numbers"),
        ((np.zeros((3, 3)), None), {"feature_names": ["a\nb", "c"]}, r"'a\\nb': a name is one line"),
        ((np.zeros((3, 1)), None), {"feature_names": "a"}, "feature_names is 'a', want a sequence"),
        ((None, np.zeros((3, 2))), {"threshold": 2}, "threshold is 2, want a probability, 0 to 1"),
        ((np.array([object()]), None), {}, None),
    ],
)
def test_what_cannot_be_a_reference_says_why(tmp_path, arrays, options, says):
    with pytest.raises((ValueError, TypeError), match=says):
        mlwatch.Reference.fit(*arrays, model="m", **options).save(tmp_path / "m.mlwref")
    assert not list(tmp_path.iterdir())


def test_without_the_program_the_remedy_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("MLWATCH_BIN", "/nowhere/mlwatch")
    with pytest.raises(FileNotFoundError, match="make sidecar"):
        mlwatch.Reference.fit(np.zeros((3, 2)), model="m").save(tmp_path / "m.mlwref")


def merge(binary, path, *parts):
    return subprocess.run([binary, "reference", "merge", "-o", path, *parts], capture_output=True, text=True)


def test_a_merged_reference_has_numpys_numbers_of_all_rows(mlwatch_bin, tmp_path):
    data_of = [data(seed) for seed in (3, 4, 5)]
    parts = [tmp_path / f"{i}.mlwref" for i in range(len(data_of))]
    for arrays, part in zip(data_of, parts, strict=True):
        mlwatch.Reference.fit(*arrays, model="m", feature_names=NAMES, categorical=["plan"]).save(part)
    assert merge(mlwatch_bin, tmp_path / "all", *parts).returncode == 0
    assert merge(mlwatch_bin, tmp_path / "turned", *parts[::-1]).returncode == 0
    mlwatch.Reference.merge(*parts).save(tmp_path / "python")
    assert (tmp_path / "all").read_bytes() == (tmp_path / "turned").read_bytes() == (tmp_path / "python").read_bytes()
    x, proba, y = (np.concatenate(arrays) for arrays in zip(*data_of, strict=True))
    shown = show(mlwatch_bin, tmp_path / "all")
    assert (shown["rows"], shown["exact"]) == (len(x), False)
    assert [entry["count"] for entry in shown["predicted"]] == np.bincount(proba.argmax(axis=1)).tolist()
    assert [entry["count"] for entry in shown["actual"]] == np.bincount(y).tolist()
    for j, column in enumerate(column for column in shown["columns"] if column["of"] == "feature"):
        values = np.sort(x[~np.isnan(x[:, j]), j])
        assert (column["n"], column["missing"]) == (len(values), len(x) - len(values))
        assert (column["mean"], column["std"]) == (pytest.approx(values.mean(), rel=1e-12), pytest.approx(values.std(), rel=1e-9, abs=1e-12))
        if column["kind"] == "categorical":
            assert [entry["count"] for entry in column["values"]] == np.bincount(values.astype(int)).tolist()
            continue
        assert (column["edges"][0], column["edges"][-1]) == (np.nextafter(values.min(), -np.inf), values.max())
        below = np.searchsorted(values, column["edges"], "right")
        np.testing.assert_allclose(np.cumsum(column["counts"])[:-1], below, atol=len(values) / 2002 + 1.5)
    bands = {band["path"]: band for band in shown["bands"]}
    periods = np.concatenate([arrays[0][:, 0].reshape(20, -1).mean(axis=1) for arrays in data_of])
    band = bands["features.level.mean"]
    assert (band["n"], band["mean"], band["std"]) == (60, pytest.approx(periods.mean()), pytest.approx(periods.std(ddof=1), rel=1e-4))


def test_what_cannot_be_merged_is_named_with_its_file(mlwatch_bin, tmp_path):
    x, proba, _ = data()
    mlwatch.Reference.fit(x, proba, model="m").save(tmp_path / "a")
    mlwatch.Reference.fit(x, proba, model="m", categorical=["feat_3"]).save(tmp_path / "b")
    done = merge(mlwatch_bin, tmp_path / "c", tmp_path / "a", tmp_path / "b")
    assert done.returncode == 78 and f"{tmp_path / 'b'}: \"feat_3\" is categorical" in done.stderr
    with pytest.raises(ValueError, match='b: "feat_3" is categorical'):
        mlwatch.Reference.merge(tmp_path / "a", tmp_path / "b").save(tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_versions_merge_into_the_one_that_is_named(mlwatch_bin, tmp_path):
    x, proba, _ = data()
    for version in "78":
        mlwatch.Reference.fit(x, proba, model="m", version=version).save(tmp_path / version)
    with pytest.raises(ValueError, match="--version"):
        mlwatch.Reference.merge(tmp_path / "7", tmp_path / "8").save(tmp_path / "all")
    mlwatch.Reference.merge(tmp_path / "7", tmp_path / "8", version="").save(tmp_path / "all")
    assert show(mlwatch_bin, tmp_path / "all")["version"] == ""
    with pytest.raises(ValueError, match="nothing to merge"):
        mlwatch.Reference.merge()


def test_reports_of_a_real_sidecar_become_a_reference(watch, run_sidecar, mlwatch_bin, tmp_path):
    x, proba, y = data()
    monitor = watch("m", n_classes=3, n_features=5, feature_names=NAMES, dtype="f64", feature_kinds=["numerical"] * 3 + ["categorical", "numerical"])
    with run_sidecar("--period", "300ms", ring_dir=Path(monitor.path).parent) as sidecar:
        whole = lambda: [report for report in sidecar.reports() if report["rows"] and not report["partial"]]  # noqa: E731

        def enough():
            monitor.collect(proba[:300], x[:300], labels=y[:300])
            return len(whole()) > 3

        sidecar.wait_until(enough, "some periods are reported")
        sidecar.stop()
    files = sorted(sidecar.output.glob("metrics-*.jsonl"))
    done = build(mlwatch_bin, tmp_path / "m", "--model", "m", "--reports", *files)
    assert done.returncode == 0 and f"used={len(whole())}" in re.sub(r"\x1b\[[0-9;]*m", "", done.stderr), done.stderr
    mlwatch.Reference.from_reports(files, model="m").save(tmp_path / "python")
    assert (tmp_path / "m").read_bytes() == (tmp_path / "python").read_bytes()
    with pytest.raises(ValueError, match="no whole period"):
        mlwatch.Reference.from_reports(files[0], model="n").save(tmp_path / "n")
    shown = show(mlwatch_bin, tmp_path / "m")
    assert (shown["rows"], shown["exact"], shown["version"]) == (sum(report["rows"] for report in whole()), False, "")
    for key, told in {"predicted": "predictions", "actual": "labels"}.items():
        field = {"predicted": "count", "actual": "support"}[key]
        assert [entry["count"] for entry in shown[key]] == [sum(report[told]["classes"][k][field] for report in whole()) for k in range(3)]
    for j, column in enumerate(column for column in shown["columns"] if column["of"] == "feature"):
        told = [report["features"][j] for report in whole()]
        n, mean, std = (np.array([feature[field] for feature in told]) for field in ("n", "mean", "std"))
        assert (column["name"], column["n"]) == (NAMES[j], n.sum())
        assert column["mean"] == pytest.approx(np.average(mean, weights=n), rel=1e-12)
        of_all = np.sqrt(np.average(std**2 + (mean - column["mean"]) ** 2, weights=n))
        assert column["std"] == pytest.approx(of_all, rel=1e-6, abs=1e-12)
        if column["kind"] == "numerical":
            # The same rows in every period, and so the same quantiles: any of them may be a lump that reaches to the next one's share.
            # Half of what those are apart is the middle; "balance" has lumps indeed.
            near = 0.25 if NAMES[j] == "balance" else 0.126
            values = x[:300, j][~np.isnan(x[:300, j])]
            below = np.array([(values <= edge).mean() for edge in column["edges"]])
            np.testing.assert_allclose(np.cumsum(column["counts"])[:-1] / sum(column["counts"]), below, atol=near)
    means = [report["features"][0]["mean"] for report in whole()]
    band = next(band for band in shown["bands"] if band["path"] == "features.level.mean")
    assert (band["n"], band["mean"], band["std"]) == (len(means), pytest.approx(np.mean(means)), pytest.approx(np.std(means, ddof=1), rel=1e-4, abs=1e-9))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("a,b\n1,x\n", "line 2, column b"),
        ("a,b\n1\n", "CSV error"),
        ("a,a\n1,2\n", "two columns are called"),
        ("", "no columns|there are no rows"),
    ],
)
def test_a_table_that_is_wrong_says_where(mlwatch_bin, tmp_path, content, says):
    (tmp_path / "t.csv").write_text(content)
    done = build(mlwatch_bin, tmp_path / "m.mlwref", "--model", "m", "--table", tmp_path / "t.csv")
    assert done.returncode in (66, 78) and re.search(says, done.stderr), done.stderr


def test_a_table_gives_the_same_reference_as_its_arrays(mlwatch_bin, tmp_path):
    x, proba, y = data()
    lines = ["level,wait,balance,plan,constant,p_a,p_b,p_c,truth"]
    for row, p, label in zip(x, proba, y, strict=True):
        lines.append(",".join(["" if np.isnan(v) else repr(float(v)) for v in (*row, *p)]) + f",p_{'abc'[label]}")
    (tmp_path / "t.csv").write_text("\n".join(lines) + "\n")
    done = build(mlwatch_bin, tmp_path / "table.mlwref", "--model", "m", "--table", tmp_path / "t.csv", "--proba-columns", "p_*", "--label-column", "truth")
    assert done.returncode == 0, done.stderr
    names = ["level", "wait", "balance", "plan", "constant"]
    mlwatch.Reference.fit(x, proba, y, model="m", feature_names=names, class_names=["p_a", "p_b", "p_c"]).save(tmp_path / "arrays.mlwref")
    assert (tmp_path / "table.mlwref").read_bytes() == (tmp_path / "arrays.mlwref").read_bytes()
