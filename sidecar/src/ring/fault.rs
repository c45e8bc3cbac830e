//! Surviving a peer that truncates its ring file while we read it.
//!
//! Touching a mapped page that its file no longer has raises SIGBUS. The handler looks the address up among the guarded maps, lays
//! pages of zeros over the whole map, and notes that it happened: the reader goes on, reads zeros, and finds the note after its poll.
//! A SIGBUS anywhere else ends the process as before.

use nix::libc::{self, c_int, c_void, siginfo_t};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::io;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};

/// Maps guarded at a time: two for each ring.
const SLOTS: usize = 2048;

/// `start` is 0 in a free slot. Written by the thread that maps, read by the handler, which may run in any thread.
struct Slot {
    taken: AtomicBool,
    start: AtomicUsize,
    len: AtomicUsize,
    writable: AtomicBool,
    faulted: AtomicBool,
}

static GUARDED: [Slot; SLOTS] = [const {
    Slot {
        taken: AtomicBool::new(false),
        start: AtomicUsize::new(0),
        len: AtomicUsize::new(0),
        writable: AtomicBool::new(false),
        faulted: AtomicBool::new(false),
    }
}; SLOTS];

/// Guards one map until dropped; to be dropped before the map is.
#[derive(Debug)]
pub struct Guard(usize);

impl Guard {
    /// Guards `len` bytes mapped at `start`.
    pub fn new(start: *mut u8, len: usize, writable: bool) -> io::Result<Guard> {
        install()?;
        let free = |slot: &Slot| !slot.taken.swap(true, Acquire);
        let index = GUARDED
            .iter()
            .position(free)
            .ok_or_else(|| io::Error::other(format!("{SLOTS} maps are guarded already")))?;
        let slot = &GUARDED[index];
        slot.faulted.store(false, Release);
        slot.writable.store(writable, Release);
        slot.len.store(len, Release);
        // Last: pairs with the handler's load, which believes the other fields once it sees the address.
        slot.start.store(start as usize, Release);
        Ok(Guard(index))
    }

    /// Whether a page of the map was gone. What was read since then is zeros.
    pub fn faulted(&self) -> bool {
        GUARDED[self.0].faulted.load(Acquire)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        GUARDED[self.0].start.store(0, Release);
        GUARDED[self.0].taken.store(false, Release);
    }
}

fn install() -> io::Result<()> {
    static INSTALLED: OnceLock<Result<(), nix::errno::Errno>> = OnceLock::new();
    let install = || {
        let action = SigAction::new(SigHandler::SigAction(on_sigbus), SaFlags::SA_ONSTACK, SigSet::empty());
        // SAFETY: the handler calls async-signal-safe functions only, and touches nothing but atomics.
        unsafe { sigaction(Signal::SIGBUS, &action) }.map(drop)
    };
    INSTALLED.get_or_init(install).map_err(io::Error::from)
}

extern "C" fn on_sigbus(_signal: c_int, info: *mut siginfo_t, _context: *mut c_void) {
    // SAFETY: the kernel passes a valid siginfo to a handler installed with SA_SIGINFO.
    let address = unsafe { (*info).si_addr() } as usize;
    let hit = |slot: &&Slot| {
        let start = slot.start.load(Acquire);
        start != 0 && address.wrapping_sub(start) < slot.len.load(Acquire)
    };
    match GUARDED.iter().find(hit) {
        Some(slot) if cover_with_zeros(slot) => slot.faulted.store(true, Release),
        // SAFETY: back to the default action: the same access faults again and ends the process, as it would without us.
        _ => unsafe {
            libc::signal(libc::SIGBUS, libc::SIG_DFL);
        },
    }
}

fn cover_with_zeros(slot: &Slot) -> bool {
    let (start, len) = (slot.start.load(Acquire) as *mut c_void, slot.len.load(Acquire));
    let writable = if slot.writable.load(Acquire) { libc::PROT_WRITE } else { 0 };
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED | libc::MAP_NORESERVE;
    // SAFETY: replaces exactly the map this slot guards, which its owner keeps mapped for as long as the slot is taken. mmap is a
    // plain system call; libc's wrapper takes no lock.
    unsafe { libc::mmap(start, len, libc::PROT_READ | writable, flags, -1, 0) != libc::MAP_FAILED }
}
