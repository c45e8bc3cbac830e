//! A live ring, read as the sidecar would: in its place, while none does.
//!
//! A ring has one reader. What is read here stands in no report, and is accounted for when reading ends: the sidecar that comes next
//! goes on behind it and misses nothing.

use super::SourceError;
use super::bands::Numbers;
use super::build::{MOST_BYTES, Slice, profile};
use super::spec::listed;
use crate::pipeline::{Wanted, rows_of, spec_of};
use crate::profile::{Profile, Rows, Spec};
use crate::reference::Reference;
use crate::ring::{self, Budget, Consumer, OpenError, Segment};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tracing::{info, warn};

/// Between two looks at the clock.
const BUDGET: Budget = Budget { records: 4096, bytes: 16 << 20 };
/// A silent ring of 2 MiB that suddenly receives 1 GB/s does not overflow meanwhile.
const NAP: Duration = Duration::from_millis(1);
/// A producer without the lock that wrote nothing for so long is gone: where locks do not reach, writing is what tells.
const GONE_AFTER: Duration = Duration::from_secs(1);

/// What is to be made of a ring.
#[derive(Clone, Debug)]
pub struct Watching {
    /// Of this version; empty: of any.
    pub version: String,
    /// How long.
    pub time: Duration,
    /// In the sample.
    pub most_sample_rows: u64,
    /// Into which the time is cut.
    pub periods: u64,
}

/// Reads until the time is up, the producer is gone and everything is read, or `stop` says so.
pub fn watch(path: &Path, watching: &Watching, stop: impl Fn() -> bool) -> Result<Reference, SourceError> {
    let segment = Segment::open(path, u64::MAX).map_err(|why| SourceError::input(path, opened(why)))?;
    let schema = segment.schema().clone();
    let mut consumer = Consumer::new(segment, &schema);
    check_left_in_order(&consumer).map_err(|why| SourceError::input(path, why))?;
    let spec = spec_of(schema, &Wanted::default());
    let spec = Spec { version: watching.version.clone(), embeddings: Vec::new(), segments: None, ..spec };
    if Profile::bytes(spec.size(), 1, size_of::<f64>() as u64) > MOST_BYTES {
        return Err(SourceError::input(path, format!("its profile takes more than {MOST_BYTES} bytes")));
    }
    info!(ring = ?path, model = spec.model, time = ?watching.time, "watching");
    let mut watch = Watch::new(spec, watching);
    let ended = watch.read(&mut consumer, &stop);
    // Also after an error: what was read is read.
    account(&consumer, path);
    ended.map_err(|why| SourceError::input(path, why))?;
    if watch.whole.rows == 0 {
        return Err(SourceError::input(path, "no row came, and of nothing there is no reference: watch it for longer"));
    }
    Ok(Reference::of(&watch.whole).with_bands(watch.numbers.bands()))
}

/// A ring's file, or the one in `dir` that it is the name or the beginning of the name of: `digits`, `digits@7`, `digits@7.0.ring`.
pub fn find(ring: &Path, dir: &Path) -> Result<PathBuf, SourceError> {
    if ring.components().count() != 1 || ring.is_file() {
        return Ok(ring.to_owned());
    }
    let wanted = ring.to_string_lossy();
    let listing = ring::scan(dir).map_err(|why| SourceError::input(dir, why))?;
    let name_of = |path: &Path| path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let begins =
        |name: &str| name.strip_prefix(&*wanted).is_some_and(|rest| rest.is_empty() || rest.starts_with(['@', '.']));
    let paths = listing.found.into_iter().map(|found| found.path);
    let (fitting, others): (Vec<_>, Vec<_>) = paths.partition(|path| begins(&name_of(path)));
    let names = |paths: &[PathBuf]| listed(&paths.iter().map(|path| name_of(path)).collect::<Vec<_>>());
    match fitting.as_slice() {
        [one] => Ok(one.clone()),
        [] if others.is_empty() => {
            Err(SourceError::input(dir, "there is no ring: start the producer, or name the ring's file"))
        }
        [] => Err(SourceError::input(dir, format!("no ring is called {wanted}, only {}", names(&others)))),
        several => Err(SourceError::input(dir, format!("{wanted} may be {}: name one of them", names(several)))),
    }
}

fn opened(why: OpenError) -> String {
    match why {
        OpenError::InUse => "a sidecar reads it, and a ring has one reader: stop the sidecar for the time, or make the reference from its reports, with --reports".into(),
        other => other.to_string(),
    }
}

fn check_left_in_order(consumer: &Consumer<Segment>) -> Result<(), &'static str> {
    if consumer.area().quarantined() {
        return Err("a sidecar found it corrupt and gave it up: restart its producer, which makes a new ring");
    }
    let (accounted, _) = consumer.area().accounted();
    match accounted == consumer.consumed() {
        true => Ok(()),
        false => Err(
            "whoever read it last was killed, and what that lost is not counted yet: run `mlwatch run` with the same output directory once, stop it, and come again",
        ),
    }
}

/// Whatever was read is no sidecar's loss, and what was dropped until now is told here.
fn account(consumer: &Consumer<Segment>, path: &Path) {
    let (_, known) = consumer.area().accounted();
    let now = consumer.area().counters();
    let since = now.dropped_rows.iter().zip(&known.dropped_rows).map(|(now, known)| now.saturating_sub(*known));
    let dropped = since.fold(0u64, u64::saturating_add);
    if dropped > 0 {
        warn!(ring = ?path, rows = dropped, "dropped by the producer since a sidecar last reported: they stand in no reference and no report");
    }
    consumer.area().set_accounted(&consumer.consumed(), &now);
}

struct Watch {
    whole: Profile,
    slice: Slice,
    numbers: Numbers,
    start: Instant,
    time: Duration,
    /// Of the time; no bands without.
    slices: u32,
    closed: u32,
}

impl Watch {
    fn new(spec: Spec, watching: &Watching) -> Watch {
        let spec = Arc::new(spec);
        Watch {
            whole: profile(spec.clone(), watching.most_sample_rows),
            slice: Slice::new(spec),
            numbers: Numbers::default(),
            start: Instant::now(),
            time: watching.time,
            slices: u32::try_from(watching.periods).unwrap_or(u32::MAX),
            closed: 0,
        }
    }

    fn read(&mut self, consumer: &mut Consumer<Segment>, stop: &impl Fn() -> bool) -> Result<(), String> {
        let (mut last_news, mut tail) = (Instant::now(), consumer.area().position());
        while !stop() && self.start.elapsed() < self.time {
            self.close_slices();
            consumer.area().beat(now_ns());
            let polled = consumer.poll(BUDGET, |_| true, |batch| self.update(&rows_of(&batch, "")));
            if consumer.area().faulted() {
                return Err("somebody changed its file's size: restart its producer, which makes a new ring".into());
            }
            if let Some(why) = polled.corruption {
                return Err(format!("it is corrupt, so nothing in it is to be believed: {why}; restart its producer"));
            }
            let position = consumer.area().position();
            if polled.bytes > 0 || position != std::mem::replace(&mut tail, position) {
                last_news = Instant::now();
            } else if last_news.elapsed() < GONE_AFTER || consumer.area().producer_attached() {
                thread::sleep(NAP);
            } else {
                break;
            }
        }
        self.close_slices();
        Ok(())
    }

    fn update(&mut self, rows: &Rows<'_>) {
        // Whom the rows are about, and where each came from, is not asked of a reference.
        let rows = Rows { segments: None, ids: None, record: None, ..*rows };
        self.whole.update(&rows);
        self.slice.update(&rows);
    }

    /// Those whose time has come.
    fn close_slices(&mut self) {
        let gone = self.start.elapsed().as_secs_f64() / self.time.as_secs_f64();
        let due = (gone * f64::from(self.slices)) as u32;
        if due > self.closed && self.closed < self.slices {
            self.closed = due;
            self.slice.close(&mut self.numbers);
        }
    }
}

fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_ring_is_found_by_its_path_or_by_the_beginning_of_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let of = |name: &str| find(Path::new(name), dir.path()).map_err(|why| why.to_string());
        assert!(of("digits").unwrap_err().contains("there is no ring"));
        for name in ["digits@7.0.ring", "digits@8.0.ring", "churn.0.ring", "churners.0.ring"] {
            fs::write(dir.path().join(name), "").unwrap();
        }
        assert_eq!(of("digits@7"), Ok(dir.path().join("digits@7.0.ring")));
        assert_eq!(of("churn"), Ok(dir.path().join("churn.0.ring")));
        assert_eq!(of("churn.0.ring"), Ok(dir.path().join("churn.0.ring")));
        assert!(of("digits").unwrap_err().contains("digits@7.0.ring, digits@8.0.ring: name one"));
        assert!(of("m").unwrap_err().contains("only churn.0.ring"));
        assert_eq!(of("/elsewhere/m.0.ring"), Ok(PathBuf::from("/elsewhere/m.0.ring")));
    }
}
