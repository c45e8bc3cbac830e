//! The direction rules of the house: who may know whom, where `unsafe` may stand, which names there must not be.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Room → rooms it may use.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("main", &["cli", "log"]),
    ("lib", &[]),
    ("cli", &["config", "period", "pipeline", "reference", "ring", "shutdown", "sink", "source"]),
    ("config", &["alert", "period", "pipeline", "report", "sink"]),
    ("alert", &["reference", "report", "wildcard"]),
    ("wildcard", &[]),
    (
        "pipeline",
        &[
            "alert",
            "checkpoint",
            "health",
            "period",
            "profile",
            "reference",
            "report",
            "ring",
            "shutdown",
            "sink",
            "stats",
            "wildcard",
        ],
    ),
    ("checkpoint", &["period", "profile", "ring", "stats"]),
    ("health", &["period"]),
    // pipeline: what the ring calls a batch and a schema, the profile calls rows and a spec; it introduces them here too.
    ("source", &["period", "pipeline", "profile", "reference", "report", "ring", "stats", "wildcard"]),
    ("sink", &["health", "period", "report"]),
    ("report", &["period", "profile", "reference", "stats", "wildcard"]),
    ("reference", &["profile", "stats"]),
    ("profile", &["stats"]),
    ("period", &[]),
    ("log", &[]),
    ("ring", &[]),
    ("shutdown", &[]),
    ("stats", &[]),
];

fn sources(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { sources(&path, into) } else { into.push(path) }
    }
}

/// Path below `sidecar/src` and text of every source file.
fn house() -> BTreeMap<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("sidecar/src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let name = |file: &PathBuf| file.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
    files.iter().map(|file| (name(file), fs::read_to_string(file).unwrap())).collect()
}

fn room(file: &str) -> &str {
    file.split(['/', '.']).next().unwrap()
}

/// Rooms named after `crate::` or `mlwatch::` in code, `use` groups included. Unit tests may know whom they like.
fn known(text: &str) -> Vec<String> {
    let code = text.split("#[cfg(test)]").next().unwrap();
    let code = code.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n");
    let mut rooms = Vec::new();
    for prefix in ["crate::", "mlwatch::"] {
        for after in code.split(prefix).skip(1) {
            let names = after.strip_prefix('{').map_or(after, |group| group.split('}').next().unwrap());
            let grouped = names.len() != after.len();
            let parts: Vec<&str> = if grouped { names.split(',').collect() } else { vec![names] };
            let first_word = |part: &str| {
                part.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("").to_string()
            };
            rooms.extend(parts.into_iter().map(first_word).filter(|name| !name.is_empty()));
        }
    }
    rooms
}

#[test]
fn every_room_knows_only_whom_it_may() {
    let rules: BTreeMap<&str, &[&str]> = MAY_KNOW.iter().copied().collect();
    for (file, text) in house() {
        let room = room(&file);
        let allowed = rules.get(room).unwrap_or_else(|| panic!("{file}: a new room; say here whom it may know"));
        for other in known(&text).iter().filter(|other| rules.contains_key(other.as_str()) && *other != room) {
            assert!(allowed.contains(&other.as_str()), "{file} uses {other}, but {room} may know only {allowed:?}");
        }
    }
}

#[test]
fn the_check_sees_arrows() {
    assert_eq!(known("use crate::ring::Batch;\nlet x = crate::stats::f();"), ["ring", "stats"]);
    assert_eq!(known("use crate::{ring::Batch, sink};"), ["ring", "sink"]);
    assert_eq!(known("// crate::ring"), [""; 0]);
}

#[test]
fn unsafe_stands_in_two_files_of_the_ring_and_in_the_dispatch_of_stats_only() {
    for (file, text) in house() {
        let has_unsafe = text.lines().any(|line| line.split("//").next().unwrap().contains("unsafe "));
        assert!(
            !has_unsafe || ["ring/segment.rs", "ring/fault.rs", "stats/dispatch.rs"].contains(&file.as_str()),
            "{file} has unsafe code"
        );
    }
}

#[test]
fn no_room_is_a_drawer() {
    for (file, _) in house() {
        for drawer in ["util", "common", "helper", "manager", "misc"] {
            assert!(!file.contains(drawer), "{file}: name the room after what it holds");
        }
    }
}

/// Between every other pair of `quote`s in the lines of `text`.
fn quoted(text: &str, quote: char) -> Vec<&str> {
    text.lines().flat_map(|line| line.split(quote).skip(1).step_by(2)).collect()
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(root.join("docs/security.md")).unwrap();
    let mut files = Vec::new();
    ["sidecar/src", "tests"].iter().for_each(|dir| sources(&root.join(dir), &mut files));
    let rust = files.iter().filter(|file| file.extension() == Some("rs".as_ref()));
    let code: String = rust.map(|file| fs::read_to_string(file).unwrap()).collect();
    let rows: Vec<&str> =
        page.lines().filter_map(|line| line.strip_suffix(" |")?.rsplit_once("| ")).map(|p| p.1).collect();
    let tests = rows.join("\n");
    let functions = quoted(&page, '`').into_iter().filter(|name| name.matches('_').count() > 3);
    let functions: Vec<&str> = functions.filter(|name| !name.contains([' ', '=', '.'])).collect();
    let attacks = quoted(&tests, '"');
    assert!(functions.len() > 12 && attacks.len() > 25, "{functions:?} {attacks:?}");
    for name in functions {
        assert!(code.contains(&format!("fn {name}(")), "{name} is no test");
    }
    let names: Vec<&str> = code.lines().filter_map(|line| line.trim().split_once("name: \"")).map(|p| p.1).collect();
    for attack in attacks {
        assert!(names.iter().any(|name| name.contains(attack)), "{attack:?} is no attack");
    }
}
