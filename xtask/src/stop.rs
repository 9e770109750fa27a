//! The wish to stop: Ctrl-C, SIGTERM or a hang-up. A verb that has to clean up after itself asks here now and then
//! instead of being killed. A second signal kills as usual.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Set by a signal, for good.
#[derive(Clone)]
pub(crate) struct Stop {
    any: Arc<AtomicBool>,
    interrupt: Arc<AtomicBool>,
}

impl Stop {
    /// Takes over the signals of this process.
    pub(crate) fn on_signals() -> Result<Self> {
        let stop = Self { any: Arc::default(), interrupt: Arc::default() };
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The order matters: the second signal finds the flag of the first one set, and ends the process.
            flag::register_conditional_default(signal, Arc::clone(&stop.any))
                .and_then(|_| flag::register(signal, Arc::clone(&stop.any)))
                .with_context(|| format!("cannot take over signal {signal}"))?;
        }
        flag::register(SIGINT, Arc::clone(&stop.interrupt)).context("cannot take over Ctrl-C")?;
        Ok(stop)
    }

    /// Whether to stop.
    pub(crate) fn wanted(&self) -> bool {
        self.any.load(Ordering::SeqCst)
    }

    /// Whether it was Ctrl-C, which a terminal sends to all programs in the foreground and not to us alone.
    pub(crate) fn by_interrupt(&self) -> bool {
        self.interrupt.load(Ordering::SeqCst)
    }
}
