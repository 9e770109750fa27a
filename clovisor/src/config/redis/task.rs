//! When what is done: connect, load, follow changes, answer, notice the end, and try again.
//!
//! It refuses to stop: only dropping the [`Source`](super::Source) ends it. One command is under way at a time.

use std::{collections::HashSet, sync::Arc, time::Duration};

use redis::RedisResult;
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until},
};
use tracing::{info, warn};

use super::{
    Loaded, State, Status,
    fault::{Fault, Kind, is_answer},
    link::Link,
    read,
    settings::Target,
    status,
};
use crate::{config::parse, export::queue::backoff::Backoff};

/// Commands of one user come close together; they are taken as one change.
const COALESCE: Duration = Duration::from_millis(20);
/// The safety net, in case that a change was not told.
const POLL: Duration = Duration::from_secs(10);
/// Where Redis does not tell of changes: they still take effect in under a second.
const POLL_UNTOLD: Duration = Duration::from_millis(500);
/// A connection that is dead without having said so is noticed by this, and by the longest time for a command.
const PING: Duration = Duration::from_secs(2);
/// The answer is refreshed at a third of its expiry, so that a miss or two do no harm,
const REFRESH: Duration = Duration::from_secs(20);
/// and follows the agent no faster than this.
const STATUS_GAP: Duration = Duration::from_millis(250);
/// Waits between tries: a Redis that is back is found within a second,
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// but where a person must do something first, there is no hurry.
const RETRY_PERSON: Duration = Duration::from_secs(3);
/// Wrong entries that are logged at a change; the status has the others.
const MOST_LOGGED: usize = 10;

/// The keeper of a configuration.
pub(super) struct Task {
    target: Target,
    status_key: String,
    loaded: watch::Sender<Arc<Loaded>>,
    status: watch::Receiver<Status>,
    /// What was said since Redis was last all right.
    said: HashSet<Kind>,
    said_untold: bool,
    said_status: bool,
    backoff: Backoff,
}

/// When each thing is due next.
struct Due {
    load: Instant,
    ping: Instant,
    status: Instant,
    /// The earliest time for a status.
    status_from: Instant,
}

impl Task {
    pub(super) fn new(
        target: Target,
        node: &str,
        loaded: watch::Sender<Arc<Loaded>>,
        status: watch::Receiver<Status>,
    ) -> Self {
        Self {
            target,
            status_key: format!("clovisor_status:{node}"),
            loaded,
            status,
            said: HashSet::new(),
            said_untold: false,
            said_status: false,
            backoff: Backoff::new(RETRY.0, RETRY.1),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let fault = match Link::open(&self.target).await {
                Ok(link) => self.serve(link).await,
                Err(fault) => fault,
            };
            self.lost(&fault);
            let wait = self.backoff.wait(None);
            sleep(if fault.kind.needs_a_person() { RETRY_PERSON } else { wait }).await;
        }
    }

    /// Follows one connection until it fails.
    async fn serve(&mut self, mut link: Link) -> Fault {
        let poll = if link.untold.is_some() { POLL_UNTOLD } else { POLL };
        if let Some(untold) = link.untold.take().filter(|_| !self.said_untold) {
            self.said_untold = true;
            warn!("{}; changes are looked for every {POLL_UNTOLD:?} instead", untold.line);
        }
        if let Err(fault) = self.load(&mut link).await {
            return fault;
        }
        let now = Instant::now();
        let mut due = Due { load: now + poll, ping: now + PING, status: now, status_from: now };
        loop {
            let done = tokio::select! {
                () = link.closed() => {
                    let what = format!("lost Redis at {}", self.target.shown);
                    Err(Fault::new(&what, Kind::Unreachable, "it closed the connection"))
                }
                () = link.changed() => {
                    due.load = due.load.min(Instant::now() + COALESCE);
                    Ok(())
                }
                Ok(()) = self.status.changed() => {
                    due.status = due.status.min(due.status_from);
                    Ok(())
                }
                () = sleep_until(due.load) => {
                    due.load = Instant::now() + poll;
                    let changed = self.load(&mut link).await;
                    if let Ok(true) = changed {
                        due.status = due.status.min(due.status_from);
                    }
                    changed.map(drop)
                }
                () = sleep_until(due.ping) => {
                    due.ping = Instant::now() + PING;
                    let answer = redis::cmd("PING").exec_async(&mut link.connection).await;
                    self.checked("lost Redis", answer.or_else(|error| if is_answer(&error) { Ok(()) } else { Err(error) }))
                }
                () = sleep_until(due.status) => {
                    let now = Instant::now();
                    (due.status, due.status_from) = (now + REFRESH, now + STATUS_GAP);
                    self.answer(&mut link).await
                }
            };
            if let Err(fault) = done {
                return fault;
            }
        }
    }

    /// Loads everything; tells whether anything is new.
    async fn load(&mut self, link: &mut Link) -> Result<bool, Fault> {
        let values = read::values(&mut link.connection).await;
        let values = self.checked("cannot read the configuration from Redis", values)?;
        let (config, errors) = parse::parse(&values);
        let before = Arc::clone(&self.loaded.borrow());
        let same = before.version > 0 && before.config == config && before.errors == errors;
        self.backoff = Backoff::new(RETRY.0, RETRY.1);
        if !self.said.is_empty() || before.state == State::Never {
            info!("connected to Redis at {}", self.target.shown);
            self.said.clear();
        }
        if same && before.state == State::Connected {
            return Ok(false);
        }
        let version = before.version + u64::from(!same);
        if !same {
            info!(
                "configuration {version}: {} label rules, {} egress targets, {} wrong entries",
                config.labels.len(),
                config.egress.len(),
                errors.len()
            );
            for error in errors.iter().take(MOST_LOGGED) {
                warn!("{}: '{}' is not in force: {}", error.key, error.entry, error.expected);
            }
        }
        self.loaded.send_replace(Arc::new(Loaded { config, errors, version, state: State::Connected }));
        Ok(!same)
    }

    /// Writes the status. That it may not is no reason to do without a configuration.
    async fn answer(&mut self, link: &mut Link) -> Result<(), Fault> {
        let fields = status::fields(&self.status.borrow_and_update(), &Arc::clone(&self.loaded.borrow()));
        let what = format!("cannot write {} to Redis", self.status_key);
        match status::write(&mut link.connection, &self.status_key, &fields).await {
            Ok(()) => self.said_status = false,
            Err(error) if is_answer(&error) => {
                if !std::mem::replace(&mut self.said_status, true) {
                    warn!("{}", Fault::of(&what, &error).line);
                }
            }
            Err(error) => return self.checked(&what, Err(error)),
        }
        Ok(())
    }

    fn checked<T>(&self, what: &str, result: RedisResult<T>) -> Result<T, Fault> {
        result.map_err(|error| Fault::of(&format!("{what} at {}", self.target.shown), &error))
    }

    /// Says a fault, each sort of it once until Redis is all right again, and marks the configuration.
    fn lost(&mut self, fault: &Fault) {
        self.loaded.send_if_modified(|loaded| {
            let lost = loaded.state == State::Connected;
            if lost {
                *loaded = Arc::new(Loaded { state: State::Lost, ..Loaded::clone(loaded) });
            }
            lost
        });
        if self.said.insert(fault.kind) {
            let stays = if self.loaded.borrow().version == 0 { "the default" } else { "the last" };
            warn!("{}; {stays} configuration is in force, and I keep trying", fault.line);
        }
    }
}
