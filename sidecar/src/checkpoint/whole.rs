//! A small file that is there whole or not at all: magic, checksum, and what its owner makes of the rest.

use super::disk::{Damage, Work, open_regular, read_regular};
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

/// Magic and checksum.
const PREFIX: usize = 12;

/// One such file of a checkpoint directory.
#[derive(Debug)]
pub struct WholeFile {
    pub(super) path: PathBuf,
    /// Changes when what is written changes its meaning.
    pub(super) magic: &'static [u8; 8],
    /// What it holds takes no more bytes.
    pub(super) most: u64,
    pub(super) work: Arc<Work>,
}

impl WholeFile {
    /// What it holds, if it is there.
    pub(super) fn read(&self) -> Result<Option<Vec<u8>>, Damage> {
        let mut bytes = match read_regular(&self.path, self.most + PREFIX as u64) {
            Ok(bytes) => bytes,
            Err(why) if why.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(_) => return Err(Damage::Unreadable),
        };
        let (prefix, body) = bytes.split_at_checked(PREFIX).ok_or(Damage::Checksum)?;
        let (magic, crc) = prefix.split_at(self.magic.len());
        if magic != self.magic {
            return Err(Damage::Version);
        }
        if crc != crc32c::crc32c(body).to_le_bytes() {
            return Err(Damage::Checksum);
        }
        bytes.drain(..PREFIX);
        Ok(Some(bytes))
    }

    /// Whoever reads it finds this, or what was there before. A failure is counted.
    pub fn write(&self, body: &[u8]) -> io::Result<()> {
        let written = self.replace(body);
        match &written {
            Ok(()) => self.work.add_bytes((PREFIX + body.len()) as u64),
            Err(_) => self.work.add_failure(),
        }
        written
    }

    fn replace(&self, body: &[u8]) -> io::Result<()> {
        let next = self.path.with_extension("next");
        let mut file = open_regular(&next, OpenOptions::new().write(true).create(true))?;
        file.set_len(0)?;
        file.write_all(self.magic)?;
        file.write_all(&crc32c::crc32c(body).to_le_bytes())?;
        file.write_all(body)?;
        fs::rename(next, &self.path)
    }

    /// There is nothing to hold.
    pub fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn file(dir: &Path) -> WholeFile {
        WholeFile { path: dir.join("f"), magic: b"MLWTEST1", most: 100, work: Arc::default() }
    }

    #[test]
    fn it_holds_what_was_written_last_and_nothing_once_it_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        assert_eq!(file.read(), Ok(None));
        for body in [&[7u8; 100][..], &[], b"last"] {
            file.write(body).unwrap();
            assert_eq!(file.read(), Ok(Some(body.to_vec())));
        }
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
        file.remove();
        assert_eq!(file.read(), Ok(None));
    }

    #[test]
    fn whatever_is_changed_in_it_is_damage() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        file.write(b"body").unwrap();
        let whole = fs::read(&file.path).unwrap();
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&file.path, flipped).unwrap();
            let why = if at < 8 { Damage::Version } else { Damage::Checksum };
            assert_eq!(file.read(), Err(why), "flipped at {at}");
            fs::write(&file.path, &whole[..at]).unwrap();
            assert_eq!(file.read(), Err(Damage::Checksum), "cut at {at}");
        }
        file.write(&[7; 101]).unwrap();
        assert_eq!(file.read(), Err(Damage::Checksum), "longer than it may be");
    }

    #[test]
    fn what_is_in_its_way_is_unreadable_and_a_failure_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let file = file(dir.path());
        fs::create_dir(&file.path).unwrap();
        assert_eq!(file.read(), Err(Damage::Unreadable));
        assert!(file.write(b"body").is_err());
        assert_eq!(file.work.done().failed, 1);
        fs::remove_dir(&file.path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &file.path).unwrap();
        assert_eq!(file.read(), Err(Damage::Unreadable));
    }
}
