//! Where reports go. Each sink has a thread and a bounded queue of its own: a slow one stalls nobody for long, and what does
//! not fit into its queue, or fails, is counted.

mod files;
mod health_file;
mod mlwatcher;
mod native;

pub use files::{RotatingFiles, Rotation};
pub use health_file::HealthFile;
pub use mlwatcher::MlwatcherFiles;
pub use native::NativeFiles;

use crate::report::Report;
use crossbeam::channel::{Sender, bounded};
use std::io;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime};
use tracing::{error, warn};

/// A destination for reports.
pub trait Sink: Send {
    /// For the log.
    fn name(&self) -> &'static str;
    /// Delivers one report; after an error the next one is tried afresh.
    fn deliver(&mut self, report: &Report, now: SystemTime) -> io::Result<()>;
}

/// Reports a sink may lag behind.
pub const QUEUE: usize = 64;
/// And their bytes, but for a single one that is larger.
pub const QUEUE_BYTES: u64 = 64 << 20;
/// How long a full queue is waited for, once: all models close their periods at the same instant, which is no reason to lose
/// reports, but a sink that hangs must not hold the others up. After that it loses what it has no room for until it moves again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The running sinks.
#[derive(Debug)]
pub struct Sinks {
    outlets: Vec<Outlet>,
}

#[derive(Debug)]
struct Outlet {
    name: &'static str,
    queue: Sender<Arc<Parcel>>,
    thread: JoinHandle<()>,
    lost: Arc<AtomicU64>,
    room: Arc<Room>,
    hanging: bool,
}

/// Bytes of the reports that wait for a sink or are in its hands.
#[derive(Debug, Default)]
struct Room {
    taken: Mutex<u64>,
    freed: Condvar,
}

impl Room {
    /// Waits for room, but not longer than `patience`. Whether there was any.
    fn take(&self, bytes: u64, patience: Duration) -> bool {
        let full = |taken: &mut u64| *taken > 0 && *taken + bytes > QUEUE_BYTES;
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.freed.wait_timeout_while(taken, patience, full);
        let (mut taken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if !timeout.timed_out() {
            *taken += bytes;
        }
        !timeout.timed_out()
    }

    fn free(&self, bytes: u64) {
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) -= bytes;
        self.freed.notify_all();
    }
}

/// A report and what is to be dropped when no sink needs it any more.
struct Parcel {
    report: Report,
    bytes: u64,
    _receipt: Box<dyn Send + Sync>,
}

impl Sinks {
    /// Starts a thread for each.
    pub fn start(sinks: Vec<Box<dyn Sink>>) -> io::Result<Sinks> {
        let outlets = sinks.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Sinks { outlets })
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.outlets.len()
    }

    /// Queues the report for every sink. The receipt is dropped when all have delivered or lost it.
    pub fn send(&mut self, report: Report, receipt: impl Send + Sync + 'static) {
        let parcel = Arc::new(Parcel { bytes: report.bytes(), report, _receipt: Box::new(receipt) });
        for outlet in &mut self.outlets {
            outlet.send(parcel.clone());
        }
    }

    /// Reports lost so far, over all sinks.
    pub fn lost(&self) -> u64 {
        self.outlets.iter().map(|outlet| outlet.lost.load(Relaxed)).sum()
    }

    /// Waits until everything queued is delivered. Returns how many reports were lost, over all sinks.
    pub fn finish(self) -> u64 {
        let finish = |outlet: Outlet| {
            drop(outlet.queue);
            let panicked = u64::from(outlet.thread.join().is_err());
            outlet.lost.load(Relaxed) + panicked
        };
        self.outlets.into_iter().map(finish).sum()
    }
}

impl Outlet {
    fn send(&mut self, parcel: Arc<Parcel>) {
        let patience = if self.hanging { Duration::ZERO } else { PATIENCE };
        let bytes = parcel.bytes;
        let has_room = self.room.take(bytes, patience);
        let sent = has_room && self.queue.send_timeout(parcel, patience).is_ok();
        if has_room && !sent {
            self.room.free(bytes);
        }
        self.hanging = !sent;
        if self.hanging {
            let lost = self.lost.fetch_add(1, Relaxed) + 1;
            warn!(sink = self.name, lost, "the sink lags {QUEUE} reports or {QUEUE_BYTES} bytes behind: report lost");
        }
    }
}

fn start(mut sink: Box<dyn Sink>) -> io::Result<Outlet> {
    let (queue, parcels) = bounded::<Arc<Parcel>>(QUEUE);
    let (name, lost) = (sink.name(), Arc::new(AtomicU64::new(0)));
    let (counter, room) = (lost.clone(), Arc::<Room>::default());
    let full = room.clone();
    let deliver_all = move || {
        for parcel in parcels {
            if let Err(why) = sink.deliver(&parcel.report, SystemTime::now()) {
                let lost = counter.fetch_add(1, Relaxed) + 1;
                error!(sink = name, %why, lost, model = parcel.report.model, "report lost");
            }
            full.free(parcel.bytes);
        }
    };
    let thread = thread::Builder::new().name(name.into()).spawn(deliver_all)?;
    Ok(Outlet { name, queue, thread, lost, room, hanging: false })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::period::Period;
    use crate::profile::{Profile, Spec};
    use crossbeam::channel::Receiver;

    /// Delivers nothing before it is told to.
    struct Slow {
        go: Receiver<()>,
        delivered: Sender<u64>,
    }

    impl Sink for Slow {
        fn name(&self) -> &'static str {
            "slow"
        }

        fn deliver(&mut self, report: &Report, _: SystemTime) -> io::Result<()> {
            let _ = self.go.recv();
            if report.start == 13 {
                return Err(io::Error::other("unlucky"));
            }
            self.delivered.send(report.start).map_err(io::Error::other)
        }
    }

    fn report(start_ns: u64) -> Report {
        let spec = Spec {
            model: "m".into(),
            version: String::new(),
            regression: false,
            threshold: 0.5,
            classes: vec!["a".into()],
            features: Vec::new(),
            ..Spec::default()
        };
        let period = Period { start_ns, end_ns: start_ns + 1, partial: false };
        Report::of(period, &Profile::new(Arc::new(spec), 1, 0), [""; 5])
    }

    #[test]
    fn large_reports_wait_for_room_one_by_one() {
        let room = Room::default();
        assert!(room.take(2 * QUEUE_BYTES, Duration::ZERO), "a single one always finds room");
        assert!(!room.take(1, Duration::ZERO));
        room.free(2 * QUEUE_BYTES);
        assert!(room.take(QUEUE_BYTES - 1, Duration::ZERO) && room.take(1, Duration::ZERO));
        assert!(!room.take(1, Duration::ZERO));
    }

    #[test]
    fn more_reports_at_once_than_a_queue_holds_all_arrive() {
        let (go, gate) = bounded(0);
        let (delivered, arrivals) = bounded(1000);
        let mut sinks = Sinks::start(vec![Box::new(Slow { go: gate, delivered })]).unwrap();
        let opener = thread::spawn(move || (0..200).for_each(|_| go.send(()).unwrap()));
        (0..200).for_each(|i| sinks.send(report(i), ()));
        assert_eq!(sinks.finish(), 1, "the unlucky one is counted");
        opener.join().unwrap();
        let arrived: Vec<u64> = arrivals.try_iter().collect();
        assert_eq!(arrived, (0..200).filter(|i| *i != 13).collect::<Vec<_>>());
    }
}
