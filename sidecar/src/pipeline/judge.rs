//! The alerts, and the file through which they outlive the sidecar.

use crate::alert::{AlertSettings, Alerts, MOST_BYTES};
use crate::checkpoint::{Store, WholeFile};
use crate::reference::Reference;
use crate::report::Report;
use tracing::warn;

/// Judges reports one after the other. What it knows is on disk before a report goes to the sinks: killed in between, the next sidecar
/// makes that report again, and it says the same.
pub struct Judge {
    alerts: Alerts,
    file: WholeFile,
    unwritable: bool,
}

impl Judge {
    /// Goes on where a sidecar before this one ended.
    pub fn revived(settings: AlertSettings, store: &mut Store, now_ns: u64) -> Judge {
        let (file, held) = store.alerts(MOST_BYTES);
        let alerts = held.map(|bytes| Alerts::revived(settings.clone(), &bytes, now_ns));
        if let Some(None) = alerts {
            store.refuse(&file, "alerts");
        }
        let alerts = alerts.flatten().unwrap_or_else(|| Alerts::new(settings));
        Judge { alerts, file, unwritable: false }
    }

    /// Adds to `report` what starts, goes on or ends with it; if it is made `again`, what it said before.
    pub fn judge(&mut self, report: &mut Report, columns: u32, reference: Option<&Reference>, again: bool) {
        if self.alerts.judge(report, columns, reference, again) {
            self.keep();
        }
    }

    /// Histories for which there was no room.
    pub fn forgotten(&self) -> u64 {
        self.alerts.forgotten()
    }

    /// Everything is delivered.
    pub fn settle(mut self) {
        self.alerts.settle();
        self.keep();
    }

    fn keep(&mut self) {
        let bytes = self.alerts.to_bytes();
        if bytes.is_empty() {
            return self.file.remove();
        }
        let written = self.file.write(&bytes);
        if let Err(why) = &written
            && !self.unwritable
        {
            warn!(%why, "cannot write what is known of alerts: they would start anew after a restart");
        }
        self.unwritable = written.is_err();
    }
}
