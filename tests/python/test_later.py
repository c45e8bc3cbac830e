"""Labels that come after their rows' period: joined by id, reported once more, and counted where that cannot be."""

import json

import mlwatch
import numpy as np
import pytest
from sklearn import metrics

CLASSES = 3


def rows_of(seed, n=400):
    rng = np.random.default_rng(seed)
    proba = rng.dirichlet(np.full(CLASSES, 0.7), n)
    labels = np.array([rng.choice(CLASSES, p=p) for p in proba], dtype=np.int32)
    return proba, labels, np.arange(seed * 10_000, seed * 10_000 + n, dtype=np.uint64)


def first_with_rows(sidecar, but=()):
    def found():
        return [report for report in sidecar.reports() if report["rows"] and report["start"] not in but]

    return sidecar.wait_until(found, "a period with rows is reported")[0]


def revision(sidecar, of, number, rows):
    """The last report of the period, once it has labels for so many rows."""

    def found():
        again = [report for report in sidecar.reports() if report["start"] == of["start"] and report["revision"] >= number]
        return [report for report in again if report["labels"]["rows"] == rows]

    return sidecar.wait_until(found, f"revision {number} has {rows} labels")[-1]


def test_labels_after_the_period_are_reported_as_if_they_had_come_at_once(watch, ring_dir, run_sidecar):
    proba, labels, ids = rows_of(1)
    monitor = watch("m", n_classes=CLASSES, dtype="f64", segments=True)
    with run_sidecar("--period", "500ms", ring_dir=ring_dir) as sidecar:
        # Some labels come at once, the others in two lots once the period is over; one is wrong at first.
        known = np.where(np.arange(len(ids)) < 100, labels, -1).astype(np.int32)
        assert monitor.collect(proba, labels=known, ids=ids, segments=np.arange(len(ids)) % 2)
        first = first_with_rows(sidecar)
        assert (first["revision"], first["labels"]["rows"], first["labels"]["waiting_rows"]) == (0, 100, 300)
        lots = np.array_split(np.random.default_rng(2).permutation(np.arange(100, 400)), 2)
        assert monitor.collect(None, labels=np.full(1, 99, np.int32), ids=ids[lots[0][:1]])
        assert monitor.collect(None, labels=labels[lots[0]], ids=ids[lots[0]])
        assert revision(sidecar, first, 1, 250)["labels"]["waiting_rows"] == 150
        assert monitor.collect(None, labels=labels[lots[1]], ids=ids[lots[1]])
        last = revision(sidecar, first, 2, 400)
        sidecar.stop()
    said, scores = last["labels"], last["scores"]
    assert said["accuracy"] == pytest.approx(metrics.accuracy_score(labels, proba.argmax(axis=1)))
    assert said["confusion"] == metrics.confusion_matrix(labels, proba.argmax(axis=1)).tolist()
    assert scores["log_loss"] == pytest.approx(metrics.log_loss(labels, proba), rel=1e-9)
    assert (said["coverage"], said["waiting_rows"], said["invalid"], said["delay"]["n"]) == (1, 0, 1, 300)
    assert 0 < said["delay"]["min"] <= said["delay"]["mean"] <= said["delay"]["max"] < 60
    assert last["estimated"]["labelled_n"] == 400
    right = labels == proba.argmax(axis=1)
    assert [s["accuracy"] for s in last["segments"]] == pytest.approx([right[0::2].mean(), right[1::2].mean()])
    assert (last["rows"], last["predictions"], last["features"], last["end"]) == (400, None, [], first["end"])
    assert first["predictions"]["classes"][0]["count"] == (proba.argmax(axis=1) == 0).sum()


def test_an_alert_hears_of_labels_that_come_later(watch, ring_dir, run_sidecar, tmp_path):
    settings = tmp_path / "mlwatch.toml"
    rule = {"metric": "labels.accuracy", "below": 0.5, "persistence": [1, 1]}
    settings.write_text("[[alerts.rule]]\n" + "\n".join(f"{key} = {json.dumps(value)}" for key, value in rule.items()))
    proba, _, ids = rows_of(1, 100)
    monitor = watch("m", n_classes=CLASSES)
    with run_sidecar("--period", "500ms", "--config", settings, ring_dir=ring_dir) as sidecar:
        assert monitor.collect(proba, ids=ids)
        first = first_with_rows(sidecar)
        assert first["alerts"] == []
        assert monitor.collect(None, labels=(proba.argmax(axis=1).astype(np.int32) + 1) % CLASSES, ids=ids)
        (alert,) = revision(sidecar, first, 1, 100)["alerts"]
        sidecar.stop()
    assert (alert["metric"], alert["state"], alert["start"], alert["evidence"]["value"]) == ("labels.accuracy", "started", first["start"], 0)


def test_concept_drift_shows_and_alerts_when_the_labels_come(watch, ring_dir, run_sidecar, tmp_path, mlwatch_bin, monkeypatch):
    monkeypatch.setenv("MLWATCH_BIN", str(mlwatch_bin))
    taught, y, _ = rows_of(1, 4000)
    mlwatch.Reference.fit(proba=taught.astype(np.float32), y=y, model="m").save(tmp_path / "m.mlwref")
    settings = tmp_path / "mlwatch.toml"
    settings.write_text("[alerts]\npersistence = [1, 1]\ndrift = false\n")
    proba, labels, ids = rows_of(2, 500)
    monitor = watch("m", n_classes=CLASSES)
    options = ("--period", "500ms", "--config", settings, "--reference", tmp_path)
    with run_sidecar(*options, ring_dir=ring_dir) as sidecar:
        assert monitor.collect(proba, ids=ids)
        first = first_with_rows(sidecar)
        assert monitor.collect(None, labels=(labels + 1) % CLASSES, ids=ids)
        again = revision(sidecar, first, 1, 500)
        sidecar.stop()
    assert (first["estimated"]["concept_drift"]["reason"], first["alerts"]) == ("no_labels", [])
    for name, value in (("concept_drift", 1), ("accuracy_drift", -1)):
        drift = again["estimated"][name]
        assert (drift["n"], drift["reference_n"], drift["verdict"]) == (500, 4000, "alert")
        assert drift["value"] * value > 0.3 and drift["z"] * value > 5
    assert again["estimated"]["concept_drift"]["value"] == again["estimated"]["estimated_minus_realised"]
    told = [(alert["rule"], alert["of"], alert["severity"], alert["state"]) for alert in again["alerts"]]
    assert told == [("quality", name, "critical", "started") for name in ("concept_drift", "accuracy_drift")]


def test_what_becomes_of_every_label_and_every_row_is_counted(watch, ring_dir, run_sidecar):
    proba, labels, ids = rows_of(3, 50)
    monitor = watch("m", n_classes=CLASSES)
    with run_sidecar("--period", "24h", ring_dir=ring_dir) as sidecar:
        assert monitor.collect(proba, ids=ids)
        assert monitor.collect(None, labels=labels[:10], ids=ids[:10])
        assert monitor.collect(None, labels=labels[:10], ids=ids[:10])  # they have theirs
        assert monitor.collect(None, labels=labels[:5], ids=ids[:5] + 77)  # nobody's
        assert monitor.collect(None, labels=np.full(3, -1, np.int32), ids=ids[20:23])
        sidecar.wait_drained(monitor.path)
        sidecar.stop()
        (report,) = [report for report in sidecar.reports() if report["rows"]]
        health = json.loads((sidecar.output / "health.json").read_text())
    said = report["labels"]
    assert (said["rows"], said["waiting_rows"], said["delay"]["n"]) == (10, 40, 10)
    assert (said["unjoined_rows"], said["unjoined"]) == (18, {"no_id": 0, "unknown_id": 15, "no_label": 3})
    assert (health["waiting_rows"], health["forgotten_rows"]) == (40, 0)  # they are left to the next sidecar


def test_rows_that_waited_when_the_sidecar_was_killed_are_counted_by_the_next(watch, ring_dir, run_sidecar, tmp_path):
    proba, labels, ids = rows_of(4, 60)
    monitor = watch("m", n_classes=CLASSES)
    options = ("--period", "500ms")
    with run_sidecar(*options, ring_dir=ring_dir, output=tmp_path) as sidecar:
        assert monitor.collect(proba, ids=ids)
        first = first_with_rows(sidecar)
        # A commit after the period has closed, which is when its rows are no longer in a profile.
        written = json.loads((sidecar.output / "health.json").read_text())["checkpoints"]["written"]
        assert monitor.collect(proba[:1])

        def has_committed():
            return json.loads((sidecar.output / "health.json").read_text())["checkpoints"]["written"] > written + 1

        sidecar.wait_until(has_committed, "a checkpoint is written")
        sidecar.kill()
    with run_sidecar(*options, ring_dir=ring_dir, output=tmp_path) as sidecar:
        assert monitor.collect(None, labels=labels, ids=ids)

        def told():
            later = [report for report in sidecar.reports() if report["start"] > first["start"]]
            forgotten = sum(report["labels"]["forgotten_rows"] for report in later)
            return forgotten, sum(report["labels"]["unjoined"]["unknown_id"] for report in later)

        sidecar.wait_until(lambda: told() == (60, 60), "all are counted")
        sidecar.stop()


def left(output):
    return sorted(path.name for path in (output / "checkpoint").glob("*.waiting.*"))


def health(output):
    return json.loads((output / "health.json").read_text())


def test_labels_that_come_after_a_restart_find_their_rows(watch, ring_dir, run_sidecar, tmp_path):
    proba, labels, ids = rows_of(6, 100)
    monitor = watch("m", n_classes=CLASSES, dtype="f64")
    options = ("--period", "500ms")
    with run_sidecar(*options, ring_dir=ring_dir, output=tmp_path) as sidecar:
        assert monitor.collect(proba, ids=ids)
        first = first_with_rows(sidecar)
        assert monitor.collect(None, labels=labels[:40], ids=ids[:40])
        revision(sidecar, first, 1, 40)
        sidecar.stop()
    assert left(tmp_path) == ["0.waiting.head", "0.waiting.rows"]
    assert (health(tmp_path)["waiting_rows"], health(tmp_path)["forgotten_rows"]) == (60, 0)
    with run_sidecar(*options, ring_dir=ring_dir, output=tmp_path) as sidecar:
        assert monitor.collect(None, labels=labels[40:], ids=ids[40:])
        last = revision(sidecar, first, 2, 100)
        sidecar.wait_until(lambda: left(tmp_path) == [], "they are in a checkpoint")
        sidecar.stop()
    assert (last["revision"], last["labels"]["waiting_rows"], last["rows"]) == (2, 0, 100)
    assert last["labels"]["accuracy"] == pytest.approx(metrics.accuracy_score(labels, proba.argmax(axis=1)))
    assert last["scores"]["log_loss"] == pytest.approx(metrics.log_loss(labels, proba), rel=1e-9)
    assert left(tmp_path) == []


def test_rows_whose_file_is_damaged_are_forgotten_and_counted(watch, ring_dir, run_sidecar, tmp_path):
    proba, labels, ids = rows_of(7, 30)
    monitor = watch("m", n_classes=CLASSES)
    with run_sidecar("--period", "24h", ring_dir=ring_dir, output=tmp_path) as sidecar:
        assert monitor.collect(proba, ids=ids)
        sidecar.wait_drained(monitor.path)
        sidecar.stop()
    rows = tmp_path / "checkpoint" / "0.waiting.rows"
    rows.write_bytes(rows.read_bytes()[:-1])
    with run_sidecar("--period", "24h", ring_dir=ring_dir, output=tmp_path) as sidecar:
        assert monitor.collect(None, labels=labels, ids=ids)
        sidecar.wait_until(lambda: "are forgotten" in sidecar.log.read_text(), "it says so")
        sidecar.wait_drained(monitor.path)
        sidecar.stop()
    assert (health(tmp_path)["forgotten_rows"], health(tmp_path)["checkpoints"]["damaged"]) == (30, {"checksum": 1})
    assert sum(report["labels"]["unjoined"]["unknown_id"] for report in sidecar.reports()) == 30
    assert left(tmp_path) == []


@pytest.mark.parametrize("removed", [True, False])
def test_rows_that_were_taken_up_before_a_kill_do_not_come_back_and_are_counted(watch, ring_dir, run_sidecar, tmp_path, removed):
    proba, labels, ids = rows_of(8, 30)
    monitor = watch("m", n_classes=CLASSES)
    with run_sidecar("--period", "24h", ring_dir=ring_dir, output=tmp_path) as sidecar:
        assert monitor.collect(proba, ids=ids)
        sidecar.wait_drained(monitor.path)
        sidecar.stop()
    files = {path: path.read_bytes() for path in (tmp_path / "checkpoint").glob("*.waiting.*")}
    with run_sidecar("--period", "24h", ring_dir=ring_dir, output=tmp_path) as sidecar:
        sidecar.wait_until(lambda: left(tmp_path) == [], "they are in a checkpoint")
        assert list((tmp_path / "checkpoint").glob("*.state.*"))
        sidecar.kill()
    if not removed:  # killed a moment earlier
        for path, content in files.items():
            path.write_bytes(content)
    with run_sidecar("--period", "24h", ring_dir=ring_dir, output=tmp_path) as sidecar:
        assert monitor.collect(None, labels=labels, ids=ids)
        sidecar.wait_drained(monitor.path)
        sidecar.stop()
    assert sum(report["labels"]["unjoined"]["unknown_id"] for report in sidecar.reports()) == 30
    assert sum(report["labels"]["forgotten_rows"] for report in sidecar.reports()) == 30
    assert (health(tmp_path)["forgotten_rows"], left(tmp_path)) == (0, [])


def test_mlwatchers_format_repeats_accuracy_at_the_time_of_the_rows(watch, ring_dir, run_sidecar):
    proba, labels, ids = rows_of(5, 100)
    monitor = watch("m", n_classes=CLASSES)
    with run_sidecar("--period", "1s", "--format", "mlwatcher", ring_dir=ring_dir) as sidecar:
        assert monitor.collect(proba, ids=ids)

        def lines(what):
            all_of_it = [json.loads(line) for line in sidecar.mlwatcher_lines()]
            return [line for line in all_of_it if line["properties"]["what"] == what]

        counts = sidecar.wait_until(lambda: lines("prediction_count"), "the period is reported")
        assert lines("accuracy") == []
        assert monitor.collect(None, labels=labels, ids=ids)
        accuracy = sidecar.wait_until(lambda: lines("accuracy"), "it is reported once more")
        sidecar.stop()
    assert {line["timestamp"] for line in accuracy} == {counts[0]["timestamp"]}
