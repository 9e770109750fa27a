//! The live configuration: a task that keeps a [`Config`] as Redis has it, and answers there with the agent's status.
//!
//! [`Settings`] say which Redis; [`start`] runs the task; [`Source::config`] is what it knows, [`Source::report`] what
//! it answers. Inside: `link` (one connection), `read` (values by type), `status` (the answer), `fault` (what failed,
//! why, what to do), `task` (when each is done).
//!
//! It refuses to act on a configuration. Invariants: what was loaded last stays while Redis is gone; before it was
//! ever reached the configuration is the default; every outage is said once, not once per try.

mod fault;
mod link;
mod read;
mod settings;
mod status;
mod task;

use std::sync::Arc;

use tokio::{sync::watch, task::AbortHandle};

pub use settings::{Settings, SettingsError};
pub use status::Status;

use super::{Config, parse::EntryError};
use crate::threads::others;

/// Whether the configuration is what Redis has now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum State {
    /// Redis was not reached yet: the configuration is the default.
    #[default]
    Never,
    /// It is.
    Connected,
    /// Redis was reached and is gone: the configuration is the last that it had.
    Lost,
}

/// What is known of the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Loaded {
    /// What is asked for.
    pub config: Config,
    /// Entries that are not in force.
    pub errors: Vec<EntryError>,
    /// Counts the changes of the two above; 0 is the default before anything was loaded.
    pub version: u64,
    /// Whether Redis is there.
    pub state: State,
}

/// The running task; it ends when this is dropped.
#[derive(Debug)]
pub struct Source {
    loaded: watch::Receiver<Arc<Loaded>>,
    status: watch::Sender<Status>,
    task: AbortHandle,
}

/// Starts to keep the configuration of node `node`; needs a tokio runtime, returns at once and never gives up.
///
/// # Errors
/// If the settings can never work: wrong usage, exit code 64. A Redis that is not there is no error.
pub fn start(settings: &Settings, node: &str) -> Result<Source, SettingsError> {
    let target = settings.target()?;
    let (publish, loaded) = watch::channel(Arc::new(Loaded::default()));
    let (report, status) = watch::channel(Status::default());
    let task = others().spawn(task::Task::new(target, node, publish, status).run()).abort_handle();
    Ok(Source { loaded, status: report, task })
}

impl Source {
    /// What is known now, and a way to wait for the next change of it.
    #[must_use]
    pub fn config(&self) -> watch::Receiver<Arc<Loaded>> {
        self.loaded.clone()
    }

    /// Answers with `status` in hash `clovisor_status:<node>`: at once, at most four times a second, if it changed.
    pub fn report(&self, status: Status) {
        self.status.send_if_modified(|last| {
            let changed = *last != status;
            *last = status;
            changed
        });
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.task.abort();
    }
}
