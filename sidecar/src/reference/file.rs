//! A reference on disk: magic, CRC-32C of the body (little-endian), then the body as postcard writes it.
//!
//! The same profile gives the same bytes. The checksum is the reference's id.

use super::{Band, Column, Quality, Reference, Shape};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;
use thiserror::Error;

/// The last digit is the version: another one is another layout.
const MAGIC: &[u8; 8] = b"MLWREF05";
const HEADER: usize = MAGIC.len() + size_of::<u32>();
/// Of a file: 8,000 features with a thousand steps each.
pub const MOST_BYTES: u64 = 128 << 20;
/// Of rows: beyond it they would not be whole numbers in an f64, and no model has so many. Sums of a few of them do not overflow.
pub(super) const MOST_COUNT: u64 = 1 << 53;

/// Why a file is no reference.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages document them")]
pub enum FileError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it has more than {MOST_BYTES} bytes, which no reference has")]
    TooLarge,
    #[error("it is no reference: make one with `mlwatch reference build`")]
    NoReference,
    #[error("it is a reference of format {0:?}, this version reads {reads:?}: make it anew, or upgrade", reads = String::from_utf8_lossy(MAGIC))]
    Version(String),
    #[error("its checksum is wrong: it was damaged or cut short")]
    Checksum,
    #[error("its content contradicts itself: it was not written by mlwatch")]
    Unsound,
}

impl FileError {
    /// For counting.
    pub fn reason(&self) -> &'static str {
        match self {
            FileError::Io(_) => "io",
            FileError::TooLarge => "too_large",
            FileError::NoReference => "not_a_reference",
            FileError::Version(_) => "version",
            FileError::Checksum => "checksum",
            FileError::Unsound => "unsound",
        }
    }
}

impl Reference {
    pub(super) fn checksum(&self) -> u32 {
        crc32c::crc32c(&self.body())
    }

    fn body(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("plain data")
    }

    /// The bytes of its file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let body = self.body();
        [MAGIC, crc32c::crc32c(&body).to_le_bytes().as_slice(), &body].concat()
    }

    /// What a file says, distrusted.
    pub fn from_bytes(bytes: &[u8]) -> Result<Reference, FileError> {
        let (header, body) = bytes.split_at_checked(HEADER).ok_or(FileError::NoReference)?;
        let (magic, crc) = header.split_at(MAGIC.len());
        if magic[..6] != MAGIC[..6] {
            return Err(FileError::NoReference);
        }
        if magic != MAGIC {
            return Err(FileError::Version(String::from_utf8_lossy(magic).into_owned()));
        }
        let id = crc32c::crc32c(body);
        if crc != id.to_le_bytes() {
            return Err(FileError::Checksum);
        }
        let (reference, rest) = postcard::take_from_bytes::<Reference>(body).map_err(|_| FileError::Unsound)?;
        if !rest.is_empty() || !reference.is_sound() {
            return Err(FileError::Unsound);
        }
        Ok(Reference { id, calibration: reference.quality.as_ref().and_then(Quality::calibration), ..reference })
    }

    /// Reads a file.
    pub fn load(path: &Path) -> Result<Reference, FileError> {
        let mut bytes = Vec::new();
        File::open(path)?.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_BYTES {
            return Err(FileError::TooLarge);
        }
        Reference::from_bytes(&bytes)
    }

    /// Writes a file, whole or not at all.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let written = File::create(&partial).and_then(|mut file| {
            file.write_all(&self.to_bytes())?;
            file.sync_all()
        });
        let renamed = written.and_then(|()| std::fs::rename(&partial, path));
        if renamed.is_err() {
            let _ = std::fs::remove_file(&partial);
        }
        renamed
    }

    /// Whether it can have been made: what comes from a file may be anything.
    pub(super) fn is_sound(&self) -> bool {
        let classified = !self.regression && !self.probabilities.is_empty();
        let columns = [&self.probabilities, &self.features].into_iter().flatten();
        let rows = [&self.confidence, &self.margin, &self.entropy];
        let same_classes = |counts: &[(String, u64)]| counts.is_empty() || counts.len() == self.probabilities.len();
        columns.chain(rows.into_iter().flatten()).all(Column::is_sound)
            && rows.iter().all(|column| column.is_some() == classified)
            && same_classes(&self.predicted)
            && same_classes(&self.actual)
            && self.bands.iter().all(Band::is_sound)
            && self.bands.is_sorted_by(|a, b| a.path < b.path)
            && self.quality.as_ref().is_none_or(|quality| classified && quality.is_sound(self.probabilities.len()))
            && self.counts().all(|count| count <= MOST_COUNT)
    }

    /// Whatever is added to its like.
    fn counts(&self) -> impl Iterator<Item = u64> {
        let named = |list: &[(String, u64)]| total(list.iter().map(|(_, count)| *count));
        let of_rows = self.confidence.iter().chain(&self.margin).chain(&self.entropy);
        let columns = of_rows.chain(&self.probabilities).chain(&self.features).flat_map(|column| {
            let moment = &column.moment;
            [column.rows(), moment.zero, total_of(&column.shape)]
        });
        let bands = total(self.bands.iter().map(|band| band.n));
        let labelled = self.quality.as_ref().map_or(0, |quality| quality.rows);
        columns.chain([self.rows, named(&self.predicted), named(&self.actual), bands, labelled])
    }
}

fn total(counts: impl Iterator<Item = u64>) -> u64 {
    counts.fold(0, u64::saturating_add)
}

fn total_of(shape: &Shape) -> u64 {
    match shape {
        Shape::Numerical(numerical) => total(numerical.counts.iter().copied()),
        Shape::Categorical(of) => total(of.values.iter().map(|(_, count)| *count).chain([of.other])),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::{Feature, Profile, Rows, Spec};
    use crate::stats::Columns;
    use ndarray::ArrayView2;
    use proptest::prelude::*;
    use std::sync::Arc;

    fn reference() -> Reference {
        let feature = |name: &str, categorical| Feature { name: name.into(), categorical };
        let spec = Spec {
            model: "m".into(),
            version: "7".into(),
            threshold: 0.5,
            classes: ["a", "b"].map(String::from).to_vec(),
            features: vec![feature("x", false), feature("plan", true)],
            ..Spec::default()
        };
        let mut profile = Profile::new(Arc::new(spec), 100, 1);
        for i in 0..300 {
            let (p, features) = (f64::from(i % 11) / 10.0, [f64::from(i) * 0.1, f64::from(i % 3)]);
            let (proba, labels) = ([1.0 - p, p], [i % 2]);
            profile.update(&Rows {
                count: 1,
                probabilities: Some(Columns::F64(ArrayView2::from_shape((1, 2), &proba).unwrap())),
                features: Some(Columns::F64(ArrayView2::from_shape((1, 2), &features).unwrap())),
                labels: Some(crate::profile::Labels::Classes(&labels)),
                ..Rows::default()
            });
        }
        Reference::of(&profile)
    }

    #[test]
    fn a_file_says_what_was_saved_under_the_same_id() {
        let (dir, reference) = (tempfile::tempdir().unwrap(), reference());
        let path = dir.path().join("m.mlwref");
        reference.save(&path).unwrap();
        let loaded = Reference::load(&path).unwrap();
        assert_eq!((&loaded, loaded.id()), (&reference, reference.id()));
        assert!(loaded.calibration.is_some(), "its labels have nothing to do with its probabilities");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
        assert_eq!(loaded.predicted.iter().map(|(_, n)| n).sum::<u64>(), 300);
        assert_eq!(loaded.actual, [("a".to_owned(), 150), ("b".to_owned(), 150)]);
    }

    #[test]
    fn another_format_is_named_and_told_from_another_file() {
        let mut bytes = reference().to_bytes();
        bytes[7] = b'1';
        let error = Reference::from_bytes(&bytes).map(|_| ()).unwrap_err();
        let want = r#"it is a reference of format "MLWREF01", this version reads "MLWREF05": make it anew, or upgrade"#;
        assert_eq!(error.to_string(), want);
        assert!(matches!(Reference::from_bytes(b"model,age\n"), Err(FileError::NoReference)));
    }

    #[test]
    fn counts_that_no_model_has_are_refused_however_right_the_checksum() {
        let changes: [&dyn Fn(&mut Reference); 9] = [
            &|r| r.rows = u64::MAX,
            &|r| r.features[0].moment.n = u64::MAX,
            &|r| r.features[1].moment.zero = u64::MAX,
            &|r| r.margin.as_mut().unwrap().moment.nan = u64::MAX,
            &|r| (r.entropy.as_mut().unwrap().moment.n, r.entropy.as_mut().unwrap().moment.inf) = (1 << 52, 1 << 53),
            &|r| r.actual.iter_mut().for_each(|(_, n)| *n = u64::MAX / 2),
            &|r| r.predicted[1].1 = MOST_COUNT,
            &|r| match &mut r.features[0].shape {
                Shape::Numerical(of) => of.counts.iter_mut().for_each(|n| *n = u64::MAX / 2),
                Shape::Categorical(_) => unreachable!(),
            },
            &|r| match &mut r.features[1].shape {
                Shape::Categorical(of) => of.other = u64::MAX,
                Shape::Numerical(_) => unreachable!(),
            },
        ];
        for (at, change) in changes.iter().enumerate() {
            let mut forged = reference();
            change(&mut forged);
            assert!(matches!(Reference::from_bytes(&forged.to_bytes()), Err(FileError::Unsound)), "{at}");
        }
        let most = Reference { rows: MOST_COUNT, ..reference() };
        assert!(Reference::from_bytes(&most.to_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn a_changed_byte_is_found(at in any::<prop::sample::Index>(), xor in 1..=255u8) {
            let mut bytes = reference().to_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= xor;
            prop_assert!(Reference::from_bytes(&bytes).is_err());
        }

        #[test]
        fn a_forged_checksum_makes_no_unsound_reference(at in any::<prop::sample::Index>(), xor in 1..=255u8) {
            let mut bytes = reference().to_bytes();
            let at = HEADER + at.index(bytes.len() - HEADER);
            bytes[at] ^= xor;
            let crc = crc32c::crc32c(&bytes[HEADER..]);
            bytes[8..HEADER].copy_from_slice(&crc.to_le_bytes());
            if let Ok(reference) = Reference::from_bytes(&bytes) {
                prop_assert!(reference.is_sound());
            }
        }
    }
}
