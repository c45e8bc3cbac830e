//! Line files that rotate by age and size and are deleted when there are too many.

use jiff::tz::TimeZone;
use jiff::{Timestamp, fmt::strtime};
use serde::Deserialize;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tracing::warn;

/// When to begin a new file, and how many to keep.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Rotation {
    /// A file takes no further line once it is this long.
    pub max_bytes: u64,
    /// Or this old.
    #[serde(deserialize_with = "crate::period::duration")]
    pub max_age: Duration,
    /// Files kept, the current one included.
    pub keep: usize,
}

impl Default for Rotation {
    fn default() -> Rotation {
        Rotation { max_bytes: 64 << 20, max_age: Duration::from_secs(3600), keep: 72 }
    }
}

/// One family of files: `<before><UTC time><after>` in one directory.
#[derive(Debug)]
pub struct RotatingFiles {
    dir: PathBuf,
    before: &'static str,
    time_format: &'static str,
    after: &'static str,
    rotation: Rotation,
    current: Option<Current>,
}

#[derive(Debug)]
struct Current {
    path: PathBuf,
    file: File,
    bytes: u64,
    opened: SystemTime,
    /// The last write failed half-way: the next line begins with a line end.
    torn: bool,
}

impl Current {
    /// Whether the name still leads to this file: somebody may have cleaned up.
    fn is_named(&self) -> bool {
        let file = |m: &fs::Metadata| (m.dev(), m.ino());
        matches!((fs::metadata(&self.path), self.file.metadata()), (Ok(now), Ok(ours)) if file(&now) == file(&ours))
    }

    /// All of it or, as far as the file system allows, none.
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let end_of_torn_line: &[u8] = if self.torn { b"\n" } else { b"" };
        let written = self.file.write_all(&[end_of_torn_line, lines].concat());
        match &written {
            Ok(()) => {
                self.bytes += (end_of_torn_line.len() + lines.len()) as u64;
                self.torn = false;
            }
            Err(_) => self.torn |= self.file.set_len(self.bytes).is_err(),
        }
        written
    }
}

impl RotatingFiles {
    /// `time_format` as in strftime; it must sort as the times do.
    pub fn new(
        dir: &Path,
        before: &'static str,
        time_format: &'static str,
        after: &'static str,
        rotation: Rotation,
    ) -> io::Result<RotatingFiles> {
        make_dir(dir)?;
        Ok(RotatingFiles { dir: dir.to_owned(), before, time_format, after, rotation, current: None })
    }

    /// Appends `lines`, which end with a line end, to the current file in one write.
    pub fn append(&mut self, lines: &[u8], now: SystemTime) -> io::Result<()> {
        let rotation = self.rotation;
        let spent = |c: &Current| {
            c.bytes >= rotation.max_bytes || now.duration_since(c.opened).is_ok_and(|age| age >= rotation.max_age)
        };
        let rotated = self.current.as_ref().is_none_or(|current| spent(current) || !current.is_named());
        if rotated {
            self.current = Some(self.open(now)?);
        }
        self.current.as_mut().expect("opened above").write(lines)?;
        if rotated {
            self.delete_old();
        }
        Ok(())
    }

    fn open(&self, now: SystemTime) -> io::Result<Current> {
        make_dir(&self.dir)?;
        let time = Timestamp::try_from(now).map_err(io::Error::other)?.to_zoned(TimeZone::UTC);
        let time = strtime::format(self.time_format, &time).map_err(io::Error::other)?;
        let path = self.dir.join(format!("{}{time}{}", self.before, self.after));
        let context = |e: io::Error| io::Error::new(e.kind(), format!("cannot open {}: {e}", path.display()));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path).map_err(context)?;
        let bytes = file.metadata()?.len();
        Ok(Current { torn: ends_mid_line(&mut file, bytes)?, path, file, bytes, opened: now })
    }

    /// What cannot be deleted is said and left: no reason to lose a report. Never the current file, whatever the clock did to names.
    fn delete_old(&self) {
        let current = self.current.as_ref().map(|current| current.path.as_path());
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
        let mut others: Vec<PathBuf> =
            paths.filter(|path| self.owns(path) && Some(path.as_path()) != current).collect();
        others.sort();
        let surplus = (others.len() + 1).saturating_sub(self.rotation.keep.max(1));
        for path in &others[..surplus] {
            if let Err(why) = fs::remove_file(path) {
                warn!(path = %path.display(), %why, "cannot delete an old report file");
            }
        }
    }

    /// Only names we could have made: a time of digits and punctuation between the fixed parts.
    fn owns(&self, path: &Path) -> bool {
        let middle =
            path.file_name().and_then(|name| name.to_str()?.strip_prefix(self.before)?.strip_suffix(self.after));
        middle.is_some_and(|time| !time.is_empty() && time.bytes().all(|b| b.is_ascii_digit() || b"TZ-_".contains(&b)))
    }
}

fn make_dir(dir: &Path) -> io::Result<()> {
    let remedy = "choose another directory with --output, or one that this user may write";
    let context =
        |e: io::Error| io::Error::new(e.kind(), format!("cannot make the directory {}: {e}; {remedy}", dir.display()));
    fs::create_dir_all(dir).map_err(context)
}

fn ends_mid_line(file: &mut File, bytes: u64) -> io::Result<bool> {
    let mut last = [b'\n'];
    if bytes > 0 {
        file.seek(SeekFrom::Start(bytes - 1))?;
        file.read_exact(&mut last)?;
    }
    Ok(last != [b'\n'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn files(dir: &Path, rotation: Rotation) -> RotatingFiles {
        RotatingFiles::new(dir, "metrics-", "%Y%m%dT%H%M%SZ", ".jsonl", rotation).unwrap()
    }

    #[test]
    fn begin_a_new_file_by_age_and_size_and_keep_only_so_many() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("metrics-notes.jsonl"), "not ours").unwrap();
        let mut files = files(dir.path(), Rotation { max_bytes: 10, max_age: Duration::from_secs(60), keep: 2 });
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000u64 + s);
        files.append(b"1\n", at(0)).unwrap();
        files.append(b"2\n", at(59)).unwrap();
        files.append(b"3 is longer\n", at(60)).unwrap();
        files.append(b"4\n", at(61)).unwrap();
        assert_eq!(
            names(dir.path()),
            ["metrics-20231114T221420Z.jsonl", "metrics-20231114T221421Z.jsonl", "metrics-notes.jsonl"]
        );
        assert_eq!(fs::read_to_string(dir.path().join("metrics-20231114T221420Z.jsonl")).unwrap(), "3 is longer\n");
    }

    #[test]
    fn a_file_that_somebody_removed_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("out");
        let mut files = files(&out, Rotation::default());
        let at = |s| SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000u64 + s);
        files.append(b"1\n", at(0)).unwrap();
        fs::remove_dir_all(&out).unwrap();
        files.append(b"2\n", at(1)).unwrap();
        assert_eq!(fs::read_to_string(out.join("metrics-20231114T221321Z.jsonl")).unwrap(), "2\n");
    }

    #[test]
    fn a_write_that_fails_half_way_leaves_no_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("metrics-20231114T221320Z.jsonl");
        fs::write(&path, "{}\n").unwrap();
        // A read-only descriptor fails every write, after a write that got half-way.
        let mut half = OpenOptions::new().append(true).open(&path).unwrap();
        half.write_all(b"{\"half").unwrap();
        let mut current = Current {
            path: path.clone(),
            file: File::open("/dev/full").unwrap(),
            bytes: 3,
            opened: SystemTime::now(),
            torn: false,
        };
        assert!(
            current.write(b"{}\n").is_err() && current.torn,
            "/dev/full cannot be cut: the next line must begin with a line end"
        );
        current.file = half;
        current.write(b"{}\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{}\n{\"half\n{}\n");
    }

    #[test]
    fn an_old_file_that_cannot_be_deleted_costs_no_report() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("metrics-20200101T000000Z.jsonl")).unwrap();
        fs::write(dir.path().join("metrics-20990101T000000Z.jsonl"), "from the future\n").unwrap();
        let mut files = files(dir.path(), Rotation { keep: 1, ..Rotation::default() });
        files.append(b"{}\n", SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        assert_eq!(names(dir.path()), ["metrics-20200101T000000Z.jsonl", "metrics-20231114T221320Z.jsonl"]);
    }

    #[test]
    fn a_line_cut_by_a_crash_does_not_swallow_the_next() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("metrics-20231114T221320Z.jsonl"), "{\"cut").unwrap();
        let mut files = files(dir.path(), Rotation::default());
        files.append(b"{}\n", SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("metrics-20231114T221320Z.jsonl")).unwrap(), "{\"cut\n{}\n");
    }
}
