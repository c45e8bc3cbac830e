//! Which ring files a directory holds.

use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

/// A name that looks like a ring, and the file it leads to now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// Directory and name.
    pub path: PathBuf,
    /// A name whose file has another device and inode than before leads to a new ring.
    pub file: (u64, u64),
}

/// The `*.ring` names in `dir`, sorted. Names that begin with a dot are rings still being made.
/// A directory that does not exist yet holds none.
pub fn scan(dir: &Path) -> io::Result<Vec<Found>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let device = fs::metadata(dir)?.dev();
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.ends_with(b".ring") && !name.starts_with(b".") {
            found.push(Found { path: entry.path(), file: (device, entry.ino()) });
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(found)
}
