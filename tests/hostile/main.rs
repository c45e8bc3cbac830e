//! Producers that mean harm, each in a process of its own, against the real sidecar, while an honest one writes beside them; and
//! consumers that mean harm against a real producer.
//!
//! `hostile attack NAME DIR` is the attacker; without arguments every attack is run and checked. `MLWATCH_ATTACK_SECONDS` is how long
//! each one lasts.

#[path = "../support/mod.rs"]
mod support;

mod attacks;
mod columns;
mod consumer;
mod forge;
mod labels;
mod watch;

use attacks::Attack;
use serde_json::Value;
use std::io::{BufRead, BufReader, Write, stdout};
use std::os::unix::process::ExitStatusExt;
use std::panic::catch_unwind;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};
use support::ring_dir;
use support::sidecar::{Sidecar, wait_until};
use watch::{Honest, Seen, assert_undisturbed, health, of_model};

/// What the sidecar takes besides what it states: itself, and what it knows of 4,096 names.
const OWN_MEMORY: u64 = 10 << 20;
/// And while it opens a ring, times the schema: its bytes, and each name on its own.
const OPENING: f64 = 2.5;
/// Hostile rings may hold more than can be read in this time.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);
/// Beyond it, for the reports, on a machine that has other things to do.
const HANGING: Duration = Duration::from_secs(30);
/// Of the log: each kind of line 100 times at once, and once a second; these are the kinds that producers can cause.
const MOST_LINES: f64 = 800.0;
const MOST_LINES_PER_SECOND: f64 = 16.0;

fn seconds() -> f64 {
    env::var("MLWATCH_ATTACK_SECONDS").map_or(0.25, |n| n.parse().expect("MLWATCH_ATTACK_SECONDS is a number"))
}

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [verb, name, dir] = arguments.as_slice()
        && verb == "attack"
    {
        attack(name, Path::new(dir));
    }
    let is_chosen = |name: &&str| is_chosen(name, &arguments);
    if arguments.iter().any(|argument| argument == "--list") {
        names().filter(is_chosen).for_each(|name| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    println!("{:<62} {:>8} {:>14} {:>8} {:>8} {:>6}", "attack", "rounds", "MiB, of", "wait ms", "stop ms", "lines");
    let outcomes: Vec<bool> = names().filter(is_chosen).map(passes).collect();
    let passed = outcomes.iter().filter(|passed| **passed).count();
    let failed = outcomes.len() - passed;
    println!("{passed} passed, {failed} failed");
    ExitCode::from(u8::from(failed > 0))
}

/// By producers.
fn attacks() -> impl Iterator<Item = &'static Attack> {
    attacks::ALL.iter().chain(columns::ALL).chain(labels::ALL)
}

fn names() -> impl Iterator<Item = &'static str> {
    attacks().map(|attack| attack.name).chain(consumer::ALL.iter().map(|trial| trial.name))
}

/// Whether it contains one of the words among the arguments, which otherwise are meant for the usual harness.
fn is_chosen(name: &str, arguments: &[String]) -> bool {
    const WITH_VALUE: &[&str] =
        &["--test-threads", "--skip", "--color", "--format", "--logfile", "--shuffle-seed", "-Z"];
    let is_value = |i: usize| i > 0 && WITH_VALUE.contains(&arguments[i - 1].as_str());
    let words = || arguments.iter().enumerate().filter(|(i, word)| !word.starts_with('-') && !is_value(*i));
    words().count() == 0 || words().any(|(_, word)| name.contains(word.as_str()))
}

/* ---- the attacker ---- */

/// Says when it has begun, and counts its rounds for whoever reads them.
fn attack(name: &str, dir: &Path) -> ! {
    // An attacker whose test is gone must not go on.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).expect("the kernel knows it");
    let of_producers = attacks().map(|attack| (attack.name, attack.prepare));
    let mut all = of_producers.chain(consumer::ALL.iter().map(|trial| (trial.name, trial.prepare)));
    let (_, prepare) = all.find(|(known, _)| *known == name).expect("a known attack");
    let mut round = prepare(dir, forge::Dice(0x9E37_79B9_7F4A_7C15));
    println!("ready");
    let mut rounds = 0u64;
    let mut told = Instant::now();
    loop {
        round();
        rounds += 1;
        if told.elapsed() > Duration::from_millis(50) {
            println!("{rounds}");
            told = Instant::now();
        }
    }
}

struct Attacker {
    process: Child,
    out: BufReader<std::process::ChildStdout>,
}

impl Attacker {
    fn start(name: &str, dir: &Path) -> Attacker {
        let program = env::current_exe().expect("we are a file");
        let mut process = Command::new(program)
            .args(["attack", name])
            .arg(dir)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the attacker starts");
        let mut attacker = Attacker { out: BufReader::new(process.stdout.take().expect("piped")), process };
        let mut ready = String::new();
        attacker.out.read_line(&mut ready).expect("it says when it is ready");
        attacker
    }

    /// Kills it. How many rounds it got through.
    fn stop(mut self) -> u64 {
        self.process.kill().expect("it runs");
        let status = self.process.wait().expect("it ends");
        assert_eq!(status.signal(), Some(9), "the attacker has failed by itself");
        let last = (&mut self.out).lines().map_while(Result::ok).last().unwrap_or_default();
        last.parse().unwrap_or(0)
    }
}

impl Drop for Attacker {
    /// A trial that has failed leaves none behind.
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/* ---- the trial ---- */

fn passes(name: &'static str) -> bool {
    let passed = catch_unwind(|| match attacks().find(|attack| attack.name == name) {
        Some(attack) => try_out(attack).to_string(),
        None => {
            let trial = consumer::ALL.iter().find(|trial| trial.name == name).expect("a known name");
            format!("{:>8}", (trial.run)(trial))
        }
    });
    println!("{name:<62} {}", passed.as_deref().unwrap_or("  FAILED"));
    stdout().flush().expect("somebody reads");
    passed.is_ok()
}

fn try_out(attack: &Attack) -> Seen {
    let (dir, output) = (ring_dir(), tempfile::tempdir().unwrap());
    let config = output.path().join("mlwatch.toml");
    let period = if attack.wishes { "" } else { "period = '500ms'\n" };
    fs::write(&config, format!("{period}[limits]\ndrain_timeout = '{DRAIN_TIMEOUT:?}'\n{}\n", attack.limits)).unwrap();
    let honest = Honest::start(dir.path(), 500_000_000);
    let attacker = Attacker::start(attack.name, dir.path());
    let sidecar = Sidecar::start(dir.path(), output.path(), &["--config", config.to_str().unwrap()]);
    let (mut seen, start) = (Seen::default(), Instant::now());
    seen.watch(&sidecar, &honest, output.path(), Duration::from_secs_f64(seconds()));
    // A short attack may need another look at the directory to be noticed.
    wait_until(&format!("one of {:?} is said", attack.said), || {
        seen.look(&sidecar, output.path());
        attack.said.is_empty() || attack.said.iter().any(|text| sidecar.says(text))
    });
    let counts = honest.stop();
    seen.look(&sidecar, output.path());
    let log = stop(sidecar, &mut seen);
    let lasted = start.elapsed();
    seen.rounds = attacker.stop();
    assert_undisturbed(output.path(), &counts);
    assert_noticed(attack, output.path(), &log);
    assert_bounded(attack, &mut seen, output.path(), &log, lasted);
    seen
}

/// SIGTERM in the middle of the attack.
fn stop(sidecar: Sidecar, seen: &mut Seen) -> String {
    let asked = Instant::now();
    let (status, log) = sidecar.stop();
    seen.stop = asked.elapsed();
    assert!(status.success(), "{status}: {log}");
    assert!(seen.stop < DRAIN_TIMEOUT + HANGING, "it hung for {:?}", seen.stop);
    log
}

fn assert_noticed(attack: &Attack, output: &Path, log: &str) {
    let health = health(output).expect("it is written at the end");
    // A reason, or all reasons of its kind.
    let counted = |pointer: &&str| match health.pointer(pointer) {
        Some(Value::Object(reasons)) => !reasons.is_empty(),
        count => count.and_then(Value::as_u64) > Some(0),
    };
    let any = |what: &[&str], holds: &dyn Fn(&&str) -> bool| what.is_empty() || what.iter().any(holds);
    assert!(any(attack.counted, &counted), "none of {:?} is counted: {health:#}\n{log}", attack.counted);
    assert!(any(attack.said, &|text| log.contains(*text)), "none of {:?} is said: {log}", attack.said);
    let is_counted = |report: &Value, pointer: &str| report.pointer(pointer).and_then(Value::as_u64) > Some(0);
    let reported = |pointer: &&str| of_model(output, "hostile").any(|report| is_counted(&report, pointer));
    assert!(any(attack.reported, &reported), "none of {:?} is reported: {log}", attack.reported);
}

fn assert_bounded(attack: &Attack, seen: &mut Seen, output: &Path, log: &str, lasted: Duration) {
    let at_end = health(output).expect("it is written at the end")["memory_bytes_at_most"].as_u64().unwrap();
    seen.bound = seen.bound.max(at_end);
    let opening = (OPENING * attack.opening as f64) as u64;
    assert!(seen.memory <= seen.bound + opening + OWN_MEMORY, "{} bytes, {} stated", seen.memory, seen.bound);
    seen.lines = log.lines().count();
    let most = MOST_LINES + MOST_LINES_PER_SECOND * lasted.as_secs_f64();
    assert!(seen.lines as f64 <= most, "{} lines of log, {most} at most", seen.lines);
    let forged = log.lines().find(|line| !line.starts_with("20") || line.contains('\u{1b}'));
    assert_eq!(forged, None, "a line of the log that an attacker wrote");
}
