//! Where reports go. Each sink has a thread and a bounded queue of its own, so that a slow one stalls nobody;
//! what does not fit into the queue, or fails, is counted.

mod files;
mod mlwatcher;
mod native;

pub use files::{RotatingFiles, Rotation};
pub use mlwatcher::MlwatcherFiles;
pub use native::NativeFiles;

use crate::report::Report;
use crossbeam::channel::{Sender, TrySendError, bounded};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::SystemTime;
use tracing::{error, warn};

/// A destination for reports.
pub trait Sink: Send {
    /// For the log.
    fn name(&self) -> &'static str;
    /// Delivers one report; after an error the next one is tried afresh.
    fn deliver(&mut self, report: &Report, now: SystemTime) -> io::Result<()>;
}

/// Reports a sink may lag behind before it loses some.
const QUEUE: usize = 64;

/// The running sinks.
#[derive(Debug)]
pub struct Sinks {
    outlets: Vec<Outlet>,
}

#[derive(Debug)]
struct Outlet {
    name: &'static str,
    queue: Sender<Arc<Report>>,
    thread: JoinHandle<u64>,
    overflowed: u64,
}

impl Sinks {
    /// Starts a thread for each.
    pub fn start(sinks: Vec<Box<dyn Sink>>) -> io::Result<Sinks> {
        let outlets = sinks.into_iter().map(start).collect::<Result<_, _>>()?;
        Ok(Sinks { outlets })
    }

    /// Queues the report for every sink.
    pub fn send(&mut self, report: Report) {
        let report = Arc::new(report);
        for outlet in &mut self.outlets {
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = outlet.queue.try_send(report.clone()) {
                outlet.overflowed += 1;
                warn!(
                    sink = outlet.name,
                    lost = outlet.overflowed,
                    "the sink lags {QUEUE} reports behind: report lost"
                );
            }
        }
    }

    /// Waits until everything queued is delivered. Returns how many reports were lost, over all sinks.
    pub fn finish(self) -> u64 {
        let finish = |outlet: Outlet| {
            drop(outlet.queue);
            outlet.overflowed + outlet.thread.join().unwrap_or(1)
        };
        self.outlets.into_iter().map(finish).sum()
    }
}

fn start(mut sink: Box<dyn Sink>) -> io::Result<Outlet> {
    let (queue, reports) = bounded::<Arc<Report>>(QUEUE);
    let name = sink.name();
    let deliver_all = move || {
        let mut failed = 0;
        for report in reports {
            if let Err(why) = sink.deliver(&report, SystemTime::now()) {
                failed += 1;
                error!(sink = name, %why, lost = failed, model = report.model, "report lost");
            }
        }
        failed
    };
    let thread = thread::Builder::new().name(name.into()).spawn(deliver_all)?;
    Ok(Outlet { name, queue, thread, overflowed: 0 })
}
