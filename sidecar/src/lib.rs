//! mlwatch's sidecar: it tails shared-memory rings written by inference processes and reports what their models did.
#![warn(missing_docs)]
pub mod ring;
pub mod stats;
