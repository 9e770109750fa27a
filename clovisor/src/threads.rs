//! Which thread does what: the loop that fetches packets has the main thread, and a runtime of its own there; what
//! talks to others (exporters, Redis, the API server, whoever asks for metrics) shares one more thread.
//!
//! Each of the two runtimes waits for its own timers and sockets, so a turn of the loop wakes no thread but its own,
//! and what is slow elsewhere does not hold it up. What is allocated comes from two arenas, not from one for each
//! thread of a larger pool. Invariant: a task that waits for other machines is started on [`others`].

use std::{io, sync::OnceLock};

use tokio::runtime::{Builder, Handle};

static OTHERS: OnceLock<Handle> = OnceLock::new();

/// Runs `main` on the calling thread until it is done. For the program, once in a process.
///
/// # Errors
/// The system gives no thread, or no files to wait with.
pub fn run<T>(main: impl Future<Output = T>) -> io::Result<T> {
    let others = Builder::new_multi_thread().worker_threads(1).thread_name("others").enable_all().build()?;
    let own = Builder::new_current_thread().enable_all().build()?;
    OTHERS.get_or_init(|| others.handle().clone());
    Ok(own.block_on(main))
}

/// Where everything but the loop runs: in tests of the library, whatever runtime calls.
///
/// # Panics
/// Outside of a Tokio runtime, where [`run`] was not called.
pub(crate) fn others() -> Handle {
    OTHERS.get().cloned().unwrap_or_else(Handle::current)
}
