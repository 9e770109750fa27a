//! What many flows cost: resident memory while they are open, and processor time a session, which should not depend on how many
//! others there are.
//!
//! All connections are open before what is counted begins, and each has its turn: at [`RATE`] 100,000 have all been asked once
//! after [`LEAST_SECONDS`]. Server and client hold a file for each, so the limit of a process bounds the count: what is beyond it
//! is left out, and its row says so by not being there.

use anyhow::Result;
use rustix::process::{Resource, getrlimit};
use serde_json::{Value, json};

use super::live;
use super::tracer::{Kind, Tracer};
use super::usage;
use super::world::{Task, World};

/// How many flows.
const COUNTS: [u32; 5] = [0, 10, 1_000, 10_000, 100_000];
/// Requests a second, over all connections.
const RATE: u32 = 10_000;
const LEAST_SECONDS: u16 = 12;

/// Files that a server has open beside its connections.
const OTHER_FILES: u64 = 1_024;

/// The counts that processes here may have.
pub(crate) fn counts() -> Vec<u32> {
    let (fit, beyond): (Vec<u32>, Vec<u32>) =
        COUNTS.into_iter().partition(|count| u64::from(*count) + OTHER_FILES <= files());
    if !beyond.is_empty() {
        eprintln!("left out: {beyond:?} flows, as a process may have {} files here (ulimit -Hn)", files());
    }
    fit
}

/// Files that a process may have.
pub(super) fn files() -> u64 {
    getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX)
}

/// One count of flows; what Clovisor took.
pub(crate) fn measure(world: &World, flows: u32, seconds: u16) -> Result<Value> {
    if flows == 0 {
        let tracer = Tracer::start(world, Kind::File)?;
        let memory = usage::at_rest(tracer.id())?;
        tracer.finish()?;
        return Ok(json!({ "flows": 0, "resident_kb": memory.resident_kb, "peak_kb": memory.peak_kb }));
    }
    let task = Task { connections: flows, rate: RATE, seconds: seconds.max(LEAST_SECONDS), long: None };
    let (load, mut traced) = live::traced(world, task, Kind::File)?;
    traced["flows"] = flows.into();
    traced["answered"] = load["answered"].clone();
    traced["not_asked"] = load["not_asked"].clone();
    Ok(traced)
}
