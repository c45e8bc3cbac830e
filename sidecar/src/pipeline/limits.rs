//! What producers may ask for, all of them together.

use crate::ring::{OpenError, wire};
use serde::Deserialize;
use std::time::Duration;

/// What producers may ask for.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Rings read at a time.
    pub max_rings: usize,
    /// Bytes of one ring file.
    pub max_ring_bytes: u64,
    /// Bytes of all rings together.
    pub max_mapped_bytes: u64,
    /// Models reported at a time.
    pub max_models: usize,
    /// Classes of one stream.
    pub max_classes: usize,
    /// Features of one stream.
    pub max_features: usize,
    /// Bytes of one profile: the sample is cut to fit.
    pub max_profile_bytes: u64,
    /// Rows in a sample, when the producer wishes for one.
    pub max_reservoir_rows: u64,
    /// Segments of a model that are kept apart; the further ones are reported together.
    pub max_segments: usize,
    /// Bytes for one model's rows whose labels come later, and for the closed periods they belong to; 0: none is waited for.
    pub max_waiting_bytes: u64,
    /// How long a drained ring without a producer is kept for the next one.
    #[serde(deserialize_with = "crate::period::duration")]
    pub keep_abandoned: Duration,
    /// How long a stopping sidecar goes on draining.
    #[serde(deserialize_with = "crate::period::duration")]
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            max_rings: 256,
            max_ring_bytes: 1 << 30,
            max_mapped_bytes: 16 << 30,
            max_models: 256,
            max_classes: wire::MAX_CLASSES as usize,
            max_features: 1 << 16,
            max_profile_bytes: 1 << 30,
            max_reservoir_rows: 1 << 20,
            max_segments: 32,
            max_waiting_bytes: 64 << 20,
            keep_abandoned: Duration::from_secs(600),
            drain_timeout: Duration::from_secs(20),
        }
    }
}

/// How much there would be with one more ring. Its columns are looked at before its schema is read, in [`crate::ring::AtMost`].
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    pub rings: u64,
    pub mapped_bytes: u64,
    pub models: u64,
    /// Of its profile with a sample of one row.
    pub profile_bytes: u64,
}

impl Limits {
    /// The first limit that would be exceeded.
    pub fn check(&self, asked: &Asked) -> Result<(), OpenError> {
        let checks = [
            ("max_rings", "rings would be read", asked.rings, self.max_rings as u64),
            ("max_mapped_bytes", "bytes of rings would be mapped", asked.mapped_bytes, self.max_mapped_bytes),
            ("max_models", "models would be reported", asked.models, self.max_models as u64),
            ("max_profile_bytes", "bytes would be its profile's", asked.profile_bytes, self.max_profile_bytes),
        ];
        match checks.into_iter().find(|(_, _, asked, most)| asked > most) {
            None => Ok(()),
            Some((limit, what, asked, most)) => {
                let why = format!("with it {asked} {what}, at most {most}: raise limits.{limit}");
                Err(OpenError::Limit { limit, why })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_limit_is_named_with_what_was_asked_and_its_remedy() {
        let limits = Limits::default();
        let none = Asked { rings: 1, mapped_bytes: 1, models: 1, profile_bytes: 1 };
        assert!(limits.check(&none).is_ok());
        let over = [
            Asked { rings: 257, ..none },
            Asked { mapped_bytes: u64::MAX, ..none },
            Asked { models: 257, ..none },
            Asked { profile_bytes: (1 << 30) + 1, ..none },
        ];
        let reasons = over.map(|asked| {
            let why = limits.check(&asked).unwrap_err();
            assert!(why.to_string().contains(&format!("raise limits.{}", why.reason())), "{why}");
            why.reason()
        });
        let named = ["max_rings", "max_mapped_bytes", "max_models", "max_profile_bytes"];
        assert_eq!(reasons, named);
    }
}
