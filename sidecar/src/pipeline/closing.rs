//! The thread that turns closed periods into reports, so that quantiles never stall the tail.

use super::judge::Judge;
use super::later::Revision;
use crate::checkpoint::Receipt;
use crate::health::{Health, Lateness};
use crate::period::Period;
use crate::profile::Profile;
use crate::reference::Reference;
use crate::report::{DriftSettings, OrderedSample, Report, Versions};
use crate::ring::wire;
use crate::sink::{HealthFile, Sinks};
use crossbeam::channel::{Receiver, Sender, bounded};
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Instant;
use tracing::warn;

/// What waits for the closing thread, and can no longer be overtaken.
pub const QUEUE: usize = 1;

/// For the closing thread.
pub enum ToClose {
    Period(Box<Closed>),
    Revision(Box<Revision>),
    Health(Box<Health>),
}

/// A period that is over. The receipt goes when its report is delivered.
pub struct Closed {
    pub model: u64,
    pub period: Period,
    pub profile: Profile,
    /// In whose bins it was counted.
    pub reference: Option<Arc<Reference>>,
    pub receipt: Option<Receipt>,
    /// A dead sidecar may have made its report, and not delivered it.
    pub again: bool,
    /// It is over since then.
    pub since: Instant,
    /// There are other versions of the model.
    pub has_versions: bool,
}

/// Ends when nobody can send any more. Its result is how many reports the sinks lost.
pub fn start(
    sinks: Sinks,
    health_file: HealthFile,
    drift: DriftSettings,
    judge: Judge,
) -> io::Result<(Sender<ToClose>, JoinHandle<u64>)> {
    let (closing, to_close) = bounded(QUEUE);
    let work = move || close_all(&to_close, sinks, &health_file, &drift, judge);
    Ok((closing, thread::Builder::new().name("closing".into()).spawn(work)?))
}

fn close_all(
    to_close: &Receiver<ToClose>,
    mut sinks: Sinks,
    health_file: &HealthFile,
    drift: &DriftSettings,
    mut judge: Judge,
) -> u64 {
    let (mut unwritable, mut versions, mut lateness) = (false, Versions::default(), Lateness::default());
    for to_close in to_close {
        match to_close {
            ToClose::Period(closed) => {
                let Closed { period, profile, reference, receipt, again, has_versions, .. } = *closed;
                if let Some(receipt) = &receipt {
                    receipt.wait_until_committed();
                }
                let sample = OrderedSample::of(&profile, reference.as_deref());
                let report = Report::of_ordered(period, &sample, wire::DROP_REASON_NAMES);
                let mut report = report.against(&sample, drift);
                versions.compare(&mut report, period, &sample, drift, has_versions);
                judge.judge(&mut report, profile.spec.columns_id(), reference.as_deref(), again);
                sinks.send(report, receipt);
                lateness.add(period.end_ns, super::now_ns());
            }
            ToClose::Revision(revision) => {
                let Revision { period, remainder, columns, reference, number } = *revision;
                let mut report = Report::revised(period, &remainder, number, wire::DROP_REASON_NAMES).judged(drift);
                judge.judge(&mut report, columns, reference.as_deref(), false);
                sinks.send(report, None::<Receipt>);
            }
            ToClose::Health(mut health) => {
                (health.reports_lost, health.forgotten_alerts) = (sinks.lost(), judge.forgotten());
                health.period_lateness = lateness;
                let written = health_file.write(&health);
                if let Err(why) = written.as_ref().map_err(ToString::to_string)
                    && !unwritable
                {
                    warn!(%why, "cannot write health.json");
                }
                unwritable = written.is_err();
            }
        }
    }
    let lost = sinks.finish();
    judge.settle();
    lost
}
