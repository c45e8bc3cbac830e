//! The ring: finding ring files, distrusting and then mapping them, and reading their records in place.
//!
//! The room with `unsafe`, all of it in [`segment`] and [`fault`]. It knows nothing of statistics: a [`Batch`] hands out `ndarray` views.
//! `docs/wire-format.md` is the specification.

mod consumer;
mod discovery;
mod fault;
mod schema;
mod segment;
pub mod wire;

pub use consumer::{Area, Batch, Budget, Consumed, Consumer, Corruption, Matrix, Polled, Word};
pub use discovery::{Found, Listing, scan};
pub use schema::{DType, FeatureKind, Schema, SchemaError, SegmentBy, Task};
pub use segment::{AtMost, Counters, OpenError, Segment, Snapshot};
