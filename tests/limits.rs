//! What a producer may ask for, and what becomes of one that asks for more: it is refused by the name of the limit, and nobody else
//! notices.

#[path = "hostile/forge.rs"]
#[allow(dead_code, reason = "each test binary uses its own part")]
mod forge;
mod support;

use forge::{Forged, Shape};
use serde_json::Value;
use std::any::Any;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use support::sidecar::{Sidecar, inspect, reports, total, wait_until, wait_until_drained};
use support::{Options, Producer, ring_dir};
use tempfile::TempDir;

/// A sidecar with limits, and an honest producer that it has attached to.
struct House {
    dir: TempDir,
    output: TempDir,
    honest: Producer,
    config: PathBuf,
}

impl House {
    fn new(limits: &str) -> House {
        let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
        let config = output.path().join("mlwatch.toml");
        fs::write(&config, format!("period = '24h'\n[limits]\n{limits}\n")).unwrap();
        // The first in order of names, so that it is read before there are too many.
        let honest = Producer::open(dir.path(), &model("a-honest")).unwrap();
        House { dir, output, honest, config }
    }

    fn start(&self) -> Sidecar {
        Sidecar::start(self.dir.path(), self.output.path(), &["--config", self.config.to_str().unwrap()])
    }

    /// Rows of the honest producer that are read, whatever else there is.
    fn write_honestly(&self) {
        (0..10).for_each(|_| assert_eq!(self.honest.write_features(&[0.5; 4], 2), 0));
        wait_until_drained(&self.honest.path());
    }

    /// Ends it, and makes sure that the honest producer lost nothing. What it counted, and what it said.
    fn stop(&self, sidecar: Sidecar) -> (Value, String) {
        let (status, log) = sidecar.stop();
        assert!(status.success(), "{log}");
        assert_eq!(self.total("a-honest", "/rows"), self.honest.counts().rows, "{log}");
        (serde_json::from_slice(&fs::read(self.output.path().join("health.json")).unwrap()).unwrap(), log)
    }

    fn total(&self, model: &str, pointer: &str) -> u64 {
        let of_model = |report: &Value| report["model"] == model;
        total(&reports(self.output.path()).into_iter().filter(of_model).collect::<Vec<_>>(), pointer)
    }
}

fn model(name: &str) -> Options {
    Options { model: name.into(), ..Options::default() }
}

/// What must stay open as long as the sidecar runs.
type Held = Box<dyn Any>;

fn open(dir: &Path, options: &Options) -> Held {
    Box::new(Producer::open(dir, options).unwrap())
}

#[test]
fn who_asks_for_too_much_is_refused_by_the_name_of_the_limit() {
    type Ask = fn(&Path) -> Held;
    let two_more: Ask = |dir| Box::new(["b", "c"].map(|name| open(dir, &model(name))));
    let cases: [(&str, &str, Ask); 7] = [
        ("max_rings", "max_rings = 2", two_more),
        ("max_models", "max_models = 2", two_more),
        ("max_mapped_bytes", "max_mapped_bytes = 200_000", two_more),
        ("max_ring_bytes", "max_ring_bytes = 100_000", |dir| open(dir, &Options { ring_bytes: 1 << 18, ..model("b") })),
        ("max_classes", "max_classes = 9", |dir| open(dir, &Options { n_classes: 10, ..model("b") })),
        ("max_features", "max_features = 9", |dir| open(dir, &Options { n_features: 10, ..model("b") })),
        ("max_profile_bytes", "max_profile_bytes = 650_000", |dir| {
            let options = Options { n_features: 1500, ring_bytes: 1 << 20, ..model("b") };
            open(dir, &options)
        }),
    ];
    for (limit, limits, ask) in cases {
        let house = House::new(limits);
        let _held = ask(house.dir.path());
        let sidecar = house.start();
        sidecar.wait_for_log(&format!("raise limits.{limit}"));
        house.write_honestly();
        let (health, log) = house.stop(sidecar);
        assert_eq!(health["refused"], serde_json::json!({ limit: 1 }), "{log}");
        let lines = log.lines().filter(|line| line.contains("not read")).count();
        assert_eq!(lines, 1, "said once: {log}");
    }
}

#[test]
fn who_was_one_too_many_is_read_once_there_is_room() {
    let house = House::new("max_rings = 2");
    let first = Producer::open(house.dir.path(), &model("b")).unwrap();
    let second = Producer::open(house.dir.path(), &model("c")).unwrap();
    let sidecar = house.start();
    sidecar.wait_for_log("raise limits.max_rings");
    assert_eq!(second.write_features(&[0.5; 4], 2), 0);
    fs::remove_file(first.path()).unwrap();
    drop(first);
    wait_until_drained(&second.path());
    house.write_honestly();
    house.stop(sidecar);
    assert_eq!(house.total("c", "/rows"), 2);
}

#[test]
fn a_sample_is_cut_to_the_memory_and_to_the_rows_that_a_producer_may_have() {
    for (limits, most) in [("max_profile_bytes = 650_000", 10_000), ("max_reservoir_rows = 70", 70)] {
        let house = House::new(limits);
        let wishful = Options { reservoir_rows: u64::MAX, ring_bytes: 1 << 20, ..model("wishful") };
        let producer = Producer::open(house.dir.path(), &wishful).unwrap();
        let sidecar = house.start();
        (0..100).for_each(|_| assert_eq!(producer.write_features(&[0.5; 400], 2), 0));
        wait_until_drained(&producer.path());
        house.write_honestly();
        let (health, log) = house.stop(sidecar);
        assert_eq!(house.total("wishful", "/rows"), 20_000, "{log}");
        let sampled = house.total("wishful", "/sampled_rows");
        assert!((50..=most).contains(&sampled), "{sampled} rows sampled with {limits}");
        assert_eq!(health["refused"], serde_json::json!({}));
    }
}

#[test]
fn a_busy_ring_starves_no_other() {
    let house = House::new("drain_timeout = '1s'");
    let busy = Producer::open(house.dir.path(), &Options { ring_bytes: 1 << 26, ..model("busy") }).unwrap();
    let (stop, path) = (AtomicBool::new(false), busy.path());
    let sidecar = house.start();
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let busy = busy;
            while !stop.load(Relaxed) {
                busy.write_features(&[0.5; 2000], 2);
            }
        });
        wait_until("the busy ring is read", || inspect(&path)["head"].as_u64() > Some(0));
        (0..20).for_each(|_| house.write_honestly());
        stop.store(true, Relaxed);
        writer.join().unwrap();
    });
    house.stop(sidecar);
}

#[test]
fn more_names_than_are_looked_at_hide_no_ring_that_is_known_and_newcomers_only_while_they_last() {
    let house = House::new("");
    let sidecar = house.start();
    house.write_honestly();
    let names: Vec<PathBuf> = (0..5000).map(|i| house.dir.path().join(format!("noise{i}.ring"))).collect();
    names.iter().for_each(|name| fs::write(name, "").unwrap());
    let newcomer = Producer::open(house.dir.path(), &model("z-newcomer")).unwrap();
    assert_eq!(newcomer.write_features(&[0.5; 4], 2), 0);
    sidecar.wait_for_log("noise");
    house.write_honestly();
    names.iter().for_each(|name| fs::remove_file(name).unwrap());
    wait_until_drained(&newcomer.path());
    house.write_honestly();
    let (health, log) = house.stop(sidecar);
    assert!(health["refused"]["not_a_ring"].as_u64() > Some(0) && health["refused"]["io"].is_null(), "{health:#}");
    assert!(log.lines().count() < 300, "{} lines", log.lines().count());
    assert!(!log.contains("let go"), "{log}");
    assert_eq!(house.total("z-newcomer", "/rows"), 2);
}

#[test]
fn a_ring_of_another_version_or_with_unknown_features_is_left_alone_until_a_good_one_has_its_name() {
    let house = House::new("");
    let make = |name: &str, spoil: fn(&mut mlwatch::ring::wire::Identity)| {
        let (id, schema) = forge::identity(&Shape::default(), spoil);
        let bytes = [bytemuck::bytes_of(&id), schema.as_slice()].concat();
        fs::write(house.dir.path().join(name), bytes).unwrap();
    };
    make("newer.0.ring", |id| (id.abi_major, id.abi_minor) = (2, 7));
    make("richer.0.ring", |id| id.feat_incompat = 0x40);
    let sidecar = house.start();
    sidecar.wait_for_log("it has format 2.7, this sidecar reads 1.x: upgrade the older side");
    sidecar.wait_for_log("it needs features 0x40 that this sidecar does not know: upgrade the sidecar");
    let mut good = ["newer", "richer"].map(|name| {
        Forged::new(house.dir.path(), &format!("{name}.0.ring"), &Shape { model: name.into(), ..Shape::default() })
    });
    for ring in &mut good {
        assert!(ring.write_sound(5));
        wait_until("the good one is read", || ring.head() == ring.pos);
    }
    house.write_honestly();
    let (health, log) = house.stop(sidecar);
    assert_eq!(health["refused"], serde_json::json!({ "version": 1, "features": 1 }), "{log}");
    assert_eq!((house.total("newer", "/rows"), house.total("richer", "/rows")), (5, 5));
}

#[test]
fn a_ring_without_permission_is_refused_and_the_others_are_read() {
    let house = House::new("");
    Forged::new(house.dir.path(), "secret.0.ring", &Shape::default());
    let secret = house.dir.path().join("secret.0.ring");
    Command::new("chmod").arg("000").arg(&secret).status().unwrap();
    // To the superuser nothing is forbidden: the sidecar runs as somebody else then.
    let root = nix::unistd::geteuid().is_root();
    let mode = |path: &Path| assert!(Command::new("chmod").args(["-R", "a+rwX"]).arg(path).status().unwrap().success());
    if root {
        [house.output.path(), &house.honest.path()].into_iter().for_each(mode);
        assert!(Command::new("chmod").arg("a+rx").arg(house.dir.path()).status().unwrap().success());
    }
    let program = house.output.path().join("mlwatch");
    fs::copy(env!("CARGO_BIN_EXE_mlwatch"), &program).unwrap();
    let sidecar = Sidecar::of(&program, house.dir.path(), house.output.path(), &["--period", "24h"], |command| {
        if root {
            command.uid(65_534).gid(65_534);
        }
    });
    sidecar.wait_for_log("producer and sidecar need a common user or group");
    house.write_honestly();
    let (health, log) = house.stop(sidecar);
    assert_eq!(health["refused"], serde_json::json!({ "permission": 1 }), "{log}");
}
