//! mlwatch's sidecar: it tails the shared-memory rings that inference processes write, and reports what their models did.
//!
//! ```text
//! ring ─► pipeline ─► period ─► profile ─► report ─► sink
//! ```
//!
//! - [`ring`]: finds rings, distrusts and then maps them, hands out records in place. All the `unsafe` but for one file.
//! - [`stats`]: pure accumulators and functions over slices and views. Never meets `ring`. `stats/dispatch.rs` has the other `unsafe`.
//! - [`period`]: when a period opens and closes.
//! - [`profile`]: everything known about one model over one period.
//! - [`reference`]: the profile others are compared with, and the directory it lies in.
//! - [`source`]: what references are made from.
//! - [`report`]: a closed period as plain data; all that a sink sees.
//! - [`alert`]: rules over reports, and when somebody is to be told.
//! - [`sink`]: where reports go.
//! - [`pipeline`]: the loop that introduces them to each other.
//! - [`checkpoint`]: what a SIGKILL of the sidecar leaves to the next one.
//! - [`health`]: what the sidecar says of itself.
//! - [`config`], [`cli`], [`wildcard`], [`log`], [`shutdown`]: settings in, subcommands, names with `*` in them, a bounded log out, one
//!   signal heard everywhere.
//!
//! Who may know whom is a test: `tests/architecture.rs`.

pub mod alert;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod health;
pub mod log;
pub mod period;
pub mod pipeline;
pub mod profile;
pub mod reference;
pub mod report;
pub mod ring;
pub mod shutdown;
pub mod sink;
pub mod source;
pub mod stats;
pub mod wildcard;
