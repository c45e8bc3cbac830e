//! The real sidecar in a process of its own.

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};

pub struct Sidecar {
    child: Child,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

impl Drop for Sidecar {
    /// A test that has failed leaves none behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Sidecar {
    /// Reads `dir`, writes below `output`; returns once it listens to signals.
    pub fn start(dir: &Path, output: &Path, arguments: &[&str]) -> Sidecar {
        Sidecar::of(Path::new(self::program()), dir, output, arguments, |_| {})
    }

    /// The same, of a copy of the program, and as somebody else.
    pub fn of(
        program: &Path,
        dir: &Path,
        output: &Path,
        arguments: &[&str],
        dress: impl FnOnce(&mut Command),
    ) -> Sidecar {
        let mut command = Command::new(program);
        command
            .arg("run")
            .args(["--dir", dir.to_str().unwrap(), "--output", output.to_str().unwrap()])
            .args(arguments)
            .stderr(Stdio::piped());
        dress(&mut command);
        let mut child = command.spawn().expect("the sidecar starts");
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let log = Arc::new(Mutex::new(String::new()));
        let into = log.clone();
        let reader = spawn(move || stderr.lines().for_each(|line| *into.lock().unwrap() += &(line.unwrap() + "\n")));
        let sidecar = Sidecar { child, log, reader: Some(reader) };
        sidecar.wait_for_log("waiting for rings");
        sidecar
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn wait_for_log(&self, text: &str) {
        wait_until(&format!("the log says {text:?}"), || self.says(text));
    }

    /// Whether its log does, so far.
    pub fn says(&self, text: &str) -> bool {
        self.log().contains(text)
    }

    /// So far.
    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for it to end. Status and log.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().unwrap();
        self.reader.take().expect("joined once").join().unwrap();
        let log = self.log.lock().unwrap().clone();
        (status, log)
    }

    /// SIGTERM, and everything it has to say.
    pub fn stop(self) -> (ExitStatus, String) {
        self.signal("-TERM");
        self.wait()
    }
}

/// Cargo builds it for tests and benches of its own package only.
fn program() -> &'static str {
    let Some(program) = option_env!("CARGO_BIN_EXE_mlwatch") else { panic!("not built for this package") };
    program
}

/// Every native report in `output`, in order; not the line that may be under way.
pub fn reports(output: &Path) -> Vec<Value> {
    report_lines(output).iter().map(|line| serde_json::from_str(line).expect(line)).collect()
}

/// Their lines.
pub fn report_lines(output: &Path) -> Vec<String> {
    each_report_line(output).collect()
}

/// The same, one in memory at a time. A kill may have left half a line.
pub fn each_report_line(output: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(output).into_iter().flatten();
    let mut files: Vec<PathBuf> =
        entries.map(|e| e.unwrap().path()).filter(|p| p.extension() == Some("jsonl".as_ref())).collect();
    files.sort();
    files.into_iter().flat_map(|file| whole_lines(BufReader::new(fs::File::open(file).unwrap())))
}

fn whole_lines(mut file: impl BufRead) -> impl Iterator<Item = String> {
    std::iter::from_fn(move || {
        let mut line = String::new();
        file.read_line(&mut line).unwrap();
        line.ends_with('\n').then_some(line)
    })
}

/// Sum of a number over all reports.
pub fn total(reports: &[Value], pointer: &str) -> u64 {
    reports
        .iter()
        .map(|report| report.pointer(pointer).and_then(Value::as_u64).expect(pointer))
        .fold(0, u64::saturating_add)
}

/// `mlwatch inspect --json`.
pub fn inspect(ring: &Path) -> Value {
    let out = Command::new(program()).args(["inspect", "--json", ring.to_str().unwrap()]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Waits until the condition holds; fails after half a minute, which no healthy machine needs.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "waited in vain until {what}");
        sleep(Duration::from_millis(5));
    }
}

/// Waits until the sidecar has read everything in the ring.
pub fn wait_until_drained(ring: &Path) {
    wait_until("the ring is drained", || inspect(ring)["used"] == 0);
}
