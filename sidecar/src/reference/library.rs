//! The references in a directory, by model and version, read anew when a file changes.

use super::{FileError, MOST_BYTES, Reference};
use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};
use thiserror::Error;
use tracing::{info, warn};

/// What files of a library end in.
const EXTENSION: &str = "mlwref";
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The directory itself cannot be read.
#[derive(Debug, Error)]
#[error("cannot read the reference directory {dir}: {source}", dir = dir.display())]
#[expect(missing_docs, reason = "the message documents it")]
pub struct LibraryError {
    pub dir: PathBuf,
    pub source: io::Error,
}

/// By model and version.
#[derive(Clone, Debug, Default)]
pub struct Library {
    references: BTreeMap<(String, String), Arc<Reference>>,
    /// Which file each came from.
    files: BTreeMap<PathBuf, Arc<Reference>>,
    /// Of all files together.
    pub bytes: u64,
    /// Files that are no references, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

impl Library {
    /// Of this version, or of any.
    pub fn find(&self, model: &str, version: &str) -> Option<&Arc<Reference>> {
        let of = |version: &str| self.references.get(&(model.to_owned(), version.to_owned()));
        of(version).or_else(|| of(""))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.references.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.references.is_empty()
    }

    /// A file that is no reference now, but was one, is being replaced or is damaged: what it said still counts.
    fn add(&mut self, path: &Path, loaded: Result<Reference, FileError>, before: &Library) {
        let reference = match (loaded, before.files.get(path)) {
            (Ok(reference), Some(known)) if known.id() == reference.id() => Some(known.clone()),
            (Ok(reference), _) => {
                let (model, version) = (&reference.model, &reference.version);
                info!(file = ?path, model, version, id = reference.id(), rows = reference.rows, "reference");
                Some(Arc::new(reference))
            }
            (Err(why), known) => {
                *self.refused.entry(why.reason()).or_default() += 1;
                let instead = known.map_or("there is none", |_| "what it said before still counts");
                warn!(file = ?path, %why, instead, "not a reference");
                known.cloned()
            }
        };
        if let Some(reference) = reference {
            self.files.insert(path.to_owned(), reference.clone());
            let key = (reference.model.clone(), reference.version.clone());
            if self.references.insert(key, reference).is_some() {
                warn!(file = ?path, "replaces another reference of the same model and version in this directory");
            }
        }
    }
}

/// What tells that a file has changed.
type Stamp = (PathBuf, u64, SystemTime);

/// A directory that is looked at every second, by a thread of its own: a large file stalls nobody.
#[derive(Debug)]
pub struct Watch {
    changed: Receiver<Library>,
    /// Hangs up when dropped, which ends the thread.
    _stop: Sender<()>,
}

impl Watch {
    /// Reads the directory once, then watches it.
    pub fn start(dir: PathBuf) -> Result<(Library, Watch), LibraryError> {
        let stamps = stamps(&dir).map_err(|source| LibraryError { dir: dir.clone(), source })?;
        let library = read(&stamps, &Library::default());
        let (send, changed) = bounded(1);
        let (stop, stopped) = bounded(0);
        let first = library.clone();
        let work = move || watch(&dir, stamps, first, &send, &stopped);
        let thread = thread::Builder::new().name("references".into()).spawn(work);
        thread.map_err(|source| LibraryError { dir: PathBuf::new(), source })?;
        Ok((library, Watch { changed, _stop: stop }))
    }

    /// The directory as it is now, if it is not as it was.
    pub fn changed(&self) -> Option<Library> {
        self.changed.try_recv().ok()
    }
}

fn watch(dir: &Path, mut known: Vec<Stamp>, mut library: Library, send: &Sender<Library>, stopped: &Receiver<()>) {
    let mut unreadable = false;
    while stopped.recv_timeout(LOOK_EVERY) == Err(RecvTimeoutError::Timeout) {
        match stamps(dir) {
            Ok(now) if now != known => {
                library = read(&now, &library);
                if send.send(library.clone()).is_err() {
                    return;
                }
                (known, unreadable) = (now, false);
            }
            Ok(_) => unreadable = false,
            Err(why) => {
                if !unreadable {
                    warn!(?dir, %why, "cannot read the reference directory: the references stay as they are");
                }
                unreadable = true;
            }
        }
    }
}

/// Of every file that may be a reference, by name: the last of two with one model and version counts, the same one every time.
fn stamps(dir: &Path) -> io::Result<Vec<Stamp>> {
    let mut stamps = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        // A file that goes away meanwhile is not there. Follows links, as a mounted ConfigMap needs.
        if path.extension().is_some_and(|end| end == EXTENSION)
            && let Ok(meta) = fs::metadata(&path)
            && meta.is_file()
        {
            stamps.push((path, meta.len(), meta.modified()?));
        }
    }
    stamps.sort();
    Ok(stamps)
}

fn read(stamps: &[Stamp], before: &Library) -> Library {
    let mut library = Library::default();
    stamps.iter().for_each(|(path, ..)| library.add(path, Reference::load(path), before));
    library.bytes = stamps.iter().map(|(_, bytes, _)| bytes.min(&MOST_BYTES)).sum();
    library
}
