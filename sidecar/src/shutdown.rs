//! One signal, heard everywhere. SIGTERM or SIGINT asks for an orderly stop; a second one exits at once.

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether it is time to stop.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(Arc<AtomicBool>);

impl Shutdown {
    /// Set by SIGTERM and SIGINT from now on.
    pub fn on_signals() -> io::Result<Shutdown> {
        let shutdown = Shutdown::default();
        for signal in [SIGTERM, SIGINT] {
            // Registered first, so that it sees the flag of the signal before this one.
            flag::register_conditional_shutdown(signal, 128 + signal, shutdown.0.clone())?;
            flag::register(signal, shutdown.0.clone())?;
        }
        Ok(shutdown)
    }

    /// Whether somebody asked.
    pub fn requested(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}
