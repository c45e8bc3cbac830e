//! `metrics-<time>.jsonl`: one report a line, as `docs/report.md` documents it.

use super::{RotatingFiles, Rotation, Sink};
use crate::report::Report;
use std::io;
use std::path::Path;
use std::time::SystemTime;

/// The native format.
#[derive(Debug)]
pub struct NativeFiles(RotatingFiles);

impl NativeFiles {
    /// Makes `dir` if need be.
    pub fn new(dir: &Path, rotation: Rotation) -> io::Result<NativeFiles> {
        RotatingFiles::new(dir, "metrics-", "%Y%m%dT%H%M%SZ", ".jsonl", rotation).map(NativeFiles)
    }
}

impl Sink for NativeFiles {
    fn name(&self) -> &'static str {
        "native"
    }

    fn deliver(&mut self, report: &Report, now: SystemTime) -> io::Result<()> {
        let mut line = serde_json::to_vec(report)?;
        line.push(b'\n');
        self.0.append(&line, now)
    }
}
