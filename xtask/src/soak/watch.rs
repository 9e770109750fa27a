//! Samples of a soak: what the process and its control group hold, every few seconds, while a thread of its own sends the load.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::group::Group;
use super::subject::Subject;
use crate::bench::usage;
use crate::bench::world::{Task, World};
use crate::stop::Stop;

/// How often a sample is taken.
const EVERY: Duration = Duration::from_secs(3);
/// How often it is looked whether anything has ended.
const LOOK: Duration = Duration::from_millis(200);
/// How long a client sends; then another one takes its place, with connections of its own.
const ROUND_SECONDS: u16 = 60;

/// One moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    seconds: u64,
    resident_kb: u64,
    charged_kb: u64,
}

impl Sample {
    fn take(since: Instant, subject: &Subject, group: &Group) -> Result<Self> {
        let resident_kb = usage::of(subject.id())?.resident_kb;
        Ok(Self { seconds: since.elapsed().as_secs(), resident_kb, charged_kb: group.charged()? >> 10 })
    }

    fn json(self) -> Value {
        json!({ "seconds": self.seconds, "resident_kb": self.resident_kb, "charged_kb": self.charged_kb })
    }
}

/// All samples, and what the clients say together.
#[derive(Default)]
pub(crate) struct Watched {
    samples: Vec<Sample>,
    pub(crate) answered: u64,
    pub(crate) rounds: u32,
}

impl Watched {
    pub(crate) fn resident(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.resident_kb).collect()
    }

    pub(crate) fn charged(&self) -> Vec<u64> {
        self.samples.iter().map(|sample| sample.charged_kb).collect()
    }

    pub(crate) fn json(&self) -> Vec<Value> {
        self.samples.iter().map(|sample| sample.json()).collect()
    }
}

/// Sends for so long, one client after another, and watches.
pub(crate) fn watch(
    world: &World,
    subject: &mut Subject,
    group: &Group,
    connections: u32,
    seconds: u64,
    stop: &Stop,
) -> Result<Watched> {
    let (start, mut watched) = (Instant::now(), Watched::default());
    while let Some(left) = seconds.checked_sub(start.elapsed().as_secs()).filter(|left| *left > 0) {
        ensure!(!stop.wanted(), "stopped");
        let seconds = ROUND_SECONDS.min(u16::try_from(left).unwrap_or(ROUND_SECONDS));
        let task = Task { connections, rate: 0, seconds, long: None };
        let mut client = world.open(task)?;
        thread::scope(|scope| {
            let load = scope.spawn(move || client.run());
            while !load.is_finished() {
                let due = Duration::from_secs(EVERY.as_secs() * watched.samples.len() as u64);
                if start.elapsed() >= due {
                    watched.samples.push(Sample::take(start, subject, group)?);
                }
                subject.check()?;
                thread::sleep(LOOK);
            }
            let said = load.join().ok().context("the load client's thread has panicked")??;
            watched.answered += said["answered"].as_u64().unwrap_or_default();
            watched.rounds += 1;
            anyhow::Ok(())
        })?;
    }
    Ok(watched)
}
