//! What an alert says.

use super::Evidence;
use crate::period::utc;
use serde::{Deserialize, Serialize};

/// A rule that held for long enough, or has just ceased to.
#[derive(Clone, Debug, Serialize)]
#[expect(missing_docs, reason = "docs/report.md documents each field")]
pub struct Alert {
    pub rule: String,
    pub metric: String,
    pub of: String,
    pub name: String,
    pub severity: Severity,
    pub state: AlertState,
    #[serde(serialize_with = "utc")]
    pub start: u64,
    #[serde(serialize_with = "utc_or_null")]
    pub end: Option<u64>,
    pub periods: [u64; 2],
    pub limit: String,
    pub evidence: Evidence,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by themselves")]
pub enum Severity {
    Warning,
    Critical,
}

/// What has become of it in this period.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "named by themselves")]
pub enum AlertState {
    Started,
    Firing,
    Ended,
}

impl Alert {
    /// An upper bound of its memory.
    pub(super) fn bytes(&self) -> u64 {
        let texts = [&self.rule, &self.metric, &self.of, &self.name, &self.limit];
        size_of::<Alert>() as u64 + texts.iter().map(|text| text.capacity() as u64).sum::<u64>()
    }
}

fn utc_or_null<S: serde::Serializer>(ns: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match ns {
        Some(ns) => utc(ns, serializer),
        None => serializer.serialize_none(),
    }
}
