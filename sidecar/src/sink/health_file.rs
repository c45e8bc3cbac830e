//! `health.json`: the newest health, whole at every instant.

use crate::health::Health;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Replaced with every writing.
#[derive(Debug)]
pub struct HealthFile {
    path: PathBuf,
    next: PathBuf,
}

impl HealthFile {
    /// In `dir`, which exists.
    pub fn new(dir: &Path) -> HealthFile {
        HealthFile { path: dir.join("health.json"), next: dir.join(".health.json.next") }
    }

    /// Readers see the old one or the new one.
    pub fn write(&self, health: &Health) -> io::Result<()> {
        let mut text = serde_json::to_vec_pretty(health)?;
        text.push(b'\n');
        fs::write(&self.next, text)?;
        fs::rename(&self.next, &self.path)
    }
}
