//! The log of a period's sample: chunks of (slot, row), appended at every commit. Later rows replace earlier ones in their slot.
//!
//! A chunk is 32 bytes of header (little-endian: magic u32, CRC-32C of the rest u32, rows u64, bytes of a probability u32, bytes of
//! a feature u32, bytes of the body u64), then for each row its slot (u32), its probabilities and its features.

use crate::profile::Profile;
use crate::stats::RowStore;

const MAGIC: u32 = u32::from_le_bytes(*b"MLWS");
const HEADER: usize = 32;

/// The rows in `slots` as one chunk, its checksum still to be [`seal`]ed: that is left to the thread that has the time.
pub fn chunk(profile: &Profile, slots: &[u32]) -> Vec<u8> {
    let (probabilities, features) = (&profile.sample.probabilities, &profile.sample.features);
    let row = size_of::<u32>() + profile.sample.row_bytes();
    let mut out = Vec::with_capacity(HEADER + slots.len() * row);
    out.extend(MAGIC.to_le_bytes());
    out.extend([0; 4]);
    out.extend((slots.len() as u64).to_le_bytes());
    out.extend((probabilities.value_bytes() as u32).to_le_bytes());
    out.extend((features.value_bytes() as u32).to_le_bytes());
    out.extend(((slots.len() * row) as u64).to_le_bytes());
    for &slot in slots {
        out.extend(slot.to_le_bytes());
        probabilities.copy_out(slot as usize, &mut out);
        features.copy_out(slot as usize, &mut out);
    }
    out
}

/// Fills in the checksum.
pub fn seal(chunk: &mut [u8]) {
    if chunk.len() >= HEADER {
        let crc = crc32c::crc32c(&chunk[8..]);
        chunk[4..8].copy_from_slice(&crc.to_le_bytes());
    }
}

/// Puts the rows of a whole log into the profile's sample. `None` where the log is not one of this profile's.
pub fn replay(mut log: &[u8], profile: &mut Profile) -> Option<()> {
    while !log.is_empty() {
        let (header, rest) = log.split_at_checked(HEADER)?;
        let u32_at = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
        let u64_at = |at: usize| u64::from_le_bytes(header[at..at + 8].try_into().expect("8 bytes"));
        let (body, after) = rest.split_at_checked(usize::try_from(u64_at(24)).ok()?)?;
        let crc = crc32c::crc32c_append(crc32c::crc32c(&header[8..]), body);
        if u32_at(0) != MAGIC || u32_at(4) != crc {
            return None;
        }
        take_in(body, u64_at(8), [u32_at(16), u32_at(20)], profile)?;
        log = after;
    }
    profile.sample.is_complete().then_some(())
}

fn take_in(body: &[u8], rows: u64, value_bytes: [u32; 2], profile: &mut Profile) -> Option<()> {
    let [probability, feature] = value_bytes.map(|bytes| bytes as usize);
    if ![probability, feature].iter().all(|bytes| [4, 8].contains(bytes)) {
        return None;
    }
    let split = profile.spec.classes.len() * probability;
    let row_bytes = size_of::<u32>() + split + profile.spec.features.len() * feature;
    if rows.checked_mul(row_bytes as u64)? != body.len() as u64 {
        return None;
    }
    for row in body.chunks_exact(row_bytes) {
        let (slot, values) = row.split_at(size_of::<u32>());
        let slot = u32::from_le_bytes(slot.try_into().expect("4 bytes"));
        if u64::from(slot) >= profile.sample.len() {
            return None;
        }
        put(&mut profile.sample.probabilities, slot, &values[..split], probability);
        put(&mut profile.sample.features, slot, &values[split..], feature);
    }
    Some(())
}

fn put(store: &mut RowStore, slot: u32, bytes: &[u8], value_bytes: usize) {
    store.copy_in(slot as usize, bytes, value_bytes);
}
