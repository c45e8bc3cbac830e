//! Which files of the ring directory are still to be opened, and which are not read, and why.

use crate::health::{self, Health};
use crate::ring::{self, Found, Listing, OpenError};
use std::collections::{HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::warn;

/// A file that was refused is looked at again after this, then after twice as long, up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The ring directory as it was last seen.
pub struct Roster {
    dir: PathBuf,
    /// Why the directory cannot be read, so that it is said once and not every second.
    unreadable: Option<String>,
    /// Found, and not yet opened.
    candidates: VecDeque<Found>,
    refused: HashMap<Found, Refused>,
}

/// A file that is not read.
struct Refused {
    reason: &'static str,
    again: Instant,
    wait: Duration,
}

impl Roster {
    pub fn new(dir: PathBuf) -> Roster {
        Roster { dir, unreadable: None, candidates: VecDeque::new(), refused: HashMap::new() }
    }

    /// Looks for files that are neither `known` nor refused until later. `None` where the directory cannot be read.
    pub fn look(&mut self, known: impl Fn(&Found) -> bool) -> Option<Listing> {
        let listing = match ring::scan(&self.dir) {
            Ok(listing) => listing,
            Err(why) => {
                self.say_unreadable(why.to_string());
                return None;
            }
        };
        self.unreadable = None;
        let (found, now) = (&listing.found, Instant::now());
        let there: HashSet<&Found> = found.iter().collect();
        self.refused.retain(|refused, _| there.contains(refused));
        let refused_still = |new: &Found| self.refused.get(new).is_some_and(|refused| now < refused.again);
        self.candidates = found.iter().filter(|new| !known(new) && !refused_still(new)).cloned().collect();
        Some(listing)
    }

    /// Whether some file waits to be opened.
    pub fn has_candidates(&self) -> bool {
        !self.candidates.is_empty()
    }

    /// The next to be opened.
    pub fn next(&mut self) -> Option<Found> {
        self.candidates.pop_front()
    }

    /// It is read now.
    pub fn accept(&mut self, found: &Found) {
        self.refused.remove(found);
    }

    /// Says and counts it once for every new reason.
    pub fn refuse(&mut self, found: Found, why: &OpenError, health: &mut Health) {
        let reason = why.reason();
        let before = self.refused.remove(&found);
        let wait = wait_after(before.as_ref().map(|before| before.wait), why);
        if before.is_none_or(|before| before.reason != reason) {
            health::count(&mut health.refused, reason, 1);
            warn!(ring = ?found.path, %why, reason, "not read");
        }
        self.refused.insert(found, Refused { reason, again: Instant::now() + wait, wait });
    }

    fn say_unreadable(&mut self, why: String) {
        if self.unreadable.as_ref() != Some(&why) {
            let (dir, uid, gid) = (self.dir.display(), nix::unistd::geteuid(), nix::unistd::getegid());
            warn!(%dir, %uid, %gid, %why, "cannot read the ring directory: run producer and sidecar under a common user or group");
            self.unreadable = Some(why);
        }
    }
}

/// How long a refused file is left alone, after it was for `before`.
fn wait_after(before: Option<Duration>, why: &OpenError) -> Duration {
    match why {
        // The other sidecar may be the one that we are taking over from.
        OpenError::InUse => FIRST_WAIT,
        _ => before.map_or(FIRST_WAIT, |before| (before * 2).min(LONGEST_WAIT)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_file_is_looked_at_ever_more_rarely_and_one_that_is_in_use_every_second() {
        let mut wait = None;
        let waits = [0; 8].map(|_| {
            wait = Some(wait_after(wait, &OpenError::NotARing));
            wait.unwrap().as_secs()
        });
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(wait_after(wait, &OpenError::InUse), FIRST_WAIT);
    }
}
