//! Which ring files a directory holds.

use std::fs;
use std::io;
use std::os::unix::fs::{DirEntryExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Names looked at. Who makes more of them keeps newcomers from being seen, but not the rings that are known.
const MOST_NAMES: usize = 4096;

/// A name that looks like a ring, and the file it leads to now.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Found {
    /// Directory and name.
    pub path: PathBuf,
    /// A name whose file has another device and inode than before leads to a new ring.
    pub file: (u64, u64),
}

impl Found {
    /// Whether the name still leads to this file.
    pub fn is_there(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|now| (now.dev(), now.ino()) == self.file)
    }
}

/// What a directory holds.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Sorted by name.
    pub found: Vec<Found>,
    /// There are more names than were looked at.
    pub cut: bool,
}

/// The `*.ring` names in `dir`. Names that begin with a dot are rings still being made.
/// A directory that does not exist yet holds none.
pub fn scan(dir: &Path) -> io::Result<Listing> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Listing::default()),
        other => other?,
    };
    let device = fs::metadata(dir)?.dev();
    let mut listing = Listing::default();
    for (i, entry) in entries.enumerate() {
        if i == MOST_NAMES {
            listing.cut = true;
            break;
        }
        let entry = entry?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.ends_with(b".ring") && !name.starts_with(b".") {
            listing.found.push(Found { path: entry.path(), file: (device, entry.ino()) });
        }
    }
    // As bytes: paths compare component by component, which takes its time with thousands of them.
    listing.found.sort_by(|a, b| a.path.as_os_str().cmp(b.path.as_os_str()));
    Ok(listing)
}
