//! The log on standard error, and no more of it than a disk can take.
//!
//! Most lines tell of something that a producer did, and a hostile one can do as much of it as it likes. So each kind of line, which
//! is each place in the code that writes one, has a budget: [`AT_ONCE`] lines, and one more every second. What is left out is counted,
//! and the next line of the kind says how many there were. `health.json` counts all of it, by reason.

use std::collections::HashMap;
use std::io::{self, Write, stderr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};
use tracing::Metadata;
use tracing::callsite::Identifier;
use tracing_subscriber::fmt::MakeWriter;

/// Lines of one kind at once: as many rings as usually start together are all named.
const AT_ONCE: u32 = 100;
const REFILL: Duration = Duration::from_secs(1);

/// Standard error, with a budget for each kind of line.
#[derive(Debug, Default)]
pub struct BoundedStderr(Mutex<HashMap<Identifier, Budget>>);

impl<'a> MakeWriter<'a> for BoundedStderr {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { left_out: Some(0) }
    }

    fn make_writer_for(&'a self, kind: &Metadata<'_>) -> Line {
        let mut kinds = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        Line { left_out: kinds.entry(kind.callsite()).or_insert_with(|| Budget::new(now)).take(now) }
    }
}

#[derive(Debug)]
struct Budget {
    lines: u32,
    refilled: Instant,
    left_out: u64,
}

impl Budget {
    fn new(now: Instant) -> Budget {
        Budget { lines: AT_ONCE, refilled: now, left_out: 0 }
    }

    /// For one line: how many were left out before it, or `None` if it is left out itself.
    fn take(&mut self, now: Instant) -> Option<u64> {
        let seconds = (now - self.refilled).as_secs() / REFILL.as_secs();
        self.refilled += REFILL * u32::try_from(seconds).unwrap_or(u32::MAX);
        self.lines = self.lines.saturating_add(seconds.min(AT_ONCE.into()) as u32).min(AT_ONCE);
        if self.lines == 0 {
            self.left_out += 1;
            return None;
        }
        self.lines -= 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Takes one line in one write.
#[derive(Debug)]
pub struct Line {
    left_out: Option<u64>,
}

impl Write for Line {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.left_out {
            None => {}
            Some(0) => stderr().write_all(line)?,
            Some(left_out) => {
                let text = line.strip_suffix(b"\n").unwrap_or(line);
                let more = format!(" (and {left_out} more such lines since the last)\n");
                stderr().write_all(&[text, more.as_bytes()].concat())?;
            }
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        stderr().flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_becomes_one_line_a_second_that_says_what_was_left_out() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        let mut said = Vec::new();
        for ms in 0..60_000 {
            said.extend(budget.take(start + Duration::from_millis(ms)));
        }
        assert_eq!(said.len() as u64, u64::from(AT_ONCE) + 59);
        assert_eq!(said.iter().sum::<u64>() + said.len() as u64 + budget.left_out, 60_000);
    }

    #[test]
    fn after_a_quiet_time_as_many_lines_as_at_first_are_written() {
        let start = Instant::now();
        let mut budget = Budget::new(start);
        for quiet in [0, 1000, 1_000_000_000] {
            let now = start + Duration::from_secs(quiet);
            assert_eq!((0..1000).filter(|_| budget.take(now).is_some()).count() as u32, AT_ONCE);
        }
    }
}
